"""Changes of training images as lamps, lenses, compression and hands make them, for a batch at a time on its device.

What `fashion.images.corruptions` does to measure, this does to train: of some rows of a batch, at little cost.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

GROUPS = 5
"""Different changes in one batch: each of some images, so that sharpness is computed for all of them at once."""


@dataclass(frozen=True)
class Draw:
    """Random numbers for N images."""

    amounts: Tensor
    """(N, 1, 1, 1) in [0, 1): how much each image is changed."""
    places: Tensor
    """(2, N) in [-1, 1): where to, across and down."""
    amount: float
    """In [0, 1): how much all of them are changed, where that cannot differ."""
    noise: Tensor
    """(N, 2, H, W) of standard normal values."""


def distort(
    images: Tensor, count: int, share: float, generator: torch.Generator, wanted: slice = slice(None)
) -> Tensor:
    """Change a share of a batch's images, each in one way that is chosen at random; return them.

    Args:
        images: (N, C, H, W) float32 in [0, 1]: the wanted rows of a batch. Changed in place.
        count: rows of the whole batch.
        share: of them that are changed.
        generator: on the CPU. It gives the numbers of all rows, so that an image is changed alike in whichever share of
            the batch it is.
        wanted: the rows that there are images of.
    """
    positions = torch.full((count,), -1)
    positions[wanted] = torch.arange(len(images))
    chosen = torch.randperm(count, generator=generator)[: round(share * count)]
    kinds = torch.randint(len(DISTORTIONS), (GROUPS,), generator=generator).tolist()
    for kind, rows in zip(kinds, chosen.chunk(GROUPS), strict=False):
        amounts, across, down = torch.rand(3, len(rows), generator=generator)
        amount = torch.rand((), generator=generator).item()
        noise = torch.randn(len(rows), 2, *images.shape[2:], generator=generator)
        is_here = positions[rows] >= 0
        if is_here.any():
            at = positions[rows][is_here].to(images.device)
            drawn = Draw(
                amounts[is_here].view(-1, 1, 1, 1).to(images.device),
                (2 * torch.stack([across, down]) - 1)[:, is_here].to(images.device),
                amount,
                noise[is_here].to(images.device),
            )
            images[at] = DISTORTIONS[kind](images[at], drawn).clamp_(0, 1)
    return images


def brightness(images: Tensor, drawn: Draw) -> Tensor:
    """Add up to 0.7 to every pixel."""
    return images + 0.7 * drawn.amounts


def darkness(images: Tensor, drawn: Draw) -> Tensor:
    """Scale every pixel down, to a fifth at most."""
    return images * (1 - 0.8 * drawn.amounts)


def contrast(images: Tensor, drawn: Draw) -> Tensor:
    """Move every pixel towards the image's mean."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (1 - 0.85 * drawn.amounts)


def gamma(images: Tensor, drawn: Draw) -> Tensor:
    """Darken what is between black and white, to the fourth power at most."""
    return images ** (1 + 3 * drawn.amounts)


def inversion(images: Tensor, drawn: Draw) -> Tensor:
    """Blend with the negative."""
    return torch.lerp(images, 1 - images, drawn.amounts)


def fog(images: Tensor, drawn: Draw) -> Tensor:
    """Blend with bright, uneven grey."""
    return torch.lerp(images, 0.7 + 0.1 * _smooth(drawn.noise)[:, :1], 0.8 * drawn.amounts)


def gaussian_noise(images: Tensor, drawn: Draw) -> Tensor:
    """Add noise of a standard deviation of up to half of the range, the same in all channels."""
    return images + 0.5 * drawn.amounts * drawn.noise[:, :1]


def salt_and_pepper(images: Tensor, drawn: Draw) -> Tensor:
    """Turn up to two fifths of the pixels black or white."""
    share = 0.5 * (1 + torch.erf(drawn.noise[:, :1] / math.sqrt(2)))  # uniform in [0, 1]
    images = torch.where(share < 0.2 * drawn.amounts, torch.zeros_like(images), images)
    return torch.where(share > 1 - 0.2 * drawn.amounts, torch.ones_like(images), images)


def blur(images: Tensor, drawn: Draw) -> Tensor:
    """Blur with a Gaussian of up to a tenth of the height."""
    deviation = (0.01 + 0.09 * drawn.amount) * images.shape[2]
    reach = max(1, math.ceil(2 * deviation))
    weights = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * deviation**2))
    return _convolve(_convolve(images, weights), weights, down=True)


