"""The outbox: records and feedback in the log's file that are yet to be shipped. Knows no destination.

Triggers of the log's tables queue every new row, once `ship_to` has named a destination.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fashion.predictions.database import Database
from fashion.predictions.record import Feedback, PredictionRecord
from fashion.predictions.schema import QUEUE_ALL, SELECTED, to_feedback, to_record


@dataclass(frozen=True)
class Outgoing:
    """A row of the outbox."""

    sequence: int
    """The row's number: later rows have greater ones."""
    queued_us: int
    """Microseconds since 1970, UTC."""
    item: PredictionRecord | Feedback


@dataclass(frozen=True)
class Backlog:
    """The state of the outbox."""

    destination: str | None
    """Where the log ships to, or None: then nothing waits."""
    rows: int
    """Records and feedback that wait."""
    age_s: float
    """Seconds that the oldest of them has waited."""
    refused: int
    """Records and feedback that the destination has rejected for good; they stay in the log."""
    reasons: tuple[str, ...]
    """Why: up to five of the latest reasons, each once."""
    problem: str | None
    """What keeps the shipper from shipping now."""


class Outbox:
    """Rows of a log that wait to be shipped. Safe to call from threads.

    Every method raises LogUnavailable where the log's file cannot be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def ship_to(self, destination: str | None) -> None:
        """Store where the log is shipped to, and queue every row that it holds.

        From then on pruning the log spares rows that wait. The same destination again changes nothing. None empties
        the outbox, and nothing is queued any more.
        """

        def update(connection: sqlite3.Connection) -> None:
            known = connection.execute("SELECT value FROM facts WHERE name = 'destination'").fetchone()
            if known == (None if destination is None else (destination,)):
                return  # another process was first
            for statement in ("DELETE FROM outbox", "DELETE FROM facts WHERE name = 'destination'"):
                connection.execute(statement)
            if destination is not None:
                for statement in QUEUE_ALL:
                    connection.execute(statement)
                connection.execute("INSERT INTO facts VALUES ('destination', ?)", (destination,))

        self._database.write(update)

    def report(self, problem: str | None) -> None:
        """Store, for every process to see, what keeps the outbox from being shipped; None when it ships again."""

        def update(connection: sqlite3.Connection) -> None:
            if problem is None:
                connection.execute("DELETE FROM facts WHERE name = 'problem'")
            else:
                connection.execute("REPLACE INTO facts VALUES ('problem', ?)", (problem,))

        stored = self._database.read("SELECT value FROM facts WHERE name = 'problem'")
        if stored != ([] if problem is None else [(problem,)]):
            self._database.write(update)

    def backlog(self, clock: Callable[[], int] = time.time_ns) -> Backlog:
        """Return how much waits, for how long, and why. `clock` gives nanoseconds since 1970."""
        facts: dict[str, str] = dict(self._database.read("SELECT name, value FROM facts"))
        if "destination" not in facts:
            return Backlog(None, 0, 0.0, 0, (), None)
        waiting, refused, oldest = self._database.read(
            "SELECT count(*) - count(refused), count(refused), min(CASE WHEN refused IS NULL THEN queued_us END) "
            "FROM outbox"
        )[0]
        latest = "SELECT refused FROM outbox WHERE refused IS NOT NULL ORDER BY sequence DESC LIMIT 100"
        reasons = tuple({row[0]: None for row in self._database.read(latest)})[:5] if refused else ()
        age = max(0.0, clock() / 1e9 - oldest / 1e6) if waiting else 0.0
        return Backlog(facts["destination"], waiting, age, refused, reasons, facts.get("problem"))

    def due(self, rows: int, until_us: int) -> list[Outgoing]:
        """Return at most `rows` of the oldest rows that wait and are due by `until_us`."""
        found = self._database.read(
            f"SELECT o.sequence, o.queued_us, f.prediction_id, f.true_label, f.source, f.time_us, {SELECTED} "
            "FROM outbox o LEFT JOIN predictions p "
            "ON o.feedback IS NULL AND p.prediction_id = o.prediction_id AND p.role = o.role "
            "LEFT JOIN feedback f ON f.sequence = o.feedback "
            "WHERE o.refused IS NULL AND o.due_us <= ? ORDER BY o.sequence LIMIT ?",
            (until_us, rows),
        )
        with self._database.translate_errors():
            return [
                Outgoing(row[0], row[1], to_record(row[6:]) if row[2] is None else to_feedback(row[2:6]))
                for row in found
            ]

    def is_shipped(self, prediction_ids: Sequence[str]) -> bool:
        """Return True if nothing about these predictions waits or was refused."""
        sql = "SELECT 1 FROM outbox WHERE prediction_id IN (SELECT value FROM json_each(?)) LIMIT 1"
        return not self._database.read(sql, (json.dumps(list(prediction_ids)),))

    def is_refused(self, prediction_id: str) -> bool:
        """Return True if the destination has rejected the champion's record of this prediction."""
        sql = "SELECT 1 FROM outbox WHERE prediction_id = ? AND refused IS NOT NULL AND feedback IS NULL"
        return bool(self._database.read(f"{sql} AND role = 'champion' LIMIT 1", (prediction_id,)))

    def settle(
        self,
        shipped: Sequence[int] = (),
        deferred: Sequence[tuple[int, int]] = (),
        refused: Sequence[tuple[int, str]] = (),
    ) -> None:
        """Store the outcome of sending rows.

        Args:
            shipped: sequences; these rows leave the outbox.
            deferred: sequences, each with the microsecond before which it is not due.
            refused: sequences, each with the reason.
        """

        def update(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM outbox WHERE sequence = ?", [(each,) for each in shipped])
            connection.executemany(
                "UPDATE outbox SET due_us = ? WHERE sequence = ?", [(until, sequence) for sequence, until in deferred]
            )
            connection.executemany(
                "UPDATE outbox SET refused = ? WHERE sequence = ?", [(reason, sequence) for sequence, reason in refused]
            )

        if shipped or deferred or refused:
            self._database.write(update)

    def retry_refused(self) -> int:
        """Queue refused rows again, once the cause is fixed, and return how many."""
        sql = "UPDATE outbox SET refused = NULL, due_us = 0 WHERE refused IS NOT NULL"
        return int(self._database.write(lambda connection: connection.execute(sql).rowcount))
