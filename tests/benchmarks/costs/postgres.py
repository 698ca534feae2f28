"""What a prediction takes in PostgreSQL: bytes, the server's CPU-seconds to store it, the client's to read it."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from fashion.predictions.outbox import Outgoing
from fashion.predictions.postgres import PostgresLog
from fashion.predictions.postgres_schema import SCHEMA
from fashion.predictions.record import FOREVER_US, PredictionRecord
from fashion.predictions.shared_log import BATCH_ROWS
from tests.support import postgres


@dataclass(frozen=True)
class PostgresCost:
    """Of one prediction, or of a million."""

    row_bytes: float
    """Indexes included."""
    write_cpu: float
    """CPU-seconds of the server's processes for a million rows, sent as the outbox sends them."""
    read_cpu: float
    """CPU-seconds of the client for a million rows."""


def measure(records: Sequence[PredictionRecord], *, expire_days: float) -> PostgresCost:
    """Store predictions in a server of their own, and read them back.

    Args:
        records: what is stored.
        expire_days: as a service sends it.

    Raises:
        SystemExit: there is no PostgreSQL.
    """
    if postgres.programs() is None:
        raise SystemExit("error: cost needs PostgreSQL: apt-get install postgresql")
    with postgres.serve() as server:
        address = postgres.create_database(server, "cost")
        with contextlib.closing(PostgresLog(address, expire_days=expire_days)) as log:
            log.count_after(FOREVER_US, most=1)  # makes the tables
            before = _server_seconds()
            for start in range(0, len(records), BATCH_ROWS):
                batch = enumerate(records[start : start + BATCH_ROWS], start)
                log.send([Outgoing(number, record.time_us, record) for number, record in batch])
            written = _server_seconds() - before
            started = time.process_time()
            count = sum(1 for _ in log.read_window(0, FOREVER_US))
            read = time.process_time() - started
            if count != len(records):
                raise RuntimeError(f"{count} of {len(records)} rows were read")
        size = _table_bytes(address)
    return PostgresCost(size / count, written / count * 1e6, read / count * 1e6)


def _server_seconds() -> float:
    """CPU-seconds of this process's PostgreSQL, of which each connection is a process that lives on meanwhile."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("postgres"):
                times = process.cpu_times()
                total += times.user + times.system
    return total


def _table_bytes(address: str) -> int:
    import psycopg

    with psycopg.connect(address) as connection:
        found = connection.execute("SELECT pg_total_relation_size(%s)", (f"{SCHEMA}.predictions",)).fetchone()
    assert found is not None
    return int(found[0])
