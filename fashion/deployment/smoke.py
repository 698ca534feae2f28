"""Examine a revision of the service by sending it pictures. Knows its HTTP API, not who gave it traffic.

Latency is measured here, network included: where the rollout runs far from the service, the bound has to allow for it.
"""

import http.client
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fashion.config.deploy import SloConfig
from fashion.deployment.rollout import Check
from fashion.predictions.record import ROLLOUT

TIMEOUT_SECONDS = 10.0
"""An answer that takes longer counts as none."""
WARM_UP = 5
"""Requests that are not counted before the smoke test: the first ones of an instance are slower."""


@dataclass(frozen=True)
class Picture:
    """A picture with its true class."""

    png: bytes
    label: str


@dataclass(frozen=True)
class Response:
    """What came back for one picture."""

    milliseconds: float
    problem: str
    """Why it is not a valid answer; empty if it is one."""
    is_correct: bool = False


class ServiceProbe:
    """Sends pictures to a revision's address, one after the other."""

    def __init__(
        self,
        pictures: Sequence[Picture],
        *,
        model: tuple[str, str],
        slo: SloConfig,
        requests: int,
        hold_seconds: float,
        smoke_accuracy: float,
        ready_seconds: float,
        headers: Callable[[], Mapping[str, str]] = dict,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Nothing is sent yet.

        Args:
            pictures: at least one; all are sent by the smoke test.
            model: name and version that must answer.
            slo: the objective.
            requests: that measure one share of the traffic.
            hold_seconds: over which they are spread.
            smoke_accuracy: share of `pictures` that must be classified correctly.
            ready_seconds: until the service must answer.
            headers: returns headers that let a request through, called before each stage.
            sleep: waits for a number of seconds.
        """
        self._pictures, self._model, self._slo = pictures, model, slo
        self._requests, self._hold_seconds = requests, hold_seconds
        self._smoke_accuracy, self._ready_seconds = smoke_accuracy, ready_seconds
        self._headers, self._sleep = headers, sleep

    def smoke(self, url: str) -> Sequence[Check]:
        """See Probe.smoke."""
        with _Connection(url, self._headers()) as connection:
            ready = self._wait_until_ready(connection)
            if not ready.passed:
                return [ready]
            for index in range(WARM_UP):
                self._predict(connection, index)
            responses = [self._predict(connection, index) for index in range(len(self._pictures))]
        correct = sum(each.is_correct for each in responses) / len(responses)
        accurate = Check(
            "accuracy",
            correct >= self._smoke_accuracy,
            f"{correct:.1%} of {len(responses)} test pictures are classified correctly (at least "
            f"{self._smoke_accuracy:.1%})",
        )
        return [ready, *self._judge(responses), accurate]

    def measure(self, url: str) -> Sequence[Check]:
        """See Probe.measure. Ends as soon as the objective is certain to be missed."""
        responses: list[Response] = []
        interval = self._hold_seconds / self._requests
        started = time.monotonic()
        with _Connection(url, self._headers()) as connection:
            for index in range(self._requests):
                responses.append(self._predict(connection, index))
                if self._is_lost(responses):
                    break
                self._sleep(max(0.0, started + (index + 1) * interval - time.monotonic()))
        return self._judge(responses)

    def _is_lost(self, responses: Sequence[Response]) -> bool:
        unanswered = sum(bool(each.problem) for each in responses)
        slow = sum(not self._is_fast(each) for each in responses)
        return unanswered > _allowed(self._requests, self._slo.availability) or slow > _allowed(
            self._requests, self._slo.latency_share
        )

    def _is_fast(self, response: Response) -> bool:
        return not response.problem and response.milliseconds <= self._slo.latency_ms

    def _judge(self, responses: Sequence[Response]) -> list[Check]:
        count, slo = len(responses), self._slo
        problems = [each.problem for each in responses if each.problem]
        fast = sum(self._is_fast(each) for each in responses)
        times = sorted(each.milliseconds for each in responses)
        p95 = times[math.ceil(0.95 * count) - 1]
        detail = f"; {problems[-1]}" if problems else ""
        return [
            Check(
                "availability",
                len(problems) <= _allowed(count, slo.availability),
                f"{1 - len(problems) / count:.1%} of {count} requests were answered (at least "
                f"{slo.availability:.1%}){detail}",
            ),
            Check(
                "latency",
                count - fast <= _allowed(count, slo.latency_share),
                f"{fast / count:.1%} of {count} within {slo.latency_ms:g} ms (at least {slo.latency_share:.1%}); "
                f"95th percentile {p95:.1f} ms",
            ),
        ]

    def _wait_until_ready(self, connection: "_Connection") -> Check:
        started = time.monotonic()
        while True:
            status, content = connection.send("GET", "/readyz")
            waited = time.monotonic() - started
            if status == 200:
                return Check("ready", True, f"ready after {waited:.1f} s")
            if waited > self._ready_seconds:
                problem = f"{status}: {_text(content)}" if status else _text(content)
                return Check("ready", False, f"/readyz did not answer 200 within {self._ready_seconds:g} s ({problem})")
            self._sleep(0.5)

    def _predict(self, connection: "_Connection", index: int) -> Response:
        picture = self._pictures[index % len(self._pictures)]
        started = time.perf_counter()
        status, content = connection.send("POST", "/predict", picture.png)
        milliseconds = 1000 * (time.perf_counter() - started)
        if status != 200:
            return Response(milliseconds, f"{status}: {_text(content)}" if status else _text(content))
        try:
            answer: Any = json.loads(content)
            label, model = answer["label"], (answer["model"]["name"], str(answer["model"]["version"]))
        except (ValueError, KeyError, TypeError):
            return Response(milliseconds, f"not an answer of the classifier: {_text(content)}")
        if model != self._model:
            wanted = " version ".join(self._model)
            return Response(milliseconds, f"{' version '.join(model)} answers, not {wanted}: is it the right image?")
        return Response(milliseconds, "", label == picture.label)


class _Connection:
    """One connection, kept open and opened anew after an error."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
        self._path, self._headers = parts.path.rstrip("/"), {**headers, "x-client": ROLLOUT}

    def __enter__(self) -> "_Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def send(self, method: str, path: str, png: bytes | None = None) -> tuple[int, bytes]:
        """Send a request, once; status 0 with the reason where no answer comes."""
        headers = self._headers if png is None else {**self._headers, "content-type": "image/png"}
        try:
            self._connection.request(method, self._path + path, png, headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return 0, f"no answer ({error or type(error).__name__})".encode()


def _allowed(count: int, share: float) -> int:
    """Requests out of `count` that may fail an objective."""
    return math.floor((1 - share) * count + 1e-9)


def _text(content: bytes) -> str:
    return " ".join(content[:200].decode(errors="replace").split())
