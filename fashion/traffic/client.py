"""One HTTP connection to the service, with retries while it is overloaded. Knows no pictures."""

import http.client
import json
import time
from typing import Any
from urllib.parse import urlsplit

MAX_ATTEMPTS = 5
"""Tries of one request before giving up."""
RETRY_STATUSES = (429, 503)
MAX_PAUSE_SECONDS = 10.0


class ServiceUnavailable(OSError):
    """The service does not answer, or answers as another program would. The message is one sentence."""


class Client:
    """One connection, kept open. Not safe to share between threads."""

    def __init__(self, url: str, *, timeout_s: float = 30.0) -> None:
        """Prepare a connection; nothing is sent yet.

        Args:
            url: address of the service, with a path where a proxy adds one.
            timeout_s: seconds to wait for each answer.
        """
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._url, self._path = url, parts.path.rstrip("/")
        self._connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Send a request and return the status and JSON; an overloaded service is tried again after its pause.

        Args:
            path: of the endpoint, such as `/predict`.
            body: content to send.
            headers: its type, and a key where the service needs one.

        Raises:
            ServiceUnavailable: it does not answer, needs a key, or is another program.
        """
        for attempt in range(MAX_ATTEMPTS):
            try:
                self._connection.request("POST", self._path + path, body, headers)
                response = self._connection.getresponse()
                status, content, retry_after = response.status, response.read(), response.headers.get("retry-after")
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if attempt == MAX_ATTEMPTS - 1:
                    message = f"{self._url} does not answer ({error}): is `make serve` running?"
                    raise ServiceUnavailable(message) from None
                time.sleep(0.2 * 2**attempt)
                continue
            if status in RETRY_STATUSES and attempt < MAX_ATTEMPTS - 1:
                time.sleep(_pause_seconds(retry_after))
                continue
            if status in (401, 404):
                text = content[:200].decode(errors="replace")
                raise ServiceUnavailable(f"{self._url}{path} answered {status}: {text}")
            try:
                answer = json.loads(content)
            except ValueError:
                message = f"{self._url}{path} answered {status} without JSON: it is not the classifier's service"
                raise ServiceUnavailable(message) from None
            return status, answer if isinstance(answer, dict) else {}
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def check_address(url: str, *keys: str | None) -> None:
    """Check an address and API keys before anything is sent.

    Raises:
        ValueError: the address is not `http(s)://host[:port]`, or a key cannot be put into a header.
    """
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or any(character.isspace() for character in url):
        raise ValueError(f"url must be such as http://127.0.0.1:3000, got {url!r}")
    if any(key is not None and not (key.isascii() and key.isprintable()) for key in keys):
        raise ValueError("a key must be of printable ASCII characters")


def key_header(key: str | None) -> dict[str, str]:
    """The header that carries an API key; none without one."""
    return {"authorization": f"Bearer {key}"} if key else {}


def _pause_seconds(retry_after: str | None) -> float:
    """Seconds to wait by the `Retry-After` header, which may also hold a date or nonsense."""
    try:
        return min(max(float(retry_after or 1), 0.0), MAX_PAUSE_SECONDS)
    except ValueError:
        return 1.0
