"""The one transform from pictures to what a network sees, and the statistics drift is judged by. Knows no model.

Images at rest are `(N, H, W) uint8`, or `(N, H, W, C) uint8` where there is more than one channel.
"""

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]

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

_FOREGROUND = 32  # grey level above which a pixel counts as garment; the background of the data is 0


def with_channels(images: Images) -> Images:
    """View images at rest as `(N, C, H, W) uint8`."""
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4:
        return np.moveaxis(images, -1, 1)
    raise ValueError(f"images must be (N, H, W) or (N, H, W, C), got shape {images.shape}")


def normalise(images: Images, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """Turn images at rest into a network's input.

    Args:
        images: `(N, H, W)` or `(N, H, W, C)` uint8.
        mean: per channel, of pixels scaled to [0, 1], over the training split.
        std: likewise.

    Returns:
        `(N, C, H, W)` float32, contiguous.

    Raises:
        ValueError: another type or shape, or another number of channels than statistics.
    """
    if images.dtype != np.uint8:
        raise ValueError(f"images must be uint8, got {images.dtype}")
    planes = with_channels(images)
    if planes.shape[1] != len(mean) or len(mean) != len(std):
        raise ValueError(f"{planes.shape[1]} channels need as many statistics, got {len(mean)} and {len(std)}")
    scale = (1.0 / (255.0 * np.asarray(std))).astype(np.float32)
    shift = (-np.asarray(mean) / np.asarray(std)).astype(np.float32)
    return np.ascontiguousarray(planes * scale[:, None, None] + shift[:, None, None], dtype=np.float32)


def statistics(images: Images) -> NDArray[np.float32]:
    """Describe each image by eight numbers that need no model.

    Returns:
        `(N, 8)` float32, columns as in `STATISTICS`: mean and standard deviation of the pixels in [0, 1];
        fractions of pixels that are foreground and that are at least 250; mean absolute Laplacian; mean
        absolute difference from the mirrored image; centre of mass in [0, 1], 0.5 for a blank image.
    """
    levels = with_channels(images).mean(axis=1, dtype=np.float32)
    count, height, width = levels.shape
    size = np.float32(height * width)
    # The service does this for each request: few and plain operations, for each costs more than its arithmetic.
    # Sums of whole numbers are exact in any order: a processor may add up one picture otherwise than many.
    mass, mass_x, mass_y = (levels.reshape(count, -1) @ _masses(height, width)).T
    grey = levels / np.float32(255)
    flat = grey.reshape(count, -1)
    mean = mass / (255 * size)
    deviations = flat - mean[:, None]
    inner = np.abs(_laplacian(grey)).reshape(count, -1)
    halves = np.abs(grey[:, :, : width // 2] - grey[:, :, : (width - 1) // 2 : -1]).reshape(count, -1)
    columns = np.empty((count, len(STATISTICS)), np.float32)
    columns[:, 0] = mean
    columns[:, 1] = np.sqrt(np.einsum("ij,ij->i", deviations, deviations) / size)
    columns[:, 2] = np.count_nonzero(flat > _FOREGROUND / 255, axis=1) / size
    columns[:, 3] = np.count_nonzero(flat >= 250 / 255, axis=1) / size
    columns[:, 4] = inner.sum(axis=1) / inner.shape[1]
    columns[:, 5] = 2 * halves.sum(axis=1) / size  # each pair differs twice
    columns[:, 6] = np.where(mass > 0, mass_x / np.maximum(mass * max(width - 1, 1), 1e-6), 0.5)
    columns[:, 7] = np.where(mass > 0, mass_y / np.maximum(mass * max(height - 1, 1), 1e-6), 0.5)
    return columns


def _laplacian(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    inner: NDArray[np.float32] = (
        4 * grey[:, 1:-1, 1:-1] - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    )
    return inner


@functools.cache
def _masses(height: int, width: int) -> NDArray[np.float32]:
    """`(H * W, 3)`: what pixels are summed with for the mass, and for its moments in x and y, in pixels."""
    ones = np.ones((height, width), np.float32)
    x = ones * np.arange(width, dtype=np.float32)
    y = ones * np.arange(height, dtype=np.float32)[:, None]
    return np.stack([ones.ravel(), x.ravel(), y.ravel()], axis=1)
