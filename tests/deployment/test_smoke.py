"""What is sent to a revision, and when its answers, errors and times break the objective."""

import time
from collections.abc import Callable, Iterator

import pytest
from support import revision
from support.revision import RevisionServer
from support.served import free_port

from fashion.config.deploy import SloConfig
from fashion.deployment.rollout import Check
from fashion.deployment.smoke import WARM_UP, Picture, ServiceProbe
from fashion.predictions.record import ROLLOUT

SLO = SloConfig(availability=0.95, latency_ms=2000, latency_share=0.95)
PICTURES = [Picture(b"coat", "Coat")] * 18 + [Picture(b"bag", "Bag")] * 2


@pytest.fixture
def server() -> Iterator[RevisionServer]:
    with revision.serve(RevisionServer()) as served:
        yield served


def probe(slo: SloConfig = SLO, version: str = "2", requests: int = 40, **options: object) -> ServiceProbe:
    settings = {"hold_seconds": 0.0, "smoke_accuracy": 0.9, "ready_seconds": 1.0, **options}
    return ServiceProbe(PICTURES, model=("fashion-classifier", version), slo=slo, requests=requests, **settings)  # type: ignore[arg-type]


def failing(checks: object) -> list[str]:
    assert isinstance(checks, list)
    return [check.name for check in checks if isinstance(check, Check) and not check.passed]


def every(number: int, then: Callable[[], None], otherwise: Callable[[], None]) -> Callable[[int], None]:
    """Call one function at each n-th prediction and another one at the others."""
    return lambda count: then() if count % number == 0 else otherwise()


def test_a_sound_revision_passes(server: RevisionServer) -> None:
    assert failing(probe().smoke(server.url)) == []
    assert server.predictions == WARM_UP + len(PICTURES)
    assert failing(probe().measure(server.url)) == []


def test_predictions_of_a_rollout_name_it_and_carry_the_key(server: RevisionServer) -> None:
    probe(headers=lambda: {"authorization": "Bearer secret"}).smoke(server.url)
    assert server.headers["x-client"] == ROLLOUT
    assert server.headers["authorization"] == "Bearer secret"
    assert server.headers["content-type"] == "image/png"


def test_requests_are_spread_over_the_time_that_a_share_is_held(server: RevisionServer) -> None:
    slept: list[float] = []
    started = time.monotonic()
    probe(requests=10, hold_seconds=1000.0, sleep=slept.append).measure(server.url)
    assert len(slept) == 10
    assert slept == sorted(slept)  # nothing was waited for here: each pause ends later on the same clock
    assert 1000 - (time.monotonic() - started) <= slept[-1] <= 1000


class TestWhatFails:
    """Each by the check that it concerns."""

    def test_a_revision_that_is_not_ready(self, server: RevisionServer) -> None:
        server.is_ready = False
        (check,) = probe(ready_seconds=0.1, sleep=lambda _: None).smoke(server.url)
        assert (check.name, check.passed) == ("ready", False)
        assert "did not answer 200 within 0.1 s (503" in check.sentence

    def test_an_address_where_nothing_listens(self) -> None:
        (check,) = probe(ready_seconds=0.1, sleep=lambda _: None).smoke(f"http://127.0.0.1:{free_port()}")
        assert not check.passed
        assert "Connection refused" in check.sentence

    def test_another_model_than_the_registered_one(self, server: RevisionServer) -> None:
        checks = probe(version="3").smoke(server.url)
        assert "availability" in failing(checks)
        assert "fashion-classifier version 2 answers, not fashion-classifier version 3: is it the" in checks[1].sentence

    def test_wrong_classes(self, server: RevisionServer) -> None:
        server.label = "Sandal"
        checks = probe().smoke(server.url)
        assert failing(checks) == ["accuracy"]
        assert checks[-1].sentence == "0.0% of 20 test pictures are classified correctly (at least 90.0%)"

    def test_more_errors_than_allowed(self, server: RevisionServer) -> None:
        server.on_prediction = every(10, lambda: setattr(server, "status", 500), lambda: setattr(server, "status", 200))
        assert "availability" in failing(probe().measure(server.url))

    def test_connections_that_are_cut(self, server: RevisionServer) -> None:
        server.cut = True
        assert "availability" in failing(probe().measure(server.url))

    def test_slow_answers(self, server: RevisionServer) -> None:
        server.seconds = 0.05
        checks = probe(SloConfig(availability=0.95, latency_ms=20, latency_share=0.95)).measure(server.url)
        assert failing(checks) == ["latency"]
        assert "within 20 ms (at least 95.0%); 95th percentile" in checks[1].sentence

    def test_an_answer_of_another_program(self, server: RevisionServer) -> None:
        server.status = 404
        assert "availability" in failing(probe().smoke(server.url))


def test_as_many_errors_as_are_allowed_pass(server: RevisionServer) -> None:
    server.on_prediction = every(20, lambda: setattr(server, "status", 500), lambda: setattr(server, "status", 200))
    assert failing(probe().measure(server.url)) == []
    assert server.predictions == 40


def test_a_measurement_ends_once_the_objective_is_missed(server: RevisionServer) -> None:
    server.status = 503
    checks = probe(requests=200, hold_seconds=1.0).measure(server.url)
    assert server.predictions == 11  # 10 of 200 may fail
    assert "availability" in failing(checks)
