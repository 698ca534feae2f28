"""Logs that earlier commits of this program wrote: each is read today as it was meant then.

`support/states` holds them, and the script that had each commit write one.
"""

import contextlib
import dataclasses
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support import faults, shared_logs
from support.log_rows import LATER, outcomes, outgoing, record, stored, until
from support.shared_logs import Backend
from support.states import write_log as written

from bentos.classifier.recent import RecentReader
from fashion.home import REPOSITORY
from fashion.predictions import postgres_schema, removal, schema
from fashion.predictions.log import PredictionLog
from fashion.predictions.over_time import OverTime
from fashion.predictions.record import Feedback, LoggedPrediction, PredictionRecord
from fashion.predictions.shipper import Shipper
from fashion.predictions.slots import SPANS
from fashion.predictions.windows import LocalRows, SharedRows, Window
from fashion.predictions.withdrawal import Decision

STATES = Path(written.__file__).parent
SQLITE, POSTGRES = (sorted(path.stem for path in STATES.glob(f"{kind}-*.sql")) for kind in ("sqlite", "postgres"))
DECISIONS = [Decision(*row) for row in written.DECISIONS]
NAMED = "fashion-classifier"


def number_of(state: str) -> int:
    """The schema number of a state."""
    return int(state.split("-")[1])


def expected(state: str) -> list[PredictionRecord]:
    """The rows that a state holds, in the log's order: schema 1 does not name models."""
    rows = [PredictionRecord(**fields) for fields in written.PREDICTIONS]
    if number_of(state) == 1:
        rows = [dataclasses.replace(row, model_name=None, model_digest=None) for row in rows]
    return sorted(rows, key=schema.key_of)


def labels(state: str) -> dict[int, int]:
    """Number of a prediction -> its true label: a review outranks others, and a person the drift flow."""
    return {1: 1, 3: 4, 4: 6} | ({} if number_of(state) == 3 else {2: 8})


def labelled(rows: list[LoggedPrediction]) -> dict[int, int]:
    """What was found, in the form of `labels`."""
    pairs = [(int(row.record.prediction_id[-12:], 16), row.true_label) for row in rows]
    return {number: label for number, label in pairs if label is not None}


def waits(state: str) -> list[PredictionRecord | Feedback]:
    """What a log has not shipped, in the order of the outbox."""
    by = {(row.prediction_id, row.role): row for row in expected(state)}
    four, six = (written.prediction_id(number) for number in written.WAITING)
    return [by[four, "champion"], by[four, "shadow"], by[six, "champion"], Feedback(*written.FEEDBACK[-1])]


