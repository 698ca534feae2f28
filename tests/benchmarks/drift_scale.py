"""What a drift decision and its report cost on a million logged rows: seconds and memory, on one core."""

import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fashion.config.names import MODEL_NAME
from fashion.model.package import Package
from fashion.model.reference import Reference
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import DIGEST_DIGITS
from fashion.predictions.schema import INSERT
from tests.benchmarks import champion
from tests.benchmarks.measurement import ServingOptions, Table, fashion_mnist, in_a_process, run_one, say

ROWS = 1_000_000
CLIENTS = 10_000
START_US = 1_800_000_000_000_000
"""Time of the first row."""
INSPECTION = "tests.benchmarks.log_inspection"


def tables(options: ServingOptions) -> Iterator[Table]:
    """Fill a log with rows like the reference's, and inspect it in a separate process."""
    data = fashion_mnist(3000 if options.quick else None)
    packed = champion.load_package(options.home, data, quick=options.quick)
    with tempfile.TemporaryDirectory() as folder:
        path, rows = Path(folder, "predictions.db"), 2000 if options.quick else ROWS
        fill(path, packed, rows)
        one_core = ["taskset", "-c", "0"] if Path("/usr/bin/taskset").exists() else []
        found = in_a_process(INSPECTION, str(packed.folder), str(path), rows=rows, prefix=one_core)
    row = {
        "rows": float(found["rows"]),
        "decision": found["decision"],
        "read and decide, CPU-s": found["decide_cpu"],
        "draw, CPU-s": found["report_cpu"],
        "in all, s": found["decide"] + found["report"],
        "peak memory of the decision, MB": found["decide_megabytes"],
        "with the drawing, MB": found["megabytes"],
        "page, MB": found["page"] / 1e6,
    }
    note = (
        "Every row decides; 10,000 chosen at random are drawn. Imports included, in one process on one core. The rows "
        "are drawn from the reference with replacement, and count as a picture each, of 10,000 clients: the worst case."
    )
    formats = {key: ".1f" for key in row if key.endswith(("CPU-s", ", s")) or key == "page, MB"}
    yield Table("Drift on a large log", [row], note, formats)


def fill(path: Path, packed: Package, count: int) -> None:
    """Write rows in one transaction: the log itself commits each request, which is not what is measured here."""
    PredictionLog(path).close()
    started, rows = time.perf_counter(), Reference.of(packed).predictions
    chosen = np.random.default_rng(0).integers(0, len(rows.labels), count)
    probabilities, statistics, embeddings = (
        [row.tobytes() for row in column] for column in (rows.probabilities, rows.statistics, rows.embeddings)
    )
    with sqlite3.connect(path) as connection:
        connection.executemany(
            INSERT,
            (
                (
                    f"{number >> 16:08x}-{number & 0xFFFF:04x}-7000-8000-{number:012x}",
                    "champion",
                    START_US + 1000 * number,
                    "1",
                    int(rows.labels[row]),
                    float(rows.confidences[row]),
                    probabilities[row],
                    statistics[row],
                    embeddings[row],
                    f"{number:064x}",
                    1.0,
                    f"client {number % CLIENTS}",
                    MODEL_NAME,
                    packed.digest[:DIGEST_DIGITS],
                )
                for number, row in enumerate(chosen)
            ),
        )
    connection.close()
    say(f"{count:,} rows logged in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    run_one("drift_scale")
