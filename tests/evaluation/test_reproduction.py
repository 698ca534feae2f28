"""What a version was trained with, read from its records, and what is said to differ now."""

import dataclasses
import datetime
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fashion.commands.main import main
from fashion.config.compose import as_dict, compose
from fashion.config.train import TrainConfig, load_train_config
from fashion.evaluation import reproduction
from fashion.evaluation.reproduction import Reproduction
from fashion.home import Home
from fashion.model.package import MODEL, REFERENCE, WEIGHTS, Package, write
from fashion.registry import tracking, versions
from fashion.registry.tracking import flatten
from fashion.registry.versions import RegistryError, Version

WORDS = ["architecture=resnet", "data.limit=500", "training.num_epochs=7", "optimizer=adamw", "training.ema_decay=0.9"]


@pytest.fixture(scope="module")
def trained() -> TrainConfig:
    return load_train_config(compose(WORDS))


@pytest.fixture
def package(tiny_package: Package, trained: TrainConfig) -> Package:
    groups = {"config": trained.training, "optimizer": trained.optimizer, "augmentation": trained.augmentation}
    training: dict[str, Any] = {name: as_dict(group) for name, group in groups.items()}
    training |= {"libraries": {"torch": "1", "numpy": "2"}, "processor": "AVX2", "device": "cpu", "world_size": 1}
    return dataclasses.replace(tiny_package, architecture=as_dict(trained.architecture), training=training)


def version() -> Version:
    return Version(3, (), datetime.datetime.now(datetime.UTC), "models:/m", "run", {})


def params(config: TrainConfig) -> Mapping[str, str]:
    """As MLflow has them."""
    return {name: str(value) for name, value in flatten(as_dict(config)).items()}


def test_the_configuration_comes_back_from_the_records(package: Package, trained: TrainConfig) -> None:
    found = reproduction.recorded_config(version(), package, params(trained), {})
    for group in ("data", "architecture", "training", "optimizer", "augmentation"):
        assert getattr(found, group) == getattr(trained, group), group


def test_a_version_that_learnt_from_users_cannot_be_made_again(package: Package, trained: TrainConfig) -> None:
    with pytest.raises(RegistryError, match="version 3 was trained on feedback of users too"):
        reproduction.recorded_config(version(), package, params(trained), {"feedback": "20 pictures"})


def test_a_version_without_records_says_so(package: Package) -> None:
    with pytest.raises(RegistryError, match="version 3 has no records of its training"):
        reproduction.recorded_config(version(), package, {}, {})


def test_what_differs_is_named_with_both_values(package: Package) -> None:
    assert reproduction.list_differences(version(), package, commit=package.lineage["git_commit"]) == []
    assert reproduction.list_differences(version(), package, commit="abc") == [
        "commit: version 3 has unknown, here is abc"
    ]
    dirty = dataclasses.replace(package, lineage={**package.lineage, "git_commit": "abc-dirty"})
    assert reproduction.list_differences(version(), dirty, commit="abc-dirty") == [
        "commit: abc-dirty says that files had been changed, not how"
    ]
    repeated = Reproduction("weights", {"torch": "9", "numpy": "2", "timm": "1"}, "AVX512")
    assert reproduction.list_machine_differences(package, repeated) == [
        "torch: 1 then, 9 now",
        "processor: AVX2 then, AVX512 now",
    ]


@pytest.mark.fault("the files of a version that has to be trained again are gone")
def test_a_version_without_its_data_is_refused_before_it_is_trained(
    mlflow_home: Home,
    tiny_package: Package,
    package: Package,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert tiny_package.folder is not None
    files = {each: (tiny_package.folder / each).read_bytes() for each in (WEIGHTS, REFERENCE, MODEL)}
    written = write(dataclasses.replace(package, folder=None), tmp_path / "package", files)
    assert written.folder is not None
    run = tracking.start_run(tracking.get_or_create_experiment(mlflow_home, "fashion"), "run", {})
    elsewhere = ["data.manifest=/nowhere.json", "data.sources=[{kind: folder, address: /nowhere}]"]
    tracking.log_params(run, compose([*WORDS, *elsewhere]))
    versions.register(versions.log_package(run, written.folder), run_id=run, tags={})
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it is trained"))
    capsys.readouterr()
    assert main(["registry", "reproduce", "1"]) == 1
    digest = package.data["digest"][:12]
    assert capsys.readouterr().err.startswith(f"error: the files of fashion-mnist {digest} are gone from ")
