"""What the log has acknowledged is in it, bit for bit, whatever is killed, full, locked or damaged."""

import contextlib
import dataclasses
import functools
import itertools
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.log_rows import (
    DAY_US,
    LATER,
    at,
    bits,
    locked,
    mixed,
    outgoing,
    python,
    record,
    records,
    requests,
    said,
    ship,
)

from fashion.images.statistics import STATISTICS
from fashion.predictions.export import export_parquet
from fashion.predictions.log import PredictionLog
from fashion.predictions.outbox import Backlog
from fashion.predictions.record import (
    DamagedLog,
    Feedback,
    LoggedPrediction,
    LogUnavailable,
    PredictionRecord,
    UnknownPrediction,
    is_prediction_id,
    new_prediction_id,
)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[PredictionLog]:
    """A log that ships somewhere: one that does not queues nothing."""
    with PredictionLog(tmp_path / "log.db") as log:
        log.outbox.ship_to("firestore://p")
        yield log


# Ids


@pytest.fixture
def first_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no id was given yet, whatever clocks other tests have seen."""
    monkeypatch.setattr("fashion.predictions.record._last_id", 0)


@pytest.mark.usefixtures("first_id")
def test_an_id_is_a_uuid7_of_the_clocks_millisecond() -> None:
    made = uuid.UUID(new_prediction_id(clock=lambda: 1_234_567_890_123_999_999))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == 1_234_567_890_123
    assert is_prediction_id(str(made))


@given(clock=st.lists(st.integers(0, 2**61) | st.just(10**18), min_size=2), byte=st.sampled_from([0, 0x5A, 0xFF, None]))
def test_ids_increase_whatever_the_clock_does(clock: list[int], byte: int | None) -> None:
    def random_bytes(count: int) -> bytes:
        return os.urandom(count) if byte is None else bytes([byte]) * count

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fashion.predictions.record._last_id", 0)
        ids = [new_prediction_id(functools.partial(int, now), random_bytes) for now in clock]
    assert ids == sorted(set(ids))
    for each in ids:
        assert is_prediction_id(each)
        assert uuid.UUID(each).version == 7


def test_ids_of_threads_differ_and_increase_in_each() -> None:
    with ThreadPoolExecutor(8) as pool:
        by_thread = list(pool.map(lambda _: [new_prediction_id() for _ in range(500)], range(8)))
    assert all(ids == sorted(ids) for ids in by_thread)
    assert len(set().union(*by_thread)) == 4000


def test_ids_of_processes_differ() -> None:
    script = """
        from fashion.predictions.record import new_prediction_id
        print(*(new_prediction_id(lambda: 10**18) for _ in range(500)))
    """
    processes = [python(script) for _ in range(2)]
    assert len(set().union(*(said(process).split() for process in processes))) == 1000


@pytest.mark.usefixtures("first_id")
def test_an_id_cannot_be_guessed_from_the_one_before() -> None:
    ids = [uuid.UUID(new_prediction_id(clock=lambda: 10**18)).int for _ in range(200)]
    steps = {after - before for before, after in itertools.pairwise(ids)}
    assert len(steps) == 199


# Records


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"prediction_id": str(uuid.uuid4())}, "prediction_id must be a uuid7 in lower case, got '"),
        ({"prediction_id": new_prediction_id().upper()}, "prediction_id must be a uuid7 in lower case, got '"),
        ({"prediction_id": new_prediction_id() + "\n"}, "prediction_id must be a uuid7 in lower case, got '"),
        ({"time_us": -1}, "time_us must be microseconds since 1970, got -1"),
        ({"time_us": 10**18}, "time_us must be microseconds since 1970, got 1000000000000000000"),
        ({"model_version": ""}, "model_version must be 1 to 200 bytes long, got ''"),
        ({"role": "challenger"}, "role must be one of ('champion', 'shadow'), got 'challenger'"),
        ({"label": 2}, "label must be one of 2 classes, got 2"),
        ({"label": -1}, "label must be one of 2 classes, got -1"),
        ({"confidence": float("nan")}, "confidence must be finite and less than 3.4e+38, got nan"),
        ({"latency_ms": float("inf")}, "latency_ms must be finite and less than 3.4e+38, got inf"),
        ({"probabilities": (0.0, 1e39)}, "probabilities must be finite and less than 3.4e+38, got 1e+39"),
        ({"statistics": (0.5,)}, "statistics must be 8 numbers, got 1"),
        ({"statistics": (float("nan"),) * 8}, "statistics must be finite and less than 3.4e+38, got nan"),
        ({"embedding": (0.0, -65520.0)}, "embedding must be finite and less than 65520, got -65520.0"),
        ({"image_sha256": "F" * 64}, "image_sha256 must be 64 hexadecimal digits, got 'FFF"),
        ({"client": "ö" * 101}, "client must be 1 to 200 bytes long, got 'ööö"),
        ({"client": "\ud800"}, "surrogates not allowed"),
    ],
)
def test_an_invalid_record_is_rejected_with_its_value(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        record(**changed)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"true_label": -1}, "true_label must be a class, got -1"),
        ({"true_label": 2**40}, "true_label must be a class, got 1099511627776"),
        ({"source": "x" * 201}, "source must be 1 to 200 bytes long, got 'xxx"),
        ({"time_us": -5}, "time_us must be microseconds since 1970, got -5"),
    ],
)
def test_invalid_feedback_is_rejected_with_its_value(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Feedback(**({"prediction_id": new_prediction_id(), "true_label": 1, "source": "page", "time_us": 1} | changed))


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(records(), max_size=5))
def test_records_come_back_bit_for_bit_from_the_file_and_from_parquet(rows: list[PredictionRecord]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with PredictionLog(Path(folder, "log.db")) as log:
            log.outbox.ship_to("firestore://p")
            log.append(rows)
        with PredictionLog(Path(folder, "log.db")) as log:
            found = [log.get(row.prediction_id, row.role).record for row in rows]
            assert list(map(bits, found)) == list(map(bits, rows))
            assert list(map(bits, outgoing(log))) == list(map(bits, rows))
            assert export_parquet(log, Path(folder, "log.parquet")) == len(rows)
        table = pq.read_table(Path(folder, "log.parquet"))
    exported = {row["prediction_id"]: row for row in table.to_pylist()}
    times = dict(zip(table["prediction_id"].to_pylist(), table["time"].cast("int64").to_pylist(), strict=True))
    for row in rows:
        its = exported[row.prediction_id]
        again = PredictionRecord(
            prediction_id=its["prediction_id"],
            time_us=times[row.prediction_id],
            label=its["predicted"],
            probabilities=tuple(its["probabilities"]),
            statistics=tuple(its[name] for name in STATISTICS),
            embedding=tuple(map(float, its["embedding"])),
            **{name: its[name] for name in ("model_version", "role", "confidence", "latency_ms", "client")},
            image_sha256=its["image_sha256"],
        )
        assert bits(again) == bits(row)


def test_numbers_are_rounded_once(log: PredictionLog) -> None:
    rough = record(probabilities=(0.1, 0.9), embedding=(0.1, 65519.9), label=np.int64(1), latency_ms=np.float32(1.1))
    log.append([rough])
    kept = log.get(rough.prediction_id).record
    assert kept.probabilities == (float(np.float32(0.1)), float(np.float32(0.9)))
    assert kept.embedding == (float(np.float16(0.1)), 65504.0)
    log.append([rough])  # the same, and no other record of this id
    log.append([kept])
    assert log.count() == 1


# Appending


def test_appended_records_are_visible_to_another_process(log: PredictionLog) -> None:
    row = record()
    log.append([row])
    with PredictionLog(log.path) as other:
        assert other.get(row.prediction_id) == LoggedPrediction(row)


def test_a_write_is_on_the_disk_before_it_is_acknowledged(log: PredictionLog) -> None:
    # A process cannot cut its own power: what SQLite promises is asked of the very connection that writes.
    assert log.database._writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: each commit is synced
    assert log.database._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_appending_nothing_changes_nothing(log: PredictionLog) -> None:
    log.append([])
    log.append_feedback([])
    log.outbox.settle()
    assert log.count() == 0
    assert outgoing(log) == []


def test_appending_again_changes_nothing(log: PredictionLog) -> None:
    rows = [record(), record()]
    log.append(rows)
    log.append([*rows, rows[0]])
    assert log.count() == 2
    assert outgoing(log) == rows


def test_a_different_record_of_the_same_id_rejects_the_whole_append(log: PredictionLog) -> None:
    row = record()
    log.append([row])
    other = dataclasses.replace(row, label=0)
    with pytest.raises(ValueError, match=f"prediction {row.prediction_id} is already in the log, as champion, and dif"):
        log.append([record(), other, record()])
    assert [each.record for each in log.window(0, LATER)] == [row]
    assert outgoing(log) == [row]


def test_a_shadow_bears_the_champions_id(log: PredictionLog) -> None:
    champion = record()
    shadow = dataclasses.replace(champion, role="shadow", model_version="4", label=0)
    log.append([champion, shadow])
    assert log.get(champion.prediction_id).record == champion
    assert log.get(champion.prediction_id, role="shadow").record == shadow
    assert [each.record for each in log.window(0, LATER)] == [champion, shadow]


WRITER = """
    import itertools, sys
    from fashion.predictions.log import PredictionLog
    from support.log_rows import record
    log = PredictionLog(sys.argv[1])
    for _ in range(int(sys.argv[2])) if len(sys.argv) > 2 else itertools.count():
        row = record()
        log.append([row])
        print(row.prediction_id, flush=True)
