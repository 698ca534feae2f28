"""How long the monitoring page takes, and how much memory, on logs of 1 and 10 million rows of a month."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fashion.config.names import MODEL_NAME
from fashion.model.reference import Reference
from fashion.model.typicality import features
from fashion.predictions.record import ModelId
from tests.benchmarks import champion
from tests.benchmarks.measurement import Cell, ServingOptions, Spread, Table, fashion_mnist, in_a_process, run_one, say
from tests.support import long_logs

ROWS = (1_000_000, 10_000_000)
QUICK_ROWS = (2000,)
READING = "tests.benchmarks.page_reading"


def tables(options: ServingOptions) -> Iterator[Table]:
    """Fill logs, and open the page of each in a process of its own."""
    data = fashion_mnist(3000 if options.quick else None)
    packed = champion.load_package(options.home, data, quick=options.quick)
    model = ModelId.of(MODEL_NAME, 3, packed.digest)
    usual = features(Reference.of(packed).predictions)
    lines: list[dict[str, Cell]] = []
    for rows in QUICK_ROWS if options.quick else ROWS:
        with tempfile.TemporaryDirectory() as folder:
            path, started = Path(folder, "predictions.db"), time.perf_counter()
            now_us = time.time_ns() // 1000
            # The month of the page begins with a day: 29 of them are in it whatever the time is.
            long_logs.fill(path, rows, now_us=now_us, model=model, features=usual, days=29)
            say(f"{rows:,} rows logged in {time.perf_counter() - started:.0f} s")
            found = in_a_process(READING, str(packed.folder), folder, rows=rows)
        lines.append(
            {
                "rows": float(rows),
                "labels": float(found["labelled"]),
                "first page, s": found["first"],
                "log counted after, s": found["counted"],
                "counting, CPU-s": found["processor"],
                "next pages, s": Spread(tuple(found["pages"])),
                "next pages, CPU-s": Spread(tuple(found["pages_cpu"])),
                "memory before, MB": found["before_mb"],
                "peak memory, MB": found["peak_mb"],
                "file of counts, MB": found["file_mb"],
            }
        )
    note = (
        "The first page is there before the log is counted, and says so; counting goes on in the background, half of "
        "the time. Next pages: a day, a week and a month, three each, after 1,000 new rows each. Memory is that of "
        "the whole worker, with its model."
    )
    formats = {"first page, s": ".2f", "next pages, s": ".2f", "next pages, CPU-s": ".2f", "file of counts, MB": ".1f"}
    yield Table("The monitoring page on large logs", lines, note, formats)


if __name__ == "__main__":
    run_one("monitoring_page")
