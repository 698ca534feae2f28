"""The transform against a naive computation, and the arguments that it rejects."""

import numpy as np
import pytest

from fashion.data.dataset import Dataset
from fashion.images import transform


@pytest.mark.parametrize("channels", [1, 3])
def test_normalise_equals_a_naive_computation(channels: int) -> None:
    rng = np.random.default_rng(0)
    shape = (4, 5, 6) if channels == 1 else (4, 5, 6, channels)
    pictures = rng.integers(0, 256, shape, dtype=np.uint8)
    mean, std = (0.1, 0.5, 0.9)[:channels], (0.2, 0.3, 0.05)[:channels]
    inputs = transform.normalise(pictures, mean, std)
    assert inputs.dtype == np.float32
    assert inputs.flags.c_contiguous
    assert inputs.shape == (4, channels, 5, 6)
    expected = np.empty(inputs.shape)
    for place in np.ndindex(inputs.shape):
        row, channel, y, x = place
        pixel = int(pictures[row, y, x] if channels == 1 else pictures[row, y, x, channel])
        expected[place] = (pixel / 255 - mean[channel]) / std[channel]
    np.testing.assert_allclose(inputs, expected, rtol=1e-5, atol=1e-6)


def test_normalise_with_the_data_sets_own_statistics_centres_it(small_dataset: Dataset) -> None:
    inputs = transform.normalise(small_dataset.train.images, small_dataset.mean, small_dataset.std)
    assert inputs.mean(dtype=np.float64) == pytest.approx(0, abs=1e-5)
    assert inputs.std(dtype=np.float64) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (np.zeros((2, 8, 8), np.float32), "images must be uint8, got float32"),
        (np.zeros((8, 8), np.uint8), r"images must be \(N, H, W\) or \(N, H, W, C\), got shape \(8, 8\)"),
        (
            np.zeros((2, 8, 8, 3), np.uint8),
            "one number for each of 3 channels, got 1 and 1",
        ),
    ],
)
def test_normalise_rejects_other_types_and_shapes(pictures: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transform.normalise(pictures, (0.5,), (0.5,))


def test_normalise_rejects_means_and_deviations_of_different_lengths() -> None:
    with pytest.raises(ValueError, match="one number for each of 1 channels, got 1 and 2"):
        transform.normalise(np.zeros((2, 8, 8), np.uint8), (0.5,), (0.5, 0.5))
