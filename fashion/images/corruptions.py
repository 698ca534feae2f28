"""Corrupt images in ways that occur in production, each by an amount. Knows pixels, not models."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fashion.images.transform import Images

Pixels = NDArray[np.float32]
"""`(N, H, W)` or `(N, H, W, C)` float32 in [0, 1]."""


def corrupt(images: Images, name: str, amount: float, *, seed: int = 0) -> Images:
    """Return a corrupted copy of every image.

    Args:
        images: `(N, H, W)` or `(N, H, W, C)` uint8.
        name: one of `CORRUPTIONS`.
        amount: 0 or more; 0 changes nothing, and each corruption's docstring says what 1 means.
        seed: seed of the random corruptions, noise and occlusion.

    Raises:
        ValueError: there is no corruption of this name, or the amount is below 0 or NaN.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"name must be one of {', '.join(sorted(CORRUPTIONS))}, got {name!r}")
    if not amount >= 0:
        raise ValueError(f"amount must be at least 0, got {amount}")
    pixels: Pixels = images.astype(np.float32) / np.float32(255)
    changed = CORRUPTIONS[name](pixels, amount, np.random.default_rng(seed)) if amount else pixels
    result: Images = np.rint(np.clip(changed, 0, 1) * 255).astype(np.uint8)
    return result


def _brightness(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Add to every pixel; 1 turns black into white."""
    return pixels + np.float32(amount)


def _darkness(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Scale every pixel down; 1 turns white into black."""
    return pixels * np.float32(max(0.0, 1 - amount))


def _contrast(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Move every pixel towards the image's mean; 1 leaves only the mean."""
    mean: Pixels = pixels.mean(axis=tuple(range(1, pixels.ndim)), keepdims=True)
    return mean + (pixels - mean) * np.float32(max(0.0, 1 - amount))


def _noise(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Add Gaussian noise; 1 is a standard deviation of the whole range."""
    return pixels + rng.normal(0, amount, pixels.shape).astype(np.float32)


def _blur(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Blur with a Gaussian; 1 is a standard deviation of an eighth of the height."""
    sigma = amount * pixels.shape[1] / 8
    blurred: Pixels = ndimage.gaussian_filter(pixels, (0, sigma, sigma, 0)[: pixels.ndim])
    return blurred


def _rotation(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Rotate about the centre; 1 is 90 degrees."""
    rotated: Pixels = ndimage.rotate(pixels, 90 * amount, axes=(1, 2), reshape=False, order=1)
    return rotated


def _shift(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Shift to the right; 1 is half the width."""
    step = min(round(amount * pixels.shape[2] / 2), pixels.shape[2])
    moved = np.zeros_like(pixels)
    moved[:, :, step:] = pixels[:, :, : pixels.shape[2] - step]
    return moved


def _shrinking(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Shrink towards the centre; 1 is half the size."""
    factor = 1 + amount
    height, width = pixels.shape[1:3]
    # Rows and columns of the input for each of the output, about the centre.
    rows = (np.arange(height) - (height - 1) / 2) * factor + (height - 1) / 2
    columns = (np.arange(width) - (width - 1) / 2) * factor + (width - 1) / 2
    inside = ((rows >= 0) & (rows <= height - 1))[:, None] & ((columns >= 0) & (columns <= width - 1))[None]
    near = pixels[:, np.clip(np.rint(rows), 0, height - 1).astype(int)]
    near = near[:, :, np.clip(np.rint(columns), 0, width - 1).astype(int)]
    shrunk: Pixels = near * inside.reshape(1, height, width, *(1,) * (pixels.ndim - 3))
    return shrunk


def _inversion(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Blend with the negative; 1 is the negative."""
    share = np.float32(min(amount, 1.0))
    return (1 - share) * pixels + share * (1 - pixels)


def _occlusion(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Hide a grey square at a random place; 1 is as wide as the image."""
    count, height, width = pixels.shape[:3]
    side = min(height, width, max(1, round(amount * height)))
    top, left = rng.integers(0, height - side + 1, count), rng.integers(0, width - side + 1, count)
    rows = (np.arange(height) >= top[:, None]) & (np.arange(height) < top[:, None] + side)
    columns = (np.arange(width) >= left[:, None]) & (np.arange(width) < left[:, None] + side)
    hidden = (rows[:, :, None] & columns[:, None]).reshape(count, height, width, *(1,) * (pixels.ndim - 3))
    return np.where(hidden, np.float32(0.5), pixels)


CORRUPTIONS: dict[str, Callable[[Pixels, float, np.random.Generator], Pixels]] = {
    "blur": _blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "darkness": _darkness,
    "inversion": _inversion,
    "noise": _noise,
    "occlusion": _occlusion,
    "rotation": _rotation,
    "shift": _shift,
    "shrinking": _shrinking,
}
"""Name of a corruption -> the function that applies it."""
