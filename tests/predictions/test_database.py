"""The log's file when it is damaged, locked, read-only, full, moved or closed."""

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.log_rows import (
    LATER,
    locked,
    output_of,
    python,
    record,
)

from fashion.predictions.log import PredictionLog
from fashion.predictions.record import (
    DamagedLog,
    Feedback,
    LogUnavailable,
)


@pytest.mark.fault("another file in the log's place")
def test_a_file_that_is_not_a_database_is_damaged_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    path.write_bytes(b"not a database " * 1000)
    with pytest.raises(DamagedLog, match=re.escape(f"{path} is damaged (file is not a database): move it")) as caught:
        PredictionLog(path)
    assert f"`sqlite3 {path} .recover`" in str(caught.value)
    assert path.read_bytes() == b"not a database " * 1000


@pytest.mark.fault("damaged pages of the log")
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


@pytest.mark.fault("unreadable row")
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


@pytest.mark.fault("full disk")
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
    assert int(output_of(process)) > 100


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
    assert output_of(python(script, tmp_path / "log.db")) == "[]\n"
