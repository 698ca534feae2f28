"""Turn an exported network into one of 8-bit integers, for faster predictions. Knows ONNX, no torch and no packages.

Static quantisation, in the form of QDQ nodes that ONNX Runtime fuses into integer kernels: weights have a scale for
each output channel, activations one for each tensor, from the ranges that calibration images produce (Jacob et al.,
CVPR 2018, arXiv:1712.05877; per channel as in Krishnamoorthi 2018, arXiv:1806.08342).
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH = 100
"""Calibration images that go through the network at once."""


def quantize(onnx: bytes, inputs: NDArray[np.float32]) -> bytes:
    """Quantise a network to int8; its inputs and outputs stay float32.

    Args:
        onnx: the exported network, with the input `image`.
        inputs: `(N, C, H, W)` float32 normalised images, which give the ranges of activations.

    Raises:
        ValueError: there are no images.
    """
    if len(inputs) == 0:
        raise ValueError("quantisation needs images for the ranges of activations, got none")
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        plain, prepared, quantised = (Path(folder, f"{name}.onnx") for name in ("plain", "prepared", "quantised"))
        plain.write_bytes(onnx)
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(quantised),
            _Images(inputs),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return quantised.read_bytes()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the root logger, where ONNX Runtime advises to call what is called here."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


class _Images:
    """Calibration images in batches, as onnxruntime.quantization's `CalibrationDataReader`."""

    def __init__(self, inputs: NDArray[np.float32]) -> None:
        self._inputs = inputs
        self.rewind()

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)

    def rewind(self) -> None:
        self._batches: Iterator[dict[str, Any]] = (
            {"image": self._inputs[start : start + BATCH]} for start in range(0, len(self._inputs), BATCH)
        )
