"""The log as Parquet."""

from typing import Any

from fashion.images.statistics import STATISTICS
from fashion.predictions.record import LoggedPrediction


def parquet_schema() -> Any:
    import pyarrow as pa

    moment = pa.timestamp("us", tz="UTC")
    said = pa.struct({"true_label": pa.int64(), "source": pa.string(), "time": moment})
    return pa.schema(
        {
            "prediction_id": pa.string(),
            "time": moment,
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
            "feedback": pa.list_(said),
        }
    )


def parquet_row(logged: LoggedPrediction) -> dict[str, Any]:
    record = logged.record
    kept = ("prediction_id", "model_version", "role", "confidence", "probabilities", "image_sha256", "latency_ms")
    return {
        **{name: getattr(record, name) for name in (*kept, "client")},
        "embedding": record.embedding,
        "time": record.time_us,
        "label": logged.true_label,
        "predicted": record.label,
        **dict(zip(STATISTICS, record.statistics, strict=True)),
        "feedback": [
            {"true_label": each.true_label, "source": each.source, "time": each.time_us} for each in logged.feedback
        ],
    }
