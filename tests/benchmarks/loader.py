"""Images a second: batches out of one tensor against torchvision's transforms and torch's DataLoader."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from fashion.config.compose import compose
from fashion.config.train import AugmentationConfig, load_train_config
from fashion.data import dataset
from fashion.images.transform import with_channels
from fashion.training.batches import ERASE_ASPECTS, Batches
from tests.benchmarks.measurement import (
    Cell,
    Options,
    Seconds,
    Spread,
    Table,
    alternately,
    fashion_mnist,
    measured,
    run_one,
)

ERASE_PROBABILITIES = {"crop + flip": 0.0, "crop + flip + erasing": 0.5}
"""By title of the comparison."""


def tables(options: Options) -> Iterator[Table]:
    """Compare with and without random erasing."""
    data = fashion_mnist(1000 if options.quick else None)
    settings = load_train_config(compose(["augmentation.crop_padding=1"]))
    for title, erase_probability in ERASE_PROBABILITIES.items():
        # torchvision has no alternating flips.
        augmentation = dataclasses.replace(settings.augmentation, flip="random", erase_probability=erase_probability)
        yield _table(title, data, augmentation, settings.training.batch_size, options)


def _table(
    title: str, data: dataset.Dataset, augmentation: AugmentationConfig, batch_size: int, options: Options
) -> Table:
    images = torch.from_numpy(with_channels(data.train.images)).contiguous()
    labels = torch.from_numpy(data.train.labels)
    # Passes of about a second each: the tensor is that much faster.
    rows, passes, rounds = (500, 1, 1) if options.quick else (10_000, 2, 5)
    tensor = Batches(
        images,
        labels,
        batch_size=batch_size,
        mean=data.mean,
        std=data.std,
        augmentation=augmentation,
        seed=0,
        drop_last=True,
    )
    rows_of_tensor = len(tensor) * batch_size

    def loader(num_workers: int) -> Iterable[object]:
        single = Transformed(images[:rows], labels[:rows], transforms(augmentation, data))
        return DataLoader(single, batch_size=batch_size, shuffle=True, drop_last=True, num_workers=num_workers)

    def contender(batches: Iterable[object], repeats: int) -> Callable[[], Seconds]:
        return lambda: measured(lambda: exhaust(batches, repeats))

    contenders = {
        "Batches, one tensor": (contender(tensor, passes), rows_of_tensor * passes),
        "torchvision, DataLoader in this process": (contender(loader(0), 1), rows),
        "torchvision, DataLoader with 2 workers": (contender(loader(2), 1), rows),
    }
    if not options.quick:
        for batches in (tensor, loader(0)):
            next(iter(batches))  # what only a first batch pays
    times = alternately({name: work for name, (work, _) in contenders.items()}, rounds)
    cells: list[dict[str, Cell]] = []
    for name, (_, count) in contenders.items():
        per_cpu_second = Spread(tuple(count / seconds.cpu for seconds in times[name]))
        per_second = Spread(tuple(count / seconds.wall for seconds in times[name]))
        cells.append({"loader": name, "images a CPU-second": per_cpu_second, "images a second": per_second})
    return Table(
        f"Loader: {title}",
        cells,
        f"Median (range) of {rounds} rounds in turn, batches of {batch_size}; the CPU time of workers counts. "
        f"DataLoader reads {rows:,} images a round, the tensor {rows_of_tensor * passes:,}; workers start anew each "
        "round.",
    )


class Transformed(Dataset[tuple[Tensor, Tensor]]):
    """One image at a time, from memory: nothing is decoded."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Tensor], Tensor]) -> None:
        self._images = images
        self._labels = labels
        self._transform = transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self._transform(self._images[row]), self._labels[row]


def transforms(augmentation: AugmentationConfig, data: dataset.Dataset) -> v2.Compose:
    """What `Batches` does to images, by torchvision's transforms."""
    size = data.train.images.shape[1:3]
    steps: list[torch.nn.Module] = [v2.RandomCrop(size, padding=augmentation.crop_padding)]
    if augmentation.flip != "none":
        steps.append(v2.RandomHorizontalFlip())
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(data.mean), list(data.std))]
    if augmentation.erase_probability:
        scale = list(augmentation.erase_scale)
        steps.append(v2.RandomErasing(augmentation.erase_probability, scale=scale, ratio=list(ERASE_ASPECTS)))
    return v2.Compose(steps)


def exhaust(batches: Iterable[object], num_epochs: int) -> None:
    """Read all batches of some epochs and keep none."""
    for _ in range(num_epochs):
        for _ in batches:
            pass


if __name__ == "__main__":
    run_one("loader")
