"""The prediction log over time: counts by slots of five minutes, in a file of its own, each row read once.

The file holds nothing that the log does not, but for requests, which the log does not know. A file that is damaged, of
another version, or of another state of the log is made anew. Knows no pages.
"""

import contextlib
import fcntl
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from fashion.predictions import slot_counting
from fashion.predictions.database import Row
from fashion.predictions.derived_file import DerivedFile
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import ModelId
from fashion.predictions.slot_counting import UntypicalCounter
from fashion.predictions.slots import (
    KEEP_US,
    SLOT_US,
    Period,
    Span,
    Traffic,
    Version,
    pack_histogram,
    unpack_histogram,
)

VERSION = 1
"""Of the tables; a file of another version is made anew."""
APPLICATION_ID = 0x46415354
"""Tells this file from other SQLite files: `FAST`."""
SUFFIX = "-over-time.db"
"""What the file's name ends in; it begins like the log's."""
COMMIT_SLOTS = 100
"""Slots that are counted between two commits, at most."""
CREATE = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE pending (slot INTEGER PRIMARY KEY, labels_only INTEGER NOT NULL)",
    """CREATE TABLE traffic (
        slot INTEGER NOT NULL, role TEXT NOT NULL, model_name TEXT NOT NULL, model_version TEXT NOT NULL,
        model_digest TEXT NOT NULL, num_rows INTEGER NOT NULL, confidence REAL NOT NULL, latency BLOB NOT NULL,
        judged INTEGER NOT NULL, untypical INTEGER NOT NULL,
        PRIMARY KEY (slot, role, model_name, model_version, model_digest)) WITHOUT ROWID""",
    """CREATE TABLE labels (
        slot INTEGER NOT NULL, model_name TEXT NOT NULL, model_version TEXT NOT NULL, model_digest TEXT NOT NULL,
        labelled INTEGER NOT NULL, correct INTEGER NOT NULL,
        PRIMARY KEY (slot, model_name, model_version, model_digest)) WITHOUT ROWID""",
    """CREATE TABLE requests (
        slot INTEGER NOT NULL, status INTEGER NOT NULL, requests INTEGER NOT NULL,
        PRIMARY KEY (slot, status)) WITHOUT ROWID""",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)
_TOKEN, _NEXT, _FEEDBACK, _DECISION, _SINCE = "token", "next token", "feedback", "decision", "requests since"
_UNREAD = "-"
"""Token of a file whose slots are not listed yet."""


