"""Normalise images for a network: the one transform of training, service and drift. Knows no model.

Stored images are `(N, H, W) uint8`, or `(N, H, W, C) uint8` where there is more than one channel.
"""

import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
"""`(N, H, W)`, or `(N, H, W, C)` where there is more than one channel."""


def with_channels(images: Images) -> Images:
    """View stored images as `(N, C, H, W) uint8`.

    Raises:
        ValueError: the array has another number of dimensions.
    """
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4:
        return np.moveaxis(images, -1, 1)
    raise ValueError(f"images must be (N, H, W) or (N, H, W, C), got shape {images.shape}")


def normalise(images: Images, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """Turn stored images into a network's input.

    Args:
        images: `(N, H, W)` or `(N, H, W, C)` uint8.
        mean: mean of each channel over the training split, of pixels scaled to [0, 1].
        std: standard deviation of each channel over the training split, of pixels scaled to [0, 1].

    Returns:
        `(N, C, H, W)` float32, contiguous.

    Raises:
        ValueError: the type or shape is another, or `mean` and `std` do not have one number for each channel.
    """
    if images.dtype != np.uint8:
        raise ValueError(f"images must be uint8, got {images.dtype}")
    planes = with_channels(images)
    if planes.shape[1] != len(mean) or len(mean) != len(std):
        raise ValueError(
            f"mean and std must have one number for each of {planes.shape[1]} channels, got {len(mean)} and {len(std)}"
        )
    scale, shift = _scale_and_shift(tuple(mean), tuple(std))
    normalised = np.empty(planes.shape, np.float32)
    np.multiply(planes, scale, out=normalised)
    return np.add(normalised, shift, out=normalised)


@functools.lru_cache(maxsize=16)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What `normalise` multiplies by and adds, each `(C, 1, 1)`: making them takes longer than normalising an image."""
    scale = (1.0 / (255.0 * np.asarray(std))).astype(np.float32)
    shift = (-np.asarray(mean) / np.asarray(std)).astype(np.float32)
    return scale[:, None, None], shift[:, None, None]


Preparation = Literal["product_photo", "whole_picture", "handwriting"]
"""How a picture of another size is made like those of the data; see fashion/images/preparation.py."""
