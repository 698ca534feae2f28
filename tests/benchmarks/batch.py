"""Pictures a second from files to labels: predict_flow beside a plain script and torchvision with a DataLoader."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from fashion.data.dataset import Dataset
from fashion.home import current_home
from fashion.images import preparation, threads
from fashion.images.decoding import WORKING_PIXELS
from fashion.images.transform import normalise
from fashion.model import bulk, package
from fashion.model.package import Package
from fashion.model.predictor import OnnxNetwork, Predictor
from fashion.storage.folder import FolderStore
from tests.benchmarks import champion
from tests.benchmarks.contenders import asgi
from tests.benchmarks.deployed import run_flow
from tests.benchmarks.measurement import (
    Cell,
    Seconds,
    ServingOptions,
    Spread,
    Table,
    alternately,
    fashion_mnist,
    measured,
    run_one,
    say,
)

SIZES = ((28, 28), (240, 320), (600, 800), (1200, 1600))
"""Width and height in pixels of pictures of mixed sizes, in turn."""
SETS = {
    "JPEG, mixed sizes": ("JPEG", SIZES, 240),
    "PNG, mixed sizes": ("PNG", SIZES, 240),
    "PNG, 28x28": ("PNG", SIZES[:1], 4000),
}
"""Title -> format, sizes, number of pictures."""
OURS = "predict_flow's predictions, in process"
DECODING = "decoding alone, one thread"
PLAIN = "plain script: Pillow, ONNX Runtime, one by one"
ROUNDS = 3


def tables(options: ServingOptions) -> Iterator[Table]:
    """Write the pictures of each set, and predict them in each way, in turn; then by the whole flow.

    Raises:
        SystemExit: a prediction is not what the service makes of the same file.
    """
    data = fashion_mnist(3000 if options.quick else None)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if options.home is None:
            (home / "data").symlink_to(current_home().data, target_is_directory=True)
            run_flow("train_flow", ["tuning=off", "training.num_epochs=1", "data.limit=1000"], home, options)
        served = champion.load_package(options.home or home, data, quick=options.quick)
        whole: list[dict[str, Cell]] = []
        for title, (kind, sizes, count) in SETS.items():
            count = 8 if options.quick else count
            pictures = home / title.replace(" ", "-")
            files = write_pictures(pictures, data, kind, sizes, count)
            yield _compare(title, files, served, options)
            whole.append(_whole(title, pictures, count, home, options))
        note = "One run each, with the start of Metaflow and of every step, registry, card and Parquet file."
        yield Table("Batch prediction: the whole flow", whole, note, {"seconds": ".1f", "CPU-seconds": ".1f"})


def write_pictures(folder: Path, data: Dataset, kind: str, sizes: Sequence[tuple[int, int]], count: int) -> list[Path]:
    """Write test pictures, those that are enlarged on white and with some noise, as photos have.

    Args:
        folder: is made.
        data: of grey pictures.
        kind: Pillow's name of the format.
        sizes: width and height in pixels, in turn.
        count: of pictures.
    """
    folder.mkdir()
    rng, files = np.random.default_rng(0), []
    for number in range(count):
        image, size = data.test.images[number % len(data.test.images)], sizes[number % len(sizes)]
        picture = Image.fromarray(image)
        if size != picture.size:
            enlarged = 255 - np.asarray(picture.resize(size, Image.Resampling.BICUBIC), np.int16)[..., None]
            noise = rng.integers(-4, 5, (*enlarged.shape[:2], 3))
            picture = Image.fromarray(np.clip(enlarged + noise, 0, 255).astype(np.uint8))
        files.append(folder / f"{number:05}.{kind.lower()}")
        picture.save(files[-1], kind)
    say(f"{count} pictures in {folder.name}, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB")
    return files


def _compare(title: str, files: Sequence[Path], served: Package, options: ServingOptions) -> Table:
    predictor, store, names = Predictor(served), FolderStore(files[0].parent), [file.name for file in files]

    def ours() -> bulk.BulkPredictions:
        return bulk.predict(predictor, store, names, on_progress=lambda _: None)

    def in_one_thread() -> None:
        with mock.patch.object(threads, "num_cores", return_value=1):
            ours()

    _check(ours(), files, predictor)
    cores = threads.num_cores()
    works: dict[str, Callable[[], object]] = {
        DECODING: lambda: _decode(files),
        OURS: ours,
        f"{OURS}, one thread": in_one_thread,
        PLAIN: lambda: plain(files, served),
        **{
            f"torchvision ({decoder}), DataLoader with {workers}, torch": _loader_work(files, served, decoder, workers)
            for decoder in ("Pillow", "decode_image")
            for workers in (0, cores)
        },
    }
    rounds = 1 if options.quick else ROUNDS

    def contender(work: Callable[[], object]) -> Callable[[], Seconds]:
        return lambda: measured(work)

    found = alternately({name: contender(work) for name, work in works.items()}, rounds)
    rows: list[dict[str, Cell]] = [
        {
            "way": name,
            "pictures/s": Spread(tuple(len(files) / each.wall for each in times)),
            "CPU ms a picture": Spread(tuple(1000 * each.cpu / len(files) for each in times)),
            "of decoding's CPU": Spread(
                tuple(each.cpu / limit.cpu for each, limit in zip(times, found[DECODING], strict=True))
            ),
        }
        for name, times in found.items()
    ]
    sizes = ", ".join(dict.fromkeys(f"{width}x{height}" for width, height in SETS[title][1]))
    note = (
        f"{len(files):,} pictures of {sizes}, from files in the page cache; median (range) of {rounds} rounds in turn, "
        f"on {cores} cores. Decoding alone opens and decodes each file as the service does, JPEG in Pillow's draft "
        "mode, which the other ways do not use: they decode all pixels. They scale the whole picture to 28x28; "
        "predict_flow trims and sharpens it as the service does, and measures image statistics. Its image statistics "
        "equal those of the service to the bit, and its probabilities to 1e-6: both were compared."
    )
    formats = {"pictures/s": ",.0f", "CPU ms a picture": ",.2f", "of decoding's CPU": ".2f"}
    return Table(f"Batch prediction: {title}", rows, note, formats)


def _check(found: bulk.BulkPredictions, files: Sequence[Path], predictor: Predictor) -> None:
    """Compare with the pictures prepared one by one, as the service prepares an upload."""
    used = predictor.package
    prepared = [
        preparation.prepare(file.read_bytes(), size=used.size, channels=used.channels, preparation=used.preparation)
        for file in files
    ]
    expected = predictor.predict(np.stack([each.image for each in prepared]))
    same = np.array_equal(np.array(found.statistics, np.float32), expected.statistics)
    if not same or not np.allclose(found.probabilities, expected.probabilities, atol=1e-6):
        raise SystemExit("error: a prediction differs from what the service makes of the same file")


def _decode(files: Sequence[Path]) -> None:
    for file in files:
        with Image.open(file) as picture:
            if picture.size != (28, 28):
                picture.draft(picture.mode, (WORKING_PIXELS, WORKING_PIXELS))
            picture.load()


def plain(files: Sequence[Path], served: Package) -> list[int]:
    """What a script of ten lines does: one picture at a time."""
    assert served.folder is not None
    network, labels = OnnxNetwork(served.folder / package.MODEL), []
    for file in files:
        with Image.open(file) as picture:
            image = np.asarray(picture.convert("L").resize((served.size, served.size)))
        logits, _ = network(normalise(image[None], served.mean, served.std))
        labels.append(int(logits.argmax()))
    return labels


def _loader_work(files: Sequence[Path], served: Package, decoder: str, workers: int) -> Callable[[], object]:
    import torch
    from torch.utils.data import DataLoader

    pictures: Any = Pictures(files, served, decoder)
    assert served.folder is not None
    network = asgi.torch_network(served, served.folder)

    def work() -> list[int]:
        labels = list[int]()
        with torch.inference_mode():
            for batch in DataLoader(pictures, batch_size=bulk.BATCH_SIZE, num_workers=workers):
                labels += network(batch).argmax(dim=1).tolist()
        return labels

    return work


class Pictures:
    """A dataset of files for a DataLoader, with torchvision's transforms."""

    def __init__(self, files: Sequence[Path], served: Package, decoder: str) -> None:
        import torch
        from torchvision.transforms import v2

        self._files, self._decoder = files, decoder
        steps = [v2.ToImage(), v2.Grayscale(), v2.Resize((served.size, served.size), antialias=True)]
        scaled = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(served.mean), list(served.std))]
        self._transform = v2.Compose([*steps, *scaled])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Any:
        from torchvision.datasets.folder import default_loader
        from torchvision.io import ImageReadMode, decode_image

        path = str(self._files[index])
        return self._transform(
            default_loader(path) if self._decoder == "Pillow" else decode_image(path, ImageReadMode.RGB)
        )


def _whole(title: str, pictures: Path, count: int, home: Path, options: ServingOptions) -> dict[str, Cell]:
    arguments = ["--images", str(pictures), "--output", str(home / f"{pictures.name}.parquet")]
    took = measured(lambda: run_flow("predict_flow", arguments, home, options))
    return {"pictures": title, "number": count, "seconds": took.wall, "CPU-seconds": took.cpu}


if __name__ == "__main__":
    run_one("batch")
