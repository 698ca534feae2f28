"""Shuffled, augmented, normalised batches out of one uint8 tensor. Knows nothing of data sets or of training.

Everything is computed for a whole batch at a time on the tensor's own device; there are no workers and no
copies of single images. The random numbers come from a CPU generator: each device sees the same crops.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fashion.config.train import AugmentationConfig
from fashion.training.distortions import distort

ERASE_ASPECTS = (0.3, 1 / 0.3)
"""Height over width of an erased rectangle, log-uniform (Zhong et al. 2017, arXiv:1708.04896)."""


class Batches:
    """Iterating gives one epoch of (images (B, C, H, W) float32 normalised, labels (B,)).

    The next iteration continues an epoch that was left half-way, by `break` or by a restart from `state_dict`.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: AugmentationConfig | None,
        seed: int,
        drop_last: bool,
        shuffle: bool = True,
        rows: slice = slice(None),
    ) -> None:
        """
        Args:
            images: (N, C, H, W) uint8, on the device where batches are needed.
            labels: (N,), on the same device.
            batch_size: images in a batch.
            mean: of each channel of the training split, in [0, 1].
            std: standard deviation of each channel of the training split, in [0, 1].
            augmentation: random changes of images; None for none.
            seed: of order and augmentation.
            drop_last: leave out an epoch's last batch if it is smaller, unless it is the only one.
            shuffle: False for the rows in order.
            rows: of each batch, those that are wanted here. The others still take their random numbers, so that an
                image gets the same crop in whichever share it is.

        Raises:
            ValueError: the images have another shape or type, labels do not match them, or batch_size is below 1.
        """
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise ValueError(f"images must be (N, C, H, W) uint8, got {tuple(images.shape)} {images.dtype}")
        if len(images) != len(labels):
            raise ValueError(f"one label per image is needed, got {len(labels)} for {len(images)}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.labels = labels
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.drop_last = drop_last
        self.shuffle = shuffle
        self._wanted = rows
        self._size: tuple[int, int] = (images.shape[2], images.shape[3])
        pixel_mean, pixel_std = (
            torch.tensor(list(values), device=images.device).view(1, -1, 1, 1) for values in (mean, std)
        )
        self._scale = 1 / (255 * pixel_std)
        self._shift = pixel_mean / pixel_std
        padding = augmentation.crop_padding if augmentation else 0
        # Padded once; a crop is then an index into a view of all windows: no slower than a plain gather.
        padded = torch.nn.functional.pad(images, (padding,) * 4) if padding else images
        self._windows = padded.unfold(2, self._size[0], 1).unfold(3, self._size[1], 1)
        self._generator = torch.Generator().manual_seed(seed)
        # Alternating flips show each image one way in even epochs and the other way in odd ones.
        self._flip_mask = torch.rand(len(images), generator=self._generator) < 0.5
        self._epoch = 0
        self._cursor = 0
        self._permutation: Tensor | None = None

    def __len__(self) -> int:
        """Batches in one epoch."""
        rows = len(self.labels)
        return max(1, rows // self.batch_size) if self.drop_last else math.ceil(rows / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._permutation is None:
            rows = len(self.labels)
            self._permutation = torch.randperm(rows, generator=self._generator) if self.shuffle else torch.arange(rows)
        while self._cursor < len(self):
            start = self._cursor * self.batch_size
            rows_of_batch = self._permutation[start : start + self.batch_size]
            images = self._images(rows_of_batch)
            labels = self.labels[rows_of_batch[self._wanted].to(self.labels.device)]
            self._cursor += 1  # before yielding: to a loop that saves its state now, this batch was seen
            yield images, labels
        self._permutation = None
        self._cursor = 0
        self._epoch += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next batch depends on, besides the constructor's arguments."""
        return {
            "generator": self._generator.get_state(),
            "permutation": self._permutation,
            "flip_mask": self._flip_mask,
            "cursor": self._cursor,
            "epoch": self._epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue bit for bit where `state_dict` was taken.

        Raises:
            ValueError: the state belongs to a different number of images.
        """
        if len(state["flip_mask"]) != len(self.labels):
            raise ValueError(f"the state is of {len(state['flip_mask'])} images, but there are {len(self.labels)}")
        self._generator.set_state(state["generator"].cpu())
        self._permutation = None if state["permutation"] is None else state["permutation"].cpu()
        self._flip_mask = state["flip_mask"].cpu()
        self._cursor = state["cursor"]
        self._epoch = state["epoch"]

    def _images(self, rows: Tensor) -> Tensor:
        config, device, count, wanted = self.augmentation, self.labels.device, len(rows), self._wanted
        top = left = torch.zeros(count, dtype=torch.int64)
        if config is not None and config.crop_padding:
            top, left = torch.randint(2 * config.crop_padding + 1, (2, count), generator=self._generator)
        pixels = self._windows[rows[wanted].to(device), :, top[wanted].to(device), left[wanted].to(device)]
        if config is not None and config.flip != "none":
            mirrored = self._mirrored(rows, config.flip)[wanted].to(device)
            pixels = torch.where(mirrored.view(-1, 1, 1, 1), pixels.flip(-1), pixels)
        images = pixels.float()
        if config is not None and config.distort_share:
            distort(images.div_(255), count, config.distort_share, self._generator, wanted).mul_(255)
        images.mul_(self._scale).sub_(self._shift)
        if config is not None and config.erase_probability:
            probability, scale = config.erase_probability, config.erase_scale
            erased = erased_pixels(count, self._size, probability, scale, self._generator, wanted)
            images.masked_fill_(erased.to(device).unsqueeze(1), 0.0)  # 0 is the mean pixel
        return images

    def _mirrored(self, rows: Tensor, flip: str) -> Tensor:
        if flip == "random":
            return torch.rand(len(rows), generator=self._generator) < 0.5
        if flip == "alternating":
            is_odd = self._epoch % 2 == 1
            return self._flip_mask[rows] ^ torch.tensor(is_odd)
        raise ValueError(f"flip must be none, random or alternating, got {flip!r}")


def erased_pixels(
    count: int,
    size: tuple[int, int],
    probability: float,
    scale: tuple[float, float],
    generator: torch.Generator,
    rows: slice = slice(None),
) -> Tensor:
    """Sample which pixels random erasing hides: at most one rectangle in each image.

    Args:
        count: number of images.
        size: (H, W).
        probability: that an image has a rectangle.
        scale: smallest and largest area, as a fraction of the image; sampled uniformly between.
        generator: on the CPU.
        rows: of the images, those that are wanted.

    Returns:
        (count, H, W) bool; fewer with `rows`.
    """
    height, width = size
    chance, area, aspect, y, x = torch.rand(5, count, generator=generator)[:, rows]
    area = (scale[0] + (scale[1] - scale[0]) * area) * height * width
    low, high = map(math.log, ERASE_ASPECTS)
    aspect = (low + (high - low) * aspect).exp()
    tall = (area * aspect).sqrt().round().clamp(1, height)
    wide = (area / aspect).sqrt().round().clamp(1, width)
    top, left = (y * (height - tall + 1)).floor(), (x * (width - wide + 1)).floor()
    ys, xs = torch.arange(height), torch.arange(width)
    in_rows = (ys >= top[:, None]) & (ys < (top + tall)[:, None])
    in_columns = (xs >= left[:, None]) & (xs < (left + wide)[:, None])
    has_rectangle = chance < probability
    erased: Tensor = in_rows[:, :, None] & in_columns[:, None, :] & has_rectangle[:, None, None]
    return erased
