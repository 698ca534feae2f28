"""Pictures unlike anything that the served model has learnt: which they are, and what becomes of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bentos.classifier.schemas import PredictionAnswer
from bentos.web.responses import ApiError
from fashion.config.serve import ServiceConfig
from fashion.model.package import Package
from fashion.model.typicality import Typicality
from fashion.predictions.record import PredictionRecord

SHOWN_CLASSES = 20
"""Most classes that an error lists."""


class Unlike:
    """What is unlike one model's pictures."""

    def __init__(self, package: Package, settings: ServiceConfig) -> None:
        """
        Args:
            package: of the served version.
            settings: from which share on a picture is unlike the others, and whether it is refused.

        Raises:
            fashion.model.package.DamagedPackage: what the package holds of usual pictures cannot be read.
        """
        self.typicality = Typicality.of(package)
        self.share, self._refuses = settings.unlike_share, settings.unknown == "refuse"
        self._class_names = package.class_names

    def is_typical(self, share: float | None) -> bool | None:
        """Whether a picture is like what was learnt; None if the model cannot tell.

        Args:
            share: of the held-out pictures that are less usual.
        """
        return None if share is None else share >= self.share

    def refusal(self, answer: PredictionAnswer) -> ApiError | None:
        """The error to answer with instead; None for a picture that is not refused."""
        if answer.typical is not False or answer.typicality is None or not self._refuses:
            return None
        message = (
            "the picture is unlike anything that the model has learnt: "
            f"{1 - answer.typicality:.2%} of the pictures it was tested on are more usual"
        )
        known = ", ".join(self._class_names[:SHOWN_CLASSES])
        more = ", ..." if len(self._class_names) > SHOWN_CLASSES else ""
        return ApiError(422, "unlike_training", message, f"send a picture of one of its classes: {known}{more}")

    def count(self, rows: Sequence[PredictionRecord]) -> int | None:
        """How many of some logged rows of this version are unlike the others; None if the model cannot tell."""
        if self.typicality is None or not rows:
            return None
        return self.count_features(_features(rows))

    def count_features(self, features: NDArray[np.float64]) -> int:
        """The same of (N, 24) embeddings and statistics, where the model can tell."""
        return int((self._shares(features) < self.share).sum())

    def typicality_of(self, row: PredictionRecord) -> float | None:
        """The share of the held-out pictures that are less usual than a logged row of this version; None if the model
        cannot tell."""
        if self.typicality is None:
            return None
        return float(self._shares(_features([row]))[0])

    def _shares(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        assert self.typicality is not None, "the model cannot tell"
        return self.typicality.shares(self.typicality.distances_of(features))


def _features(rows: Sequence[PredictionRecord]) -> NDArray[np.float64]:
    return np.array([[*each.embedding, *each.statistics] for each in rows], np.float64)
