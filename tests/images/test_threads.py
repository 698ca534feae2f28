"""How many threads work on pictures."""

import os
import threading
import time

import pytest

from fashion.images import threads


def test_results_are_in_order_and_of_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "num_cores", lambda: 3)

    def work(number: int) -> tuple[int, int]:
        time.sleep(0.01 * (number % 3 == 0))  # the first of three ends last
        return number, threading.get_ident()

    numbers, workers = zip(*threads.in_threads(work, range(12)), strict=True)
    assert numbers == tuple(range(12))
    assert 1 < len(set(workers)) <= 3


def test_a_system_that_tells_no_affinity_has_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS
    assert threads.num_cores() == os.cpu_count()
    assert list(threads.in_threads(str, range(3))) == ["0", "1", "2"]
