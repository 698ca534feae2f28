"""Statistics of images whose numbers are known, and how they change with the image."""

import numpy as np
import pytest

from fashion.data.dataset import Dataset
from fashion.images.statistics import STATISTICS, statistics


def describe(picture: np.ndarray) -> dict[str, float]:
    """Statistics of one picture by name."""
    return dict(zip(STATISTICS, statistics(picture[None])[0].tolist(), strict=True))


def test_statistics_of_blank_pictures_are_finite() -> None:
    assert describe(np.zeros((28, 28), np.uint8)) == {
        **dict.fromkeys(STATISTICS, 0.0),
        "centre_x": 0.5,
        "centre_y": 0.5,
    }
    white = describe(np.full((28, 28), 255, np.uint8))
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
    result = describe(picture)
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
    result = describe(picture)
    assert (7 * result["centre_y"], 7 * result["centre_x"]) == pytest.approx(corner)


def test_a_chessboard_has_the_greatest_sharpness() -> None:
    picture = (np.indices((9, 9)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert describe(picture)["sharpness"] == pytest.approx(4)
    assert describe(picture)["asymmetry"] == 0


@pytest.mark.parametrize(
    ("level", "foreground", "saturated"), [(32, 0, 0), (33, 1, 0), (249, 1, 0), (250, 1, 1), (255, 1, 1)]
)
def test_thresholds_of_foreground_and_saturation(level: int, foreground: int, saturated: int) -> None:
    result = describe(np.full((4, 4), level, np.uint8))
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
