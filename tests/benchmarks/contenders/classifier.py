"""What the frameworks call: the package on one thread of ONNX Runtime, with the project's preparation of pictures."""

from typing import Any

from fashion.images.preparation import prepare
from fashion.images.transform import normalise
from fashion.metrics.calibration import softmax
from fashion.model.predictor import Predictor
from tests.benchmarks.contenders.served_package import answer, read_package


class Classifier:
    """The package of `served_package`, loaded into this process. Knows no framework."""

    def __init__(self) -> None:
        self._package = read_package()
        self._network = Predictor(self._package, num_threads=1).network

    def classify(self, data: bytes) -> dict[str, Any]:
        """Label and probabilities of a picture.

        Args:
            data: the bytes of its file.

        Raises:
            BadPicture: they are not a whole picture.
        """
        used = self._package
        prepared = prepare(data, size=used.size, channels=used.channels, preparation=used.preparation)
        logits, _ = self._network(normalise(prepared.image[None], used.mean, used.std))
        return answer(softmax(logits, used.temperature)[0], used)