@pytest.fixture(params=SQLITE)
def state(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(state: str, tmp_path: Path) -> Path:
    """A state's log."""
    path = tmp_path / "log.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript((STATES / f"{state}.sql").read_text())
        assert connection.execute("PRAGMA user_version").fetchone() == (number_of(state),)
    return path


def content(path: Path) -> list[str]:
    """Everything in a log's file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [str(connection.execute("PRAGMA user_version").fetchone()), *connection.iterdump()]


def test_each_row_label_and_decision_is_as_it_was_and_new_rows_are_added(path: Path, state: str) -> None:
    new = record()
    with PredictionLog(path) as log:
        assert [row.record for row in log.window(0, LATER)] == expected(state)
        assert labelled(list(log.window(0, LATER))) == labels(state)
        everything = log.latest(100, with_feedback=True, withdrawn=True)
        said = [each for row in everything for each in row.feedback]
        assert sorted(said, key=lambda each: each.time_us) == [Feedback(*row) for row in written.FEEDBACK]
        assert list(log.decisions()) == (DECISIONS if number_of(state) == 3 else [])
        assert log.exports() == ([] if number_of(state) == 1 else [written.EXPORT])
        log.append([new])
        log.append_feedback([Feedback(new.prediction_id, 1, "page", new.time_us)])
        log.decide([DECISIONS[0]])
        assert log.get(new.prediction_id).record == new
        assert 2 not in labelled(list(log.window(0, LATER)))


def test_what_waits_to_be_shipped_still_waits_and_what_was_shipped_does_not(path: Path, state: str) -> None:
    new = record()
    with PredictionLog(path) as log:
        assert outgoing(log) == waits(state)
        assert len(log.outbox.due(100, written.DUE_US - 1)) == 3  # one is deferred
        backlog = log.outbox.backlog()
        assert (backlog.rows, backlog.refused, backlog.reasons) == (4, 1, (written.REFUSED,))
        assert (backlog.destination, backlog.problem) == (written.DESTINATION, written.PROBLEM)
        log.append([new])
        assert outgoing(log) == [*waits(state), new]
        log.outbox.ship_to(written.DESTINATION)  # the same as before: nothing is queued again
        assert len(outgoing(log)) == 5


def test_a_log_of_before_queues_nothing_once_it_ships_nowhere(path: Path, state: str) -> None:
    with PredictionLog(path) as log:
        log.outbox.ship_to(None)
        log.append([record()])
        assert log.database.read("SELECT count(*) FROM outbox") == [(0,)]


def test_the_readers_of_the_pages_and_flows_take_old_rows(path: Path, state: str) -> None:
    champions = [row for row in expected(state) if row.role == "champion"]
    with PredictionLog(path) as log:
        assert [row.record for row in RecentReader(log, None).read().rows] == champions[::-1]
        source = LocalRows(log)
        assert labelled(list(source.labelled())) == labels(state)
        assert sum(len(each) for each in source.batches(Window(0, LATER))) == len(champions)
        late = source.late_feedback(Window(written.ANSWERED_US + 60_000_000, LATER), 0)
        assert len(list(late)) == len(labels(state))
        counts = OverTime(log, clock=lambda: 1000 * (written.ANSWERED_US + 100_000_000))
        assert counts.advance(60) == 0
        periods = counts.periods(SPANS["month"])
        counts.close()
    of_others = [row for row in champions if row.client != "fashion-check"]
    assert sum(period.total().rows for period in periods) == len(of_others)
    assert sum(period.total().labelled for period in periods) == len(labels(state))


def test_a_log_is_brought_up_to_date_once(path: Path, tmp_path: Path) -> None:
    PredictionLog(path).close()
    PredictionLog(tmp_path / "new.db").close()
    once = content(path)
    assert once[0] == f"({schema.VERSION},)"
    PredictionLog(path).close()
    assert content(path) == once
    definitions = "SELECT type, name, sql FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql > ''"
    found = []
    for each in (path, tmp_path / "new.db"):
        with contextlib.closing(sqlite3.connect(each)) as connection:
            rows = connection.execute(definitions).fetchall()
            found.append({name: " ".join(sql.split()) for _, name, sql in rows if not name.startswith("mark_")})
    assert found[0] == found[1]


@pytest.mark.fault("killed while an old log is migrated")
@pytest.mark.parametrize(
    "point", ["Database._check_columns", "Database._renew_definitions"], ids=["columns", "definitions"]
)
def test_a_process_killed_while_it_migrates_leaves_the_log_as_it_was(point: str, path: Path, tmp_path: Path) -> None:
    before = content(path)
    command = "import sys; from fashion.predictions.log import PredictionLog as Log; Log(sys.argv[1])"
    fault = faults.at(f"fashion.predictions.database:{point}", tmp_path, when="after")
    killed = subprocess.run([sys.executable, "-c", command, str(path)], env=os.environ | fault, cwd=REPOSITORY)
    assert (killed.returncode, (tmp_path / "done").exists()) == (-9, True)
    assert content(path) == before
    with PredictionLog(path) as log:
        assert log.count() == len(written.PREDICTIONS)


def test_old_rows_are_pruned_and_forgotten(path: Path, state: str) -> None:
    with PredictionLog(path) as log:
        assert removal.forget(log, written.prediction_id(4)) == 3  # champion, shadow and feedback
        removal.prune(log, 0)
        left = {int(row.record.prediction_id[-12:], 16) for row in log.window(0, LATER)}
    assert left == {written.WAITING[1], written.REFUSED_NUMBER}


# PostgreSQL


@pytest.fixture
def backend(postgres_server: str) -> Backend:
    return shared_logs.make("postgresql", postgres_server)


@pytest.fixture(params=POSTGRES)
def shared_state(request: pytest.FixtureRequest, owner: psycopg.Connection[Any]) -> str:
    """A state, which the database holds."""
    owner.execute((STATES / f"{request.param}.sql").read_text().encode())
    return str(request.param)


def test_a_shared_log_of_before_is_read_as_it_was_meant_and_takes_new_rows(
    shared_state: str, backend: Backend, owner: psycopg.Connection[Any]
) -> None:
    rows, new = expected(shared_state), record()
    with contextlib.closing(backend.connect()) as log:
        assert [row.record for row in stored(log)] == rows
        assert labelled(stored(log)) == labels(shared_state)
        assert labelled(list(log.labelled())) == labels(shared_state)
        said = [each for row in log.labelled(withdrawn=True) for each in row.feedback]
        assert sorted(said, key=lambda each: each.time_us) == [Feedback(*row) for row in written.FEEDBACK]
        assert list(log.decisions()) == (DECISIONS if number_of(shared_state) == 3 else [])
        assert len(list(SharedRows(log).batches(Window(0, LATER)))) > 0
        assert outcomes(log, new) == outcomes(log, Feedback(new.prediction_id, 1, "ann", new.time_us))
        log.decide([DECISIONS[0]])
        assert 2 not in labelled(stored(log))
        assert log.get(new.prediction_id).true_label == 1
    assert owner.execute("SELECT version FROM prediction_log.version").fetchall() == [(postgres_schema.VERSION,)]


def statements(state: str) -> list[str]:
    """What services of a state's commit send; those of schema 3 send what those of schema 2 do."""
    (path,) = STATES.glob(f"statements-{min(2, number_of(state))}-*.sql")
    return path.read_text().splitlines()


@pytest.mark.fault("an older service ships while a newer program migrates the shared log")
def test_services_of_before_go_on_shipping_while_their_shared_log_is_migrated(
    shared_state: str, backend: Backend, owner: psycopg.Connection[Any]
) -> None:
    owner.execute("DELETE FROM prediction_log.predictions")
    sent, ending, problems = [0], threading.Event(), []

    def ship() -> None:
        with psycopg.connect(backend.address(), autocommit=True) as connection:
            try:
                while not ending.is_set():
                    for each in statements(shared_state):
                        connection.execute(each.encode())
                    sent[0] += 1
            except psycopg.Error as error:
                problems.append(error)

    service = threading.Thread(target=ship)
    service.start()
    try:
        until(lambda: sent[0] > 3 or bool(problems))
        with contextlib.closing(backend.connect()) as log:
            stored(log)  # migrates
            before = sent[0]
            until(lambda: sent[0] > before + 3 or bool(problems))
            assert [row.record for row in stored(log)] == expected(shared_state)
            assert labelled(stored(log)) == labels(shared_state)
    finally:
        ending.set()
        service.join()
    assert problems == []


@pytest.mark.parametrize("shared_state", POSTGRES[:1], indirect=True)
def test_an_upgraded_machine_ships_what_waited_and_nothing_twice(
    shared_state: str, path: Path, state: str, backend: Backend, owner: psycopg.Connection[Any]
) -> None:
    """The machine's log is of any schema, and the database still of the first."""
    owner.execute("DELETE FROM prediction_log.predictions")
    with PredictionLog(path) as log:
        log.outbox.retry_refused()
        shipper = Shipper(log, backend.connect())  # another address than before: all rows are queued
        left = shipper.drain(20)
    assert (left.rows, left.refused) == (0, 0)
    with contextlib.closing(backend.connect()) as shared:
        assert [row.record for row in stored(shared)] == expected(state)
        said = [each for row in shared.labelled(withdrawn=True) for each in row.feedback]
        assert len(said) == len(written.FEEDBACK)


@pytest.mark.fault("killed while a shared log is migrated")
def test_a_process_killed_while_it_migrates_a_shared_log_leaves_it_to_the_next(
    shared_state: str, backend: Backend, owner: psycopg.Connection[Any], tmp_path: Path
) -> None:
    command = "import sys; from fashion.predictions.address import open_shared_log as o; list(o(sys.argv[1]).latest(1))"
    # Two look for the tables and their version, then come the lock, the version, and two statements of the migration.
    fault = faults.at("psycopg:Connection.execute", tmp_path, call=7)
    killed = subprocess.run(
        [sys.executable, "-c", command, backend.address()], env=os.environ | fault, cwd=REPOSITORY, timeout=60
    )
    assert (killed.returncode, (tmp_path / "done").exists()) == (-9, True)
    version = owner.execute("SELECT version FROM prediction_log.version").fetchall()
    assert version == [(number_of(shared_state),)]
    begun = time.monotonic()
    with contextlib.closing(backend.connect()) as log:
        assert [row.record for row in stored(log)] == expected(shared_state)
    assert time.monotonic() - begun < 10


def test_the_states_cover_every_schema_number_of_before() -> None:
    assert {number_of(each) for each in SQLITE} == set(range(1, schema.VERSION + 1))
    assert {number_of(each) for each in POSTGRES} >= set(range(1, postgres_schema.VERSION))
    assert all(re.fullmatch(r"\w+-\d+-[0-9a-f]{7}", each) for each in SQLITE + POSTGRES)