def motion_blur(images: Tensor, drawn: Draw) -> Tensor:
    """Blur along the rows, as of a camera that moves sideways by up to three fifths of the width."""
    return _convolve(images, torch.ones(2 + round((0.6 * images.shape[3] - 2) * drawn.amount)))


def pixelation(images: Tensor, drawn: Draw) -> Tensor:
    """Show fewer pixels, down to a quarter each way."""
    size = [max(1, round(each * (1 - 0.75 * drawn.amount))) for each in images.shape[2:]]
    return F.interpolate(F.interpolate(images, size=size, mode="area"), size=images.shape[2:], mode="nearest")


def elastic(images: Tensor, drawn: Draw) -> Tensor:
    """Warp smoothly."""
    moves = 0.35 * drawn.amounts * _smooth(drawn.noise)
    still = torch.eye(2, 3, device=images.device).expand(len(images), 2, 3)
    grid = F.affine_grid(still, list(images.shape), align_corners=False) + moves.permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def rotation(images: Tensor, drawn: Draw) -> Tensor:
    """Rotate about the centre, by up to 54 degrees either way."""
    angles = 0.3 * math.pi * drawn.places[0]
    return _move(images, torch.cos(angles), torch.sin(angles))


def shift(images: Tensor, drawn: Draw) -> Tensor:
    """Shift by up to three tenths of the width, and a tenth of the height."""
    across, down = drawn.places
    return _move(images, torch.ones_like(across), torch.zeros_like(across), 0.6 * across, 0.2 * down)


def shrinking(images: Tensor, drawn: Draw) -> Tensor:
    """Shrink towards the centre, to half the size at most."""
    factors = 1 + drawn.amounts.flatten()
    return _move(images, factors, torch.zeros_like(factors))


def occlusion(images: Tensor, drawn: Draw) -> Tensor:
    """Hide a grey square of up to seven tenths of the height."""
    height, width = images.shape[2:]
    rows = torch.linspace(-1, 1, height, device=images.device).view(1, -1, 1)
    columns = torch.linspace(-1, 1, width, device=images.device).view(1, 1, -1)
    across, down = 0.7 * drawn.places.view(2, -1, 1, 1)
    half = 0.1 + 0.6 * drawn.amounts.view(-1, 1, 1)
    hidden = ((rows - down).abs() < half) & ((columns - across).abs() < half)
    return images.masked_fill(hidden.unsqueeze(1), 0.5)


def _smooth(noise: Tensor) -> Tensor:
    """(N, 2, H, W) fields of about standard deviation 1 that change over a seventh of the height."""
    height, width = noise.shape[2:]
    coarse = noise[:, :, : max(2, height // 7), : max(2, width // 7)]
    return F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)


def _convolve(images: Tensor, weights: Tensor, *, down: bool = False) -> Tensor:
    """Weigh neighbours along the rows, or down the columns. Outside an image are the pixels of its edge."""
    shape = (-1, 1) if down else (1, -1)
    kernel = (weights / weights.sum()).to(images.device).view(1, 1, *shape)
    before, after = (len(weights) - 1) // 2, len(weights) // 2
    padding = (0, 0, before, after) if down else (before, after, 0, 0)
    planes = images.reshape(-1, 1, *images.shape[2:])
    return F.conv2d(F.pad(planes, padding, mode="replicate"), kernel).reshape(images.shape)


def _move(
    images: Tensor, cosines: Tensor, sines: Tensor, across: Tensor | None = None, down: Tensor | None = None
) -> Tensor:
    """Rotate, scale and shift each image; black comes in from outside."""
    nothing = torch.zeros_like(cosines)
    rows = [cosines, -sines, nothing if across is None else across, sines, cosines, nothing if down is None else down]
    matrices = torch.stack(rows, dim=1).view(-1, 2, 3)
    return F.grid_sample(images, F.affine_grid(matrices, list(images.shape), align_corners=False), align_corners=False)


DISTORTIONS: tuple[Callable[[Tensor, Draw], Tensor], ...] = (
    *(brightness, darkness, contrast, gamma, inversion, fog, gaussian_noise, salt_and_pepper, blur, motion_blur),
    *(pixelation, elastic, rotation, shift, shrinking, occlusion),
)
"""All that there are, equally likely."""
