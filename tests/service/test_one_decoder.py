"""What a model is trained on is, bit for bit, what its service makes of the same file."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from support.pictures import bad_pictures, good_pictures

from bentos.classifier.decoder import Decoder
from bentos.web.memory import Memory
from fashion.config.schema import DataConfig
from fashion.data import survey
from fashion.images.errors import BadPicture
from fashion.images.preparation import Preparation, prepare
from fashion.model.package import Package

LARGE = 200_000_000


class Served:
    """A service's decoder, of a model of some size."""

    def __init__(self, package: Package, size: int, channels: int, preparation: Preparation) -> None:
        from dataclasses import replace

        of = replace(package, size=size, channels=channels, preparation=preparation)
        self.decoder = Decoder(of, max_pixels=50_000_000, memory=Memory(LARGE))

    def image(self, content: bytes) -> np.ndarray | None:
        try:
            return asyncio.run(self.decoder.decode(content)).image
        except BadPicture:
            return None


@pytest.mark.parametrize("preparation", ["whole_picture", "product_photo", "handwriting"])
@pytest.mark.parametrize(("size", "channels"), [(28, 1), (28, 3), (64, 3), (130, 1)])
def test_training_reads_what_the_service_makes_of_the_same_file(
    tiny_package: Package, tmp_path: Path, size: int, channels: int, preparation: Preparation
) -> None:
    served = Served(tiny_package, size, channels, preparation)
    corpus = {**good_pictures(), **{name: content for name, (content, _) in bad_pictures().items()}}
    readable = 0
    for number, (name, content) in enumerate(corpus.items()):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(content)
        read = survey.read(path, size=size, channels=channels, preparation=preparation)
        expected = served.image(content)
        assert (read.image is None) == (expected is None), name
        if expected is not None and read.image is not None:
            assert np.array_equal(read.image, expected), name
            readable += 1
        else:
            assert read.problem, name
    served.decoder.close()
    assert readable == len(good_pictures())


def test_a_row_of_a_version_is_a_picture_as_it_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fashion.data import adoption, config_file, dataset
    from fashion.data.adoption import Request

    monkeypatch.setattr(config_file, "FOLDER", tmp_path / "configs")
    pictures = [content for name, content in good_pictures().items() if "RGB" in name or "CMYK" in name]
    for number, content in enumerate(pictures):
        path = tmp_path / "mine" / ("odd" if number % 2 else "even") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    adopted = adoption.adopt(Request(str(tmp_path / "mine"), size=32, channels=3), tmp_path / "cache")
    data: DataConfig = adopted.data
    loaded = dataset.load(data, tmp_path / "cache")
    rows = {image.tobytes() for split in loaded.splits.values() for image in split.images}
    made = {prepare(each, size=32, channels=3, preparation=data.preparation).image.tobytes() for each in pictures}
    assert rows == made
