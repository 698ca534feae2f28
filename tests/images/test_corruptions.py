"""Each corruption by its properties, and on pictures where the outcome is known."""

import re

import numpy as np
import pytest

from fashion.data.dataset import Dataset
from fashion.images.corruptions import CORRUPTIONS, corrupt

RANDOM = {"noise", "occlusion"}


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


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - {"contrast", "noise"}))
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
