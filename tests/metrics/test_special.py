"""Functions of the service are those of scipy."""

import numpy as np
import pytest
from scipy import special, stats

from fashion.metrics.special import binomial_at_least, count_log, log_beta, log_gamma


def test_the_logarithm_of_the_gamma_function() -> None:
    x = np.concatenate([np.linspace(0.01, 20, 500), np.geomspace(20, 1e7, 200)])
    np.testing.assert_allclose(log_gamma(x), special.gammaln(x), rtol=1e-11, atol=1e-11)


def test_the_logarithm_of_the_beta_function() -> None:
    a, b = np.meshgrid([0.5, 1, 4, 90, 3000], [0.5, 1, 7, 1000])
    np.testing.assert_allclose(log_beta(a, b), special.betaln(a, b), rtol=1e-9, atol=1e-9)


def test_counts_times_logarithms() -> None:
    count, probability = np.meshgrid([0, 1, 20], [0.0, 0.25, 1.0])
    np.testing.assert_array_equal(count_log(count, probability), special.xlogy(count, probability))


@pytest.mark.parametrize("trials", [1, 8, 200, 5000])
@pytest.mark.parametrize("probability", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_the_tail_of_the_binomial_distribution(trials: int, probability: float) -> None:
    for successes in sorted({0, 1, trials // 50, trials // 2, trials}):
        expected = stats.binom.sf(successes - 1, trials, probability)
        assert binomial_at_least(successes, trials, probability) == pytest.approx(expected, rel=1e-8, abs=1e-300)
