"""Why a request over HTTP failed, in half a sentence. Knows the words of requests, urllib3 and ssl, and no server."""

import re

CAUSES = (
    (
        r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|HTTP_REQUEST",
        "it does not speak TLS: its address may begin with http://",
    ),
    (r"CERTIFICATE|SSLError", "its certificate is not accepted"),
    (r"NameResolutionError|Name or service not known|No address associated", "there is no host of this name"),
    (r"[Tt]imed out|Timeout", "it does not answer in time"),
    (r"refused", "the connection was refused"),
    (r"Connection (broken|aborted|reset)|IncompleteRead|RemoteDisconnected", "it broke the connection off"),
    (r"RetryError|too many \d+ error responses", "it answers with errors"),
    (r"InvalidURL|MissingSchema", "the address is malformed"),
)
"""What stands in an error's class or message -> the reason."""


def reason_of(error: BaseException) -> str:
    """The reason of a request's failure, without a line break or a full stop at its end.

    Args:
        error: of requests, urllib3 or the system.
    """
    text = " ".join(str(error).split())
    found = (reason for pattern, reason in CAUSES if re.search(pattern, f"{type(error).__name__}: {text}"))
    own_words = type(error).__name__ if not text or "object at 0x" in text else text[:200].rstrip(".")
    return next(found, own_words)
