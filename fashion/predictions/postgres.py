"""The log that machines share in PostgreSQL. Knows no models and no schedule.

A prediction is inserted once under its id and role, so sending it again changes nothing. The tables are made when the
log is first used; `postgres_schema` has them. Rows past their `expire_at` are deleted by whoever sends.
"""

import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from fashion.predictions import postgres_schema as schema
from fashion.predictions.canary_ending import CanaryEnding
from fashion.predictions.outbox import Outgoing
from fashion.predictions.postgres_connections import (
    AccessDenied,
    Connection,
    Connections,
    InsufficientPrivilege,
    RowRefused,
)
from fashion.predictions.record import (
    DamagedLog,
    Feedback,
    KnownModel,
    LoggedPrediction,
    PredictionRecord,
    UnknownPrediction,
    is_prediction_id,
)
from fashion.predictions.shared_log import PAGE_ROWS, Delivery, Outcome, SharedLogUnavailable, retrying
from fashion.predictions.withdrawal import Decision, Decisions

EXPIRE_SECONDS = 60.0
"""Between two looks for rows that have expired."""
NAMING_ROWS = 2000
"""Rows that one statement names at most, so that a long log needs many short requests and not a long one."""
EXPIRE_ROWS = 2000
"""Rows that one look deletes at most."""

Key = tuple[Any, ...]


