"""What is PostgreSQL's own: tables made once, roles, indexes, expiry, restarts, and requests that wait for a lock."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from support import shared_logs
from support.log_rows import outcomes, output_of, python, record, stored, until
from support.shared_logs import Backend

from fashion.predictions import postgres
from fashion.predictions import postgres_schema as schema
from fashion.predictions.log import PredictionLog
from fashion.predictions.postgres import PostgresLog
from fashion.predictions.record import DamagedLog, Feedback, KnownModel, ModelId
from fashion.predictions.shared_log import Outcome, SharedLog, SharedLogUnavailable
from fashion.predictions.shipper import Shipper


@pytest.fixture
def backend(postgres_server: str) -> Backend:
    return shared_logs.make("postgresql", postgres_server)


def log_of(backend: Backend, role: str) -> PostgresLog:
    """The log as another role uses it; servers of tests ask for no password, and one is given."""
    return PostgresLog(f"postgresql://{role}:secret@{backend.server}/{backend.name}")


@pytest.fixture
def role(owner: psycopg.Connection[Any], backend: Backend) -> str:
    """A role that may connect, and nothing else."""
    name = f"service_{backend.name}"
    owner.execute(f'CREATE ROLE "{name}" LOGIN'.encode())
    return name


# Tables


def test_machines_that_start_at_once_make_the_tables_once(backend: Backend, owner: psycopg.Connection[Any]) -> None:
    row, count = record(), 12
    logs = [backend.connect() for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(lambda log: outcomes(log, row), logs))
    assert found == [[Outcome.SHIPPED]] * count
    assert owner.execute(f"SELECT version FROM {schema.SCHEMA}.version").fetchall() == [(schema.VERSION,)]
    assert [each.record for each in stored(logs[0])] == [row]
    for log in logs:
        log.close()


@pytest.mark.slow
def test_naming_the_models_of_a_long_log_may_take_longer_than_one_request(
    backend: Backend, owner: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "NAMING_ROWS", 4)
    nobody = {"model_name": None, "model_digest": None, "model_version": "1", "time_us": 100}
    rows = [record(**nobody) for _ in range(18)]
    with contextlib.closing(backend.connect()) as log:
        outcomes(log, *rows)
    owner.execute(
        "CREATE FUNCTION slowly() RETURNS trigger AS 'BEGIN PERFORM pg_sleep(0.1); RETURN NEW; END' LANGUAGE plpgsql"
    )
    owner.execute(
        f"CREATE TRIGGER slow BEFORE UPDATE ON {schema.SCHEMA}.predictions FOR EACH ROW EXECUTE FUNCTION slowly()"
    )
    known = KnownModel(ModelId.of("shoes", 1, "f" * 64), created_us=50, num_classes=2)
    with contextlib.closing(backend.connect(timeout_s=1.5)) as log:
        assert log.name_rows([known]) == len(rows)
        assert log.name_rows([known]) == 0
        assert {each.record.model for each in stored(log)} == {known.model}


def test_a_role_that_may_not_make_the_tables_is_told_what_the_owner_runs(
    backend: Backend, owner: psycopg.Connection[Any], role: str
) -> None:
    with contextlib.closing(log_of(backend, role)) as log:
        with pytest.raises(SharedLogUnavailable) as raised:
            outcomes(log, record())
        message = str(raised.value)
        assert message.startswith(f"{log.address} has no log yet, and the role {role} may not make one: let the owner")
        assert "secret" not in message
        owner.execute(message.split("`")[1].encode())
        assert outcomes(log, record()) == [Outcome.SHIPPED]


def test_a_role_without_rights_on_the_tables_is_told_what_the_owner_runs(
    backend: Backend, owner: psycopg.Connection[Any], role: str
) -> None:
    row = record()
    with contextlib.closing(backend.connect()) as first:
        outcomes(first, row)
    with contextlib.closing(log_of(backend, role)) as log:
        with pytest.raises(SharedLogUnavailable) as raised:
            log.get(row.prediction_id)
        assert str(raised.value).startswith(f"{log.address} denies access: permission denied for schema")
        owner.execute(f'GRANT USAGE ON SCHEMA {schema.SCHEMA} TO "{role}"'.encode())
        owner.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA {schema.SCHEMA} TO "{role}"'.encode())
        assert log.get(row.prediction_id).record == row  # enough for DriftFlow
        with pytest.raises(SharedLogUnavailable) as raised:
            outcomes(log, record())
        assert "permission denied for table" in str(raised.value)
        owner.execute(str(raised.value).split("`")[1].encode())
        assert outcomes(log, record(), Feedback(row.prediction_id, 1, "page", 1)) == [Outcome.SHIPPED] * 2


def test_a_log_of_a_newer_version_is_left_alone(backend: Backend, owner: psycopg.Connection[Any]) -> None:
    with contextlib.closing(backend.connect()) as log:
        outcomes(log, record())
    newer = schema.VERSION + 1
    owner.execute(f"UPDATE {schema.SCHEMA}.version SET version = {newer}")
    with (
        contextlib.closing(backend.connect()) as log,
        pytest.raises(SharedLogUnavailable, match=rf"newer version .* \(schema {newer}, .* up to {newer - 1}\)"),
    ):
        outcomes(log, record())


def test_other_programs_tables_stay_as_they_are(backend: Backend, owner: psycopg.Connection[Any]) -> None:
    owner.execute("CREATE TABLE predictions (mine integer)")
    with contextlib.closing(backend.connect()) as log:
        outcomes(log, record())
        assert len(stored(log)) == 1
    assert owner.execute("SELECT count(*) FROM public.predictions").fetchone() == (0,)


def test_a_row_that_is_not_a_prediction_is_named(
    backend: Backend, owner: psycopg.Connection[Any], remote: SharedLog
) -> None:
    row = record()
    outcomes(remote, row)
    for change in ("statistics = '{}'", "label = 9", "embedding = 'odd'"):
        owner.execute(f"UPDATE {schema.SCHEMA}.predictions SET {change}".encode())
        for read in (lambda: remote.get(row.prediction_id), lambda: stored(remote)):
            with pytest.raises(DamagedLog, match=f"row {row.prediction_id} .* is not a prediction: .* delete that row"):
                read()


# Indexes


def plan(owner: psycopg.Connection[Any], sql: str, values: Any) -> str:
    """How the server runs a query, with what it read."""
    lines = owner.execute(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {sql}".encode(), values).fetchall()
    return "\n".join(line for (line,) in lines)


def test_each_query_reads_no_more_rows_than_it_returns(backend: Backend, owner: psycopg.Connection[Any]) -> None:
    rows, labelled, page = 50_000, 200, 100
    with contextlib.closing(backend.connect()) as log:
        outcomes(log, record(time_us=0))  # makes the tables
    owner.execute(
        f"""INSERT INTO {schema.SCHEMA}.predictions (prediction_id, role, time, model_version, label, confidence,
            probabilities, statistics, embedding, image_sha256, latency_ms, labelled)
        SELECT gen_random_uuid(), 'champion', 'epoch'::timestamptz + i * interval '1 second', '1', 0, 1,
            ARRAY[0.5], ARRAY[0.5], 'x', 'x', 1, i % {rows // labelled} = 0
        FROM generate_series(1, {rows}) i""".encode()
    )
    owner.execute(f"ANALYZE {schema.SCHEMA}.predictions".encode())
    (middle,) = owner.execute(f"SELECT prediction_id FROM {schema.SCHEMA}.predictions LIMIT 1").fetchall()[0]
    at = schema.to_moment(rows // 2 * 1_000_000)
    for sql, values, index, read in (
        (schema.IN_WINDOW, (at, middle, "champion", "infinity", page), "predictions_by_time", page),
        (schema.NEWEST_FIRST, (at, middle, page), "predictions_by_time", page),
        (schema.LABELLED, (at, middle, page // 2), "predictions_labelled", page // 2),
        (schema.LABELLED, ("infinity", schema.GREATEST_ID, 1000), "predictions_labelled", labelled),
        (schema.ONE, (middle,), "predictions_pkey", 1),
        (schema.COUNT_AFTER, (at, page), "predictions_by_time", page),
    ):
        found = plan(owner, sql, values)
        (scan,) = [line for line in found.splitlines() if "Scan" in line and "Subquery" not in line]
        assert index in scan, found
        assert f"(actual rows={read} " in scan, found
        assert "Sort" not in found
        assert "Rows Removed" not in found


# Expiry


def test_rows_past_their_days_are_deleted_with_their_feedback_by_whoever_sends(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fashion.predictions.postgres.EXPIRE_SECONDS", 0)
    now = time.time_ns() // 1000
    old, young = record(time_us=now - 3 * 86_400_000_000), record(time_us=now)
    with (
        contextlib.closing(PostgresLog(backend.address())) as keeps,
        contextlib.closing(PostgresLog(backend.address(), expire_days=2)) as drops,
    ):
        outcomes(keeps, old)
        outcomes(drops, young)
        assert [each.record for each in stored(keeps)] == [old, young]  # which was to be kept for ever
        expired = record(time_us=now - 3 * 86_400_000_000)
        outcomes(drops, expired, Feedback(young.prediction_id, 1, "page", 1))
        until(lambda: [each.record for each in stored(keeps)] == [old, young])
        assert [each.record for each in keeps.labelled()] == [young]


# A server that comes and goes


def test_a_restarted_server_is_not_noticed(backend: Backend, remote: SharedLog, owner: psycopg.Connection[Any]) -> None:
    row = record()
    outcomes(remote, row)
    # What a restart does to a client: its connections end while nothing uses them.
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
    for use in (lambda: remote.send([]), lambda: outcomes(remote, record()), lambda: remote.get(row.prediction_id)):
        owner.execute(ended, (backend.name,))
        use()
    assert len(stored(remote)) == 2


def test_a_statement_that_waits_for_a_lock_is_given_up_and_keeps_no_server_process(
    backend: Backend, remote: SharedLog, owner: psycopg.Connection[Any]
) -> None:
    log = backend.connect(timeout_s=0.5)
    outcomes(log, record())
    with owner.transaction():
        owner.execute(f"LOCK TABLE {schema.SCHEMA}.predictions")
        for _ in range(3):
            with pytest.raises(SharedLogUnavailable, match="cannot be used: it does not answer in time"):
                outcomes(log, record())
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
        until(lambda: owner.execute(waiting, (backend.name,)).fetchall() == [(0,)])
    assert outcomes(log, record()) == [Outcome.SHIPPED]
    assert len(stored(remote)) == 2
    log.close()


def test_more_threads_than_connections_wait_for_their_turn(backend: Backend, owner: psycopg.Connection[Any]) -> None:
    row = record()
    with contextlib.closing(backend.connect()) as log:
        outcomes(log, row)
        with ThreadPoolExecutor(30) as pool:
            assert {each.record for each in pool.map(log.get, [row.prediction_id] * 300)} == {row}
        used = owner.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (backend.name,)).fetchall()
        assert used[0][0] <= 4 + 1


# Passwords


def test_the_password_is_in_no_file_of_the_log(plain_log: PredictionLog, backend: Backend, remote: SharedLog) -> None:
    address = f"postgresql://fashion:verysecret@{backend.server}/{backend.name}"
    with contextlib.closing(PostgresLog(address)) as log:
        plain_log.append([record()])
        shipper = Shipper(plain_log, log)
        assert shipper.drain(10).rows == 0
        assert plain_log.outbox.backlog().destination == f"postgresql://{backend.server}/{backend.name}"
    wrong = PostgresLog("postgresql://fashion:verysecret@127.0.0.1:9/x")
    plain_log.append([record()])
    Shipper(plain_log, wrong).drain(0.5)
    assert "127.0.0.1:9/x cannot be used" in str(plain_log.outbox.backlog().problem)
    for file in plain_log.path.parent.iterdir():
        assert b"verysecret" not in file.read_bytes()


def test_the_driver_is_imported_on_first_use() -> None:
    script = """
        import sys
        import fashion.predictions.windows, fashion.predictions.shipper
        print([name for name in ("psycopg", "grpc", "google.cloud.firestore") if name in sys.modules])
    """
    assert output_of(python(script)) == "[]\n"
