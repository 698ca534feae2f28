"""API keys. Knows headers, not what the requests are for."""

import base64
import hmac
from collections.abc import Mapping
from typing import Literal

from starlette.datastructures import Headers

from bentos.web.responses import ApiError

Scope = Literal["predict", "feedback", "monitoring"]
VARIABLES: Mapping[Scope, str] = {
    "predict": "FASHION_PREDICT_KEYS",
    "feedback": "FASHION_FEEDBACK_KEYS",
    "monitoring": "FASHION_MONITORING_KEYS",
}
"""Environment variables with the keys of each scope, separated by commas. A scope without keys is open to all."""


class Keys:
    """API keys of three scopes."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._keys: dict[Scope, list[bytes]] = {
            scope: [key.strip().encode() for key in environment.get(name, "").split(",") if key.strip()]
            for scope, name in VARIABLES.items()
        }

    def check(self, scope: Scope, headers: Headers) -> str:
        """Check the key of a request, and return it; empty where the scope is open.

        Raises:
            ApiError: 401, the key is missing or wrong.
        """
        keys = self._keys[scope]
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
                # A browser then asks for a name and a password; the password is the key.
                {"www-authenticate": 'Basic realm="fashion", charset="UTF-8"'} if scope == "monitoring" else {},
            )
        return given.decode()


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
