"""What a version was trained with, by its records, and what differs now. Knows no torch: it trains nothing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fashion.config.compose import compose
from fashion.config.train import TrainConfig, load_train_config
from fashion.model.package import Package
from fashion.registry.versions import RegistryError, Version


@dataclass(frozen=True)
class Reproduction:
    """A training that was repeated, as `flows/reproduce.py` reports it."""

    weights: str
    """sha256 of the weights' file."""
    libraries: Mapping[str, str]
    """Package -> version."""
    processor: str
    """Instructions that torch uses here."""


def recorded_config(
    version: Version, package: Package, params: Mapping[str, str], tags: Mapping[str, str]
) -> TrainConfig:
    """The configuration that trained a version: its network's from its package, its data's from its MLflow run.

    Args:
        version: the version.
        package: its package.
        params: of its MLflow run, flat and as text.
        tags: of its MLflow run.

    Raises:
        RegistryError: the records do not suffice to train it again.
    """
    if "feedback" in tags:
        raise RegistryError(
            f"version {version.number} was trained on feedback of users too, which may have been deleted since: it "
            "cannot be trained again from its records"
        )
    data = _nested({name.partition(".")[2]: text for name, text in params.items() if name.startswith("data.")})
    training = package.training
    if not data or not {"config", "optimizer", "augmentation"} <= set(training):
        raise RegistryError(f"version {version.number} has no records of its training: was it registered by TrainFlow?")
    composed = compose([f"architecture.name={package.architecture['name']}", "tuning=off"])
    groups = {
        "data": data,
        "architecture": package.architecture,
        "training": training["config"],
        "optimizer": training["optimizer"],
        "augmentation": training["augmentation"],
    }
    return load_train_config({**composed, **groups})


def _nested(params: Mapping[str, str]) -> dict[str, Any]:
    """Put values of keys such as `words.title` into a mapping `words`."""
    nested: dict[str, Any] = {}
    for name, text in params.items():
        *groups, last = name.split(".")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = _value(text)
    return nested


def list_differences(version: Version, package: Package, *, commit: str) -> list[str]:
    """What is known to differ from when a version was trained, one sentence each, before it is trained again.

    Args:
        version: the version.
        package: its package.
        commit: of the code that will train, as `lineage.git_commit` returns it.
    """
    then, found = package.lineage.get("git_commit", "unknown"), []
    if then != commit:
        found.append(f"commit: version {version.number} has {then}, here is {commit}")
    elif commit.endswith("-dirty"):
        found.append(f"commit: {commit} says that files had been changed, not how")
    if package.training.get("device", "cpu") != "cpu":
        found.append(f"device: it was trained on {package.training['device']}, whose results may differ in each run")
    if (ranks := package.training.get("world_size", 1)) > 1:
        found.append(f"ranks: it was trained by {ranks} together, and is trained by one here")
    return found


def list_machine_differences(package: Package, repeated: Reproduction) -> list[str]:
    """Libraries and processor that differ from those that trained a version; what it does not record is left out."""
    then: Mapping[str, str] = package.training.get("libraries", {})
    found = [
        f"{name}: {then[name]} then, {now} now"
        for name, now in repeated.libraries.items()
        if name in then and then[name] != now
    ]
    processor = package.training.get("processor", repeated.processor)
    return found + ([f"processor: {processor} then, {repeated.processor} now"] * (processor != repeated.processor))


def _value(text: str) -> Any:
    """A parameter as it was before MLflow made it text."""
    if text == "None":
        return None
    return json.loads(text) if text.startswith("[") else text
