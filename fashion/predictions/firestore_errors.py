"""What errors of Firestore's client mean, and what to do. Knows their status and their words, not their classes."""

_REMEDIES = {
    400: "create the indexes of configs/deploy/firestore, or what the message names",
    401: "log in again: `gcloud auth application-default login`",
    403: "give this account the role roles/datastore.user in the project that FASHION_LOG names",
    404: "create the database, or correct FASHION_LOG",
    429: "try again later, or raise the project's quota",
}
"""Status of HTTP that the client gives an error -> what to do."""
_TIMEOUT = 504
_OTHERS = "check FASHION_LOG and the network, and try again"


def explain(error: BaseException) -> str:
    """The reason and the remedy of an error, in half a sentence."""
    status, reason = getattr(error, "code", None), reason_of(error).rstrip(".")
    remedy = _REMEDIES.get(status, _OTHERS) if isinstance(status, int) else _OTHERS
    return f"{f'it does not answer in time ({reason})' if status == _TIMEOUT else reason}; {remedy}"


def reason_of(error: BaseException) -> str:
    """What the client or the server says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
