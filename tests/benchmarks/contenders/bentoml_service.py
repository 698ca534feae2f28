"""Plain BentoML: a service of one class and one endpoint, as its documentation writes them.

Run by `python -m bentoml serve tests.benchmarks.contenders.bentoml_service:Plain`. BentoML hands the endpoint a file.
"""

from pathlib import Path
from typing import Any

import bentoml

from tests.benchmarks.contenders.classifier import Classifier


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Plain:
    """Classifies pictures."""

    def __init__(self) -> None:
        self._classifier = Classifier()

    @bentoml.api
    def predict(self, image: Path) -> dict[str, Any]:
        """Label and probabilities of a picture."""
        return self._classifier.classify(image.read_bytes())
