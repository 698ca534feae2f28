"""The transform against a naive one, and statistics of pictures whose numbers are known."""

import numpy as np
import pytest

from fashion.data.dataset import Dataset
from fashion.images import transform
from fashion.images.statistics import STATISTICS, statistics


def described(picture: np.ndarray) -> dict[str, float]:
    """Statistics of one picture by name."""
    return dict(zip(STATISTICS, statistics(picture[None])[0].tolist(), strict=True))


# Transform


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


# Statistics


def test_blank_pictures_have_numbers() -> None:
    assert described(np.zeros((28, 28), np.uint8)) == {
        **dict.fromkeys(STATISTICS, 0.0),
        "centre_x": 0.5,
        "centre_y": 0.5,
    }
    white = described(np.full((28, 28), 255, np.uint8))
    assert white == pytest.approx(
        {
            "brightness": 1,
            "contrast": 0,
            "foreground": 1,
            "saturated": 1,
            "sharpness": 0,
            "asymmetry": 0,
            "centre_x": 0.5,
            "centre_y": 0.5,
        },
        abs=1e-6,
    )


def test_a_half_white_picture() -> None:
    picture = np.zeros((10, 11), np.uint8)
    picture[:, :3] = 255
    result = described(picture)
    assert result["brightness"] == result["foreground"] == result["saturated"] == pytest.approx(3 / 11)
    assert result["contrast"] == pytest.approx(np.sqrt(3 / 11 * 8 / 11))
    assert result["sharpness"] == pytest.approx(2 / 9)  # of 9 inner columns two lie at the edge, each by 1
    assert result["asymmetry"] == pytest.approx(6 / 11)
    assert result["centre_x"] == pytest.approx(0.1)
    assert result["centre_y"] == pytest.approx(0.5)


@pytest.mark.parametrize("corner", [(0, 0), (0, 7), (7, 0), (7, 7)])
def test_the_centre_follows_a_single_pixel(corner: tuple[int, int]) -> None:
    picture = np.zeros((8, 8), np.uint8)
    picture[corner] = 1
    result = described(picture)
    assert (7 * result["centre_y"], 7 * result["centre_x"]) == pytest.approx(corner)


def test_a_chessboard_has_the_greatest_sharpness() -> None:
    picture = (np.indices((9, 9)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert described(picture)["sharpness"] == pytest.approx(4)
    assert described(picture)["asymmetry"] == 0


@pytest.mark.parametrize(
    ("level", "foreground", "saturated"), [(32, 0, 0), (33, 1, 0), (249, 1, 0), (250, 1, 1), (255, 1, 1)]
)
def test_thresholds_of_foreground_and_saturation(level: int, foreground: int, saturated: int) -> None:
    result = described(np.full((4, 4), level, np.uint8))
    assert (result["foreground"], result["saturated"]) == (foreground, saturated)


def test_mirrored_pictures_differ_only_in_the_centre(small_dataset: Dataset) -> None:
    pictures = small_dataset.test.images[:100]
    result, mirrored = statistics(pictures), statistics(pictures[:, :, ::-1])
    column = STATISTICS.index("centre_x")
    mirrored[:, column] = 1 - mirrored[:, column]
    np.testing.assert_allclose(result, mirrored, atol=1e-5)


def test_statistics_of_a_colour_picture_are_those_of_its_mean(small_dataset: Dataset) -> None:
    pictures = small_dataset.test.images[:100]
    result = statistics(pictures)
    assert result.shape == (100, len(STATISTICS))
    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    np.testing.assert_allclose(statistics(np.stack([pictures] * 3, axis=-1)), result, atol=1e-6)


def test_statistics_of_a_picture_do_not_depend_on_the_others(small_dataset: Dataset) -> None:
    pictures = small_dataset.test.images[:20]
    one_by_one = np.concatenate([statistics(picture[None]) for picture in pictures])
    np.testing.assert_allclose(one_by_one, statistics(pictures), rtol=1e-6, atol=1e-7)
