"""A picture unlike anything learnt: its answer says so, or is refused; logged rows of such pictures are counted."""

import asyncio
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pytest
from support import bentos
from support.foreign import FOREIGN
from support.forms import form
from support.served import Served

from bentos.classifier.batcher import Batcher, Scored
from bentos.classifier.schemas import ModelVersion, PredictionAnswer
from bentos.classifier.unlike import SHOWN_CLASSES, Unlike
from fashion.config.compose import compose, load_as
from fashion.config.serve import ServeConfig, ServiceConfig
from fashion.data.dataset import Dataset
from fashion.images.image_store import to_png
from fashion.images.transform import Images
from fashion.model import package
from fashion.model.package import TYPICALITY, Package
from fashion.model.predictor import Predictor
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import ModelId

NOISE = FOREIGN["noise"](20, np.random.default_rng(0))


def settings(*overrides: str) -> ServiceConfig:
    return load_as(ServeConfig, compose(list(overrides), root="serve")).serve


def scored(of: Package, unlike: Unlike, images: Images, folder: Path) -> list[Scored]:
    """The images as the service predicts and logs them."""
    with PredictionLog(folder / "predictions.db") as log:
        batcher = Batcher(Predictor(of), log, model=ModelId("m", "1", "0" * 16), typicality=unlike.typicality)
        try:
            return asyncio.run(batcher.predict(list(images), client=None, started=time.perf_counter()))
        finally:
            batcher.close()


def answer(share: float | None, typical: bool | None) -> PredictionAnswer:
    return PredictionAnswer(
        "id", "Coat", 0.98, {"Coat": 0.98}, ModelVersion("m", "1", "0" * 64), (), typical=typical, typicality=share
    )


def test_pictures_of_nothing_are_unlike_and_those_of_the_data_are_not(
    sound_package: Package, whole_dataset: Dataset, tmp_path: Path
) -> None:
    unlike = Unlike(sound_package, settings())
    found = scored(sound_package, unlike, np.concatenate([whole_dataset.test.images[:200], NOISE]), tmp_path)
    typical = [unlike.is_typical(each.typicality) for each in found]
    assert typical[200:] == [False] * len(NOISE)
    assert sum(typical[:200]) >= 190  # type: ignore[arg-type]  # none is None: this package can tell
    # The log's rows, with float16 and float32 numbers, are judged as the pictures were.
    assert unlike.count([each.record for each in found]) == typical.count(False)


def test_an_older_package_says_nothing(tiny_package: Package, tmp_path: Path) -> None:
    assert tiny_package.folder is not None
    files = {name: (tiny_package.folder / name).read_bytes() for name in package.FILES if name != TYPICALITY}
    older = package.write(dataclasses.replace(tiny_package, folder=None), tmp_path / "package", files)
    unlike = Unlike(older, settings("serve.unknown=refuse"))
    (found,) = scored(older, unlike, NOISE[:1], tmp_path)
    assert found.typicality is None
    assert unlike.is_typical(None) is None
    assert unlike.count([found.record]) is None
    assert unlike.refusal(answer(None, None)) is None


def test_a_refusal_names_the_classes(tiny_package: Package) -> None:
    refusing = Unlike(tiny_package, settings("serve.unknown=refuse"))
    refusal = refusing.refusal(answer(0.0004, False))
    assert refusal is not None
    assert (refusal.status, refusal.code) == (422, "unlike_training")
    assert "99.96% of the pictures it was tested on are more usual" in refusal.message
    assert all(name in refusal.remedy for name in tiny_package.class_names)
    many = dataclasses.replace(tiny_package, class_names=tuple(f"class {number}" for number in range(100)))
    shown = Unlike(many, settings("serve.unknown=refuse")).refusal(answer(0.0, False))
    assert shown is not None
    assert shown.remedy.count("class ") == SHOWN_CLASSES
    assert shown.remedy.endswith(", ...")


@pytest.mark.parametrize(("overrides", "typical"), [((), False), (("serve.unknown=refuse",), True)])
def test_only_what_is_unlike_is_refused_and_only_where_asked(
    overrides: tuple[str, ...], typical: bool, tiny_package: Package
) -> None:
    assert Unlike(tiny_package, settings(*overrides)).refusal(answer(0.004, typical)) is None


def test_no_share_flags_nothing(tiny_package: Package) -> None:
    assert Unlike(tiny_package, settings("serve.unlike_share=0")).is_typical(0.0) is True


@pytest.mark.slow
def test_a_served_bento_refuses_what_is_unlike_and_answers_the_rest(
    sound_package: Package, whole_dataset: Dataset, tmp_path: Path
) -> None:
    assert sound_package.folder is not None
    tag = bentos.build(sound_package.folder, tmp_path, overrides=["serve.unknown=refuse"])
    served = Served(tag, bentos.environment(tmp_path), tmp_path / "service.log")
    usual, unlike = to_png(whole_dataset.test.images[0]), to_png(NOISE[0])
    assert served.predict(usual)["typical"] is True
    status, _, content = served.request("POST", "/predict", unlike, {"content-type": "image/png"})
    error = json.loads(content)["error"]
    assert (status, error["code"]) == (422, "unlike_training")
    assert error["remedy"].startswith("send a picture of one of its classes: T-shirt/top, Trouser, ")
    body, headers = form(*(("images", "a.png", each) for each in (usual, unlike, usual)))
    status, _, content = served.request("POST", "/predict/batch", body, headers)
    results = json.loads(content)["results"]
    assert status == 200
    assert ["error" in each for each in results] == [False, True, False]
    assert results[1]["error"]["code"] == "unlike_training"
    assert served.stop() == 0
    with PredictionLog(tmp_path / "predictions.db") as log:  # those that were refused are what drift has to see
        assert len(list(log.latest(10))) == 5
