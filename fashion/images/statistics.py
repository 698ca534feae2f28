"""Describe an image by eight numbers. Knows pixels, not models; drift is tested on these numbers."""

import functools

import numpy as np
from numpy.typing import NDArray

from fashion.images.transform import Images, with_channels

STATISTICS = (
    "brightness",
    "contrast",
    "foreground",
    "saturated",
    "sharpness",
    "asymmetry",
    "centre_x",
    "centre_y",
)
"""Names of the columns of `statistics`."""

_FOREGROUND = 32
"""Grey level above which a pixel counts as foreground; the background of Fashion-MNIST is 0."""
_SATURATED = 250
"""Grey level from which a pixel counts as saturated."""


def statistics(images: Images) -> NDArray[np.float32]:
    """Compute the eight statistics of each image.

    Args:
        images: `(N, H, W)` or `(N, H, W, C)` uint8; channels are averaged.

    Returns:
        `(N, 8)` float32, columns as in `STATISTICS`: mean and standard deviation of the pixels in [0, 1];
        fractions of pixels that are foreground and that are saturated; mean absolute Laplacian; mean
        absolute difference from the mirrored image; centre of mass in [0, 1], 0.5 for a blank image.
    """
    # Few NumPy calls: the service does this for each request, and a call costs more than its arithmetic.
    # In grey levels, not in [0, 1]: sums of integers are exact in any order, so one image and many give equal numbers.
    levels = _levels(images)
    count, height, width = levels.shape
    flat = levels.reshape(count, -1)
    masses = flat @ _masses(height, width)
    mass = masses[:, :1]
    deviations = flat - mass / flat.shape[1]
    inner = _laplacian(levels)
    np.abs(inner, out=inner)
    halves = levels[:, :, : width // 2] - levels[:, :, : (width - 1) // 2 : -1]
    np.abs(halves, out=halves)
    columns = np.empty((count, len(STATISTICS)), np.float32)
    columns[:, 0] = masses[:, 0]
    variance = np.einsum("ij,ij->i", deviations, deviations) / flat.shape[1]
    np.sqrt(variance, out=columns[:, 1])
    columns[:, 2] = np.add.reduce(flat > _FOREGROUND, axis=1)
    columns[:, 3] = np.add.reduce(flat >= _SATURATED, axis=1)
    columns[:, 4] = np.add.reduce(inner, axis=(1, 2))
    columns[:, 5] = np.add.reduce(halves, axis=(1, 2))
    columns[:, 6:] = _middle(height, width)
    np.divide(masses[:, 1:], mass, out=columns[:, 6:], where=mass > 0)
    columns /= _scales(height, width)
    return columns


def _levels(images: Images) -> NDArray[np.float32]:
    """Return grey levels, `(N, H, W)` float32 in [0, 255]."""
    planes = with_channels(images)
    levels: NDArray[np.float32] = (
        planes[:, 0].astype(np.float32) if planes.shape[1] == 1 else planes.mean(axis=1, dtype=np.float32)
    )
    return levels


def _laplacian(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    inner = 4 * levels[:, 1:-1, 1:-1]
    for neighbour in (levels[:, :-2, 1:-1], levels[:, 2:, 1:-1], levels[:, 1:-1, :-2], levels[:, 1:-1, 2:]):
        inner -= neighbour
    return inner


@functools.cache
def _scales(height: int, width: int) -> NDArray[np.float32]:
    """Return what each column is divided by, `(8,)`: it turns sums and counts into means and fractions."""
    pixels, inner = height * width, max((height - 2) * (width - 2), 1)
    pairs = pixels / 2  # the mirrored image is compared over one half
    return np.array(
        [255 * pixels, 255, pixels, pixels, 255 * inner, 255 * pairs, max(width - 1, 1), max(height - 1, 1)], np.float32
    )


@functools.cache
def _middle(height: int, width: int) -> NDArray[np.float32]:
    """Return the centre in x and y of a blank image, `(2,)`, in pixels."""
    return np.array([max(width - 1, 1) / 2, max(height - 1, 1) / 2], np.float32)


@functools.cache
def _masses(height: int, width: int) -> NDArray[np.float32]:
    """Return the weights of the mass and of its moments in x and y, `(H * W, 3)`, in pixels."""
    ones = np.ones((height, width), np.float32)
    x = ones * np.arange(width, dtype=np.float32)
    y = ones * np.arange(height, dtype=np.float32)[:, None]
    return np.stack([ones.ravel(), x.ravel(), y.ravel()], axis=1)
