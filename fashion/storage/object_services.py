"""S3 and Azure Blob Storage: their variables, and what their errors mean. Knows obstore's messages, not its classes."""

import os
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """What differs between the two services."""

    name: str
    scheme: str
    """Of an address."""
    container: str
    """What the service calls a bucket."""
    prefix: str
    """Of its variables."""
    endpoints: tuple[str, ...]
    """Variables with the URL of another server; the first that is set counts."""
    server: str
    """Variables that say which server is asked."""
    credentials: str
    """What to set where there are none."""

    def endpoint(self) -> str | None:
        """The URL of a server that is not the service's own, or None.

        obstore panics at a text that is no URL, and at line breaks, which secrets read from files may end with.

        Raises:
            ValueError: a variable holds one; the message names it.
        """
        named = {name: value for name, value in os.environ.items() if name.startswith(self.prefix)}
        if broken := [name for name, value in named.items() if not value.isprintable()]:
            raise ValueError(f"{broken[0]} holds a line break or the like: remove it")
        name = next((each for each in self.endpoints if each in named), None)
        if name is not None and not re.fullmatch(r"https?://[^\s/]\S*", named[name]):
            raise ValueError(
                f"{name} must be a URL such as https://storage.example.org, got {named[name]!r}; "
                "where it is not set, the service's own server is used"
            )
        return None if name is None else named[name]

    def foreign(self) -> str:
        """What to say of an answer that is not the service's, though its status is 200, in half a sentence."""
        return FOREIGN.format(name=self.name, server=self.server)

    def explain(self, error: Exception) -> str:
        """The reason and the remedy of an error of obstore, in half a sentence."""
        message = _message(error)
        url = re.search(r"https?://[^/\s]+", message)
        found = (text for pattern, text in CAUSES if re.search(pattern, message))
        return next(found, "{detail}").format(
            name=self.name,
            container=self.container,
            credentials=self.credentials,
            server=self.server,
            url=url[0] if url else "the service",
            detail=detail(error),
        )


S3 = Service(
    name="S3",
    scheme="s3",
    container="bucket",
    prefix="AWS_",
    endpoints=("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    server="AWS_REGION, AWS_ENDPOINT_URL",
    credentials="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, from a profile by "
    '`eval "$(aws configure export-credentials --format env)"`, or give the machine a role',
)
AZURE = Service(
    name="Azure Blob Storage",
    scheme="az",
    container="container",
    prefix="AZURE_",
    endpoints=("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    server="AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ENDPOINT",
    credentials="set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or run `az login` and set "
    "AZURE_USE_AZURE_CLI=true, or give the machine an identity",
)

FOREIGN = "what answers is not {name}, but perhaps a proxy's sign-in page: check {server} and the network"

CAUSES = (
    (r"<Code>(NoSuchBucket|ContainerNotFound)<", "there is no such {container}: create it, or correct the address"),
    (r"Account must be specified", "no storage account is named: {credentials}"),
    (r"/latest/(api|meta-data)/|/metadata/identity/|get-access-token", "there are no credentials: {credentials}"),
    (
        r"Received redirect|<Code>AuthorizationHeaderMalformed<",
        "the {container} is in another region: set AWS_REGION to its own",
    ),
    (
        r"status code: 40[13] |<Code>(ExpiredToken|InvalidToken)<",
        "access is denied ({detail}): check the credentials, and that they may read, write and list the {container}",
    ),
    (r"Invalid Access Key", "AZURE_STORAGE_ACCOUNT_KEY is not the key of an account: copy it anew"),
    (r"Got invalid |Header missing from response", FOREIGN),
    (r"status code: (429|5\d\d) ", "{detail}; try again later"),
    (r"response body", "it broke the connection off: check {server} and the network, and try again"),
    (r"error sending request", "{url} does not answer: check {server} and the network"),
)
"""What stands in obstore's message -> the reason and the remedy."""


def is_missing_container(error: Exception) -> bool:
    """True if the bucket or container is missing, and not one blob."""
    return re.search(CAUSES[0][0], _message(error)) is not None


def detail(error: Exception) -> str:
    """The code and first sentence that the service sent; or else its status, or the whole message."""
    message = _message(error)
    if sent := re.search(r"<Code>(\w+)</Code>\s*<Message>([^<.]*)", message):
        return f"{sent[1]}: {sent[2]}"
    status = re.search(r"status code: (\d{3} [A-Z][A-Za-z ]+)", message)
    return status[1] if status else message


def _message(error: Exception) -> str:
    """What an error of obstore says before its dump of Rust's structures, on one line."""
    return " ".join(str(error).partition("Debug source:")[0].split()) or type(error).__name__
