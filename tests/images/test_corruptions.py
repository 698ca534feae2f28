"""Each corruption by its properties, and on pictures where the outcome is known."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from fashion.data.dataset import Dataset
from fashion.images.corruptions import CORRUPTIONS, corrupt

RANDOM = {"elastic", "fog", "noise", "occlusion", "salt_and_pepper"}


@pytest.fixture(scope="module", params=["grey", "colour"])
def pictures(request: pytest.FixtureRequest, small_dataset: Dataset) -> np.ndarray:
    grey = small_dataset.val.images[:50]
    if request.param == "grey":
        return grey
    return np.stack([grey, small_dataset.val.images[50:100], grey // 2], axis=-1)


every = pytest.mark.parametrize("name", sorted(CORRUPTIONS))


@every
def test_amount_zero_changes_nothing(name: str, pictures: np.ndarray) -> None:
    np.testing.assert_array_equal(corrupt(pictures, name, 0), pictures)


@every
def test_a_larger_amount_changes_more_and_never_the_input(name: str, pictures: np.ndarray) -> None:
    before = pictures.copy()
    changes = []
    for amount in (0.1, 0.3, 0.6):
        changed = corrupt(pictures, name, amount)
        assert (changed.shape, changed.dtype) == (pictures.shape, np.uint8)
        changes.append(np.abs(changed.astype(float) - pictures).mean())
    assert 0 < changes[0] < changes[1] < changes[2]
    np.testing.assert_array_equal(pictures, before)


@every
def test_only_random_corruptions_depend_on_the_seed(name: str, pictures: np.ndarray) -> None:
    first = corrupt(pictures, name, 0.3, seed=1)
    np.testing.assert_array_equal(first, corrupt(pictures, name, 0.3, seed=1))
    assert np.array_equal(first, corrupt(pictures, name, 0.3, seed=2)) == (name not in RANDOM)


@every
def test_a_very_large_amount_still_gives_pictures(name: str, pictures: np.ndarray) -> None:
    changed = corrupt(pictures, name, 5.0)
    assert (changed.shape, changed.dtype) == (pictures.shape, np.uint8)


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - {"contrast", "jpeg", "noise"}))
def test_channels_are_treated_alike(name: str, small_dataset: Dataset) -> None:
    grey = small_dataset.val.images[:20]
    colour = corrupt(np.stack([grey] * 3, axis=-1), name, 0.3, seed=3)
    for channel in range(3):
        np.testing.assert_array_equal(colour[..., channel], corrupt(grey, name, 0.3, seed=3))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("brightness", lambda grey: np.full_like(grey, 255)),
        ("darkness", np.zeros_like),
        ("gamma", lambda grey: np.rint((grey / 255) ** 4 * 255).astype(np.uint8)),
        ("inversion", lambda grey: 255 - grey),
        ("occlusion", lambda grey: np.full_like(grey, 128)),
        ("rotation", lambda grey: np.rot90(grey, axes=(1, 2))),
        ("shift", lambda grey: np.concatenate([np.zeros_like(grey[:, :, :14]), grey[:, :, :14]], axis=2)),
    ],
)
def test_amount_one_does_what_the_docstring_says(name: str, expected, small_dataset: Dataset) -> None:
    grey = small_dataset.val.images[:20]
    np.testing.assert_array_equal(corrupt(grey, name, 1), expected(grey))


def test_no_contrast_leaves_the_mean(small_dataset: Dataset) -> None:
    grey = small_dataset.val.images[:20]
    flat = corrupt(grey, "contrast", 1)
    np.testing.assert_allclose(flat, np.broadcast_to(grey.mean(axis=(1, 2))[:, None, None], grey.shape), atol=0.5001)


def test_jpeg_is_the_file_that_pillow_writes(small_dataset: Dataset) -> None:
    (picture,) = small_dataset.val.images[:1]
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=10)
    np.testing.assert_array_equal(corrupt(picture[None], "jpeg", 0.9)[0], np.asarray(Image.open(file)))
    four = np.stack([picture, picture // 2, picture // 3, picture // 4], axis=-1)[None]
    np.testing.assert_array_equal(corrupt(four, "jpeg", 0.9)[0, ..., 0], np.asarray(Image.open(file)))


@pytest.mark.parametrize("length", [3, 8])
def test_motion_blurs_a_point_to_a_line_of_its_length(length: int) -> None:
    point = np.zeros((1, 28, 28), np.uint8)
    point[0, 14, 14] = 240
    line = corrupt(point, "motion_blur", (length - 1) / 28)[0]
    assert sorted(line[14][line[14] > 0].tolist()) == [240 // length] * length
    assert line.sum() == 240


@pytest.mark.parametrize("count", [14, 7])
def test_pixelation_leaves_the_means_of_blocks(count: int, small_dataset: Dataset) -> None:
    (picture,) = small_dataset.val.images[:1]
    few = np.asarray(Image.fromarray(picture).resize((count, count), Image.Resampling.BOX)).astype(int)
    shown = corrupt(picture[None], "pixelation", 1 - count / 28)[0].astype(int)
    at = ((np.arange(count) + 0.5) * 28 / count).astype(int)
    assert np.abs(shown[np.ix_(at, at)] - few).max() <= 1


def test_salt_and_pepper_are_as_many_pixels_as_given() -> None:
    changed = corrupt(np.full((50, 28, 28), 128, np.uint8), "salt_and_pepper", 0.2)
    assert (changed == 0).mean() == pytest.approx(0.1, rel=0.05)
    assert (changed == 255).mean() == pytest.approx(0.1, rel=0.05)


def test_elastic_moves_pixels_and_makes_none(small_dataset: Dataset) -> None:
    flat = np.full((3, 28, 28), 90, np.uint8)
    np.testing.assert_array_equal(corrupt(flat, "elastic", 0.5), flat)


def test_noise_has_the_given_deviation() -> None:
    grey = np.full((20, 28, 28), 128, np.uint8)
    assert corrupt(grey, "noise", 0.1).std() == pytest.approx(25.5, rel=0.02)


def test_shrinking_keeps_the_picture_in_the_middle() -> None:
    changed = corrupt(np.full((1, 28, 28), 255, np.uint8), "shrinking", 1)[0]
    assert changed[7:21, 7:21].min() == 255
    changed[7:21, 7:21] = 0
    assert changed.max() == 0


def test_occlusion_hides_another_place_in_each_picture() -> None:
    changed = corrupt(np.zeros((20, 28, 28), np.uint8), "occlusion", 0.25)
    assert (changed > 0).sum(axis=(1, 2)).tolist() == [49] * 20
    assert len({picture.tobytes() for picture in changed}) > 10


def test_an_unknown_name_lists_the_names(pictures: np.ndarray) -> None:
    names = ", ".join(sorted(CORRUPTIONS))
    with pytest.raises(ValueError, match=f"^name must be one of {re.escape(names)}, got 'rust'$"):
        corrupt(pictures, "rust", 0.5)


@pytest.mark.parametrize("amount", [-0.1, float("nan")])
def test_a_negative_or_missing_amount_is_rejected(amount: float, pictures: np.ndarray) -> None:
    with pytest.raises(ValueError, match=f"^amount must be at least 0, got {amount}$"):
        corrupt(pictures, "blur", amount)