"""


def test_processes_share_the_file_and_killing_them_loses_nothing(log: PredictionLog) -> None:
    killed, others = [python(WRITER, log.path) for _ in range(2)], [python(WRITER, log.path, 300) for _ in range(2)]
    acknowledged: list[str] = []
    for process in killed:
        assert process.stdout is not None
        acknowledged += [process.stdout.readline().strip() for _ in range(200)]
        process.send_signal(signal.SIGKILL)
        lines = process.communicate()[0].splitlines(keepends=True)
        acknowledged += [line.strip() for line in lines if line.endswith("\n")]
    acknowledged += [line for process in others for line in said(process).split()]
    assert len(acknowledged) == len(set(acknowledged)) >= 1000
    kept = [each.record.prediction_id for each in log.window(0, LATER)]
    assert set(acknowledged) <= set(kept)
    assert len(kept) - len(acknowledged) <= len(killed)  # committed, and killed before it could say so
    assert sorted(row.prediction_id for row in outgoing(log)) == sorted(kept)
    with contextlib.closing(sqlite3.connect(log.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.slow
def test_processes_may_make_the_file_at_once(tmp_path: Path) -> None:
    script = """
        import sys, time
        from pathlib import Path
        from fashion.predictions.log import PredictionLog
        from support.log_rows import record
        print("ready", flush=True)
        start = float(sys.stdin.readline())
        for i in range(40):
            while time.time() < start + 0.05 * i:
                pass
            PredictionLog(Path(sys.argv[1], f"{i}", "log.db")).append([record()])
    """
    processes = [python(script, tmp_path, stdin=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    start = time.time() + 0.2
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{start}\n")
        process.stdin.flush()
    for process in processes:
        said(process)
    for i in range(40):
        with PredictionLog(tmp_path / str(i) / "log.db") as log:
            assert log.count() == 3


def test_threads_interleave(log: PredictionLog) -> None:
    def work(_: int) -> list[PredictionRecord]:
        mine = []
        for i in range(30):
            row = record(time_us=i)
            log.append([row])
            log.append_feedback([Feedback(row.prediction_id, i % 10, "page", i)])
            assert log.get(row.prediction_id) == LoggedPrediction(
                row, (Feedback(row.prediction_id, i % 10, "page", i),)
            )
            mine.append(row)
        return mine

    with ThreadPoolExecutor(8) as pool:
        written = list(itertools.chain.from_iterable(pool.map(work, range(8))))
    found = list(log.window(0, LATER, page_rows=7))
    assert [each.record for each in found] == sorted(written, key=lambda row: (row.time_us, row.prediction_id))
    assert all(each.true_label == each.record.time_us % 10 for each in found)
    assert len(outgoing(log)) == 2 * len(written)


def test_threads_that_wait_share_a_commit_and_a_bad_write_fails_alone(log: PredictionLog) -> None:
    taken, rows = record(), [record() for _ in range(20)]
    log.append([taken])
    clash = dataclasses.replace(taken, label=0)
    stranger = Feedback(new_prediction_id(), 1, "page", 1)
    statements: list[str] = []
    log.database._writer.set_trace_callback(statements.append)
    with ThreadPoolExecutor(32) as pool:
        with locked(log):
            first = pool.submit(log.append, [record()])
            while "BEGIN IMMEDIATE" not in statements:
                time.sleep(0.001)
            good = [pool.submit(log.append, [row]) for row in rows]
            while len(log.database._waiting) < len(rows):
                time.sleep(0.001)
        for each in [first, *good]:
            each.result()
        assert statements.count("COMMIT") == 2  # the first, and all that came while it waited
        statements.clear()
        with locked(log):
            first = pool.submit(log.append, [record()])
            while "BEGIN IMMEDIATE" not in statements:
                time.sleep(0.001)
            bad = [pool.submit(log.append, [clash]), pool.submit(log.append_feedback, [stranger])]
            good = [pool.submit(log.append, [row]) for row in [record() for _ in range(5)]]
            while len(log.database._waiting) < 7:
                time.sleep(0.001)
        for each in [first, *good]:
            each.result()
        with pytest.raises(ValueError, match=taken.prediction_id):
            bad[0].result()
        with pytest.raises(UnknownPrediction, match=stranger.prediction_id):
            bad[1].result()
    assert log.count() == 1 + 1 + 20 + 1 + 5
    assert log.get(taken.prediction_id).record == taken


# Feedback


def test_the_latest_feedback_counts_and_all_is_stored(log: PredictionLog) -> None:
    row = record()
    log.append([row])
    assert log.get(row.prediction_id).true_label is None
    given = [Feedback(row.prediction_id, label, "page", at) for label, at in [(3, 200), (7, 300), (5, 100), (6, 300)]]
    for each in given:
        log.append_feedback([each])
    found = log.get(row.prediction_id)
    assert found.feedback == (given[2], given[0], given[1], given[3])
    assert found.true_label == 6  # of two of the same moment, the one that came last
    assert outgoing(log) == [row, *given]


def test_feedback_sent_twice_is_stored_once(log: PredictionLog) -> None:
    row = record()
    log.append([row])
    once = Feedback(row.prediction_id, 3, "page", 200)
    log.append_feedback([once, once])
    log.append_feedback([once])
    assert log.get(row.prediction_id).feedback == (once,)
    assert outgoing(log) == [row, once]


def test_numpy_labels_are_accepted(log: PredictionLog) -> None:
    row = record()
    log.append([row])
    log.append_feedback([Feedback(row.prediction_id, np.int64(3), "csv", np.int64(7))])  # type: ignore[arg-type]
    assert log.get(row.prediction_id).feedback == (Feedback(row.prediction_id, 3, "csv", 7),)


def test_feedback_on_an_unknown_prediction_rejects_the_whole_append(log: PredictionLog) -> None:
    row, unknown = record(), new_prediction_id()
    log.append([row, record(role="shadow", prediction_id=unknown)])  # nobody was answered by a shadow
    with pytest.raises(UnknownPrediction, match=f"no prediction {unknown} in the log"):
        log.append_feedback([Feedback(row.prediction_id, 1, "page", 1), Feedback(unknown, 1, "page", 1)])
    assert log.get(row.prediction_id).feedback == ()


@pytest.mark.parametrize("known_elsewhere", [False, True])
@pytest.mark.parametrize("wrong", ["", "7", "a/b", "\ud800", "\0", "f492d8ee-d873-4d87-a565-933022bbda16", "x" * 9_999])
def test_a_malformed_id_is_an_unknown_prediction(wrong: str, known_elsewhere: bool, log: PredictionLog) -> None:
    with pytest.raises(UnknownPrediction, match="no prediction '"):
        log.get(wrong)
    with pytest.raises(UnknownPrediction, match="no prediction '"):
        log.append_feedback([Feedback(wrong, 1, "page", 1)], known_elsewhere=known_elsewhere)
    assert outgoing(log) == []


def test_feedback_on_another_machines_prediction_needs_known_elsewhere(log: PredictionLog) -> None:
    elsewhere = Feedback(new_prediction_id(), 1, "page", 1)
    log.append_feedback([elsewhere], known_elsewhere=True)
    assert outgoing(log) == [elsewhere]
    with pytest.raises(UnknownPrediction):
        log.get(elsewhere.prediction_id)


def test_feedback_belongs_to_the_champions_record(log: PredictionLog) -> None:
    champion = record()
    log.append([champion, dataclasses.replace(champion, role="shadow")])
    log.append_feedback([Feedback(champion.prediction_id, 1, "page", 1)])
    assert log.get(champion.prediction_id).true_label == 1
    assert log.get(champion.prediction_id, "shadow").feedback == ()
    assert [each.true_label for each in log.window(0, LATER)] == [1, None]


# Windows


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(requests, max_size=15).map(mixed),
    span=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    role=st.sampled_from([None, "champion", "shadow"]),
    model_version=st.sampled_from([None, "1", "2"]),
    page_rows=st.integers(1, 6),
    newest=st.integers(0, 30),
)
def test_windows_are_complete_and_in_order_for_any_page_size(
    rows: list[PredictionRecord],
    span: tuple[int, int],
    role: str | None,
    model_version: str | None,
    page_rows: int,
    newest: int,
) -> None:
    wanted = sorted(
        (row for row in rows if role in (None, row.role) and model_version in (None, row.model_version)),
        key=lambda row: (row.time_us, row.prediction_id, row.role),
    )
    within = [row for row in wanted if span[0] <= row.time_us < span[1]]
    with tempfile.TemporaryDirectory() as folder, PredictionLog(Path(folder, "log.db")) as log:
        log.append(rows)
        found = log.window(*span, role=role, model_version=model_version, page_rows=page_rows)
        assert [each.record for each in found] == within
        assert log.count(*span, role=role, model_version=model_version) == len(within)
        latest = log.latest(newest, role=role, model_version=model_version, page_rows=page_rows)
        assert [each.record for each in latest] == wanted[::-1][:newest]


def test_a_window_survives_writes_and_pruning_meanwhile(log: PredictionLog) -> None:
    rows = [record(time_us=i // 4) for i in range(40)]
    log.append(rows)
    reading = log.window(0, LATER, page_rows=4)
    found = [next(reading).record for _ in range(6)]
    log.append([record(time_us=0), record(time_us=9)])
    log.prune(1, clock=lambda: (DAY_US + 2) * 1000)  # drops times before 2
    found += [each.record for each in reading]
    assert [row for row in found if row in rows] == sorted(rows, key=lambda row: (row.time_us, row.prediction_id))
    assert len(found) == 41


# Retention


def test_pruning_a_log_that_ships_nowhere_spares_nothing(log: PredictionLog) -> None:
    old, young = record(time_us=99), record(time_us=100)
    log.append([old])
    log.outbox.ship_to(None)
    log.append([young])
    log.append_feedback([Feedback(each.prediction_id, 1, "page", 500) for each in (old, young)])
    log.append_feedback([Feedback(new_prediction_id(), 1, "page", t) for t in (99, 100)], known_elsewhere=True)
    assert log.prune(1, clock=at(100)) == 1
    assert [each.record for each in log.window(0, LATER)] == [young]
    assert log.get(young.prediction_id).true_label == 1
    assert outgoing(log) == []
    with contextlib.closing(sqlite3.connect(log.path)) as connection:
        assert connection.execute("SELECT time_us FROM feedback ORDER BY time_us").fetchall() == [(100,), (500,)]


def test_pruning_spares_rows_that_wait_or_were_refused(log: PredictionLog) -> None:
    log.outbox.ship_to("firestore://p")
    shipped, waiting, refused, corrected = rows = [record(time_us=i) for i in range(4)]
    shadowed = dataclasses.replace(shipped, role="shadow")
    log.append([*rows, shadowed])
    sequences = [row.sequence for row in log.outbox.due(10, LATER)]
    log.outbox.settle([sequences[0], sequences[3]], refused=[(sequences[2], "too large")])
    late = Feedback(corrected.prediction_id, 1, "page", LATER // 2**10)
    log.append_feedback([late])
    elsewhere = Feedback(new_prediction_id(), 1, "page", 0)
    log.append_feedback([elsewhere], known_elsewhere=True)
    assert log.prune(1, clock=at(100)) == 0  # the first one's shadow waits too
    assert outgoing(log) == [waiting, shadowed, late, elsewhere]
    log.outbox.settle([sequences[4]])
    assert log.prune(1, clock=at(100)) == 2
    assert [each.record for each in log.window(0, LATER)] == [waiting, refused, corrected]
    ship(log)
    assert log.prune(1, clock=at(100)) == 2
    assert [each.record for each in log.window(0, LATER)] == [refused]
    assert log.outbox.retry_refused() == 1
    assert outgoing(log) == [refused]
    ship(log)
    assert log.prune(1, clock=at(100)) == 1
    with contextlib.closing(sqlite3.connect(log.path)) as connection:
        for table in ("predictions", "feedback", "outbox"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


@settings(max_examples=40, deadline=None)
@given(
    times=st.lists(st.integers(0, 10), max_size=30), shipped=st.sets(st.integers(0, 29)), page_rows=st.integers(1, 5)
)
def test_pruning_deletes_old_shipped_rows_page_by_page(times: list[int], shipped: set[int], page_rows: int) -> None:
    rows = [record(time_us=each) for each in times]
    with (
        tempfile.TemporaryDirectory() as folder,
        PredictionLog(Path(folder, "log.db")) as log,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("fashion.predictions.log.PAGE_ROWS", page_rows)
        log.outbox.ship_to("firestore://p")
        log.append(rows)
        waiting = log.outbox.due(100, LATER)
        log.outbox.settle([row.sequence for i, row in enumerate(waiting) if i in shipped])
        kept = [row for i, row in enumerate(rows) if row.time_us >= 5 or i not in shipped]
        assert log.prune(1, clock=at(5)) == len(rows) - len(kept)
        assert {each.record.prediction_id for each in log.window(0, LATER)} == {row.prediction_id for row in kept}


# The outbox


def test_the_outbox_returns_due_rows_in_order(log: PredictionLog) -> None:
    rows = [record() for _ in range(4)]
    before = time.time_ns() // 1000
    log.append(rows)
    waiting = log.outbox.due(3, 0)
    assert [each.item for each in waiting] == rows[:3]
    assert all(before - 2000 <= each.queued_us <= time.time_ns() // 1000 + 2000 for each in waiting)
    log.outbox.settle(shipped=[waiting[0].sequence], deferred=[(waiting[1].sequence, 1000)])
    assert [each.item for each in log.outbox.due(9, 999)] == rows[2:]
    assert [each.item for each in log.outbox.due(9, 1000)] == rows[1:]


def test_the_backlog_has_counts_age_and_reasons(log: PredictionLog) -> None:
    rows = [record() for _ in range(4)]
    log.outbox.ship_to(None)
    log.append(rows)
    assert log.outbox.backlog() == Backlog(None, 0, 0.0, 0, (), None)  # it ships nowhere
    log.outbox.ship_to("firestore://p")
    queued = log.outbox.due(1, LATER)[0].queued_us
    found = log.outbox.backlog(clock=lambda: (queued + 5_000_000) * 1000)
    assert (found.destination, found.rows, found.refused, found.reasons) == ("firestore://p", 4, 0, ())
    assert found.age_s == pytest.approx(5)
    sequences = [each.sequence for each in log.outbox.due(9, LATER)]
    log.outbox.settle(refused=[(sequences[0], "too large"), (sequences[1], "too large"), (sequences[2], "odd")])
    log.outbox.report("no route to host")
    with PredictionLog(log.path) as other:  # what one process knows, all know
        found = other.outbox.backlog()
    assert (found.rows, found.refused, found.reasons) == (1, 3, ("odd", "too large"))
    assert found.problem == "no route to host"
    log.outbox.report(None)
    log.outbox.settle([sequences[3]])
    assert log.outbox.backlog() == Backlog("firestore://p", 0, 0.0, 3, ("odd", "too large"), None)
    assert log.outbox.retry_refused() == 3
    assert outgoing(log) == rows[:3]
    log.outbox.ship_to(None)
    assert log.outbox.backlog().destination is None


def test_a_new_destination_is_sent_all_rows_from_the_start(log: PredictionLog) -> None:
    log.outbox.ship_to(None)
    rows = [record(time_us=each) for each in (2, 1)]
    log.append(rows)
    said_so = Feedback(rows[0].prediction_id, 1, "page", 3)
    log.append_feedback([said_so])
    assert outgoing(log) == []
    log.outbox.ship_to("firestore://p")
    assert outgoing(log) == [rows[1], rows[0], said_so]
    ship(log)
    with PredictionLog(log.path) as other:  # a worker that starts later
        other.outbox.ship_to("firestore://p")
    assert outgoing(log) == []
    log.outbox.ship_to("firestore://q")
    assert outgoing(log) == [rows[1], rows[0], said_so]


def test_a_prediction_is_shipped_once_no_row_of_it_waits(log: PredictionLog) -> None:
    first, second = record(), record()
    log.append([first, second])
    log.append_feedback([Feedback(second.prediction_id, 1, "page", 1)])
    sequences = [each.sequence for each in log.outbox.due(9, LATER)]
    log.outbox.settle(sequences[:2])
    assert log.outbox.is_shipped([first.prediction_id])
    assert not log.outbox.is_shipped([first.prediction_id, second.prediction_id])
    log.outbox.settle(refused=[(sequences[2], "odd")])
    assert not log.outbox.is_shipped([second.prediction_id])
    assert not log.outbox.is_refused(second.prediction_id)  # its feedback was, and not itself


def test_a_refused_shadow_leaves_the_champion_alone(log: PredictionLog) -> None:
    champion = record()
    log.append([champion, dataclasses.replace(champion, role="shadow")])
    sequences = [each.sequence for each in log.outbox.due(9, LATER)]
    log.outbox.settle(refused=[(sequences[1], "too large")])
    assert not log.outbox.is_refused(champion.prediction_id)
    log.outbox.settle(refused=[(sequences[0], "too large")])
    assert log.outbox.is_refused(champion.prediction_id)


# Parquet


def test_an_export_has_the_column_names_of_reference_rows(log: PredictionLog, tmp_path: Path) -> None:
    row, silent, late = record(time_us=1_000_001), record(time_us=2_000_000, client="me"), record(time_us=3_000_000)
    log.append([row, silent, late])
    log.append_feedback([Feedback(row.prediction_id, label, "page", label) for label in (7, 3)])
    assert export_parquet(log, tmp_path / "new" / "log.parquet", 1_000_001, 3_000_000) == 2
    first, second = pq.read_table(tmp_path / "new" / "log.parquet").to_pylist()
    assert (first["label"], first["predicted"], first["brightness"]) == (7, 1, 0.5)
    assert [(each["true_label"], each["source"]) for each in first["feedback"]] == [(3, "page"), (7, "page")]
    assert first["time"].isoformat() == "1970-01-01T00:00:01.000001+00:00"
    assert (second["label"], second["feedback"], second["client"]) == (None, [], "me")
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["log.parquet"]


def test_an_export_may_have_many_pages_or_none(log: PredictionLog, tmp_path: Path) -> None:
    rows = [record(time_us=i) for i in range(45)]
    log.append(rows)
    assert export_parquet(log, tmp_path / "all.parquet", page_rows=20) == 45
    found = pq.read_table(tmp_path / "all.parquet")
    assert found["prediction_id"].to_pylist() == [row.prediction_id for row in rows]
    assert export_parquet(log, tmp_path / "none.parquet", 45) == 0
    assert pq.read_table(tmp_path / "none.parquet").schema == found.schema


def test_an_export_that_fails_leaves_the_old_file(log: PredictionLog, tmp_path: Path) -> None:
    log.append([record()])
    export_parquet(log, tmp_path / "log.parquet")
    log.close()
    with pytest.raises(LogUnavailable):
        export_parquet(log, tmp_path / "log.parquet")
    assert pq.read_table(tmp_path / "log.parquet").num_rows == 1
    assert list(tmp_path.glob(".*")) == []


# What can go wrong


def test_a_file_that_is_not_a_database_is_damaged_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    path.write_bytes(b"not a database " * 1000)
    with pytest.raises(DamagedLog, match=re.escape(f"{path} is damaged (file is not a database): move it")) as caught:
        PredictionLog(path)
    assert f"`sqlite3 {path} .recover`" in str(caught.value)
    assert path.read_bytes() == b"not a database " * 1000


def test_damage_in_the_middle_is_named_and_the_rest_survives(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with PredictionLog(path) as log:
        log.append([record(time_us=i) for i in range(2000)])
    whole = path.read_bytes()
    path.write_bytes(whole[:40_000] + os.urandom(100_000) + whole[140_000:])
    with PredictionLog(path) as log, pytest.raises(DamagedLog, match=re.escape(f"{path} is damaged")):
        list(log.window(0, LATER))
    assert path.stat().st_size >= len(whole)
    assert path.read_bytes()[150_000:200_000] == whole[150_000:200_000]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE predictions SET image_sha256 = 'x'",
        "UPDATE predictions SET embedding = x'00'",
        "UPDATE predictions SET probabilities = 7",
        "UPDATE feedback SET source = ''",
        "UPDATE feedback SET true_label = 'x'",
    ],
)
def test_an_unreadable_row_is_named(damage: str, log: PredictionLog) -> None:
    row = record()
    log.append([row])
    log.append_feedback([Feedback(row.prediction_id, 1, "page", 1)])
    with contextlib.closing(sqlite3.connect(log.path)) as connection, connection:
        connection.execute(damage)
    for read in (lambda: log.get(row.prediction_id), lambda: log.outbox.due(9, LATER)):
        with pytest.raises(DamagedLog, match=f"{log.path} is damaged .*{row.prediction_id}.*nothing was deleted"):
            read()


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE experiments (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(LogUnavailable, match=f"{path} is an SQLite database of another program: give the log another"):
        PredictionLog(path)
    assert path.read_bytes() == before


def test_a_newer_log_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    PredictionLog(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")
    with pytest.raises(LogUnavailable, match=re.escape(f"{path} was written by a newer version") + ".*schema 7"):
        PredictionLog(path)


def test_a_path_that_cannot_be_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path, tmp_path / "file" / "log.db"):
        with pytest.raises(LogUnavailable, match=re.escape(f"{path} cannot be used (") + ".*check that its folder"):
            PredictionLog(path)


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder with a log that this process may read and not write, also where it is root."""
    with tempfile.TemporaryDirectory() as folder:
        with PredictionLog(Path(folder, "log.db")) as log:
            log.append([record(time_us=1)])
        Path(folder, "log.db").chmod(0o444)
        Path(folder).chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(user)
            Path(folder).chmod(0o755)


