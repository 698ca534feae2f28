"""Logs of earlier versions of this program, and of later ones: brought up to date when opened, or one sentence."""

import contextlib
import dataclasses
import os
import re
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from support import faults, old_logs, shared_logs
from support.log_rows import LATER, outcomes, outgoing, output_of, python, record, stored
from support.shared_logs import Backend

from fashion.home import REPOSITORY
from fashion.predictions import postgres_schema, schema
from fashion.predictions.canary_ending import CanaryEnding
from fashion.predictions.log import PredictionLog
from fashion.predictions.postgres import PostgresLog
from fashion.predictions.record import Feedback, LogUnavailable, PredictionRecord
from fashion.predictions.shared_log import Outcome, SharedLogUnavailable
from fashion.predictions.withdrawal import Decision

ROWS = 1_000_000


def unnamed(row: PredictionRecord) -> PredictionRecord:
    """A row as a log of version 1 holds it."""
    return dataclasses.replace(row, model_name=None, model_digest=None)


def version_of(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


@pytest.fixture
def old(tmp_path: Path) -> tuple[Path, list[PredictionRecord], Feedback]:
    """A log of version 1 that ships somewhere, with rows and feedback that wait."""
    path, rows = tmp_path / "log.db", [record(time_us=number) for number in range(3)]
    said = Feedback(rows[1].prediction_id, 1, "page", 9)
    old_logs.sqlite_1(path, *rows, said, destination="firestore://p")
    return path, rows, said


Old = tuple[Path, list[PredictionRecord], Feedback]


def test_an_old_log_is_brought_up_to_date_when_opened_and_keeps_every_row(old: Old) -> None:
    path, rows, said = old
    with PredictionLog(path) as log:
        assert [each.record for each in log.window(0, LATER)] == list(map(unnamed, rows))
        assert log.get(rows[1].prediction_id).feedback == (said,)
        assert outgoing(log) == [*map(unnamed, rows), said]
        new = record(time_us=9)
        log.append([new])
        assert log.get(new.prediction_id).record == new
    assert version_of(path) == schema.VERSION
    PredictionLog(path).close()


def test_a_migrated_log_has_the_tables_of_a_new_one(old: Old, tmp_path: Path) -> None:
    PredictionLog(old[0]).close()
    PredictionLog(tmp_path / "new.db").close()
    columns = 'SELECT t.name, c.name, c.type, c."notnull", c.pk FROM sqlite_master t, pragma_table_info(t.name) c'
    found = []
    for path in (old[0], tmp_path / "new.db"):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            names = connection.execute("SELECT type, name FROM sqlite_master").fetchall()
            found.append((sorted(names), sorted(connection.execute(columns).fetchall())))
    assert found[0] == found[1]


@pytest.mark.fault("killed while an old log is migrated")
def test_a_process_killed_while_it_migrates_a_log_leaves_it_whole_for_the_next(old: Old, tmp_path: Path) -> None:
    path, rows, _ = old
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from fashion.predictions.log import PredictionLog as Log; Log(sys.argv[1])",
            str(path),
        ],
        env=os.environ | faults.at("fashion.predictions.database:Database._check_columns", tmp_path),
        cwd=REPOSITORY,
    )
    assert (killed.returncode, (tmp_path / "done").exists()) == (-9, True)
    assert version_of(path) == 1
    with PredictionLog(path) as log:
        assert log.count() == len(rows)


@pytest.mark.fault("two processes migrate one log at once")
def test_processes_that_open_an_old_log_at_once_migrate_it_once_and_write_to_it(old: Old) -> None:
    script = """
        import sys, time
        from fashion.predictions.log import PredictionLog; from support.log_rows import record
        time.sleep(max(0, float(sys.argv[2]) - time.time()))
        log = PredictionLog(sys.argv[1])
        for _ in range(20):
            log.append([record()])
        print("ok")
    """
    processes = [python(script, old[0], time.time() + 1) for _ in range(3)]
    assert [output_of(each) for each in processes] == ["ok\n"] * 3
    with PredictionLog(old[0]) as log:
        assert log.count() == 3 + 3 * 20


@pytest.mark.fault("an older program has the log open while a newer one migrates it")
def test_a_program_of_before_goes_on_writing_to_a_log_that_is_migrated(old: Old) -> None:
    path, _, _ = old
    row = schema.to_row(record())[: -len(old_logs.OF_LATER)]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT count(*) FROM predictions").fetchone()
        with PredictionLog(path) as log:
            columns = ", ".join(name for name in schema._COLUMNS if name not in old_logs.OF_LATER)
            places = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO predictions ({columns}) VALUES ({places})", row)
            connection.commit()
            assert log.get(row[0]).record.model_name is None


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ("ALTER TABLE predictions ADD COLUMN mood TEXT NOT NULL DEFAULT 'x'", None),
        ("ALTER TABLE predictions RENAME COLUMN latency_ms TO latency", "predictions lacks the column latency_ms"),
        ("DROP TABLE outbox; CREATE TABLE outbox (mood TEXT NOT NULL)", "outbox lacks the column due_us"),
        ("DROP TABLE facts; CREATE TABLE facts (name, value, mood NOT NULL)", "facts has the column mood besides"),
    ],
)
@pytest.mark.fault("the log's tables are not those of its version")
def test_a_log_with_other_tables_than_its_version_is_one_sentence_when_opened(
    change: str, differs: str | None, tmp_path: Path
) -> None:
    path, row = tmp_path / "log.db", record()
    with PredictionLog(path) as log:
        log.append([row])
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"DROP TRIGGER queue_prediction; DROP TRIGGER queue_feedback; {change}")
    if differs is None:  # a column that may be left out hinders nothing
        with PredictionLog(path) as log:
            log.append([record()])
        return
    with pytest.raises(
        LogUnavailable, match=re.escape(f"{path} says that it has schema {schema.VERSION}, but its table {differs}")
    ):
        PredictionLog(path)


