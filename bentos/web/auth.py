"""API keys. Knows headers, not what the requests are for."""

import base64
import hmac
import ipaddress
from collections.abc import Mapping
from typing import Any, Literal

from starlette.datastructures import Headers

from bentos.web.responses import ApiError

Scope = Literal["predict", "feedback", "monitoring", "review"]
VARIABLES: Mapping[Scope, str] = {
    "predict": "FASHION_PREDICT_KEYS",
    "feedback": "FASHION_FEEDBACK_KEYS",
    "monitoring": "FASHION_MONITORING_KEYS",
    "review": "FASHION_REVIEW_KEYS",
}
"""Environment variables with the keys of each scope, separated by commas. A scope without keys is open to all, unless
the service has closed it."""
PAGES: frozenset[Scope] = frozenset({"monitoring", "review"})
"""Scopes of pages: a browser asks for a name and a password; the password is the key."""


PASSED_ON = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
"""Headers that a proxy adds. Anybody can send them, so they close what is open to this machine, and open nothing."""


class Keys:
    """API keys of each scope."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        closed: Mapping[Scope, str] | None = None,
        local: Mapping[Scope, str] | None = None,
    ) -> None:
        """
        Args:
            environment: holds the keys.
            closed: scope -> setting that would open it without keys, of scopes that are closed where there are none.
            local: likewise, of scopes that are then open to this machine alone.
        """
        self._closed, self._local = dict(closed or {}), dict(local or {})
        self._keys: dict[Scope, list[bytes]] = {
            scope: [key.strip().encode() for key in environment.get(name, "").split(",") if key.strip()]
            for scope, name in VARIABLES.items()
        }

    def is_closed(self, scope: Scope) -> bool:
        """Return True if no request is let in: the scope needs a key, and there is none.

        Args:
            scope: of the path.
        """
        return scope in self._closed and not self._keys[scope]

    def check(self, scope: Scope, headers: Headers, connection: Mapping[str, Any] | None = None) -> str:
        """Check the key of a request, and return it; empty where the scope is open.

        Args:
            scope: of the path.
            headers: of the request.
            connection: ASGI's scope of the request, which says where it is from; None counts as from elsewhere.

        Raises:
            ApiError: 401, the key is missing or wrong; 403, the scope is closed.
        """
        keys = self._keys[scope]
        opens = self._closed.get(scope)
        if not keys and scope in self._local and not (connection and is_of_this_machine(connection, headers)):
            opens = self._local[scope]
        if not keys and opens:
            raise ApiError(
                403,
                "closed",
                f"{scope} takes a key here, and the service has none",
                f"start the service with {VARIABLES[scope]}, or build it with {opens}",
            )
        if not keys:
            return ""  # a key that nobody checks would let a client be another one with each request
        given = _given_key(headers)
        # Compare with all keys: the time must not depend on which one matches.
        if given is None or not any([hmac.compare_digest(given, key) for key in keys]):  # noqa: C419
            raise ApiError(
                401,
                "unauthorized",
                "the key is missing" if given is None else "the key is wrong",
                f"send `Authorization: Bearer KEY` with a key of {VARIABLES[scope]}",
                {"www-authenticate": f'Basic realm="fashion {scope}", charset="UTF-8"'} if scope in PAGES else {},
            )
        return given.decode()


def is_loopback(host: str) -> bool:
    """Return True if only this machine reaches an address; an unknown name counts as reached by others."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)  # what a socket for both families calls 127.0.0.1
    return (mapped or address).is_loopback


def is_of_this_machine(connection: Mapping[str, Any], headers: Headers) -> bool:
    """Return True if a request was made to and from loopback, and no header says that a proxy has passed it on.

    A proxy on this machine that adds none of PASSED_ON cannot be told from this machine.

    Args:
        connection: ASGI's scope. Where that does not say who is connected, as of a Unix socket, it is another machine.
        headers: of the request.
    """
    ends = (connection.get("server"), connection.get("client"))
    is_near = all(end is not None and is_loopback(end[0]) for end in ends)
    return is_near and not any(name in headers for name in PASSED_ON)


def _given_key(headers: Headers) -> bytes | None:
    if (key := headers.get("x-api-key")) is not None:
        return key.strip().encode()
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip().encode()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except ValueError:  # binascii.Error is a ValueError, and so is the error of text that is not ASCII
            return None
    return None
