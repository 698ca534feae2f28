"""Corrupt images in ways that occur in production, each by an amount. Knows pixels, not models."""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
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
        seed: seed of the random corruptions: elastic, fog, noise, occlusion and salt_and_pepper.

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


def _jpeg(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Compress as JPEG; 0.9 is quality 10, and from 0.99 on quality is 1. Of colour, three channels at once."""
    quality = max(1, round(100 * (1 - amount)))
    whole = np.rint(pixels * 255).astype(np.uint8)
    if pixels.ndim == 4 and pixels.shape[-1] != 3:
        channels = [_compress(whole[..., channel], quality) for channel in range(pixels.shape[-1])]
        return np.stack(channels, axis=-1)
    return _compress(whole, quality)


def _compress(images: Images, quality: int) -> Pixels:
    def compress(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return np.stack([compress(image) for image in images]).astype(np.float32) / np.float32(255)


def _motion_blur(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Blur along the rows, as of a camera that moves sideways; 1 is a path as long as the width."""
    length = 1 + amount * pixels.shape[2]
    whole = int(length)
    weights = np.full(whole + 1, 1 / length)
    weights[-1] = (length - whole) / length  # of a pixel that is passed in part
    blurred: Pixels = ndimage.convolve1d(pixels, weights.astype(np.float32), axis=2, mode="nearest")
    return blurred


def _pixelation(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Show fewer pixels, each the mean of those it replaces; 0.5 is half as many each way, 1 a single one."""
    pixelated = pixels
    for axis in (1, 2):
        size = pixels.shape[axis]
        count = max(1, round(size * (1 - amount)))
        # Where each new pixel begins and ends, in old ones; their sums from the left give the means.
        bounds = np.arange(count + 1) * size / count
        sums = np.insert(np.cumsum(pixelated, axis=axis, dtype=np.float64), 0, 0, axis=axis)
        below = np.floor(bounds).astype(int).clip(0, size)
        part = np.expand_dims(bounds - below, tuple(each for each in range(pixels.ndim) if each != axis))
        at = sums.take(below, axis) * (1 - part) + sums.take((below + 1).clip(0, size), axis) * part
        means = np.diff(at, axis=axis) * count / size
        nearest = ((np.arange(size) + 0.5) * count / size).astype(int)
        pixelated = means.take(nearest, axis).astype(np.float32)
    return pixelated


def _elastic(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Warp smoothly; 1 moves a pixel by a standard deviation of an eighth of the height, each way."""
    count, height, width = pixels.shape[:3]
    moves = [amount * height / 8 * _smooth(rng, (count, height, width), sigma=height / 7) for _ in range(2)]
    rows = np.arange(height)[None, :, None] + moves[0]
    columns = np.arange(width)[None, None, :] + moves[1]
    pictures = np.broadcast_to(np.arange(count)[:, None, None], rows.shape)

    def warp(channel: Pixels) -> Pixels:
        warped: Pixels = ndimage.map_coordinates(channel, [pictures, rows, columns], order=1, mode="nearest")
        return warped

    if pixels.ndim == 3:
        return warp(pixels)
    return np.stack([warp(pixels[..., channel]) for channel in range(pixels.shape[-1])], axis=-1)


def _fog(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Blend with bright, uneven grey; 1 leaves only the fog."""
    share = np.float32(min(amount, 1.0))
    uneven = 0.7 + 0.1 * _smooth(rng, pixels.shape[:3], sigma=pixels.shape[1] / 7)
    fog = uneven.astype(np.float32).reshape(*pixels.shape[:3], *(1,) * (pixels.ndim - 3))
    return (1 - share) * pixels + share * fog


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], *, sigma: float) -> NDArray[np.float64]:
    """Smooth random fields of standard deviation 1, one for each picture."""
    fields: NDArray[np.float64] = ndimage.gaussian_filter(rng.normal(size=shape), (0, sigma, sigma))
    smooth: NDArray[np.float64] = fields / fields.std()
    return smooth


def _salt_and_pepper(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Turn a share of the pixels black or white; 1 is all of them."""
    drawn = rng.random(pixels.shape[:3]).reshape(*pixels.shape[:3], *(1,) * (pixels.ndim - 3))
    return np.where(drawn < amount / 2, np.float32(0), np.where(drawn >= 1 - amount / 2, np.float32(1), pixels))


def _gamma(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Darken what is between black and white; 1 is the fourth power."""
    return pixels ** np.float32(1 + 3 * amount)


CORRUPTIONS: dict[str, Callable[[Pixels, float, np.random.Generator], Pixels]] = {
    "blur": _blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "darkness": _darkness,
    "elastic": _elastic,
    "fog": _fog,
    "gamma": _gamma,
    "inversion": _inversion,
    "jpeg": _jpeg,
    "motion_blur": _motion_blur,
    "noise": _noise,
    "occlusion": _occlusion,
    "pixelation": _pixelation,
    "rotation": _rotation,
    "salt_and_pepper": _salt_and_pepper,
    "shift": _shift,
    "shrinking": _shrinking,
}
"""Name of a corruption -> the function that applies it."""