def test_a_million_rows_are_migrated_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    old_logs.sqlite_1(path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            "INSERT INTO predictions SELECT printf('%08x', i), 'champion', i, '1', 0, 0.5, x'00', x'00', x'00', '', 1, "
            "NULL FROM n",
            (ROWS - 1,),
        )
    begun = time.process_time()
    with PredictionLog(path) as log:
        assert time.process_time() - begun < 1
        assert log.count() == ROWS


# PostgreSQL


@pytest.fixture
def backend(postgres_server: str) -> Backend:
    return shared_logs.make("postgresql", postgres_server)


@pytest.mark.fault("machines migrate one shared log at once")
def test_machines_that_start_at_once_migrate_an_old_shared_log_once(
    backend: Backend, owner: psycopg.Connection[Any]
) -> None:
    row, new, count = record(time_us=1), record(time_us=2), 6
    old_logs.postgres_1(owner, row)
    logs = [backend.connect() for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        assert list(pool.map(lambda log: outcomes(log, new), logs)) == [[Outcome.SHIPPED]] * count
    assert owner.execute("SELECT version FROM prediction_log.version").fetchall() == [(postgres_schema.VERSION,)]
    assert [each.record for each in stored(logs[0])] == [unnamed(row), new]
    for log in logs:
        log.close()


def test_a_migrated_shared_log_has_the_columns_of_a_new_one(
    backend: Backend, owner: psycopg.Connection[Any], postgres_server: str
) -> None:
    found = []
    for each in (backend, shared_logs.make("postgresql", postgres_server)):
        with psycopg.connect(each.address(), autocommit=True) as connection:
            if each is backend:
                old_logs.postgres_1(connection)
            with contextlib.closing(each.connect()) as log:
                assert stored(log) == []
            found.append(
                sorted(
                    connection.execute(
                        "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns "
                        "WHERE table_schema = 'prediction_log'"
                    ).fetchall()
                )
            )
    assert found[0] == found[1]


def test_a_role_that_may_not_migrate_a_shared_log_is_told_who_may(
    backend: Backend, owner: psycopg.Connection[Any]
) -> None:
    old_logs.postgres_1(owner)
    name = f"reader_{backend.name}"
    owner.execute(f'CREATE ROLE "{name}" LOGIN'.encode())
    owner.execute(postgres_schema.GRANT.format(role=name).encode())
    with contextlib.closing(PostgresLog(f"postgresql://{name}:x@{backend.server}/{backend.name}")) as log:
        with pytest.raises(SharedLogUnavailable, match=f"has a log of schema 1, and the role {name} may not bring it"):
            stored(log)
        with contextlib.closing(backend.connect()) as owners:
            assert stored(owners) == []
        assert outcomes(log, record()) == [Outcome.SHIPPED]


def test_roles_keep_their_rights_when_a_shared_log_is_migrated(
    backend: Backend, owner: psycopg.Connection[Any]
) -> None:
    row = record(time_us=1)
    old_logs.postgres_1(owner, row)
    reader, writer = f"Reader of {backend.name}", f"writer_{backend.name}"
    for name, rights in ((reader, "SELECT"), (writer, "SELECT, INSERT, UPDATE, DELETE")):
        owner.execute(f'CREATE ROLE "{name}" LOGIN'.encode())
        owner.execute(f'GRANT USAGE ON SCHEMA prediction_log TO "{name}"'.encode())
        owner.execute(f'GRANT {rights} ON ALL TABLES IN SCHEMA prediction_log TO "{name}"'.encode())
    said, discard = Feedback(row.prediction_id, 1, "ann", 1), Decision("discard", "ann", None, 0, 9, 1, "bob", "a slip")
    with contextlib.closing(backend.connect()) as owners:
        assert outcomes(owners, said) == [Outcome.SHIPPED]  # and migrates
    at = f"x@{backend.server}/{backend.name}"
    with (
        contextlib.closing(PostgresLog(f"postgresql://{quote(reader)}:{at}")) as reads,
        contextlib.closing(PostgresLog(f"postgresql://{writer}:{at}")) as writes,
    ):
        assert reads.get(row.prediction_id).feedback == (said,)
        writes.decide([discard])
        assert reads.get(row.prediction_id).feedback == ()
        with pytest.raises(SharedLogUnavailable, match="permission denied for table decisions"):
            reads.decide([discard])
        ending = CanaryEnding(row.model, row.model, 1, "promoted", "it is better", "make bento")
        writes.end_canary(ending)
        writes.end_canary(ending)
        assert reads.canary_ending(ending.name) == ending
        with pytest.raises(SharedLogUnavailable, match="permission denied for table facts"):
            reads.end_canary(ending)


def test_a_newer_shared_log_is_one_sentence(backend: Backend, owner: psycopg.Connection[Any]) -> None:
    with contextlib.closing(backend.connect()) as log:
        assert stored(log) == []
    owner.execute("UPDATE prediction_log.version SET version = 9")
    with (
        contextlib.closing(backend.connect()) as log,
        pytest.raises(
            SharedLogUnavailable,
            match=rf"newer version of this program \(schema 9, this one reads up to {postgres_schema.VERSION}\)",
        ),
    ):
        stored(log)
