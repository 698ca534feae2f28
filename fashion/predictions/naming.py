"""Saying afterwards which model predicted, for rows of before logs held names. Knows no registry."""

import functools
import sqlite3
from collections.abc import Sequence

from fashion.predictions.log import PAGE_ROWS, PredictionLog
from fashion.predictions.record import KnownModel
from fashion.predictions.schema import Key


def count_unnamed(log: PredictionLog) -> int:
    """Return how many rows do not name their model.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be read.
    """
    return int(log.database.scan("SELECT count(*) FROM predictions WHERE model_name IS NULL")[0][0])


def name_rows(log: PredictionLog, known: Sequence[KnownModel]) -> int:
    """Give rows that do not name their model the name and digest of the version that they can only be of.

    Args:
        log: the log; what was shipped already stays as it is in the shared log, which `SharedLog.name_rows` changes.
        known: versions of one registered model.

    Returns:
        The number of rows that were given a name. Others are of other versions, older than theirs, or have another
        number of classes.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be written.
    """
    by_version = {each.model.version: each for each in known}
    after: Key | None = (-1, "", "")
    named = 0
    while after is not None:  # in pages, so that other writers get their turn
        count, after = log.database.write(functools.partial(_name_page, known=by_version, after=after))
        named += count
    return named


def _name_page(connection: sqlite3.Connection, *, known: dict[str, KnownModel], after: Key) -> tuple[int, Key | None]:
    """Name one page of rows; return how many, and the key that the next page starts after."""
    page = connection.execute(
        "SELECT time_us, prediction_id, role, model_version, length(probabilities) / 4 FROM predictions "
        "WHERE model_name IS NULL AND (time_us, prediction_id, role) > (?, ?, ?) "
        "ORDER BY time_us, prediction_id, role LIMIT ?",
        (*after, PAGE_ROWS),
    ).fetchall()
    rows = []
    for time_us, prediction_id, role, version, num_classes in page:
        found = known.get(version)
        if found is not None and found.may_be(time_us, num_classes):
            rows.append((found.model.name, found.model.digest, prediction_id, role))
    connection.executemany(
        "UPDATE predictions SET model_name = ?, model_digest = ? WHERE prediction_id = ? AND role = ?", rows
    )
    return len(rows), tuple(page[-1][:3]) if len(page) == PAGE_ROWS else None
