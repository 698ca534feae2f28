"""A model package as an MLflow pyfunc: what `mlflow.pyfunc.load_model` calls. No pickle is involved."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.model.package import read
from fashion.model.predictor import Predictor


class PackagedModel:
    """MLflow's interface to a Predictor."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, data: NDArray[np.uint8], params: dict[str, Any] | None = None) -> NDArray[np.float32]:
        """Calibrated probabilities `(N, classes)` of images `(N, H, W)` or `(N, H, W, C)` uint8."""
        return self.predictor.predict(np.asarray(data)).probabilities


def _load_pyfunc(path: str) -> PackagedModel:
    return PackagedModel(Predictor(read(Path(path))))
