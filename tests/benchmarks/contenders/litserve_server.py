"""LitServe: one server process, one process with the model, and a queue between them, as its documentation writes them.

Run by `python -m tests.benchmarks.contenders.litserve_server PORT`.
"""

import sys
from typing import Any

import litserve
from fastapi import Request

from tests.benchmarks.contenders.classifier import Classifier
from tests.benchmarks.load import HOST


class Api(litserve.LitAPI):
    """Classifies pictures."""

    def setup(self, device: str) -> None:
        """Load the package, in the model's process."""
        self._classifier = Classifier()

    def decode_request(self, request: Request) -> bytes:
        """The picture in a form."""
        data: bytes = request["image"].file.read()
        return data

    def predict(self, x: bytes) -> dict[str, Any]:
        """Label and probabilities."""
        return self._classifier.classify(x)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """As it is: LitServe writes the JSON."""
        return output


def main(port: int) -> None:
    """Serve until a signal ends it."""
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=1, healthcheck_path="/readyz")
    server.run(host=HOST, port=port, log_level="warning", generate_client_file=False, access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
