"""Deleting rows of this machine's log: old ones, and all of one prediction. Knows no pictures and no other copies."""

import functools
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence

from fashion.predictions.log import PAGE_ROWS, PredictionLog
from fashion.predictions.schema import Key


def prune(log: PredictionLog, days: float, clock: Callable[[], int] = time.time_ns) -> int:
    """Delete predictions older than `days`, with their feedback, and return how many.

    Where the log is shipped, rows stay that wait to be shipped or were refused.

    Args:
        log: the log.
        days: the age from which predictions are deleted.
        clock: nanoseconds since 1970.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be written.
    """
    limit = clock() // 1000 - int(days * 86_400_000_000)
    after: Key | None = (0, "", "")
    dropped = 0
    while after is not None:  # in pages, so that writers get their turn
        count, after = log.database.write(functools.partial(_drop_page, limit_us=limit, after=after))
        dropped += count
    log.database.write(lambda connection: _drop_orphans(connection, limit))
    return dropped


def dropped_pictures(log: PredictionLog) -> tuple[list[str], list[str]]:
    """Digests of pictures of rows that were pruned: those that no row refers to, and those that one does.

    A digest is listed until `settle_pictures`, so that a process that is killed between a row and its picture leaves
    the picture to the next.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be read.
    """
    listed = {row[0] for row in log.database.read("SELECT image_sha256 FROM dropped_pictures")}
    used = _referred(log, sorted(listed))
    return sorted(listed - used), sorted(used)


def unreferred(log: PredictionLog, digests: Iterable[str]) -> list[str]:
    """Return those digests of pictures that no row of this log refers to.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be read.
    """
    listed = sorted(set(digests))  # before the log is read: a row is there before its picture is
    return sorted(set(listed) - _referred(log, listed))


def settle_pictures(log: PredictionLog, digests: Sequence[str]) -> None:
    """Take pictures off the list of `dropped_pictures`: they were deleted, or are needed.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be written.
    """
    rows = [(each,) for each in digests]
    if rows:
        log.database.write(
            lambda connection: connection.executemany("DELETE FROM dropped_pictures WHERE image_sha256 = ?", rows)
        )


def has_picture(log: PredictionLog, image_sha256: str, *, besides: str) -> bool:
    """Return True if a prediction is on this picture.

    Args:
        log: the log.
        image_sha256: of its pixels.
        besides: a prediction that does not count.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be read.
    """
    sql = "SELECT 1 FROM predictions WHERE image_sha256 = ? AND prediction_id <> ? LIMIT 1"
    return bool(log.database.scan(sql, (image_sha256, besides)))


def stop_shipping(log: PredictionLog, prediction_id: str) -> int:
    """Take all about a prediction out of the outbox, and return how many rows waited there.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be written.
    """
    sql = "DELETE FROM outbox WHERE prediction_id = ?"
    return int(log.database.write(lambda connection: connection.execute(sql, (prediction_id,)).rowcount))


def forget(log: PredictionLog, prediction_id: str) -> int:
    """Delete a prediction with its feedback, a shadow's too, from every byte of the log; return how many rows.

    Called again after it was killed, it completes.

    Args:
        log: the log.
        prediction_id: a uuid7 in lower case.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be written, or is read without a pause.
    """

    copies = log.database.read("SELECT probabilities FROM predictions WHERE prediction_id = ?", (prediction_id,))

    def delete(connection: sqlite3.Connection) -> int:
        connection.execute("DELETE FROM outbox WHERE prediction_id = ?", (prediction_id,))
        connection.execute("DELETE FROM facts WHERE name = 'problem' AND instr(value, ?)", (prediction_id,))
        connection.execute("DELETE FROM decisions WHERE prediction_id = ?", (prediction_id,))
        return sum(
            connection.execute(f"DELETE FROM {table} WHERE prediction_id = ?", (prediction_id,)).rowcount
            for table in ("feedback", "predictions")
        )

    count = int(log.database.write(delete))
    log.database.erase([prediction_id.encode(), *(row[0] for row in copies)])
    return count


def _referred(log: PredictionLog, digests: Sequence[str]) -> set[str]:
    if not digests:
        return set()
    sql = "SELECT DISTINCT image_sha256 FROM predictions WHERE image_sha256 IN (SELECT value FROM json_each(?))"
    return {row[0] for row in log.database.scan(sql, (json.dumps(list(digests)),))}


def _drop_page(connection: sqlite3.Connection, *, limit_us: int, after: Key) -> tuple[int, Key | None]:
    """Delete one page of old predictions; return how many, and the key that the next page starts after."""
    page = connection.execute(
        "SELECT time_us, prediction_id, role, image_sha256, "
        "EXISTS (SELECT 1 FROM outbox o WHERE o.prediction_id = p.prediction_id) "
        "FROM predictions p WHERE (time_us, prediction_id, role) > (?, ?, ?) AND time_us < ? "
        "ORDER BY time_us, prediction_id, role LIMIT ?",
        (*after, limit_us, PAGE_ROWS),
    ).fetchall()
    ships = connection.execute("SELECT 1 FROM facts WHERE name = 'destination'").fetchone()
    dropped = [row[1:4] for row in page if not (ships and row[4])]
    keys = [(prediction_id, role) for prediction_id, role, _ in dropped]
    answered = [(prediction_id,) for prediction_id, role in keys if role == "champion"]
    connection.executemany("INSERT OR IGNORE INTO dropped_pictures VALUES (?)", [(each[2],) for each in dropped])
    connection.executemany("DELETE FROM predictions WHERE prediction_id = ? AND role = ?", keys)
    connection.executemany("DELETE FROM feedback WHERE prediction_id = ?", answered)
    connection.executemany("DELETE FROM decisions WHERE prediction_id = ?", answered)
    connection.executemany("DELETE FROM outbox WHERE prediction_id = ? AND role = ?", keys)
    return len(keys), tuple(page[-1][:3]) if len(page) == PAGE_ROWS else None


def _drop_orphans(connection: sqlite3.Connection, limit_us: int) -> None:
    """Delete old feedback on predictions of other machines, once it is shipped."""
    connection.execute(
        "DELETE FROM feedback WHERE time_us < ? "
        "AND NOT EXISTS (SELECT 1 FROM predictions p WHERE p.prediction_id = feedback.prediction_id) "
        "AND NOT EXISTS (SELECT 1 FROM outbox o, facts ON o.feedback = feedback.sequence "
        "AND o.prediction_id = feedback.prediction_id AND facts.name = 'destination')",
        (limit_us,),
    )
    connection.execute(
        "DELETE FROM outbox WHERE feedback IS NOT NULL AND feedback NOT IN (SELECT sequence FROM feedback)"
    )
