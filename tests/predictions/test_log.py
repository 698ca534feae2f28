"""Appending, feedback, windows and pruning: nothing acknowledged is lost, whatever is killed."""

import contextlib
import dataclasses
import itertools
import signal
import sqlite3
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.log_rows import (
    DAY_US,
    LATER,
    at,
    locked,
    mixed,
    outgoing,
    output_of,
    python,
    record,
    requests,
    ship,
)

from fashion.predictions.log import PredictionLog
from fashion.predictions.record import (
    Feedback,
    LoggedPrediction,
    PredictionRecord,
    UnknownPrediction,
    new_prediction_id,
)
from fashion.predictions.removal import prune

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


@pytest.mark.fault("kill -9 of writers of the log")
@pytest.mark.slow
def test_processes_share_the_file_and_killing_them_loses_nothing(log: PredictionLog) -> None:
    killed, others = [python(WRITER, log.path) for _ in range(2)], [python(WRITER, log.path, 300) for _ in range(2)]
    acknowledged: list[str] = []
    for process in killed:
        assert process.stdout is not None
        acknowledged += [process.stdout.readline().strip() for _ in range(200)]
        process.send_signal(signal.SIGKILL)
        lines = process.communicate()[0].splitlines(keepends=True)
        acknowledged += [line.strip() for line in lines if line.endswith("\n")]
    acknowledged += [line for process in others for line in output_of(process).split()]
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
        output_of(process)
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
    model_name=st.sampled_from([None, "1", "2"]),
    page_rows=st.integers(1, 6),
    newest=st.integers(0, 30),
)
def test_windows_are_complete_and_in_order_for_any_page_size(
    rows: list[PredictionRecord],
    span: tuple[int, int],
    role: str | None,
    model_name: str | None,
    page_rows: int,
    newest: int,
) -> None:
    wanted = sorted(
        (row for row in rows if role in (None, row.role) and model_name in (None, row.model_name)),
        key=lambda row: (row.time_us, row.prediction_id, row.role),
    )
    within = [row for row in wanted if span[0] <= row.time_us < span[1]]
    with tempfile.TemporaryDirectory() as folder, PredictionLog(Path(folder, "log.db")) as log:
        log.append(rows)
        found = log.window(*span, role=role, model_name=model_name, page_rows=page_rows)
        assert [each.record for each in found] == within
        assert log.count(*span, role=role, model_name=model_name) == len(within)
        latest = log.latest(newest, role=role, model_name=model_name, page_rows=page_rows)
        assert [each.record for each in latest] == wanted[::-1][:newest]


def test_a_window_survives_writes_and_pruning_meanwhile(log: PredictionLog) -> None:
    rows = [record(time_us=i // 4) for i in range(40)]
    log.append(rows)
    reading = log.window(0, LATER, page_rows=4)
    found = [next(reading).record for _ in range(6)]
    log.append([record(time_us=0), record(time_us=9)])
    prune(log, 1, clock=lambda: (DAY_US + 2) * 1000)  # drops times before 2
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
    assert prune(log, 1, clock=at(100)) == 1
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
    assert prune(log, 1, clock=at(100)) == 0  # the first one's shadow waits too
    assert outgoing(log) == [waiting, shadowed, late, elsewhere]
    log.outbox.settle([sequences[4]])
    assert prune(log, 1, clock=at(100)) == 2
    assert [each.record for each in log.window(0, LATER)] == [waiting, refused, corrected]
    ship(log)
    assert prune(log, 1, clock=at(100)) == 2
    assert [each.record for each in log.window(0, LATER)] == [refused]
    assert log.outbox.retry_refused() == 1
    assert outgoing(log) == [refused]
    ship(log)
    assert prune(log, 1, clock=at(100)) == 1
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
        assert prune(log, 1, clock=at(5)) == len(rows) - len(kept)
        assert {each.record.prediction_id for each in log.window(0, LATER)} == {row.prediction_id for row in kept}
