"""Distortions of training images: what each does to pixels, and that random numbers belong to images."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fashion.training.distortions import DISTORTIONS, Draw, distort

SIZES = [(1, 28, 28), (3, 32, 20), (2, 8, 8)]
"""Channels, height, width."""


def make_images(count: int, size: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Smooth pictures, so that a blurred or shifted one is like the picture, and black at the edge."""
    coarse = torch.rand(count, size[0], 3, 3, generator=torch.Generator().manual_seed(seed))
    images = torch.nn.functional.interpolate(coarse, size=size[1:], mode="bilinear")
    images[:, :, 0] = images[:, :, -1] = images[..., 0] = images[..., -1] = 0
    return images


def make_drawn(count: int, size: tuple[int, int, int], amount: float) -> Draw:
    generator = torch.Generator().manual_seed(1)
    places = torch.full((2, count), amount)
    noise = torch.randn(count, 2, *size[1:], generator=generator)
    return Draw(torch.full((count, 1, 1, 1), amount), places, amount, noise)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("distortion", DISTORTIONS, ids=lambda each: each.__name__)
def test_a_distortion_changes_more_the_more_it_is_asked_to(
    distortion: Callable[[Tensor, Draw], Tensor], size: tuple[int, int, int]
) -> None:
    images = make_images(8, size)

    def change(amount: float) -> float:
        changed = distortion(images.clone(), make_drawn(8, size, amount))
        assert changed.shape == images.shape
        assert changed.dtype == torch.float32
        assert torch.isfinite(changed).all()
        return float((changed.clamp(0, 1) - images).abs().mean())

    assert change(0.9) > 0.01
    assert change(0.9) >= change(0.3)


@pytest.mark.parametrize("size", [*SIZES, (2, 4, 4)], ids=str)
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_images_is_changed_and_stays_in_range(size: tuple[int, int, int], share: float) -> None:
    images = make_images(40, size)
    changed = distort(images.clone(), 40, share, torch.Generator().manual_seed(0))
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert int((changed != images).flatten(1).any(1).sum()) == round(40 * share)


def test_all_kinds_come_and_the_seed_says_which() -> None:
    images, generator = make_images(5, SIZES[0]), torch.Generator().manual_seed(0)
    results = [distort(images.clone(), 5, 1.0, generator) for _ in range(20)]
    assert not torch.equal(results[0], results[1])
    again = torch.Generator().manual_seed(0)
    assert all(torch.equal(distort(images.clone(), 5, 1.0, again), result) for result in results)


@pytest.mark.parametrize("world_size", [2, 3])
def test_an_image_is_changed_alike_in_whichever_share_of_the_batch_it_is(world_size: int) -> None:
    images = make_images(30, SIZES[1])
    for seed in range(10):
        whole = distort(images.clone(), 30, 0.7, torch.Generator().manual_seed(seed))
        for rank in range(world_size):
            rows = slice(rank, None, world_size)
            part = distort(images[rows].clone(), 30, 0.7, torch.Generator().manual_seed(seed), rows)
            torch.testing.assert_close(part, whole[rows])


def test_no_numbers_are_left_over_whichever_share_is_computed() -> None:
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    images = make_images(10, SIZES[0])
    distort(images.clone(), 10, 0.5, generators[0])
    distort(images[:3].clone(), 10, 0.5, generators[1], slice(0, 3))
    assert torch.equal(*(generator.get_state() for generator in generators))
