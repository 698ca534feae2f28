"""What is looked at after runs were missed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.log_rows import DAY_US, MODEL_NAME

from fashion.config.compose import compose, load_as
from fashion.config.drift import DriftConfig
from fashion.drift import catch_up, inspection
from fashion.drift.reports import state_of
from fashion.predictions.record import FOREVER_US
from fashion.predictions.windows import Window
from fashion.storage.address import open_store
from fashion.storage.blobs import Store

NOW_US = 1_800_000_000_000_000
DEFAULTS = load_as(DriftConfig, compose(root=DriftConfig.root))


def settings(*words: str) -> DriftConfig:
    return load_as(DriftConfig, compose(words, root=DriftConfig.root))


def window_of_run(now_us: int, store: Store, chosen: DriftConfig = DEFAULTS) -> Window:
    """What a run looks at, which ends well."""
    asked = inspection.select_window(chosen, clock=lambda: 1000 * now_us)
    window = catch_up.widen(asked, chosen, store, model_name=MODEL_NAME)
    catch_up.record_end(window.until_us, chosen, store, model_name=MODEL_NAME)
    return window


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


@given(days=st.lists(st.floats(0.1, 6.9), min_size=1, max_size=10))
def test_no_time_is_left_out_whenever_the_runs_are(days: list[float]) -> None:
    store = MemoryStore()
    ended = window_of_run(NOW_US, store).until_us
    now_us = NOW_US
    for each in days:
        now_us += int(each * DAY_US)
        window = window_of_run(now_us, store)
        assert window.since_us <= ended
        assert window.until_us - window.since_us >= DAY_US
        ended = window.until_us


@pytest.mark.parametrize(("late", "is_missed"), [(0.0, False), (0.09, False), (0.11, True), (3.0, True)])
def test_the_jitter_of_a_timer_is_looked_at_without_a_remark(store: Store, late: float, is_missed: bool) -> None:
    ended = window_of_run(NOW_US, store).until_us
    now_us = NOW_US + int((1 + late) * DAY_US)
    window = window_of_run(now_us, store)
    assert window.since_us == ended
    assert catch_up.runs_were_missed(Window(now_us - DAY_US, now_us), window) == is_missed


def test_a_longer_outage_is_looked_at_as_far_as_configured(store: Store) -> None:
    window_of_run(NOW_US, store)
    late = window_of_run(NOW_US + 20 * DAY_US, store)
    assert late.until_us - late.since_us == 7 * DAY_US


def test_it_can_be_turned_off(store: Store) -> None:
    window_of_run(NOW_US, store)
    late = window_of_run(NOW_US + 5 * DAY_US, store, settings("catch_up=null"))
    assert late.until_us - late.since_us == DAY_US


def test_what_somebody_asks_for_is_looked_at_as_asked_and_not_remembered(store: Store) -> None:
    asked = settings("since=2026-11-01", "until=2026-11-08")
    window = window_of_run(NOW_US, store, asked)
    assert window.until_us - window.since_us == 7 * DAY_US
    assert not store.exists(state_of(catch_up.STATE, MODEL_NAME))


def test_a_first_run_and_a_damaged_state_look_at_the_usual_window(store: Store) -> None:
    first = window_of_run(NOW_US, store)
    store.put(state_of(catch_up.STATE, MODEL_NAME), b'{"until_us": ')
    again = window_of_run(NOW_US + 5 * DAY_US, store)
    assert first.until_us - first.since_us == again.until_us - again.since_us == DAY_US


def test_until_ends_any_kind_of_window() -> None:
    end_us = 1_794_096_000_000_000  # 2026-11-08
    of_length = inspection.select_window(settings("until=2026-11-08", "window=7d"))
    assert of_length == Window(end_us - 7 * DAY_US, end_us)
    assert inspection.select_window(settings("until=2026-11-08", "rows=10")) == Window(0, end_us, 10)
    assert inspection.select_window(settings("rows=10")) == Window(0, FOREVER_US, 10)


class MemoryStore:
    """As much of a store as is used here: a folder for each example would take longer than the test."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def get(self, name: str) -> bytes:
        from fashion.storage.blobs import BlobNotFound

        if name not in self.blobs:
            raise BlobNotFound(name)
        return self.blobs[name]

    def put(self, name: str, content: bytes) -> None:
        self.blobs[name] = content
