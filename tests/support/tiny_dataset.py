"""A data set small enough to fetch in every test, with its source, its cache and a reporter that remembers."""

import gzip
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fashion.config.schema import DataConfig, SourceConfig
from fashion.data import manifest
from fashion.data.dataset import Split
from fashion.data.idx import write_idx
from fashion.data.manifest import Manifest

CLASSES = ("T-shirt/top", "Boot", "Bag")
SIZE = 8


@dataclass
class RecordingReporter:
    """A reporter that remembers what it was given."""

    messages: list[str] = field(default_factory=list)
    progress_lines: list[str] = field(default_factory=list)

    def say(self, message: str) -> None:
        self.messages.append(message)

    def progress(self, message: str) -> None:
        self.progress_lines.append(message)


@dataclass(frozen=True)
class TinyDataset:
    """A data set of 60 + 12 images of 8x8, its source folder and its cache."""

    data: DataConfig
    version: Manifest
    source: Path
    cache: Path

    @property
    def folder(self) -> Path:
        return manifest.folder_of(self.version, self.cache)

    def only(self, kind: str, address: str) -> DataConfig:
        return replace(self.data, sources=(SourceConfig(kind, address),))  # type: ignore[arg-type]

    @property
    def overrides(self) -> list[str]:
        """Configuration overrides that select this data set."""
        listed = ", ".join(f"{{kind: {s.kind}, address: '{s.address}'}}" for s in self.data.sources)
        names = ", ".join(self.data.class_names)
        return [
            f"data.name={self.data.name}",
            f"data.class_names=[{names}]",
            f"data.size={SIZE}",
            f"data.manifest='{self.data.manifest}'",
            f"data.sources=[{listed}]",
        ]


def numbered_images(count: int, *, start: int = 0) -> np.ndarray:
    """Images that all differ: the first four pixels hold a number."""
    images = np.random.default_rng(start).integers(0, 256, (count, SIZE, SIZE), dtype=np.uint8)
    images.reshape(count, -1)[:, :4] = np.arange(start, start + count, dtype=">u4").view(np.uint8).reshape(-1, 4)
    return images


def numbers(split: Split) -> list[int]:
    """The numbers in such images."""
    pixels = np.ascontiguousarray(split.images.reshape(len(split), SIZE * SIZE)[:, :4])
    return [int(number) for number in pixels.view(">u4").ravel()]


def make_tiny(
    folder: Path, images: dict[str, np.ndarray] | None = None, labels: dict[str, np.ndarray] | None = None
) -> TinyDataset:
    images = images or {"train": numbered_images(60), "test": numbered_images(12, start=1000)}
    labels = labels or {name: np.arange(len(values), dtype=np.uint8) % 3 for name, values in images.items()}
    source = folder / "source"
    source.mkdir()
    entries = []
    for split in ("train", "test"):
        for role, values in (("images", images[split]), ("labels", labels[split])):
            content = write_idx(values)
            path = f"{split}-{role}-idx{values.ndim}-ubyte"
            (source / f"{path}.gz").write_bytes(gzip.compress(content))
            entries.append(manifest.describe(path, split, role, content))  # type: ignore[arg-type]
    version = Manifest("tiny", len(CLASSES), tuple(entries))
    manifest.write(version, folder / "tiny.manifest.json")
    data = DataConfig(
        name="tiny",
        class_names=CLASSES,
        channels=1,
        size=SIZE,
        preparation="whole_picture",
        manifest=str(folder / "tiny.manifest.json"),
        sources=(SourceConfig("folder", str(source)),),
        val_fraction=1 / 6,
        split_seed=42,
        limit=None,
    )
    return TinyDataset(data, version, source, folder / "home" / "data")
