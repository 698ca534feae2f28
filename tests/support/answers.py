"""What the service logs of pictures, without the service."""

from support.log_rows import record

from fashion.images import image_store
from fashion.images.transform import Images
from fashion.model.package import Package
from fashion.model.predictor import Predictor
from fashion.predictions.record import PredictionRecord


def answered(package: Package, version: str, images: Images) -> list[PredictionRecord]:
    """What the service logs of pictures.

    Args:
        package: that answers.
        version: its number.
        images: the pictures.
    """
    found = Predictor(package).predict(images)
    return [
        record(
            model_version=version,
            model_digest=package.digest[:16],
            label=int(found.labels[row]),
            confidence=float(found.confidences[row]),
            probabilities=tuple(found.probabilities[row].tolist()),
            statistics=tuple(found.statistics[row].tolist()),
            embedding=tuple(found.embeddings[row].tolist()),
            image_sha256=image_store.digest(image),
        )
        for row, image in enumerate(images)
    ]
