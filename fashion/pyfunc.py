"""A model package as an MLflow pyfunc, loaded without pickle. Registered versions name this module: do not move it."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.model.package import read
from fashion.model.predictor import Predictor


class PackagedModel:
    """The interface that MLflow calls, around a Predictor."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, data: NDArray[np.uint8], params: dict[str, Any] | None = None) -> NDArray[np.float32]:
        """Return calibrated probabilities `(N, classes)` of images `(N, H, W)` or `(N, H, W, C)` uint8."""
        return self.predictor.predict(np.asarray(data)).probabilities


def _load_pyfunc(path: str) -> PackagedModel:
    return PackagedModel(Predictor(read(Path(path))))
