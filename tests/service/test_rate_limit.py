"""The limit of requests a minute: a bucket for each client, which all workers share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import faults

from bentos.web import rate_limit
from bentos.web.rate_limit import RateLimit
from bentos.web.responses import ApiError
from fashion.home import REPOSITORY


def accepted(limit: RateLimit, client: str, requests: int) -> int:
    """How many of some requests pass."""
    passed = 0
    for _ in range(requests):
        try:
            limit.take(client)
            passed += 1
        except ApiError as error:
            assert error.status == 429
    return passed


def test_without_a_limit_every_request_passes() -> None:
    assert accepted(RateLimit(None), "a", 1000) == 1000


@given(st.lists(st.floats(0, 5), max_size=200), st.integers(1, 100))
def test_no_minute_holds_more_than_a_burst_and_the_refill(pauses: list[float], per_minute: int) -> None:
    now = 0.0
    limit = RateLimit(per_minute, clock=lambda: now)
    times = []
    for pause in pauses:
        now += pause
        try:
            limit.take("a")
        except ApiError as error:
            assert error.status == 429
            assert 1 <= int(error.headers["retry-after"]) <= 61
        else:
            times.append(now)
    for start in times:
        assert sum(start <= each < start + 60 for each in times) <= 2 * per_minute


def test_the_next_request_passes_after_the_time_of_retry_after() -> None:
    now = 0.0
    limit = RateLimit(6, clock=lambda: now)
    assert accepted(limit, "a", 6) == 6
    with pytest.raises(ApiError) as caught:
        limit.take("a")
    limit.take("b")  # clients do not share
    now += int(caught.value.headers["retry-after"])
    limit.take("a")


def test_where_the_table_is_full_the_clients_that_were_silent_longest_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_limit, "SLOTS", 1)
    now = 0.0
    limit = RateLimit(1, clock=lambda: now)
    for number in range(2 * rate_limit.PROBES):
        now += 0.01
        limit.take(str(number))
    assert accepted(limit, str(2 * rate_limit.PROBES - 1), 1) == 0
    assert accepted(limit, "0", 1) == 1


_WORKER = """
import sys, time
from pathlib import Path
from bentos.web.rate_limit import RateLimit
from bentos.web.responses import ApiError
limit, passed = RateLimit(600, Path(sys.argv[1]), clock=lambda: 1000.0), 0
for _ in range(600):
    try:
        limit.take("key of a client")
        passed += 1
    except ApiError:
        pass
print(passed)
"""


def test_workers_share_one_limit_and_store_no_client(tmp_path: Path) -> None:
    table = tmp_path / "serving" / "request-limits"
    workers = [
        subprocess.Popen([sys.executable, "-c", _WORKER, str(table)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert sum(int(each.communicate(timeout=60)[0]) for each in workers) == 600
    assert b"key of a client" not in table.read_bytes()
    assert table.stat().st_mode & 0o077 == 0


@pytest.mark.fault("the table of request limits is damaged")
def test_a_damaged_table_of_request_limits_limits_all_the_same(tmp_path: Path) -> None:
    table = tmp_path / "request-limits"
    assert accepted(RateLimit(5, table), "a", 10) == 5
    table.write_bytes(b"\xff" * table.stat().st_size)
    assert accepted(RateLimit(5, table), "a", 10) == 5
    table.write_bytes(b"cut off")
    assert accepted(RateLimit(5, table), "a", 10) == 5


@pytest.mark.fault("the disk is full when a worker starts")
def test_on_a_full_disk_each_worker_limits_requests_for_itself(tmp_path: Path) -> None:
    fault = faults.at("bentos.web.rate_limit:_open", tmp_path, action="full")
    done = subprocess.run(
        [sys.executable, "-c", _WORKER, str(tmp_path / "table")],
        cwd=REPOSITORY,
        env={**os.environ, **fault},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "600", done.stderr
    assert "each worker limits requests for itself" in done.stderr
    assert (tmp_path / "done").exists()


def test_a_request_that_counts_as_many_waits_for_a_full_bucket_and_is_paid_off_for_an_hour_at_most() -> None:
    now = 0.0
    limit = RateLimit(60, clock=lambda: now)
    limit.take("a")
    limit.take("a", 600, counted=1)
    for cost in (1, 60):  # ten minutes' worth was accepted in the first one
        with pytest.raises(ApiError) as caught:
            limit.take("a", cost)
        assert int(caught.value.headers["retry-after"]) == pytest.approx(9 * 60 + cost, abs=1)
    now += 9 * 60 + 1
    limit.take("a")
    limit.take("b", 1_000_000)
    now += 59 * 60 + 1
    limit.take("b")
