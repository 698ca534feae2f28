"""The log as a Parquet file."""

import uuid
from pathlib import Path

from fashion.predictions import parquet_rows
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import FOREVER_US, pages


def export_parquet(
    log: PredictionLog, path: str | Path, since_us: int = 0, until_us: int = FOREVER_US, *, page_rows: int = 10_000
) -> int:
    """Write predictions of since <= time < until with their feedback, and return how many; the file appears whole.

    Args:
        log: where to read from.
        path: the file to write; missing folders are made.
        since_us: microseconds since 1970, UTC.
        until_us: microseconds since 1970, UTC.
        page_rows: rows held in memory at once.

    Raises:
        LogUnavailable: the log cannot be read.
        OSError: the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, target, rows = parquet_rows.schema(), Path(path).absolute(), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for page in pages(log.window(since_us, until_us), page_rows):
                writer.write_batch(pa.RecordBatch.from_pylist([parquet_rows.to_row(each) for each in page], schema))
                rows += len(page)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return rows
