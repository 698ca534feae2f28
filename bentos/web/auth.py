"""API keys and request limits. Knows headers and clients, not what the requests are for."""

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
"""Environment variables with the keys of each scope, separated by commas. A scope without keys is open to all."""
FORGET_SECONDS = 120.0
"""A client that sent nothing for this long is dropped from memory; its allowance is full again by then."""


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


class RateLimit:
    """A token bucket for each client: it holds a minute's requests and refills evenly.

    The in-memory storage of the `limits` package starts a thread every 10 ms that visits every client: with 100,000
    clients a request costs 1.6 ms of CPU there, and less than 1 us here.
    """

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            per_minute: requests of one client; None does not limit.
            clock: seconds.
        """
        self._per_minute, self._clock = per_minute, clock
        self._buckets: dict[str, tuple[float, float]] = {}  # requests left, and when that was counted
        self._last_sweep = clock()

    def take(self, client: str, cost: int = 1) -> None:
        """Count requests of a client.

        Args:
            client: its key or address.
            cost: how many requests to count.

        Raises:
            ApiError: 429, with the seconds until they would be accepted.
        """
        if self._per_minute is None:
            return
        now, rate = self._clock(), self._per_minute / 60
        self._sweep(now)
        left, counted = self._buckets.get(client, (float(self._per_minute), now))
        left = min(float(self._per_minute), left + (now - counted) * rate)
        if left < min(cost, self._per_minute):
            self._buckets[client] = (left, now)
            seconds = max(1, round((min(cost, self._per_minute) - left) / rate + 0.5))
            raise ApiError(
                429,
                "too_many_requests",
                f"more than {self._per_minute} requests a minute",
                f"try again in {seconds} s",
                {"retry-after": str(seconds)},
            )
        self._buckets[client] = (left - cost, now)

    def __len__(self) -> int:
        """Count the clients in memory."""
        return len(self._buckets)

    def _sweep(self, now: float) -> None:
        if now - self._last_sweep > FORGET_SECONDS:
            self._buckets = {
                client: bucket for client, bucket in self._buckets.items() if now - bucket[1] <= FORGET_SECONDS
            }
            self._last_sweep = now


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