class OverTime:
    """Counts of one log. Safe to call from threads, and from several processes.

    Every method raises LogUnavailable where the log or the file cannot be used.
    """

    def __init__(
        self,
        log: PredictionLog,
        *,
        untypical: UntypicalCounter | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """
        Args:
            log: what is counted; nothing is read or opened before the first call.
            untypical: of the model that is served, if it can tell.
            clock: nanoseconds since 1970.
        """
        self.path = log.path.with_name(log.path.stem + SUFFIX)
        self._log, self._untypical, self._clock = log.database, untypical, clock
        self._file = DerivedFile(self.path, create=CREATE, application_id=APPLICATION_ID, version=VERSION)
        self._counting = threading.Lock()

    def close(self) -> None:
        """Close the file."""
        with self._counting:
            self._file.close()

    def advance(self, seconds: float, *, pause: float = 0.0) -> int:
        """Count what has changed, the newest first, and return how many slots still wait.

        Of several processes and threads one counts; for the others this returns at once.

        Args:
            seconds: how long to count; at least one slot is.
            pause: how long to leave the processor to others after each slot, as a multiple of the time it took.
        """
        self._file.run(lambda: self._advance(seconds, pause))
        return self.waiting()

    def waiting(self) -> int:
        """Return how many slots are not counted, or counted as they were before a change."""
        return int(self._file.run(lambda: self._file.read("SELECT count(*) FROM pending"))[0][0])

    def periods(self, span: Span) -> list[Period]:
        """Return what is counted of a span, the oldest first; the last period is under way.

        Args:
            span: ends now.
        """
        return self._file.run(lambda: self._periods(span))

    def add_requests(self, by_status: Mapping[int, int]) -> None:
        """Count requests for predictions that were answered by now.

        Args:
            by_status: HTTP status -> how many.
        """
        now_us = self._clock() // 1000
        rows = [(now_us // SLOT_US, status, count) for status, count in by_status.items()]

        def add(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (_SINCE, str(now_us)))
            connection.executemany(
                "INSERT INTO requests VALUES (?, ?, ?) "
                "ON CONFLICT (slot, status) DO UPDATE SET requests = requests + excluded.requests",
                rows,
            )

        self._file.run(lambda: self._file.write(add))

    def requests_since_us(self) -> int | None:
        """Return from when on requests are counted, microseconds since 1970, UTC; None if none was."""
        since = self._file.run(self._facts).get(_SINCE)
        return None if since is None else int(since)

    def _advance(self, seconds: float, pause: float) -> None:
        deadline = time.monotonic() + seconds
        with self._alone() as alone:
            if not alone:
                return
            self._find_changes()
            sql = f"SELECT slot, labels_only FROM pending ORDER BY slot DESC LIMIT {COMMIT_SLOTS}"
            with self._log.reading() as log:
                while waiting := self._file.read(sql):
                    self._count(log, waiting, deadline, pause=pause)
                    if time.monotonic() >= deadline:
                        return

    def _periods(self, span: Span) -> list[Period]:
        periods = span.periods(self._clock() // 1000)
        first, per_step = periods[0].since_us // SLOT_US, span.step_us // SLOT_US
        values = (first, per_step, first, periods[-1].until_us // SLOT_US)

        def read(columns: str, table: str, group: str = "") -> list[Row]:
            return self._file.read(
                f"SELECT (slot - ?) / ?, {columns} FROM {table} WHERE slot >= ? AND slot < ? {group}", values
            )

        by_version: dict[Row, list[Row]] = {}
        columns = "role, model_name, model_version, model_digest, num_rows, confidence, judged, untypical, latency"
        for row in read(columns, "traffic"):
            by_version.setdefault(row[:5], []).append(row)
        for (step, role, *model), rows in by_version.items():  # a month has 8,640 slots: they are added up at once
            *sums, latencies = list(zip(*rows, strict=True))[5:]
            num_rows, confidence, judged, untypical = map(sum, sums)
            latency = unpack_histogram(b"".join(latencies))
            periods[step].of(Version(role, _to_model(model))).add(
                Traffic(num_rows, confidence, latency, judged, untypical)
            )
        for step, *model, labelled, right in read(
            "model_name, model_version, model_digest, labelled, correct", "labels"
        ):
            periods[step].of(Version("champion", _to_model(model))).add(Traffic(labelled=labelled, right=right))
        for step, status, requests in read("status, sum(requests)", "requests", "GROUP BY 1, 2"):
            periods[step].requests[status] = requests
        return periods

    def _find_changes(self) -> None:
        """List the slots that are to be counted.

        The marks are listed here before the log forgets them, and the log forgets them before their slots are read:
        whichever process is killed in between, a row is counted, and what changes later is marked anew.
        """
        slot_counting.track_changes(self._log)
        since_us = self._clock() // 1000 - KEEP_US
        facts, token = self._facts(), slot_counting.read_token(self._log)
        marked = slot_counting.marked_slots(self._log)
        is_new = token is None or token not in (facts.get(_TOKEN), facts.get(_NEXT))
        if is_new or token == _UNREAD:
            self._start_anew(marked, since_us)
            return
        numbers = slot_counting.last_numbers(self._log)
        known = int(facts[_FEEDBACK]), int(facts[_DECISION])
        relabelled = slot_counting.relabelled_slots(self._log, *known, since_us) if numbers != known else set()
        share = self._share()
        is_same_share = share.items() <= facts.items()
        unjudged = self._slots_of_served(only_unjudged=is_same_share)
        if not marked and not unjudged and is_same_share and numbers == known:
            return
        after = secrets.token_hex(8) if marked else token
        found = {_TOKEN: token, _NEXT: after, _FEEDBACK: numbers[0], _DECISION: numbers[1], **share}
        self._list({slot for slot in marked if (slot + 1) * SLOT_US > since_us} | unjudged, relabelled, found)
        if after != token:
            slot_counting.take_marks(self._log, marked, str(after))
            self._list((), (), {_TOKEN: after})  # from now on a log of before is another one

    def _start_anew(self, marked: Sequence[int], since_us: int) -> None:
        """Forget what was counted, and list all slots of the log."""
        slot_counting.take_marks(self._log, marked, _UNREAD)
        numbers, slots = slot_counting.last_numbers(self._log), slot_counting.filled_slots(self._log, since_us)

        def forget(connection: sqlite3.Connection) -> None:
            for table in ("pending", "traffic", "labels"):
                connection.execute(f"DELETE FROM {table}")
            connection.execute("DELETE FROM facts WHERE name <> ?", (_SINCE,))

        token = secrets.token_hex(8)
        self._file.write(forget)
        self._list(slots, (), {_TOKEN: token, _FEEDBACK: numbers[0], _DECISION: numbers[1], **self._share()})
        slot_counting.take_marks(self._log, (), token)

    def _list(self, whole: Iterable[int], relabelled: Iterable[int], facts: Mapping[str, Any]) -> None:
        oldest = (self._clock() // 1000 - KEEP_US) // SLOT_US

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR REPLACE INTO pending VALUES (?, 0)", [(each,) for each in whole])
            connection.executemany("INSERT OR IGNORE INTO pending VALUES (?, 1)", [(each,) for each in relabelled])
            rows = [(name, str(value)) for name, value in facts.items()]
            connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)
            for table in ("traffic", "labels", "requests", "pending"):
                connection.execute(f"DELETE FROM {table} WHERE slot < ?", (oldest,))

        self._file.write(write)

    def _slots_of_served(self, *, only_unjudged: bool) -> set[int]:
        """Slots with rows of the served model.

        Args:
            only_unjudged: only those where nobody could compare the pictures with what the model has learnt.
        """
        if self._untypical is None:
            return set()
        which = f"model_name = ? AND model_version = ? AND model_digest = ? {'AND judged = 0' if only_unjudged else ''}"
        return {
            row[0] for row in self._file.read(f"SELECT slot FROM traffic WHERE {which}", self._untypical.model.order)
        }

    def _share(self) -> dict[str, str]:
        """The fact that says by which share the rows of the served model were judged."""
        counter = self._untypical
        return {} if counter is None else {f"share {'/'.join(counter.model.order)}": repr(counter.share)}

    def _count(self, log: sqlite3.Connection, waiting: Sequence[Row], deadline: float, *, pause: float) -> None:
        """Count slots until a deadline, at least one, and store what was counted."""
        counted: list[tuple[int, dict[Version, Traffic] | None, dict[ModelId, tuple[int, int]]]] = []
        for slot, labels_only in waiting:
            begun = time.monotonic()
            traffic = None if labels_only else slot_counting.count_traffic(log, slot, self._untypical)
            counted.append((slot, traffic, slot_counting.count_labels(log, slot)))
            if pause:
                time.sleep(pause * (time.monotonic() - begun))
            if time.monotonic() >= deadline:
                break

        def store(connection: sqlite3.Connection) -> None:
            for slot, traffic, labels in counted:
                if traffic is not None:
                    _store_traffic(connection, slot, traffic)
                connection.execute("DELETE FROM labels WHERE slot = ?", (slot,))
                rows = [(slot, *model.order, *numbers) for model, numbers in labels.items()]
                connection.executemany("INSERT INTO labels VALUES (?, ?, ?, ?, ?, ?)", rows)
                connection.execute("DELETE FROM pending WHERE slot = ?", (slot,))

        self._file.write(store)

    def _facts(self) -> dict[str, str]:
        return dict(self._file.read("SELECT name, value FROM facts"))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether this thread is the one of all processes that counts."""
        if not self._counting.acquire(blocking=False):
            yield False
            return
        try:
            with self.path.with_name(self.path.name + ".lock").open("ab") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel frees it when the process dies
                except BlockingIOError:
                    yield False
                else:
                    yield True
        finally:
            self._counting.release()


def _store_traffic(connection: sqlite3.Connection, slot: int, traffic: Mapping[Version, Traffic]) -> None:
    """Replace the counts of a slot. What was known of a model's pictures stays where this process cannot tell."""
    sql = "SELECT role, model_name, model_version, model_digest, judged, untypical FROM traffic WHERE slot = ?"
    known = {row[:4]: row[4:] for row in connection.execute(sql, (slot,))}
    connection.execute("DELETE FROM traffic WHERE slot = ?", (slot,))
    for version, each in traffic.items():
        key = (version.role, *version.model.order)
        judged = each.judged, each.untypical
        if not each.judged and known.get(key, (0, 0))[0] <= each.rows:
            judged = known.get(key, judged)
        connection.execute(
            "INSERT INTO traffic VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (slot, *key, each.rows, each.confidence, pack_histogram(each.latency), *judged),
        )


def _to_model(columns: Sequence[str]) -> ModelId:
    """The model of `ModelId.order`: keys hold no NULL, and no name is empty."""
    return ModelId(columns[0] or None, columns[1], columns[2] or None)
