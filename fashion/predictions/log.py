"""The prediction log of one machine: predictions and feedback, in an SQLite file that loses nothing.

When `append` returns, its records are on the disk, whichever process is killed next. Knows no models, requests or
destinations; what is shipped, and what is not yet, is in `PredictionLog.outbox`.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fashion.predictions.canary_ending import CanaryEnding
from fashion.predictions.database import Database, Row
from fashion.predictions.outbox import Outbox
from fashion.predictions.record import (
    FOREVER_US,
    Feedback,
    LoggedPrediction,
    PredictionRecord,
    UnknownPrediction,
    is_prediction_id,
)
from fashion.predictions.schema import (
    APPLICATION_ID,
    COUNTS,
    CREATE,
    DECIDE,
    DECIDED,
    INSERT,
    JUDGEMENT,
    LABELLED_BY,
    MIGRATIONS,
    OF_OTHERS,
    SELECTED,
    TRUE_LABEL,
    VERSION,
    Key,
    conditions,
    key_of,
    to_feedback,
    to_record,
    to_row,
)
from fashion.predictions.withdrawal import Decision, Decisions

PAGE_ROWS = 1000
"""Rows that are read, or deleted, at once."""


class PredictionLog:
    """The log in a file, which is made where there is none. Safe to call from threads; open one in each process.

    Every method raises LogUnavailable where the disk is full, read-only, broken or locked for long, and
    DamagedLog where the file is corrupt.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the log; one that an older version of this program wrote is brought up to date.

        Raises:
            LogUnavailable: also for a log of a newer version of this program, and for another program's file.
        """
        self.database = Database(
            path, create=CREATE, application_id=APPLICATION_ID, version=VERSION, migrations=MIGRATIONS
        )
        self.path = self.database.path
        self.outbox = Outbox(self.database)

    def __enter__(self) -> "PredictionLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    def append(self, records: Iterable[PredictionRecord], *, wait: bool = True) -> None:
        """Write all of the records or none. When this returns they are on the disk.

        A record that is already there is ignored, so a caller may try again.

        Args:
            records: any number of them.
            wait: for other threads and processes that write; the disk is waited for either way.

        Raises:
            ValueError: a different record has the same id and role.
            fashion.predictions.database.Busy: another thread or process writes now, and `wait` is False.
        """
        rows = [to_row(record) for record in records]

        def insert(connection: sqlite3.Connection) -> None:
            if connection.executemany(INSERT, rows).rowcount == len(rows):
                return
            for row in rows:
                sql = f"SELECT {SELECTED} FROM predictions p WHERE prediction_id = ? AND role = ?"
                if connection.execute(sql, row[:2]).fetchone() != row:
                    raise ValueError(f"prediction {row[0]} is already in the log, as {row[1]}, and differs")

        (self.database.write if wait else self.database.write_at_once)(insert)

    def append_feedback(self, feedback: Iterable[Feedback], *, known_elsewhere: bool = False) -> None:
        """Write all of the feedback or none. Feedback that is already there is ignored.

        Args:
            feedback: any number of items.
            known_elsewhere: accept feedback on predictions that are not in this log, because the caller has found
                them where all machines ship theirs to.

        Raises:
            UnknownPrediction: this log holds no such prediction, or an id is malformed.
        """
        rows = [(each.prediction_id, int(each.true_label), each.source, int(each.time_us)) for each in feedback]
        for prediction_id, *_ in rows:
            _check_known(is_prediction_id(prediction_id), prediction_id)

        def insert(connection: sqlite3.Connection) -> None:
            for prediction_id in {} if known_elsewhere else {row[0]: None for row in rows}:
                sql = "SELECT 1 FROM predictions WHERE prediction_id = ? AND role = 'champion'"
                _check_known(connection.execute(sql, (prediction_id,)).fetchone() is not None, prediction_id)
            connection.executemany(
                "INSERT INTO feedback (prediction_id, true_label, source, time_us) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (prediction_id, time_us, source, true_label) DO NOTHING",
                rows,
            )

        self.database.write(insert)

    def get(self, prediction_id: str, role: str = "champion") -> LoggedPrediction:
        """Return one prediction.

        Raises:
            UnknownPrediction: the log does not hold it.
        """
        _check_known(is_prediction_id(prediction_id), prediction_id)
        found = self._page("WHERE prediction_id = ? AND role = ?", (prediction_id, role))
        _check_known(bool(found), prediction_id)
        return found[0]

    def window(
        self,
        since_us: int,
        until_us: int,
        *,
        role: str | None = None,
        model_name: str | None = None,
        page_rows: int = PAGE_ROWS,
    ) -> Iterator[LoggedPrediction]:
        """Yield predictions of since <= time < until, oldest first, equal times by id.

        Args:
            since_us: microseconds since 1970, UTC.
            until_us: microseconds since 1970, UTC.
            role: only rows of this role.
            model_name: only rows of this registered model.
            page_rows: rows held in memory at once.
        """
        clause, values = conditions(role, model_name)
        after: Key = (since_us, "", "")
        while True:
            page = self._page(
                f"WHERE (time_us, prediction_id, role) > (?, ?, ?) AND time_us < ? {clause} "
                "ORDER BY time_us, prediction_id, role LIMIT ?",
                (*after, until_us, *values, page_rows),
            )
            yield from page
            if len(page) < page_rows:
                return
            after = key_of(page[-1].record)

    def latest(
        self,
        rows: int,
        *,
        role: str | None = None,
        model_name: str | None = None,
        with_feedback: bool = False,
        withdrawn: bool = False,
        page_rows: int = PAGE_ROWS,
    ) -> Iterator[LoggedPrediction]:
        """Yield at most `rows` predictions, newest first.

        Args:
            rows: the most to yield.
            role: only rows of this role.
            model_name: only rows of this registered model.
            with_feedback: only predictions that have feedback.
            withdrawn: with feedback that does not count, too.
            page_rows: rows held in memory at once.
        """
        clause, values = conditions(role, model_name)
        if with_feedback:
            counts = "" if withdrawn else f" AND {COUNTS}"
            clause += f" AND EXISTS (SELECT 1 FROM feedback f WHERE f.prediction_id = p.prediction_id{counts})"
        before: Key = (FOREVER_US, "", "")
        while rows > 0:
            size = min(rows, page_rows)
            page = self._page(
                f"WHERE (time_us, prediction_id, role) < (?, ?, ?) {clause} "
                "ORDER BY time_us DESC, prediction_id DESC, role DESC LIMIT ?",
                (*before, *values, size),
                withdrawn=withdrawn,
            )
            yield from page
            if len(page) < size:
                return
            rows, before = rows - size, key_of(page[-1].record)

    def row_pages(
        self,
        since_us: int,
        until_us: int,
        *,
        role: str,
        newest: int | None = None,
        page_rows: int = 10 * PAGE_ROWS,
    ) -> Iterator[list[Row]]:
        """Yield what `window` does, without an object for each row: pages of undecoded rows, as `batch` reads them.

        A row holds the columns of `schema.SELECTED`, then the true label and its source, or None twice.

        Args:
            since_us: microseconds since 1970, UTC.
            until_us: microseconds since 1970, UTC.
            role: only rows of this role.
            newest: only this many rows, the latest ones.
            page_rows: rows held in memory at once.
        """
        after: Key = (since_us, "", "")
        inclusive = True
        if newest is not None:
            found = self.database.read(
                "SELECT time_us, prediction_id, role FROM predictions WHERE time_us >= ? AND time_us < ? AND role = ? "
                "ORDER BY time_us DESC, prediction_id DESC, role DESC LIMIT 1 OFFSET ?",
                (since_us, until_us, role, newest - 1),
            )
            after = found[0] if found else after
        while True:
            page = self.database.read(
                f"SELECT {SELECTED}, {TRUE_LABEL}, {LABELLED_BY} FROM predictions p "
                f"WHERE (time_us, prediction_id, role) {'>=' if inclusive else '>'} (?, ?, ?) AND time_us < ? "
                "AND role = ? ORDER BY time_us, prediction_id, role LIMIT ?",
                (*after, until_us, role, page_rows),
            )
            if page:
                yield page
            if len(page) < page_rows:
                return
            inclusive, last = False, page[-1]
            after = (last[2], last[0], last[1])

    def span(self, since_us: int, until_us: int, *, role: str) -> tuple[int, int] | None:
        """Return the times of the first and last prediction of since <= time < until, None without one.

        Args:
            since_us: microseconds since 1970, UTC.
            until_us: microseconds since 1970, UTC.
            role: only rows of this role.

        Raises:
            LogUnavailable: the log cannot be read.
        """
        ((first, last),) = self.database.read(
            "SELECT min(time_us), max(time_us) FROM predictions WHERE time_us >= ? AND time_us < ? AND role = ?",
            (since_us, until_us, role),
        )
        return None if first is None else (int(first), int(last))

    def count(
        self,
        since_us: int = 0,
        until_us: int = FOREVER_US,
        *,
        role: str | None = None,
        model_name: str | None = None,
    ) -> int:
        """Return how many predictions `window` would yield for the same arguments.

        Args:
            since_us: microseconds since 1970, UTC.
            until_us: microseconds since 1970, UTC.
            role: only rows of this role.
            model_name: only rows of this registered model.
        """
        clause, values = conditions(role, model_name)
        sql = f"SELECT count(*) FROM predictions p WHERE time_us >= ? AND time_us < ? {clause}"
        return int(self.database.read(sql, (since_us, until_us, *values))[0][0])

    def late_feedback_pages(
        self, since_us: int, until_us: int, *, oldest_us: int, page_rows: int = 10 * PAGE_ROWS
    ) -> Iterator[list[Row]]:
        """Yield the feedback of a span on others' predictions of before it, where it is the one that counts.

        A row holds model_name, model_version, model_digest, label, true_label, prediction_id, image_sha256 and client.

        Args:
            since_us: microseconds since 1970, UTC.
            until_us: microseconds since 1970, UTC.
            oldest_us: time of the earliest prediction that is looked at, likewise.
            page_rows: rows held in memory at once.
        """
        after = 0
        while True:
            # CROSS JOIN: feedback is walked by its number, and each prediction looked up, whatever SQLite estimates.
            page = self.database.scan(
                "SELECT f.sequence, p.model_name, p.model_version, p.model_digest, p.label, f.true_label, "
                "p.prediction_id, p.image_sha256, p.client FROM feedback f "
                "CROSS JOIN predictions p ON p.prediction_id = f.prediction_id AND p.role = 'champion' "
                "WHERE f.sequence > ? AND f.time_us >= ? AND f.time_us < ? AND p.time_us >= ? AND p.time_us < ? "
                f"AND f.sequence = {JUDGEMENT} AND {OF_OTHERS} ORDER BY f.sequence LIMIT ?",
                (after, since_us, until_us, oldest_us, since_us, page_rows),
            )
            if page:
                yield [row[1:] for row in page]
            if len(page) < page_rows:
                return
            after = page[-1][0]

    def add_export(self, address: str) -> None:
        """Note where copies of rows are written to, for `exports`.

        Args:
            address: of a file, a folder or a bucket.
        """
        self.database.write(
            lambda connection: connection.execute("INSERT OR IGNORE INTO exports VALUES (?)", (address,))
        )

    def exports(self) -> list[str]:
        """Return the addresses of all files, folders and buckets that rows were exported to."""
        return [row[0] for row in self.database.read("SELECT address FROM exports ORDER BY address")]

    def decide(self, decisions: Iterable[Decision]) -> None:
        """Store that feedback counts no more, or again. All of the decisions or none."""
        rows = [each.as_row() for each in decisions]
        self.database.write(lambda connection: connection.executemany(DECIDE, rows))

    def decisions(self) -> Decisions:
        """Return all decisions on feedback, the oldest first."""
        return Decisions(Decision(*row) for row in self.database.read(DECIDED))

    def end_canary(self, ending: CanaryEnding) -> None:
        """Store how the comparison of a canary ended, in place of an earlier one of the same versions."""
        row = (ending.name, ending.as_text())
        self.database.write(lambda connection: connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", row))

    def canary_ending(self, name: str) -> CanaryEnding | None:
        """Return how the comparison of a canary ended; None where it has not.

        Args:
            name: `CanaryEnding.name`.
        """
        found = self.database.read("SELECT value FROM facts WHERE name = ?", (name,))
        return CanaryEnding.of_text(found[0][0], str(self.path)) if found else None

    def _page(self, clause: str, values: Sequence[Any], *, withdrawn: bool = False) -> list[LoggedPrediction]:
        found = self.database.read(f"SELECT {SELECTED} FROM predictions p {clause}", values)
        with self.database.translate_errors():
            records = [to_record(row) for row in found]
        found = self.database.read(
            "SELECT f.prediction_id, f.true_label, f.source, f.time_us FROM feedback f "
            f"WHERE f.prediction_id IN (SELECT value FROM json_each(?)) {'' if withdrawn else f'AND {COUNTS}'} "
            "ORDER BY f.time_us, f.sequence",
            (json.dumps([record.prediction_id for record in records if record.role == "champion"]),),
        )
        feedback: dict[str, list[Feedback]] = {}
        with self.database.translate_errors():
            for row in found:
                feedback.setdefault(row[0], []).append(to_feedback(row))
        return [
            LoggedPrediction(record, tuple(feedback.get(record.prediction_id, ())) if record.role == "champion" else ())
            for record in records
        ]


def _check_known(known: bool, prediction_id: str) -> None:
    if not known:
        named = prediction_id if is_prediction_id(prediction_id) else repr(prediction_id[:40])
        raise UnknownPrediction(f"no prediction {named} in the log")
