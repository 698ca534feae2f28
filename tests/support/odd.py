"""Changes of pictures that no corruption of `fashion.images.corruptions` makes: nothing is calibrated on them."""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from fashion.images.transform import Images


def border(images: Images) -> Images:
    """A white frame, two pixels wide."""
    framed = np.full_like(images, 255)
    framed[:, 2:-2, 2:-2] = images[:, 2:-2, 2:-2]
    return framed


def sharpened(images: Images) -> Images:
    """Edges are stronger: an unsharp mask."""
    pixels = images.astype(np.float32)
    return np.asarray(np.clip(2 * pixels - ndimage.gaussian_filter(pixels, (0, 1, 1)), 0, 255), np.uint8)


def solarized(images: Images) -> Images:
    """Bright grey levels are inverted."""
    return np.asarray(np.where(images > 200, 255 - images, images), np.uint8)


def stretched(images: Images) -> Images:
    """A quarter wider, cut to the same size."""
    wide = ndimage.zoom(images.astype(np.float32), (1, 1, 1.25), order=1)
    cut = (wide.shape[2] - images.shape[2]) // 2
    return np.asarray(np.clip(wide[:, :, cut : cut + images.shape[2]], 0, 255), np.uint8)


ODD: dict[str, Callable[[Images], Images]] = {
    "border": border,
    "down": lambda images: np.roll(images, 3, axis=1),
    "left": lambda images: np.roll(images, -3, axis=2),
    "mirrored": lambda images: images[:, :, ::-1],
    "posterized": lambda images: images // 64 * 64,
    "sharpened": sharpened,
    "solarized": solarized,
    "stretched": stretched,
    "transposed": lambda images: images.swapaxes(1, 2),
    "upside down": lambda images: images[:, ::-1],
}
"""Name -> changes `(N, H, W)` uint8 pictures."""

RELATED = {"down": ("shift",), "left": ("shift",), "transposed": ("rotation",), "upside down": ("rotation",)}
"""Name -> the corruptions that are much like it."""
