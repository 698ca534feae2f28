"""Writes a log as Parquet files by day, which BigQuery, DuckDB and DriftFlow read. Knows no kind of log or store.

Each file appears whole or not at all. Memory is bounded by one file, and a file by FILE_ROWS.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fashion.predictions import parquet_rows
from fashion.predictions.partitions import DAY_US, Part, date_of, day_of, parts_of
from fashion.predictions.record import LoggedPrediction
from fashion.storage.blobs import Store

FILE_ROWS = 200_000
"""Rows after which another file of the day is begun, at the next whole second: some 30 MB."""
GROUP_ROWS = 10_000
"""Rows of a row group, and rows held as objects at once."""
SECOND_US = 1_000_000

Read = Callable[[int, int], Iterator[LoggedPrediction]]
"""Yields rows of since <= time < until, in microseconds since 1970, oldest first; as both kinds of log do."""


@dataclass(frozen=True)
class ExportedDay:
    """The outcome of one day."""

    date: str
    """`2026-11-25`, UTC."""
    rows: int
    """Rows written."""
    files: int
    """Files written."""
    bytes: int
    """Size of these files."""
    kept_rows: int = 0
    """Rows of files that stay as they were: the log holds fewer of them, since it was pruned."""


def first_day(store: Store) -> int:
    """The day from which to export by default: the last one exported, in which a run may have been stopped; else 0.

    Args:
        store: of the export.

    Returns:
        Days since 1970.
    """
    return max((day_of(part.since_us) for part in parts_of(store.list("date="))), default=0)


def export_days(
    read: Read,
    store: Store,
    days: range,
    *,
    on_day: Callable[[ExportedDay], None] = lambda _: None,
    file_rows: int = FILE_ROWS,
    group_rows: int = GROUP_ROWS,
) -> list[ExportedDay]:
    """Write days with their feedback, in order, replacing the files of those that were exported before.

    Args:
        read: reads the log.
        store: where to write to.
        days: days since 1970; those without rows are passed over.
        on_day: called after each.
        file_rows: rows after which another file is begun.
        group_rows: rows of a row group.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be read.
        fashion.storage.blobs.StoreUnavailable: the export cannot be read or written. Days before are exported.
    """
    exported: dict[int, list[Part]] = {}
    for part in parts_of(store.list("date=")):
        exported.setdefault(day_of(part.since_us), []).append(part)
    found = []
    rows = read(days.start * DAY_US, days.stop * DAY_US)
    for day, rows_of_day in itertools.groupby(rows, key=lambda row: day_of(row.record.time_us)):
        writer = _DayWriter(store, day, exported.get(day, []), file_rows, group_rows)
        found.append(writer.write(rows_of_day))
        on_day(found[-1])
    return found


class _DayWriter:
    """Writes one day."""

    def __init__(self, store: Store, day: int, exported: list[Part], file_rows: int, group_rows: int) -> None:
        self._store, self._day = store, day
        self._existing = {part.since_us: part for part in exported}
        self._starts = sorted({day * DAY_US, *self._existing})
        self._file_rows, self._group_rows = file_rows, group_rows
        self._rows = self._files = self._bytes = self._kept = 0

    def write(self, rows: Iterator[LoggedPrediction]) -> ExportedDay:
        """Write the day's rows, oldest first."""
        start, file = self._day * DAY_US, _File(self._group_rows)
        room, last_us = self._room(start), 0
        for row in rows:
            time_us = row.record.time_us
            begun = max(each for each in self._starts if each <= time_us)
            if begun == start and file.rows >= room and time_us // SECOND_US > last_us // SECOND_US:
                begun = time_us // SECOND_US * SECOND_US
                self._starts.append(begun)
            if begun != start:
                self._finish(start, file)
                start, file = begun, _File(self._group_rows)
                room = self._room(start)
            file.add(row)
            last_us = time_us
        self._finish(start, file)
        return ExportedDay(date_of(self._day), self._rows, self._files, self._bytes, self._kept)

    def _room(self, start: int) -> int:
        """Rows after which a part may end before the next one that exists begins."""
        is_last = start == max(self._starts)
        return max(self._file_rows if is_last else 2 * self._file_rows, self._exported_rows(start))

    def _exported_rows(self, start: int) -> int:
        """Rows that belong to a part and are in its file already; 0 where it has none or cannot be read."""
        part = self._existing.get(start)
        return 0 if part is None else _count_rows(self._store.get(part.name), part)

    def _finish(self, start: int, file: "_File") -> None:
        exported = self._exported_rows(start)
        if file.rows < exported:
            self._kept += exported
        elif file.rows:
            data = file.finish()
            self._store.put(Part(start, start).name, data)
            self._rows, self._files, self._bytes = self._rows + file.rows, self._files + 1, self._bytes + len(data)


class _File:
    """A Parquet file that is built in memory: stores take whole blobs."""

    def __init__(self, group_rows: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.rows = 0
        self._schema = parquet_rows.schema(half_floats=False)
        self._sink = pa.BufferOutputStream()
        self._writer: Any = pq.ParquetWriter(self._sink, self._schema, compression="zstd")
        self._group_rows = group_rows
        self._page: list[dict[str, Any]] = []

    def add(self, row: LoggedPrediction) -> None:
        """Append a row."""
        self._page.append(parquet_rows.to_row(row))
        self.rows += 1
        if len(self._page) == self._group_rows:
            self._write_page()

    def finish(self) -> bytes:
        """Return the file."""
        self._write_page()
        self._writer.close()
        data: bytes = self._sink.getvalue().to_pybytes()
        return data

    def _write_page(self) -> None:
        import pyarrow as pa

        if self._page:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._page, self._schema))
            self._page = []


def _count_rows(data: bytes, part: Part) -> int:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        times = pq.read_table(pa.BufferReader(data), columns=["time"])["time"].cast(pa.int64())
        return int(pc.sum(pc.less(times, part.until_us)).as_py() or 0)
    except (pa.ArrowException, OSError, KeyError):
        return 0  # damaged: it is to be replaced
