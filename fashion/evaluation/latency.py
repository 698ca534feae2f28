"""How long single predictions take. Knows no models."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.images.transform import Images

CALLS = 200
"""Predictions that are timed for each model."""


def time_predictions(
    predict: Sequence[Callable[[Images], Any]], images: Images, *, calls: int = CALLS
) -> NDArray[np.float64]:
    """Time models on one image at a time, in turn, so that other work on the machine slows all of them alike.

    Args:
        predict: one function for each of M models, which takes `(1, H, W)` or `(1, H, W, C)` uint8 images.
        images: `(N, H, W)` or `(N, H, W, C)` uint8, used from the first on, and again if there are fewer than `calls`.
        calls: predictions of each model.

    Returns:
        `(M, calls)` milliseconds.
    """
    times = np.empty((len(predict), calls))
    for call in range(calls):
        image = images[call % len(images)][None]
        for model, function in enumerate(predict):
            started = time.perf_counter()
            function(image)
            times[model, call] = 1000 * (time.perf_counter() - started)
    return times
