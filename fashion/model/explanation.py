"""Explain a prediction by occlusion: hide a part of the picture, and measure the loss of confidence.

Zeiler and Fergus 2014, section 4.2 (occlusion sensitivity). Needs no gradients, so it runs on ONNX Runtime.
"""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion.images.transform import Images, normalise
from fashion.metrics.calibration import softmax
from fashion.model.predictor import Predictor

COST = (214, 94, 0)
"""Vermilion, where hiding costs confidence; distinct from GAIN for all kinds of colour vision (Okabe, Ito)."""
GAIN = (0, 114, 178)
"""Blue, where hiding adds confidence."""
FAINT = 0.02
"""Change of probability from which a picture may show the full colour: smaller ones stay pale."""


def occlusion(
    predictor: Predictor, image: Images, label: int, *, patch: int = 6, stride: int = 2
) -> NDArray[np.float32]:
    """Measure how much probability of `label` is lost where a square of the picture is hidden.

    The square is black, the background of this data: it removes what it covers without adding an unusual edge.

    Args:
        predictor: the model.
        image: `(size, size)` or `(size, size, C)` uint8.
        label: the class to explain.
        patch: edge of the square in pixels.
        stride: pixels between squares.

    Returns:
        `(size, size)` float32: the mean loss over the squares that cover a pixel; negative where hiding helps.
    """
    height, width = image.shape[:2]
    corners = [(y, x) for y in _starts(height, patch, stride) for x in _starts(width, patch, stride)]
    # A square that is black already changes nothing: 15 % of the squares (100 test pictures).
    hiding = [(y, x) for y, x in corners if image[y : y + patch, x : x + patch].any()]
    variants = np.repeat(image[None], len(hiding) + 1, axis=0)
    for row, (y, x) in enumerate(hiding, start=1):
        variants[row, y : y + patch, x : x + patch] = 0
    package = predictor.package
    logits, _ = predictor.network(normalise(variants, package.mean, package.std))
    probability = softmax(logits, package.temperature)[:, label]
    lost, covered = np.zeros((height, width)), np.zeros((height, width))
    for row, (y, x) in enumerate(hiding, start=1):
        lost[y : y + patch, x : x + patch] += probability[0] - probability[row]
    for y, x in corners:
        covered[y : y + patch, x : x + patch] += 1
    return np.asarray(lost / np.maximum(covered, 1), np.float32)


def heat_map_png(image: Images, heat: NDArray[np.float32], *, pixels: int = 280) -> bytes:
    """Draw the picture enlarged and in grey, with the heat over it in colour.

    Args:
        image: `(size, size)` or `(size, size, C)` uint8.
        heat: `(size, size)` as from `occlusion`.
        pixels: edge of the result.

    Returns:
        PNG, RGB.
    """
    grey = Image.fromarray(image).convert("L").resize((pixels, pixels), Image.Resampling.BICUBIC)
    # About half as bright: the colour must be visible on white objects too.
    base = np.asarray(grey, np.float32)[..., None] * 0.55 * np.ones(3, np.float32)
    smooth = Image.fromarray(heat.astype(np.float32)).resize((pixels, pixels), Image.Resampling.BICUBIC)
    strength = np.asarray(smooth) / max(float(np.abs(heat).max()), FAINT)
    opacity = np.clip(np.abs(strength), 0, 1)[..., None] * 0.75
    colour = np.where(strength[..., None] > 0, np.array(COST, np.float32), np.array(GAIN, np.float32))
    mixed: NDArray[Any] = base * (1 - opacity) + colour * opacity
    buffer = io.BytesIO()
    Image.fromarray(np.rint(mixed).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _starts(length: int, patch: int, stride: int) -> list[int]:
    last = max(0, length - patch)
    return sorted({*range(0, last + 1, stride), last})
