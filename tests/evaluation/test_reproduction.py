"""What a version was trained with, read from its records, and what is said to differ now."""

import dataclasses
import datetime
from collections.abc import Mapping
from typing import Any

import pytest

from fashion.config.compose import as_dict, compose
from fashion.config.train import TrainConfig, load_train_config
from fashion.evaluation import reproduction
from fashion.evaluation.reproduction import Reproduction
from fashion.model.package import Package
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
    same = {"commit": package.lineage["git_commit"], "digest": package.data["digest"]}
    assert reproduction.list_differences(version(), package, **same) == []
    commit, data = reproduction.list_differences(version(), package, commit="abc", digest="def")
    assert commit == "commit: version 3 has unknown, here is abc"
    assert data == f"data: version 3 has {package.data['digest']}, here is def"
    dirty = dataclasses.replace(package, lineage={**package.lineage, "git_commit": "abc-dirty"})
    assert reproduction.list_differences(version(), dirty, commit="abc-dirty", digest=same["digest"]) == [
        "commit: abc-dirty says that files had been changed, not how"
    ]
    repeated = Reproduction("weights", {"torch": "9", "numpy": "2", "timm": "1"}, "AVX512")
    assert reproduction.list_machine_differences(package, repeated) == [
        "torch: 1 then, 9 now",
        "processor: AVX2 then, AVX512 now",
    ]
