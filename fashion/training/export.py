"""Export a trained network to ONNX and safetensors, and check that it computes the same. Knows nothing of packages.

With `precision="int8"` the ONNX model is quantised, on images whose labels are not looked at; the weights' file is not.
"""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from fashion.config.schema import ConfigError
from fashion.config.train import Precision
from fashion.images.transform import Images, normalise
from fashion.model.predictor import OnnxNetwork
from fashion.training import quantization
from fashion.training.models import embed

TOLERANCE = 1e-3
"""Largest allowed difference of a logit: float32 sums of about ten, in two implementations."""
NEAR_TIE = 1e-4
"""Two logits that differ by at most this fraction of the largest one may change places: so does rounding."""
COMPARED_ROWS = 1000
"""Validation images that flows compare on, which is enough for the ranges of values too."""
INT8_AGREEMENT = 0.9
"""Fraction of the images that must keep their label in 8 bits. Fewer mean that the network cannot be quantised like
this; whether a smaller loss is worth the speed, the gate decides."""


class ExportDiffers(RuntimeError):
    """The exported network does not compute what the trained one does."""


@dataclass(frozen=True)
class Exported:
    """A network outside of torch."""

    onnx: bytes
    """A model with a dynamic batch."""
    weights: bytes
    """In the safetensors format."""
    rows: int
    """Images that both networks were compared on."""
    max_difference: float
    """Largest difference of a logit."""
    label_agreement: float
    """Fraction of the images with the same label, in [0, 1]."""
    precision: Precision = "float32"
    """Of the ONNX model."""


class _WithEmbedding(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return embed(self.model, image)


def export(
    model: nn.Module,
    images: Images,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    precision: Precision = "float32",
) -> Exported:
    """Export a trained network, and compare the exported one with it.

    Args:
        model: on the CPU; left in eval mode.
        images: `(N, H, W)` or `(N, H, W, C)` uint8 to compare on; in 8 bits also those that give the ranges of values.
        mean: of each channel, in [0, 1].
        std: of each channel, in [0, 1].
        precision: of the ONNX model.

    Raises:
        ExportDiffers: a logit changes by more than `TOLERANCE`, or a label that is no `NEAR_TIE`; in 8 bits, fewer
            than `INT8_AGREEMENT` of the images keep their label.
    """
    inputs = torch.from_numpy(normalise(images, mean, std))
    model = model.eval().to(memory_format=torch.contiguous_format)
    onnx = _to_onnx(_WithEmbedding(model), inputs[:2])
    with torch.inference_mode():
        expected = embed(model, inputs)[0].numpy()
    logits = OnnxNetwork(onnx)(inputs.numpy())[0]
    agreement, difference = _compare(logits, expected)
    if not (_has_the_labels(logits, expected) and difference <= TOLERANCE):  # so that NaN counts as different
        raise ExportDiffers(
            f"the exported network differs from the trained one on {len(images)} images: labels agree on "
            f"{agreement:.2%}, logits differ by up to {difference:.2g}"
        )
    if precision == "int8":
        onnx = quantization.quantize(onnx, inputs.numpy())
        agreement, difference = _compare(OnnxNetwork(onnx)(inputs.numpy())[0], expected)
        if not (agreement >= INT8_AGREEMENT and np.isfinite(difference)):
            raise ExportDiffers(
                f"in int8 the network labels {1 - agreement:.1%} of {len(images)} images differently, "
                f"{1 - INT8_AGREEMENT:.0%} are allowed: train with export.precision=float32"
            )
    return Exported(
        onnx=onnx,
        weights=save_safetensors({name: value.contiguous() for name, value in model.state_dict().items()}),
        rows=len(images),
        max_difference=difference,
        label_agreement=agreement,
        precision=precision,
    )


def _compare(logits: NDArray[np.float32], expected: NDArray[np.float32]) -> tuple[float, float]:
    """Return the fraction of equal labels, and the largest difference of a logit, of two `(N, classes)` logits."""
    return float((logits.argmax(1) == expected.argmax(1)).mean()), float(np.abs(logits - expected).max())


def _has_the_labels(logits: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    """Return True if the largest of each row's logits is the expected one, or nearly as large, of `(N, classes)`."""
    lacks = expected.max(axis=1) - np.take_along_axis(expected, logits.argmax(axis=1)[:, None], axis=1)[:, 0]
    return bool((lacks <= NEAR_TIE * np.abs(expected).max(axis=1)).all())


def check(model: nn.Module, *, channels: int, size: int) -> None:
    """Check before training that a network can be exported.

    Args:
        model: left in eval mode.
        channels: of an image.
        size: height and width of an image in pixels.

    Raises:
        ConfigError: it cannot be exported.
    """
    _to_onnx(_WithEmbedding(model.eval()), torch.zeros(2, channels, size, size))


def _to_onnx(model: nn.Module, example: Tensor) -> bytes:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own code
        try:
            program = torch.onnx.export(
                model,
                (example,),
                input_names=["image"],
                output_names=["logits", "embedding"],
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0][:200]
            raise ConfigError(
                f"architecture: this network cannot be exported to ONNX ({reason}); choose another"
            ) from error
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content
