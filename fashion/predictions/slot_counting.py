"""Counting slots of the prediction log, and finding those that have changed. Knows SQL, and no file but the log's.

The log marks each slot in which a row was added or deleted, with a trigger, so that no program can forget to. A mark is
written once until it is taken: a commit seldom writes a page more. Feedback and decisions have numbers that only grow.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.images.statistics import STATISTICS
from fashion.model.predictor import EMBEDDING_SIZE
from fashion.predictions.database import Database, Row
from fashion.predictions.record import ModelId
from fashion.predictions.schema import OF_OTHERS, TRUE_LABEL
from fashion.predictions.slots import SLOT_US, Traffic, Version, latency_histogram

PAGE_ROWS = 10_000
"""Rows that are held in memory at once."""
WIDE_DECISIONS = 8
"""Of more decisions about many predictions, every labelled slot is counted anew."""
TOKEN = "over_time"
"""Fact of the log: which state of the counts it belongs to."""

TRACK_CHANGES = (
    "CREATE TABLE IF NOT EXISTS changed_slots (slot INTEGER PRIMARY KEY)",
    *(
        f"""CREATE TRIGGER IF NOT EXISTS mark_{event.lower()} AFTER {event} ON predictions
            WHEN NOT EXISTS (SELECT 1 FROM changed_slots WHERE slot = {row}.time_us / {SLOT_US}) BEGIN
            INSERT INTO changed_slots VALUES ({row}.time_us / {SLOT_US}); END"""
        for event, row in (("INSERT", "new"), ("DELETE", "old"))
    ),
)
"""Not a part of the log's schema: programs that know nothing of it can use the log, and they mark slots too."""

_IN_SLOT = "p.time_us >= ? AND p.time_us < ?"
_LABELLED = "feedback f JOIN predictions p ON p.prediction_id = f.prediction_id AND p.role = 'champion'"


@dataclass(frozen=True)
class UntypicalCounter:
    """Tells pictures that are unlike anything learnt, of one model."""

    model: ModelId
    share: float
    """The least usual share of pictures as in training that is called untypical."""
    count: Callable[[NDArray[np.float64]], int]
    """Takes (N, 24) embeddings and statistics."""


def track_changes(log: Database) -> None:
    """Let a log mark the slots that change from now on.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be written.
    """
    if not log.read("SELECT 1 FROM sqlite_master WHERE name = 'mark_delete'"):
        log.write(lambda connection: [connection.execute(statement) for statement in TRACK_CHANGES])


def read_token(log: Database) -> str | None:
    """Which state of the counts the log belongs to; None where nothing was counted.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be read.
    """
    found = log.read("SELECT value FROM facts WHERE name = ?", (TOKEN,))
    return str(found[0][0]) if found else None


def marked_slots(log: Database) -> list[int]:
    """Slots that have changed since their marks were taken.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be read.
    """
    return [row[0] for row in log.read("SELECT slot FROM changed_slots")]


def take_marks(log: Database, slots: Sequence[int], token: str) -> None:
    """Remove marks, and note which state of the counts has them. What changes from now on is marked anew.

    Args:
        log: the log.
        slots: whose marks are removed.
        token: of the state of the counts.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be written.
    """

    def take(connection: sqlite3.Connection) -> None:
        connection.executemany("DELETE FROM changed_slots WHERE slot = ?", [(slot,) for slot in slots])
        connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (TOKEN, token))

    log.write(take)


def filled_slots(log: Database, since_us: int) -> list[int]:
    """Slots with rows, found by one look-up each.

    Args:
        log: the log.
        since_us: slots of before are left out; microseconds since 1970, UTC.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be read.
    """
    found = log.scan(
        "WITH RECURSIVE slots (slot) AS ("
        f"SELECT (SELECT min(time_us) FROM predictions WHERE time_us >= ?) / {SLOT_US} UNION ALL "
        f"SELECT (SELECT min(time_us) FROM predictions WHERE time_us >= (slot + 1) * {SLOT_US}) / {SLOT_US} "
        "FROM slots WHERE slot IS NOT NULL) SELECT slot FROM slots WHERE slot IS NOT NULL",
        (since_us,),
    )
    return [row[0] for row in found]


def last_numbers(log: Database) -> tuple[int, int]:
    """The numbers of the latest feedback and of the latest decision; 0 without one.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be read.
    """
    ((feedback, decision),) = log.read(
        "SELECT (SELECT max(sequence) FROM feedback), (SELECT max(sequence) FROM decisions)"
    )
    return feedback or 0, decision or 0