def test_a_read_only_folder_is_named(read_only: Path) -> None:
    for name in ("log.db", "new.db", "new/log.db"):
        with pytest.raises(LogUnavailable, match=f"{read_only / name} cannot be used .*check that its folder exists"):
            PredictionLog(read_only / name)


def test_a_full_disk_is_named_and_costs_nothing_acknowledged(tmp_path: Path) -> None:
    script = """
        import os, sys
        from pathlib import Path
        from fashion.predictions.log import PredictionLog
        from fashion.predictions.record import LogUnavailable; from support.log_rows import record
        folder, acknowledged = Path(sys.argv[1]), []
        (folder / "ballast").write_bytes(bytes(500_000))
        log = PredictionLog(folder / "log.db")
        try:
            while True:
                rows = [record() for _ in range(20)]
                log.append(rows)
                acknowledged += rows
        except LogUnavailable as error:
            assert str(error) == f"the disk of {folder / 'log.db'} is full: free some space", error
        assert [each.record for each in log.window(0, 2**62)] == acknowledged
        (folder / "ballast").unlink()
        log.append(rows)
        assert [each.record for each in PredictionLog(folder / "log.db").window(0, 2**62)] == acknowledged + rows
        print(len(acknowledged))
    """
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)]
    unshare = ["unshare", "--mount", "--map-root-user", "--user"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, *mount], capture_output=True).returncode:
        pytest.skip("a small disk needs Linux, and leave to mount one")
    inside = ["sh", "-c", f'{" ".join(mount)} && exec "$@"', "sh"]
    process = python(script, tmp_path, before=[*unshare, *inside])
    assert int(said(process)) > 100


