"""Counts of the log over time are those of its rows, whatever happens to the log, the file, or a process."""

import contextlib
import dataclasses
import itertools
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.log_rows import DAY_US, DIGEST, MODEL_NAME, python, record

from fashion.predictions import removal, slot_counting
from fashion.predictions.log import PredictionLog
from fashion.predictions.over_time import SUFFIX, OverTime
from fashion.predictions.record import (
    CHECK,
    FOREVER_US,
    REVIEW,
    Feedback,
    ModelId,
    PredictionRecord,
    new_prediction_id,
)
from fashion.predictions.slot_counting import UntypicalCounter
from fashion.predictions.slots import (
    SLOT_US,
    SPANS,
    Traffic,
    Version,
    latency_histogram,
    pack_histogram,
    unpack_histogram,
)
from fashion.predictions.withdrawal import Decision

NOW_US = 1_800_005_400_000_000
MODEL = ModelId(MODEL_NAME, "3", DIGEST[:16])
Counts = dict[tuple[int, str, str], tuple[int, ...]]


@pytest.fixture
def over_time(plain_log: PredictionLog) -> Iterator[OverTime]:
    """Counts of `plain_log` at one moment; a picture is untypical if its first statistic is negative."""
    counts = new_over_time(plain_log)
    yield counts
    counts.close()


def new_over_time(log: PredictionLog, *, share: float = 0.01, of: ModelId = MODEL) -> OverTime:
    counter = UntypicalCounter(of, share, lambda features: int((features[:, 16] < 0).sum()))
    return OverTime(log, untypical=counter, clock=lambda: 1000 * NOW_US)


def made(age_us: int, **changed: object) -> PredictionRecord:
    """A record of before now."""
    time_us = NOW_US - age_us
    return record(time_us=time_us, prediction_id=new_prediction_id(lambda: 1000 * time_us), **changed)


def labelled(of: PredictionRecord, label: int, source: str = "page", later_us: int = 1) -> Feedback:
    return Feedback(of.prediction_id, label, source, of.time_us + later_us)


def shown(counts: OverTime, span: str = "month") -> Counts:
    """What is counted: period, role and version -> rows, judged, untypical, labelled, right."""
    assert counts.advance(60) == 0
    return {
        (period.since_us, version.role, version.model.version): (
            *(each.rows, each.judged, each.untypical, each.labelled, each.right),
            int(each.latency.sum()),
        )
        for period in counts.periods(SPANS[span])
        for version, each in period.versions.items()
        if each.rows
    }


def counted_by_hand(log: PredictionLog, span: str = "month") -> Counts:
    """The same of every row of the log."""
    found: dict[tuple[int, str, str], list[int]] = {}
    periods = SPANS[span].periods(NOW_US)
    for row in log.window(periods[0].since_us, periods[-1].until_us):
        each = row.record
        if each.client == CHECK:
            continue
        period = next(period for period in periods if period.since_us <= each.time_us < period.until_us)
        numbers = found.setdefault((period.since_us, each.role, each.model_version), [0] * 6)
        is_served, label = each.model == MODEL, row.true_label if each.role == "champion" else None
        for index, value in enumerate(
            (1, is_served, is_served and each.statistics[0] < 0, label is not None, label == each.label, 1)
        ):
            numbers[index] += value
    return {key: tuple(numbers) for key, numbers in found.items()}


@pytest.mark.parametrize("span", SPANS)
def test_counts_are_those_of_the_rows(plain_log: PredictionLog, over_time: OverTime, span: str) -> None:
    fill(plain_log, random.Random(1), 300)
    found = shown(over_time, span)
    assert found == counted_by_hand(plain_log, span)
    assert len({version for _, _, version in found}) > 1
    assert {role for _, role, _ in found} == {"champion", "shadow"}


def fill(log: PredictionLog, chance: random.Random, rows: int) -> list[PredictionRecord]:
    """Rows of any time of a month, of two versions and both roles, some of which are labelled."""
    records = [
        made(
            int(30 * DAY_US * chance.random() ** 3),
            role=chance.choice(["champion", "champion", "shadow"]),
            statistics=(chance.choice([-1.0, 1.0]),) * 8,
            label=chance.randrange(2),
            latency_ms=chance.lognormvariate(2, 1),
            client=chance.choice([None, "shop", CHECK]),
            model_version=chance.choice(["2", "3"]),
        )
        for _ in range(rows)
    ]
    log.append(records)
    log.append_feedback(
        labelled(each, chance.randrange(2), chance.choice(["page", "liar", REVIEW]))
        for each in records
        if each.role == "champion" and chance.random() < 0.5
    )
    return records


