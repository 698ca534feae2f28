"""Predictions as rows of Parquet files: columns and values. Knows no files.

Columns that `reference.parquet` of a model package has too have the same names: `predicted` is the predicted class,
`label` the true one by the latest feedback, null where there is none.
"""

from typing import Any

from fashion.images.statistics import STATISTICS
from fashion.predictions.record import LoggedPrediction


def schema(*, half_floats: bool = True) -> Any:
    """The columns.

    Args:
        half_floats: embeddings as the log holds them. False for float32, which holds each of them exactly: BigQuery
            reads no float16.
    """
    import pyarrow as pa

    time = pa.timestamp("us", tz="UTC")
    feedback = pa.struct({"true_label": pa.int64(), "source": pa.string(), "time": time})
    return pa.schema(
        {
            "prediction_id": pa.string(),
            "time": time,
            "model_name": pa.string(),
            "model_version": pa.string(),
            "model_digest": pa.string(),
            "role": pa.string(),
            "label": pa.int64(),
            "predicted": pa.int64(),
            "confidence": pa.float32(),
            "probabilities": pa.list_(pa.float32()),
            "embedding": pa.list_(pa.float16() if half_floats else pa.float32()),
            **{name: pa.float32() for name in STATISTICS},
            "image_sha256": pa.string(),
            "latency_ms": pa.float64(),
            "client": pa.string(),
            "feedback": pa.list_(feedback),
        }
    )


def to_row(logged: LoggedPrediction) -> dict[str, Any]:
    """The values of one row."""
    record = logged.record
    return {
        "prediction_id": record.prediction_id,
        "time": record.time_us,
        "model_name": record.model_name,
        "model_version": record.model_version,
        "model_digest": record.model_digest,
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