def test_a_lock_held_too_long_is_named_to_all_waiting_writers(
    log: PredictionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fashion.predictions.database.LOCKED_SECONDS", 0.5)
    rows = [record() for _ in range(12)]
    start = time.monotonic()
    with ThreadPoolExecutor(12) as pool, locked(log):
        for each in [pool.submit(log.append, [row]) for row in rows]:
            with pytest.raises(LogUnavailable, match=f"{log.path} was locked by another process for 0 s: try again"):
                each.result()
    assert time.monotonic() - start < 3  # together, and not one after another
    assert log.count() == 0
    log.append(rows)
    assert log.count() == 12


def test_readers_do_not_wait_for_a_writer(log: PredictionLog) -> None:
    row = record()
    log.append([row])
    with locked(log):
        assert log.get(row.prediction_id).record == row


def test_an_interrupted_write_is_not_acknowledged_and_leaves_the_log_usable(log: PredictionLog) -> None:
    row = record()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with locked(log):
            timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                log.append([row])
    finally:
        signal.signal(signal.SIGINT, before)
    assert log.count() == 0
    log.append([row])
    assert log.count() == 1


@pytest.mark.parametrize("replaced", [False, True])
def test_a_log_that_was_moved_rejects_writes(log: PredictionLog, replaced: bool) -> None:
    log.append([record()])
    log.path.rename(log.path.with_name("moved.db"))
    if replaced:
        PredictionLog(log.path).close()
    with pytest.raises(LogUnavailable, match=f"{log.path} was moved or deleted while in use: start this process again"):
        log.append([record()])


def test_using_a_closed_log_is_one_sentence(log: PredictionLog) -> None:
    log.close()
    log.close()
    for use in (log.count, lambda: log.append([record()])):
        with pytest.raises(LogUnavailable, match=f"{log.path} was closed by this process: open the log again"):
            use()


def test_the_log_needs_neither_parquet_nor_google_to_be_written(tmp_path: Path) -> None:
    script = """
        import sys
        from fashion.predictions.log import PredictionLog
        PredictionLog(sys.argv[1]).outbox.backlog()
        print([name for name in ("pyarrow", "google", "pandas", "onnxruntime") if name in sys.modules])
    """
    assert said(python(script, tmp_path / "log.db")) == "[]\n"