def test_whatever_happens_to_the_log_the_counts_are_those_of_its_rows(
    plain_log: PredictionLog, over_time: OverTime
) -> None:
    chance = random.Random(2)
    records = fill(plain_log, chance, 200)
    answered = [each for each in records if each.role == "champion" and each.client != CHECK]

    def decide(action: str, source: str | None = None, prediction_id: str | None = None) -> None:
        decision = Decision(action, source, prediction_id, 0, FOREVER_US, NOW_US, "test", "why")  # type: ignore[arg-type]
        plain_log.decide([decision])

    fresh = made(5, label=0)
    events: list[Callable[[], object]] = [
        lambda: plain_log.append([fresh]),
        lambda: plain_log.append([made(20 * DAY_US)]),  # a clock that was set back, a slow writer
        lambda: plain_log.append([dataclasses.replace(answered[0], role="shadow", model_version="4")]),
        lambda: plain_log.append_feedback([labelled(each, 0, later_us=9) for each in answered[:20]]),
        lambda: plain_log.append_feedback([labelled(fresh, 0)]),
        lambda: plain_log.append_feedback([labelled(fresh, 1, REVIEW)]),
        lambda: decide("discard", source="liar"),
        lambda: decide("restore", source="liar"),
        lambda: decide("quarantine", prediction_id=fresh.prediction_id),
        lambda: [decide("discard", source=name) for name in ("page", *"abcdefghij")],
        lambda: removal.forget(plain_log, max(answered, key=lambda each: each.time_us).prediction_id),
        lambda: removal.prune(plain_log, 12, clock=lambda: 1000 * NOW_US),
    ]
    seen = [shown(over_time)]
    for event in events:
        event()
        seen.append(shown(over_time))
        assert seen[-1] == counted_by_hand(plain_log)
    assert [now == before for before, now in itertools.pairwise(seen)] == [False] * len(events)


