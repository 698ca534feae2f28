"""Predictions of many files are those of each file alone, however many threads read them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion.images import preparation, threads
from fashion.model import bulk
from fashion.model.package import Package
from fashion.model.predictor import Predictor
from fashion.storage.blobs import StoreUnavailable
from fashion.storage.folder import FolderStore


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    """Pictures of several sizes and formats in several batches; two files are none."""
    monkeypatch.setattr(bulk, "BATCH_SIZE", 7)
    rng = np.random.default_rng(0)
    for number, edge in enumerate(rng.integers(20, 90, 20)):
        pixels = Image.fromarray(rng.integers(0, 256, (edge, edge, 3), np.uint8))
        pixels.save(tmp_path / f"{number:02}.{'jpg' if number % 2 else 'png'}")
    (tmp_path / "03.jpg").write_bytes(b"no picture")
    (tmp_path / "04.png").write_bytes(b"")
    return FolderStore(tmp_path)


@pytest.mark.parametrize("cores", [1, 4])
def test_threads_change_no_prediction(
    pictures: FolderStore, tiny_package: Package, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "num_cores", lambda: cores)
    names, said, predictor = sorted(pictures.list()), list[str](), Predictor(tiny_package)
    names.insert(9, "gone.png")
    found = bulk.predict(predictor, pictures, names, on_progress=said.append)
    good = [name for name in names if name not in ("03.jpg", "04.png", "gone.png")]
    assert found.names == tuple(good)
    assert list(found.unreadable) == ["03.jpg", "04.png", "gone.png"]
    assert found.unreadable["gone.png"] == "the file was removed"
    assert said[-1] == "21/21 files, 3 could not be read"
    for row, name in enumerate(good):
        image = preparation.prepare(pictures.get(name), size=28, channels=1, preparation=tiny_package.preparation).image
        alone = predictor.predict(image[None])
        assert found.labels[row] == alone.labels[0]
        assert found.statistics[row] == tuple(alone.statistics[0].tolist())
        assert found.probabilities[row] == pytest.approx(alone.probabilities[0].tolist(), abs=1e-6)


def test_a_store_that_fails_ends_the_prediction(pictures: FolderStore, tiny_package: Package) -> None:
    class Failing(FolderStore):
        def get(self, name: str, **_: object) -> bytes:
            raise StoreUnavailable(f"{name} cannot be reached")

    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        bulk.predict(Predictor(tiny_package), Failing(pictures.folder), ["a.png"] * 99, on_progress=print)
