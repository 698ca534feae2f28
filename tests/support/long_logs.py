"""Logs of many rows over a month, written straight into SQLite: daily rhythm, three versions, a bad day, labels."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.predictions.log import PredictionLog
from fashion.predictions.record import ModelId, pack

CHUNK = 20_000
"""Rows that are made at once."""
LABELLED = 0.02
"""Share of the rows with feedback."""
DAY_US = 86_400_000_000


def fill(
    path: Path,
    rows: int,
    *,
    now_us: int,
    model: ModelId,
    features: NDArray[np.float64] | None = None,
    days: float = 30,
    seed: int = 0,
) -> None:
    """Write rows of the last days, the oldest first.

    Args:
        path: of the log; it is made.
        rows: how many.
        now_us: end of the days, microseconds since 1970, UTC.
        model: of the latest version; two earlier ones have lower numbers.
        features: (N, 24) embeddings and statistics to draw from; None for normal ones.
        days: how many.
        seed: of the random numbers.
    """
    PredictionLog(path).close()
    generator = np.random.default_rng(seed)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    done = 0
    for times in _times(generator, rows, now_us, days):
        records, feedback = _rows(generator, times, now_us, days, model, features, done)
        connection.execute("BEGIN")
        connection.executemany(f"INSERT INTO predictions VALUES ({', '.join('?' * 14)})", records)
        connection.executemany(
            "INSERT INTO feedback (prediction_id, true_label, source, time_us) VALUES (?, ?, ?, ?)", feedback
        )
        connection.execute("COMMIT")
        done += len(times)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _times(generator: np.random.Generator, rows: int, now_us: int, days: float) -> Iterator[NDArray[np.int64]]:
    """Times in order, more of them in the afternoon than at night."""
    hours = np.arange(int(24 * days))
    start = now_us - int(days * DAY_US)
    of_day = (start // 3_600_000_000 + hours) % 24
    weight = 1.15 + np.sin((of_day - 8) / 24 * 2 * np.pi)
    counts = generator.multinomial(rows, weight / weight.sum())
    for hour, count in zip(hours, counts, strict=True):
        times = start + hour * 3_600_000_000 + np.sort(generator.integers(0, 3_600_000_000, count))
        for first in range(0, count, CHUNK):
            yield times[first : first + CHUNK]


def _rows(
    generator: np.random.Generator,
    times: NDArray[np.int64],
    now_us: int,
    days: float,
    model: ModelId,
    features: NDArray[np.float64] | None,
    first: int,
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    count = len(times)
    age = (now_us - times) / DAY_US
    bad = (age < 0.32 * days) & (age > 0.25 * days)
    confidence = np.clip(generator.beta(9, 1, count) - 0.16 * bad, 0, 1)
    latency = generator.lognormal(1.4, 0.5, count) * (1 + 1.5 * (generator.random(count) < 0.05))
    labels = generator.integers(0, 10, count)
    if features is None:
        drawn = generator.normal(size=(count, 24))
    else:
        drawn = features[generator.integers(0, len(features), count)]
    drawn = drawn + bad[:, None] * (generator.random(count) < 0.2)[:, None] * 4 * drawn.std(axis=0)
    embeddings, statistics = drawn[:, :16].astype("<f2"), drawn[:, 16:].astype("<f4")
    right = generator.random(count) < 0.93 - 0.12 * bad
    true_labels = np.where(right, labels, (labels + 1) % 10)
    latest = int(model.version)
    versions = np.maximum(1, latest - (age > 0.22 * days) - (age > 0.7 * days))
    digests = {number: f"{number:016x}" for number in range(1, latest)} | {latest: model.digest}
    probabilities = pack("f", (0.1,) * 10)
    ids = [
        f"{time >> 16:08x}-{time & 0xFFFF:04x}-7{row & 0xFFF:03x}-8{row >> 12:03x}-{tail:012x}"
        for time, row, tail in zip(
            (times // 1000).tolist(), range(count), generator.integers(0, 2**48, count).tolist(), strict=True
        )
    ]
    columns = (ids, times.tolist(), versions.tolist(), labels.tolist(), confidence.tolist(), latency.tolist())
    records = [
        (
            *(prediction_id, "champion", time_us, str(version), label, certain, probabilities),
            *(statistics[row].tobytes(), embeddings[row].tobytes(), f"{first + row:064x}", took, None),
            *(model.name, digests[version]),
        )
        for row, (prediction_id, time_us, version, label, certain, took) in enumerate(zip(*columns, strict=True))
    ]
    feedback = [
        (ids[row], int(true_labels[row]), "page", int(times[row]) + 60_000_000)
        for row in np.flatnonzero(generator.random(count) < LABELLED)
    ]
    return records, feedback