class PostgresLog:
    """A SharedLog in one database."""

    kind = "postgresql"

    def __init__(self, address: str, *, timeout_s: float = 10.0, expire_days: float | None = None) -> None:
        """Set up a client. Connects to nothing yet.

        Args:
            address: `postgresql://user:password@host/database`, with whatever else libpq takes.
            timeout_s: how long one call may take, or one page of those that yield rows; in seconds.
            expire_days: let predictions expire this many days after they were made.

        Raises:
            LogUnavailable: libpq does not take the address.
        """
        self._connections = Connections(address, timeout_s=timeout_s, prepare=self._prepare, grant=schema.GRANT)
        self.address, self.expire_days = self._connections.address, expire_days
        self._next_look = 0.0

    def close(self) -> None:
        """Close the connections; see SharedLog."""
        self._connections.close()

    def send(self, rows: Sequence[Outgoing], *, timeout_s: float | None = None) -> list[Delivery]:
        """Write rows in one or two statements, or halves of them where one is refused; see SharedLog."""
        deadline = time.monotonic() + min(timeout_s or self._connections.timeout_s, self._connections.timeout_s)
        deliveries = list(self._send(list(rows), deadline))
        if self.expire_days is not None and time.monotonic() > self._next_look:
            self._next_look = time.monotonic() + EXPIRE_SECONDS
            self._connections.run(
                lambda connection: connection.execute(schema.DELETE_EXPIRED, (EXPIRE_ROWS,)),
                timeout_s=max(0.1, deadline - time.monotonic()),
            )
        return deliveries

    def read_window(self, since_us: int, until_us: int, *, page_rows: int = PAGE_ROWS) -> Iterator[LoggedPrediction]:
        """Yield predictions of since <= time < until, oldest first; see SharedLog."""
        until = schema.to_moment(until_us)
        after: Key = (schema.to_moment(since_us), schema.LEAST_ID, "")
        while until_us > 0:
            page = self._page(schema.IN_WINDOW, (*after, until, page_rows))
            yield from page
            if len(page) < page_rows:
                return
            after = (*_key(page[-1]), page[-1].record.role)

    def latest(
        self, rows: int, *, page_rows: int = PAGE_ROWS, timeout_s: float | None = None
    ) -> Iterator[LoggedPrediction]:
        """Yield at most `rows` predictions of the role champion, newest first; see SharedLog."""
        before: Key = ("infinity", schema.GREATEST_ID)
        while rows > 0:
            size = min(rows, page_rows)
            page = self._page(schema.NEWEST_FIRST, (*before, size), timeout_s)
            yield from page
            if len(page) < size:
                return
            rows, before = rows - size, _key(page[-1])

    def labelled(self, *, withdrawn: bool = False, page_rows: int = PAGE_ROWS) -> Iterator[LoggedPrediction]:
        """Yield predictions with feedback, newest first; see SharedLog."""
        before: Key = ("infinity", schema.GREATEST_ID)
        while True:
            page = self._page(schema.LABELLED, (*before, page_rows), withdrawn=withdrawn)
            yield from (row for row in page if row.feedback)
            if len(page) < page_rows:
                return
            before = _key(page[-1])

    def decide(self, decisions: Sequence[Decision]) -> None:
        """Store that feedback counts no more, or again; see SharedLog."""
        rows = [schema.to_decision_row(each) for each in decisions]

        def write(connection: Connection) -> None:
            with connection.transaction():
                for row in rows:
                    connection.execute(schema.DECIDE, row)

        self._connections.run(write)

    def decisions(self, *, timeout_s: float | None = None) -> Decisions:
        """Return all decisions on feedback; see SharedLog."""
        found = self._connections.run(
            lambda connection: connection.execute(schema.DECIDED).fetchall(), timeout_s=timeout_s
        )
        return Decisions(Decision(*row) for row in found)

    def end_canary(self, ending: CanaryEnding) -> None:
        """Store how the comparison of a canary ended; see SharedLog."""
        row = (ending.name, ending.as_text())
        self._connections.run(lambda connection: connection.execute(schema.SET_FACT, row))

    def canary_ending(self, name: str, *, timeout_s: float | None = None) -> CanaryEnding | None:
        """Return how the comparison of a canary ended; see SharedLog."""
        found = self._connections.run(
            lambda connection: connection.execute(schema.FACT, (name,)).fetchall(), timeout_s=timeout_s
        )
        return CanaryEnding.of_text(found[0][0], self.address) if found else None

    def get(self, prediction_id: str, *, timeout_s: float | None = None) -> LoggedPrediction:
        """Return one champion's prediction; see SharedLog."""
        if not is_prediction_id(prediction_id):
            raise UnknownPrediction(f"no prediction {prediction_id[:40]!r} at {self.address}")
        values = (uuid.UUID(prediction_id),)
        found = self._connections.run(lambda connection: _read(connection, schema.ONE, values), timeout_s=timeout_s)
        if not found:
            raise UnknownPrediction(f"no prediction {prediction_id} at {self.address}")
        return self._logged(found)[0]

    def count_after(self, until_us: int, *, most: int) -> int:
        """Return how many predictions are dated `until_us` or later; see SharedLog."""
        values = (schema.to_moment(until_us), most)
        return int(
            self._connections.run(lambda connection: connection.execute(schema.COUNT_AFTER, values).fetchall()[0][0])
        )

    def forget(self, prediction_id: str) -> int:
        """Delete a prediction with its feedback; see SharedLog."""

        def forget(connection: Connection) -> int:
            connection.execute(schema.FORGET_DECISIONS, (prediction_id,))
            return int(connection.execute(schema.FORGET, (uuid.UUID(prediction_id),)).rowcount)

        return self._connections.run(forget)

    def name_rows(self, known: Sequence[KnownModel]) -> int:
        """Name the models of rows; see SharedLog. Reads every row since the first of those versions, in pages."""
        if not known:
            return 0
        models = [
            (
                each.model.name,
                each.model.digest,
                each.model.version,
                schema.to_moment(each.created_us),
                each.num_classes,
            )
            for each in known
        ]
        columns = [list(column) for column in zip(*models, strict=True)]
        after: Key | None = (schema.to_moment(min(each.created_us for each in known)), schema.LEAST_ID, "")
        count = 0
        while after is not None:
            named, after = self._name_page(columns, after)
            count += named
        return count

    def has_picture(self, image_sha256: str, *, besides: str | None = None) -> bool:
        """Return True if a prediction is on this picture; see SharedLog."""
        values = (image_sha256, uuid.UUID(besides) if besides else schema.LEAST_ID)
        return bool(self._connections.run(lambda connection: connection.execute(schema.ON_PICTURE, values).fetchall()))

    def _name_page(self, columns: list[list[Any]], after: Key) -> tuple[int, Key | None]:
        """Name one page of rows; return how many, and the key that the next page starts after."""
        values = (*columns, *after, NAMING_ROWS)
        found = self._connections.run(lambda connection: connection.execute(schema.NAME_PAGE, values).fetchall())
        return (found[0][0], tuple(found[0][1:])) if found else (0, None)

    def _send(self, rows: list[Outgoing], deadline: float) -> Iterator[Delivery]:
        if not rows:
            return
        left = max(0.1, deadline - time.monotonic())
        try:
            orphans = self._connections.run(lambda connection: self._write(connection, rows), timeout_s=left)
        except RowRefused as error:
            if len(rows) == 1:
                yield Delivery(rows[0], Outcome.REFUSED, f"cannot be a row: {error}")
                return
            # One row fails the whole statement: halve the rows to find which.
            yield from self._send(rows[: len(rows) // 2], deadline)
            yield from self._send(rows[len(rows) // 2 :], deadline)
            return
        for row in rows:
            is_orphan = isinstance(row.item, Feedback) and uuid.UUID(row.item.prediction_id) in orphans
            yield Delivery(row, Outcome.ORPHAN if is_orphan else Outcome.SHIPPED)

    def _write(self, connection: Connection, rows: list[Outgoing]) -> set[uuid.UUID]:
        """Insert rows; return the ids of predictions that are not there, on which feedback was not inserted."""
        try:
            predictions = [
                schema.to_row(row.item, self.expire_days) for row in rows if isinstance(row.item, PredictionRecord)
            ]
            feedback = [schema.to_feedback_row(row.item) for row in rows if isinstance(row.item, Feedback)]
        except (ValueError, OverflowError) as error:
            raise RowRefused(str(error)) from error
        # A statement is one round trip, and committed by the server whether or not its answer arrives.
        if predictions:
            values = [value for row in predictions for value in row]
            connection.execute(schema.insert(len(predictions)), values)
        if not feedback:
            return set()
        known = connection.execute(schema.INSERT_FEEDBACK, [list(column) for column in zip(*feedback, strict=True)])
        return {row[0] for row in feedback} - {found for (found,) in known.fetchall()}

    def _page(
        self, sql: str, values: Sequence[Any], timeout_s: float | None = None, *, withdrawn: bool = False
    ) -> list[LoggedPrediction]:
        feedback = schema.ALL_FEEDBACK if withdrawn else schema.FEEDBACK

        def read(seconds: float) -> list[tuple[Any, ...]]:
            return self._connections.run(lambda connection: _read(connection, sql, values, feedback), timeout_s=seconds)

        found = read(timeout_s) if timeout_s is not None else retrying(read, self._connections.timeout_s)
        return self._logged(found)

    def _logged(self, found: Sequence[tuple[Any, ...]]) -> list[LoggedPrediction]:
        try:
            return [
                LoggedPrediction(
                    schema.to_record(row),
                    tuple(Feedback(str(prediction_id), *rest) for prediction_id, *rest in feedback),
                )
                for feedback, *row in found
            ]
        except ValueError as error:
            raise DamagedLog(f"{self.address} is damaged: {error}; correct or delete that row") from error

    def _prepare(self, connection: Connection) -> None:
        """Make the tables if there are none, or bring them up to date."""
        if connection.info.server_version < schema.OLDEST_SERVER:
            raise SharedLogUnavailable(
                f"{self.address} is PostgreSQL {connection.info.server_version // 10_000}: 14 or newer is needed"
            )
        has_tables, _ = connection.execute(schema.FIND_TABLES).fetchall()[0]
        if not has_tables:
            self._create(connection)
        (version,) = connection.execute(schema.READ_VERSION).fetchall()[0]
        if version < schema.VERSION:
            self._migrate(connection, version)
        if version > schema.VERSION:
            raise SharedLogUnavailable(
                f"{self.address} was written by a newer version of this program (schema {version}, this one reads up "
                f"to {schema.VERSION}): install that version here too; until then rows wait on this machine"
            )

    def _migrate(self, connection: Connection, version: int) -> None:
        try:
            with connection.transaction():
                connection.execute(schema.LOCK)
                (version,) = connection.execute(schema.READ_VERSION).fetchall()[0]  # another machine may be first
                for statement in [each for old in range(version, schema.VERSION) for each in schema.MIGRATIONS[old]]:
                    connection.execute(statement)
        except InsufficientPrivilege as error:
            raise AccessDenied(
                f"{self.address} has a log of schema {version}, and the role {connection.info.user} may not bring it "
                f"to {schema.VERSION}: let the role that made it run `fashion log status` or the service once"
            ) from error

    def _create(self, connection: Connection) -> None:
        role, database = connection.info.user, connection.info.dbname
        try:
            with connection.transaction():
                connection.execute(schema.LOCK)
                has_tables, has_schema = connection.execute(schema.FIND_TABLES).fetchall()[0]
                if has_tables:
                    return  # another machine was first
                for statement in (*([] if has_schema else [schema.CREATE_SCHEMA]), *schema.CREATE):
                    connection.execute(statement)
        except InsufficientPrivilege as error:
            raise AccessDenied(
                f"{self.address} has no log yet, and the role {role} may not make one: let the owner of the database "
                f'{database} run `CREATE SCHEMA {schema.SCHEMA} AUTHORIZATION "{role}"`'
            ) from error


def _read(
    connection: Connection, sql: str, values: Sequence[Any], feedback_sql: str = schema.FEEDBACK
) -> list[tuple[Any, ...]]:
    """Return rows of schema.SELECT, with their feedback in the place of `labelled`."""
    # Binary: the text of a float32 would be read as another double.
    found = connection.execute(sql, values, binary=True).fetchall()
    feedback: dict[uuid.UUID, list[tuple[Any, ...]]] = {}
    if labelled := [row[1] for row in found if row[0]]:
        for row in connection.execute(feedback_sql, (labelled,), binary=True):
            feedback.setdefault(row[0], []).append(row)
    return [(feedback.get(row[1], []) if row[2] == "champion" else [], *row[1:]) for row in found]


def _key(logged: LoggedPrediction) -> Key:
    return schema.to_moment(logged.record.time_us), uuid.UUID(logged.record.prediction_id)
