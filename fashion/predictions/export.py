"""The log as a Parquet file."""

import uuid
from pathlib import Path
from typing import Any

from fashion.images.statistics import STATISTICS
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import FOREVER_US, LoggedPrediction, pages


def export_parquet(
    log: PredictionLog, path: str | Path, since_us: int = 0, until_us: int = FOREVER_US, *, page_rows: int = 10_000
) -> int:
    """Write predictions of since <= time < until with their feedback, and return how many; the file appears whole.

    Columns that `reference.parquet` of a model package has too have the same names: `predicted` is the predicted
    class, `label` the true one by the latest feedback, null where there is none.

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

    schema, target, rows = _schema(), Path(path).absolute(), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for page in pages(log.window(since_us, until_us), page_rows):
                writer.write_batch(pa.RecordBatch.from_pylist([_row(each) for each in page], schema))
                rows += len(page)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return rows


def _schema() -> Any:
    import pyarrow as pa

    time = pa.timestamp("us", tz="UTC")
    feedback = pa.struct({"true_label": pa.int64(), "source": pa.string(), "time": time})
    return pa.schema(
        {
            "prediction_id": pa.string(),
            "time": time,
            "model_version": pa.string(),
            "role": pa.string(),
            "label": pa.int64(),
            "predicted": pa.int64(),
            "confidence": pa.float32(),
            "probabilities": pa.list_(pa.float32()),
            "embedding": pa.list_(pa.float16()),
            **{name: pa.float32() for name in STATISTICS},
            "image_sha256": pa.string(),
            "latency_ms": pa.float64(),
            "client": pa.string(),
            "feedback": pa.list_(feedback),
        }
    )


def _row(logged: LoggedPrediction) -> dict[str, Any]:
    record = logged.record
    return {
        "prediction_id": record.prediction_id,
        "time": record.time_us,
        "model_version": record.model_version,
        "role": record.role,
        "label": logged.true_label,
        "predicted": record.label,
        "confidence": record.confidence,
        "probabilities": record.probabilities,
        "embedding": record.embedding,
        **dict(zip(STATISTICS, record.statistics, strict=True)),
        "image_sha256": record.image_sha256,
        "latency_ms": record.latency_ms,
        "client": record.client,
        "feedback": [
            {"true_label": each.true_label, "source": each.source, "time": each.time_us} for each in logged.feedback
        ],
    }
