"""The one transform from pictures to what a network sees, and the statistics drift is judged by. Knows no model.

Images at rest are `(N, H, W) uint8`, or `(N, H, W, C) uint8` where there is more than one channel.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]


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


Preparation = Literal["product_photo", "whole_picture"]
"""What makes a picture of another size one like those of the data (fashion/images/preparation.py)."""
