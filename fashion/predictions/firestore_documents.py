"""Predictions and feedback as Firestore documents, and back. Knows no requests and imports nothing of Google's.

A prediction is a document under its id, a shadow's under its id and `.shadow`. Feedback is an element of the
champion's document, in the array `feedback`; such a document has `labelled: true`, by which it is found.
"""

import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from fashion.images.statistics import STATISTICS
from fashion.predictions.record import Feedback, LoggedPrediction, PredictionRecord, pack, unpack

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def document_name(item: PredictionRecord | Feedback) -> str:
    """Return the name of the document that holds an item."""
    shadow = isinstance(item, PredictionRecord) and item.role == "shadow"
    return f"{item.prediction_id}.shadow" if shadow else item.prediction_id


def to_document(record: PredictionRecord, *, expire_days: float | None = None) -> dict[str, Any]:
    """Return the fields of a prediction's document; with `expire_days`, also `expire_at`."""
    document = {
        "time": to_datetime(record.time_us),
        "model_version": record.model_version,
        "model_name": record.model_name,
        "model_digest": record.model_digest,
        "role": record.role,
        "label": int(record.label),
        "confidence": float(record.confidence),
        "probabilities": [float(value) for value in record.probabilities],
        "statistics": dict(zip(STATISTICS, map(float, record.statistics), strict=True)),
        "embedding": pack("e", record.embedding),
        "image_sha256": record.image_sha256,
        "latency_ms": float(record.latency_ms),
        "client": record.client,
    }
    if expire_days is not None:
        document["expire_at"] = to_datetime(record.time_us) + timedelta(days=expire_days)
    return document


def to_element(feedback: Feedback) -> dict[str, Any]:
    """Return the element of the array `feedback`."""
    return {
        "true_label": int(feedback.true_label),
        "source": feedback.source,
        "time": to_datetime(feedback.time_us),
    }


def from_document(name: str, content: Mapping[str, Any]) -> LoggedPrediction:
    """Return the prediction of a document, with its feedback by time.

    Raises:
        ValueError: the document is not a prediction.
    """
    prediction_id = name.partition(".")[0]
    try:
        record = PredictionRecord(
            prediction_id=prediction_id,
            time_us=to_microseconds(content["time"]),
            model_version=content["model_version"],
            role=content["role"],
            label=content["label"],
            confidence=content["confidence"],
            probabilities=tuple(content["probabilities"]),
            statistics=tuple(content["statistics"][name] for name in STATISTICS),
            embedding=unpack("e", content["embedding"]),
            image_sha256=content["image_sha256"],
            latency_ms=content["latency_ms"],
            client=content["client"],
            model_name=content.get("model_name"),  # documents of older versions have neither
            model_digest=content.get("model_digest"),
        )
        feedback = [
            Feedback(prediction_id, each["true_label"], each["source"], to_microseconds(each["time"]))
            for each in content.get("feedback", ())
        ]
    except (AttributeError, KeyError, TypeError, ValueError, struct.error) as error:
        raise ValueError(f"document {name} is not a prediction: {error!r}") from error
    return LoggedPrediction(record, tuple(sorted(feedback, key=lambda each: each.time_us)))


def to_datetime(time_us: int) -> datetime:
    """Return microseconds since 1970 as a datetime in UTC."""
    return _EPOCH + timedelta(microseconds=time_us)


def to_microseconds(moment: datetime) -> int:
    """Return a datetime as microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)
