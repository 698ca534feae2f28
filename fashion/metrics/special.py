"""Functions that scipy has, for the service, whose image has no scipy. Knows numbers alone."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

SHIFT = 7
"""The series is used from here on, where its error is below 1e-12; smaller arguments are led to it by recurrence."""
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)


def log_gamma(x: ArrayLike) -> Floats:
    """Logarithm of the gamma function of positive numbers, by Stirling's series."""
    value = np.asarray(x, np.float64)
    below = sum((np.log(value + step) for step in range(SHIFT)), np.zeros_like(value))
    y = value + SHIFT
    series = sum(factor / y ** (2 * power + 1) for power, factor in enumerate(STIRLING))
    result: Floats = (y - 0.5) * np.log(y) - y + 0.5 * math.log(2 * math.pi) + series - below
    return result


def log_beta(a: ArrayLike, b: ArrayLike) -> Floats:
    """Logarithm of the beta function of positive numbers."""
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    result: Floats = log_gamma(first) + log_gamma(second) - log_gamma(first + second)
    return result


def count_log(count: ArrayLike, probability: ArrayLike) -> Floats:
    """`count * log(probability)`, and 0 for no count whatever the probability."""
    number, value = np.asarray(count, np.float64), np.asarray(probability, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        product: Any = number * np.log(value)
    result: Floats = np.where(number == 0, 0.0, product)
    return result


def binomial_at_least(successes: int, trials: int, probability: float) -> float:
    """Probability of at least so many successes.

    Args:
        successes: 0 or more.
        trials: how often it is tried.
        probability: of one success, in [0, 1].
    """
    if successes <= 0:
        return 1.0
    k = np.arange(successes, trials + 1, dtype=np.float64)
    ways = log_gamma(trials + 1) - log_gamma(k + 1) - log_gamma(trials - k + 1)
    logs = ways + count_log(k, probability) + count_log(trials - k, 1 - probability)
    return min(1.0, float(np.exp(logs).sum()))
