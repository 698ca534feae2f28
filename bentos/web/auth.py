"""Who may ask, and how often. Knows headers and keys, not what is asked."""

import base64
import hmac
import time
from collections.abc import Callable, Mapping
from typing import Literal

from starlette.datastructures import Headers

from bentos.web.responses import ApiError

Scope = Literal["predict", "feedback", "monitoring"]
VARIABLES: Mapping[Scope, str] = {
    "predict": "FASHION_PREDICT_KEYS",
    "feedback": "FASHION_FEEDBACK_KEYS",
    "monitoring": "FASHION_MONITORING_KEYS",
}
"""Environment variables with the keys of each scope, separated by commas. One that is not set leaves it open."""
FORGET_SECONDS = 120.0


class Keys:
    """API keys of three scopes."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._keys: dict[Scope, list[bytes]] = {
            scope: [key.strip().encode() for key in environment.get(name, "").split(",") if key.strip()]
            for scope, name in VARIABLES.items()
        }

    def check(self, scope: Scope, headers: Headers) -> str:
        """Let a request pass if the scope is open or it brings one of its keys; give the key, empty if it is open.

        Raises:
            Refusal: 401.
        """
        keys = self._keys[scope]
        if not keys:
            return ""  # whatever it brings: a client could call itself another each time
        given = _given(headers)
        # All keys, whichever fits, so that the time tells nothing.
        if given is None or not any([hmac.compare_digest(given, key) for key in keys]):  # noqa: C419
            raise ApiError(
                401,
                "unauthorized",
                "the key is missing" if given is None else "the key is wrong",
                f"send `Authorization: Bearer KEY` with a key of {VARIABLES[scope]}",
                # A browser asks for a name and a password then; the password is the key.
                {"www-authenticate": 'Basic realm="fashion", charset="UTF-8"'} if scope == "monitoring" else {},
            )
        return given.decode()


class RateLimit:
    """So many requests a minute of each client, evenly refilled; at most a minute's worth at once."""

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._left: dict[str, tuple[float, float]] = {}
        self._swept = clock()

    def take(self, client: str, cost: int = 1) -> None:
        """Count requests of a client.

        Raises:
            Refusal: 429, with the seconds until enough are free again.
        """
        if self._per_minute is None:
            return
        now, rate = self._clock(), self._per_minute / 60
        self._sweep(now)
        left, seen = self._left.get(client, (float(self._per_minute), now))
        left = min(float(self._per_minute), left + (now - seen) * rate)
        if left < min(cost, self._per_minute):
            self._left[client] = (left, now)
            seconds = max(1, round((min(cost, self._per_minute) - left) / rate + 0.5))
            raise ApiError(
                429,
                "too_many_requests",
                f"more than {self._per_minute} requests a minute",
                f"try again in {seconds} s",
                {"retry-after": str(seconds)},
            )
        self._left[client] = (left - cost, now)

    def _sweep(self, now: float) -> None:
        if now - self._swept > FORGET_SECONDS:
            self._left = {name: state for name, state in self._left.items() if now - state[1] <= FORGET_SECONDS}
            self._swept = now


def _given(headers: Headers) -> bytes | None:
    if (key := headers.get("x-api-key")) is not None:
        return key.strip().encode()
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip().encode()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except ValueError:  # binascii.Error is one, and so is what is not ASCII
            return None
    return None
