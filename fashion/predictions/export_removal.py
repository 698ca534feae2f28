"""Deleting one prediction from exports: a Parquet file, or files by day. Knows no log."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion.predictions.partition_writer import GROUP_ROWS
from fashion.predictions.partitions import DAY_US, parts_of
from fashion.predictions.record import DamagedLog
from fashion.storage.blobs import BlobNotFound, Store
from fashion.storage.folder import write_atomically


@dataclass(frozen=True)
class FoundInExport:
    """A file that holds a prediction."""

    name: str
    """Address of the file."""
    image_sha256: tuple[str, ...]
    """Of the picture."""
    without: bytes
    """The file without the prediction."""


def find_in_file(path: Path, prediction_id: str) -> FoundInExport | None:
    """Look for a prediction in a Parquet file; None where it is not in it, or there is no file.

    Raises:
        DamagedLog: the file is not one that an export wrote.
        OSError: the file cannot be read.
    """
    try:
        return _find(str(path), path.read_bytes(), prediction_id)
    except FileNotFoundError:
        return None


def find_in_days(store: Store, prediction_id: str, time_us: int | None) -> Iterator[FoundInExport]:
    """Look for a prediction in the files by day around its time.

    Args:
        store: of the export.
        prediction_id: a uuid7, which holds a time too.
        time_us: of the prediction, where it is known: microseconds since 1970, UTC.

    Raises:
        DamagedLog: a file is not one that an export wrote.
        fashion.storage.blobs.StoreUnavailable: the store cannot be read.
    """
    # An id holds the time when it was made; but a clock that was set back leaves ids ahead of it.
    moments = [(uuid.UUID(prediction_id).int >> 80) * 1000, *([] if time_us is None else [time_us])]
    for part in parts_of(store.list("date=")):
        if any(part.since_us - DAY_US <= moment < part.until_us + DAY_US for moment in moments):
            try:
                data = store.get(part.name)
            except BlobNotFound:
                continue
            found = _find(part.name, data, prediction_id)
            if found is not None:
                yield found


def remove_from_file(found: FoundInExport) -> None:
    """Write a file without the prediction.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomically(Path(found.name), found.without)


def remove_from_days(store: Store, found: FoundInExport) -> None:
    """Write a file of a day without the prediction.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be written.
    """
    store.put(found.name, found.without)


def _find(name: str, data: bytes, prediction_id: str) -> FoundInExport | None:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        if "prediction_id" not in file.schema_arrow.names:
            return None  # of something else
        table: Any = file.read()
        is_it = pc.equal(table["prediction_id"], prediction_id)
        mine = table.filter(is_it)
        if not len(mine):
            return None
        sink = pa.BufferOutputStream()
        others = table.filter(pc.invert(is_it))
        pq.write_table(others, sink, compression="zstd", row_group_size=GROUP_ROWS)
        return FoundInExport(name, tuple(sorted(set(mine["image_sha256"].to_pylist()))), sink.getvalue().to_pybytes())
    except (pa.ArrowException, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DamagedLog(f"{name} cannot be read ({reason}): move it away, and run this again") from None
