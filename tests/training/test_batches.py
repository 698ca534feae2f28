"""Batches against the naive way: one image at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fashion.config.train import AugmentationConfig
from fashion.training.batches import Batches, erased_pixels

MEAN, STD = (0.3, 0.4), (0.2, 0.5)


def make_images(count: int = 50) -> Tensor:
    rng = np.random.default_rng(0)
    # No pixel is 0 but those of the padding, so that a crop can be found again.
    return torch.from_numpy(rng.integers(1, 256, (count, 2, 12, 10), dtype=np.uint8))


def make_augmentation(crop_padding: int = 0, flip: str = "none", erase_probability: float = 0.0) -> AugmentationConfig:
    return AugmentationConfig(
        crop_padding=crop_padding, flip=flip, erase_probability=erase_probability, erase_scale=(0.05, 0.3)
    )


def make_batches(
    augmentation: AugmentationConfig | None,
    *,
    count: int = 50,
    shuffle: bool = True,
    drop_last: bool = False,
    seed: int = 0,
) -> Batches:
    images = make_images(count)
    return Batches(
        images,
        torch.arange(count),  # a label that names its image
        batch_size=16,
        mean=MEAN,
        std=STD,
        augmentation=augmentation,
        seed=seed,
        drop_last=drop_last,
        shuffle=shuffle,
    )


def pixels_of(images: Tensor) -> Tensor:
    """Undo the normalisation: (N, C, H, W) uint8."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (MEAN, STD))
    return ((images * std + mean) * 255).round().to(torch.uint8)


def epoch_of(batches: Batches) -> tuple[Tensor, Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_images_are_normalised_by_channel() -> None:
    images, labels = epoch_of(make_batches(None, shuffle=False))
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (MEAN, STD))
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, (make_images() / 255 - mean) / std)
    assert labels.tolist() == list(range(50))


def test_an_epoch_shows_each_image_once_in_a_new_order() -> None:
    batches = make_batches(None)
    orders = [epoch_of(batches)[1].tolist() for _ in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(50))
    assert orders[0] != orders[1]


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [16, 16, 16, 2]), (True, [16, 16, 16])])
def test_length_counts_the_batches(drop_last: bool, sizes: list[int]) -> None:
    batches = make_batches(None, drop_last=drop_last)
    assert [len(labels) for _, labels in batches] == sizes
    assert len(batches) == len(sizes)


def test_an_only_batch_is_kept() -> None:
    assert [len(labels) for _, labels in make_batches(None, count=5, drop_last=True)] == [5]


def test_crops_are_windows_of_the_padded_image_all_of_them() -> None:
    images, labels = epoch_of(make_batches(make_augmentation(crop_padding=1), count=200))
    found = set()
    for cropped, padded in zip(
        pixels_of(images), torch.nn.functional.pad(make_images(200), (1, 1, 1, 1))[labels], strict=True
    ):
        offsets = [
            (top, left)
            for top in range(3)
            for left in range(3)
            if torch.equal(padded[:, top : top + 12, left : left + 10], cropped)
        ]
        assert len(offsets) == 1
        found.update(offsets)
    assert len(found) == 9


def test_random_flip_mirrors_about_half() -> None:
    images, labels = epoch_of(make_batches(make_augmentation(flip="random"), count=400))
    mirrored = mirrored_rows(images, make_images(400)[labels])
    assert 150 < sum(mirrored) < 250


def test_alternating_flip_shows_both_sides_in_two_epochs() -> None:
    batches = make_batches(make_augmentation(flip="alternating"))
    epochs = []
    for _ in range(3):
        images, labels = epoch_of(batches)
        order = labels.argsort()
        epochs.append(mirrored_rows(images[order], make_images()))
    assert 10 < sum(epochs[0]) < 40
    assert epochs[1] == [not side for side in epochs[0]]
    assert epochs[2] == epochs[0]


def mirrored_rows(images: Tensor, originals: Tensor) -> list[bool]:
    sides = []
    for shown, original in zip(pixels_of(images), originals, strict=True):
        is_mirrored = torch.equal(shown, original.flip(-1))
        assert is_mirrored or torch.equal(shown, original)
        sides.append(is_mirrored)
    return sides


def test_erasing_hides_one_rectangle_of_the_configured_area() -> None:
    generator = torch.Generator().manual_seed(0)
    erased = erased_pixels(2000, (12, 10), 0.25, (0.1, 0.3), generator).numpy()
    hidden = erased.any(axis=(1, 2))
    assert 0.2 < hidden.mean() < 0.3
    for mask in erased[hidden]:
        ys, xs = np.nonzero(mask)
        assert mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].all()
        # Rounding the sides of a small rectangle moves its area.
        assert 0.05 < mask.mean() < 0.4
    touched = erased.any(axis=0)
    assert touched.all()  # every place can be hidden


def test_erased_pixels_are_the_mean_pixel_and_others_stay() -> None:
    plain, _ = epoch_of(make_batches(make_augmentation(), shuffle=False))
    images, _ = epoch_of(make_batches(make_augmentation(erase_probability=1.0), shuffle=False))
    is_changed = images != plain
    assert is_changed.flatten(1).any(dim=1).all()
    assert (images[is_changed] == 0).all()


@pytest.mark.parametrize("seen", [0, 1, 4, 6])
def test_resume_is_bit_identical(seen: int) -> None:
    augmentation = make_augmentation(crop_padding=2, flip="alternating", erase_probability=0.5)
    uninterrupted = make_batches(augmentation)
    state, rest, count = uninterrupted.state_dict(), [], 0
    for _ in range(3):
        for batch in uninterrupted:
            count += 1
            if count == seen:
                state = uninterrupted.state_dict()
            elif count > seen:
                rest.append(batch)
    resumed = make_batches(augmentation, seed=1)
    resumed.load_state_dict(state)
    again = [batch for _ in range(3) for batch in resumed][: len(rest)]
    assert len(again) == len(rest) == 12 - seen
    for (images, labels), (images_again, labels_again) in zip(rest, again, strict=True):
        assert torch.equal(images, images_again)
        assert torch.equal(labels, labels_again)


def test_state_survives_a_checkpoint_file(tmp_path: Path) -> None:
    batches = make_batches(make_augmentation(flip="random"))
    next(iter(batches))
    torch.save(batches.state_dict(), tmp_path / "state.pt")
    resumed = make_batches(make_augmentation(flip="random"), seed=1)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(epoch_of(batches)[0], epoch_of(resumed)[0])


def test_state_of_other_images_is_refused() -> None:
    with pytest.raises(ValueError, match="the state is of 50 images, but there are 40"):
        make_batches(None, count=40).load_state_dict(make_batches(None).state_dict())