def test_a_slot_that_has_not_changed_is_not_read_again(
    plain_log: PredictionLog, over_time: OverTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(3 * DAY_US)
    plain_log.append([first, made(2 * DAY_US), made(DAY_US)])
    assert over_time.advance(60) == 0
    read: list[int] = []
    real = slot_counting.count_traffic
    monkeypatch.setattr(
        slot_counting, "count_traffic", lambda log, slot, by: (read.append(slot), real(log, slot, by))[1]
    )
    assert over_time.advance(60) == 0
    assert read == []
    plain_log.append([made(DAY_US)])
    plain_log.append_feedback([labelled(first, 1)])
    assert over_time.advance(60) == 0
    assert read == [(NOW_US - DAY_US) // SLOT_US]


def test_the_newest_slots_are_counted_first_and_the_rest_is_told_as_waiting(
    plain_log: PredictionLog, over_time: OverTime
) -> None:
    plain_log.append(made(hours * 3_600_000_000) for hours in range(40))
    waiting = over_time.advance(0)
    assert 0 < waiting < 40
    days = [sum(each.rows for each in period.versions.values()) for period in over_time.periods(SPANS["week"])]
    assert days[-1] > 0
    assert sum(days) == 40 - waiting
    assert shown(over_time) == counted_by_hand(plain_log)


def test_a_writer_marks_a_slot_once(plain_log: PredictionLog, over_time: OverTime) -> None:
    over_time.advance(60)
    plain_log.append(made(each) for each in range(50))
    assert len(plain_log.database.read("SELECT * FROM changed_slots")) <= 2


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)


def make_foreign(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize("harm", [damage, make_foreign, lambda path: path.write_bytes(b"no database"), Path.unlink])
def test_a_damaged_or_foreign_file_is_made_anew(
    plain_log: PredictionLog, harm: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    fill(plain_log, random.Random(3), 60)
    with contextlib.closing(new_over_time(plain_log)) as counts:
        before = shown(counts)
        path = counts.path
    assert path.name == "log" + SUFFIX
    harm(path)
    with contextlib.closing(new_over_time(plain_log)) as counts:
        assert shown(counts) == before
    assert ("is made anew" in caplog.text) == (harm is not Path.unlink)


def test_a_file_that_is_replaced_while_in_use_is_made_anew(plain_log: PredictionLog, over_time: OverTime) -> None:
    fill(plain_log, random.Random(4), 60)
    before = shown(over_time)
    for suffix in ("", "-wal", "-shm"):
        over_time.path.with_name(over_time.path.name + suffix).unlink(missing_ok=True)
    assert shown(over_time) == before


def test_an_older_copy_of_the_log_or_of_the_counts_is_noticed(plain_log: PredictionLog, tmp_path: Path) -> None:
    fill(plain_log, random.Random(5), 60)
    with contextlib.closing(new_over_time(plain_log)) as counts:
        shown(counts)
        copies = {}
        for path in (plain_log.path, counts.path):
            copies[path] = tmp_path / f"copy-{path.name}"
            with (
                contextlib.closing(sqlite3.connect(path)) as source,
                contextlib.closing(sqlite3.connect(copies[path])) as to,
            ):
                source.backup(to)
        fill(plain_log, random.Random(6), 60)
        shown(counts)
    plain_log.close()
    for path, copy in copies.items():  # first an older log with newer counts, then older counts with a newer log
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        path.write_bytes(copy.read_bytes())
        with PredictionLog(plain_log.path) as restored, contextlib.closing(new_over_time(restored)) as counts:
            assert shown(counts) == counted_by_hand(restored)


def test_a_process_that_cannot_judge_pictures_keeps_what_another_knew(plain_log: PredictionLog) -> None:
    plain_log.append([made(5, statistics=(-1.0,) * 8), made(6)])
    version = Version("champion", MODEL)

    def judged(counts: OverTime) -> tuple[int, int, int]:
        assert counts.advance(60) == 0
        each = counts.periods(SPANS["day"])[-1].of(version)
        counts.close()
        return each.rows, each.judged, each.untypical

    other = ModelId(MODEL_NAME, "4", "f" * 16)
    assert judged(new_over_time(plain_log, of=other)) == (2, 0, 0)
    assert judged(new_over_time(plain_log)) == (2, 2, 1)
    plain_log.append([made(7)])
    assert judged(new_over_time(plain_log, of=other)) == (3, 2, 1)
    assert judged(new_over_time(plain_log, share=0.05)) == (3, 3, 1)  # another bound: all are judged anew


@pytest.mark.parametrize("where", ["take_marks", "count_traffic", "count_labels", "filled_slots"])
def test_a_process_that_is_killed_while_it_counts_loses_nothing(plain_log: PredictionLog, where: str) -> None:
    fill(plain_log, random.Random(7), 60)
    with contextlib.closing(new_over_time(plain_log)) as counts:
        if where != "filled_slots":
            shown(counts)
            plain_log.append([made(5), made(3 * DAY_US)])
        script = """
            import os, sys
            from fashion.predictions import slot_counting
            from fashion.predictions.log import PredictionLog
            from fashion.predictions.over_time import OverTime
            real = getattr(slot_counting, sys.argv[2])
            def then_die(*values):
                real(*values)
                os._exit(9)
            setattr(slot_counting, sys.argv[2], then_die)
            now = int(sys.argv[3])
            OverTime(PredictionLog(sys.argv[1]), clock=lambda: 1000 * now).advance(60)
            """
        with python(script, plain_log.path, where, NOW_US) as process:
            process.wait()
        assert process.returncode == 9
        assert shown(counts) == counted_by_hand(plain_log)


def test_several_processes_write_and_count_at_once(plain_log: PredictionLog) -> None:
    script = """
        import random, sys, time
        from pathlib import Path
        from fashion.predictions.log import PredictionLog
        import contextlib
        sys.path.insert(0, sys.argv[3])
        import test_over_time as own
        chance = random.Random(int(sys.argv[2]))
        with PredictionLog(sys.argv[1]) as log, contextlib.closing(own.new_over_time(log)) as counts:
            for _ in range(6):
                own.fill(log, chance, 8)
                counts.advance(0.01)
                counts.periods(own.SPANS["month"])
                counts.add_requests({200: 8})
        """
    here = Path(__file__).parent
    processes = [python(script, plain_log.path, seed, here) for seed in (8, 9)]
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
    with contextlib.closing(new_over_time(plain_log)) as counts:
        assert shown(counts) == counted_by_hand(plain_log)
        assert sum(period.requests.get(200, 0) for period in counts.periods(SPANS["day"])) == 2 * 6 * 8


def test_requests_are_counted_by_status_and_told_from_when_on(plain_log: PredictionLog) -> None:
    with contextlib.closing(new_over_time(plain_log)) as counts:
        assert counts.requests_since_us() is None
        counts.add_requests({200: 5, 503: 1})
        counts.add_requests({200: 2})
        assert counts.periods(SPANS["week"])[-1].requests == {200: 7, 503: 1}
        assert counts.requests_since_us() == NOW_US
        counts.advance(60)  # which begins to count the log, and keeps them
        assert counts.periods(SPANS["day"])[-1].requests == {200: 7, 503: 1}


def test_rows_of_before_a_month_are_neither_read_nor_kept(plain_log: PredictionLog, over_time: OverTime) -> None:
    plain_log.append([made(40 * DAY_US)])
    assert over_time.advance(60) == 0
    plain_log.append([made(41 * DAY_US), made(1)])
    assert over_time.advance(60) == 0
    with contextlib.closing(sqlite3.connect(over_time.path)) as file:
        assert file.execute("SELECT slot FROM traffic").fetchall() == [((NOW_US - 1) // SLOT_US,)]


@pytest.mark.parametrize("quantile", [0.01, 0.5, 0.95, 0.99, 1.0])
def test_quantiles_of_latency_are_within_a_bucket(quantile: float) -> None:
    latencies = np.random.default_rng(0).lognormal(3, 1, 5000)
    halves = [Traffic(latency=latency_histogram(half)) for half in (latencies[:1000], latencies[1000:])]
    halves[0].add(halves[1])
    halves[0].latency = unpack_histogram(pack_histogram(halves[0].latency))
    assert halves[0].latency_ms(quantile) == pytest.approx(np.quantile(latencies, quantile), rel=2 ** (1 / 8) - 1)


def test_latencies_out_of_range_and_no_latencies_are_counted() -> None:
    histogram = latency_histogram([0.0, -1.0, float("nan"), 1e9])
    assert histogram.sum() == 4
    assert (histogram[0], histogram[-1]) == (3, 1)
    assert Traffic().latency_ms(0.5) is None
    assert (Traffic().mean_confidence, Traffic().accuracy, Traffic().accuracy_interval) == (None, None, None)