def relabelled_slots(log: Database, feedback: int, decision: int, since_us: int) -> set[int]:
    """Slots whose labels may have changed since some feedback and some decision.

    Args:
        log: the log.
        feedback: number of the latest feedback that was looked at.
        decision: likewise.
        since_us: slots of before are left out; microseconds since 1970, UTC.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be read.
    """
    select = f"SELECT DISTINCT p.time_us / {SLOT_US} FROM {_LABELLED} WHERE p.time_us >= ?"
    found = log.scan(f"{select} AND f.sequence > ?", (since_us, feedback))
    decisions = log.read(
        "SELECT since_us, until_us, source, prediction_id FROM decisions WHERE sequence > ?", (decision,)
    )
    if sum(each[3] is None for each in decisions) > WIDE_DECISIONS:
        found += log.scan(select, (since_us,))
    else:
        for since, until, source, prediction_id in decisions:
            which = "AND f.time_us >= ? AND f.time_us < ?"
            values: list[Any] = [since_us, since, until]
            for column, value in (("source", source), ("prediction_id", prediction_id)):
                if value is not None:
                    which, values = f"{which} AND f.{column} = ?", [*values, value]
            found += log.scan(f"{select} {which}", values)
    return {row[0] for row in found}


def count_traffic(log: sqlite3.Connection, slot: int, untypical: UntypicalCounter | None) -> dict[Version, Traffic]:
    """Count the rows of a slot, but for labels; requests of this project's own checks are left out.

    Args:
        log: a connection to the log.
        slot: which one.
        untypical: of the model that is served; rows of others stay without.
    """
    # What is not judged is not read: half of a row's bytes.
    judged = "p.model_digest = ? AND p.model_version = ? AND p.model_name = ?"
    served = (None, None, None) if untypical is None else (untypical.model[2], untypical.model[1], untypical.model[0])
    found: dict[Version, Traffic] = {}
    rows_of_slot = log.execute(
        "SELECT p.role, p.model_name, p.model_version, p.model_digest, p.confidence, p.latency_ms, "
        f"CASE WHEN {judged} THEN p.embedding END, CASE WHEN {judged} THEN p.statistics END "
        f"FROM predictions p WHERE {_IN_SLOT} AND {OF_OTHERS}",
        (*served, *served, slot * SLOT_US, (slot + 1) * SLOT_US),
    )
    while page := rows_of_slot.fetchmany(PAGE_ROWS):
        for version, rows in _by_version(page):
            traffic = Traffic(len(rows), sum(row[4] for row in rows), latency_histogram(row[5] for row in rows))
            if untypical is not None and version.model == untypical.model:
                features = _features(rows)
                traffic.judged, traffic.untypical = len(features), untypical.count(features) if len(features) else 0
            found.setdefault(version, Traffic()).add(traffic)
    return found


def count_labels(log: sqlite3.Connection, slot: int) -> dict[ModelId, tuple[int, int]]:
    """Rows of a slot with feedback that counts, and how many of them were answered right, by model.

    Args:
        log: a connection to the log.
        slot: which one.
    """
    found = log.execute(
        "SELECT model_name, model_version, model_digest, count(*), sum(label = true_label) FROM ("
        f"SELECT p.model_name, p.model_version, p.model_digest, p.label, {TRUE_LABEL} AS true_label "
        f"FROM predictions p WHERE {_IN_SLOT} AND p.role = 'champion' AND {OF_OTHERS} "
        "AND EXISTS (SELECT 1 FROM feedback f WHERE f.prediction_id = p.prediction_id)) "
        "WHERE true_label IS NOT NULL GROUP BY 1, 2, 3",
        (slot * SLOT_US, (slot + 1) * SLOT_US),
    )
    return {ModelId(*row[:3]): (row[3], row[4]) for row in found}


def _by_version(page: Sequence[Row]) -> Iterator[tuple[Version, Sequence[Row]]]:
    keys = [row[:4] for row in page]
    different = set(keys)
    for key in different:
        rows = page if len(different) == 1 else [row for row, its in zip(page, keys, strict=True) if its == key]
        yield Version(key[0], ModelId(*key[1:])), rows


def _features(rows: Sequence[Row]) -> NDArray[np.float64]:
    """(N, 24) embeddings and statistics, of the rows that have them in full."""
    sizes = 2 * EMBEDDING_SIZE, 4 * len(STATISTICS)
    whole = [row for row in rows if row[6] is not None and (len(row[6]), len(row[7])) == sizes]
    embeddings = np.frombuffer(b"".join(row[6] for row in whole), "<f2").reshape(-1, EMBEDDING_SIZE)
    statistics = np.frombuffer(b"".join(row[7] for row in whole), "<f4").reshape(-1, len(STATISTICS))
    return np.concatenate([embeddings, statistics], axis=1, dtype=np.float64)
