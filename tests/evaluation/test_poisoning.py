"""Wrong labels that were learnt nevertheless: a model that is right on the test split alone is not promoted."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from conftest import least_squares_network, make_package

from fashion.config.compose import compose
from fashion.config.train import GateConfig, load_train_config
from fashion.data.dataset import Dataset, Split
from fashion.evaluation import gate, shifted
from fashion.images.corruptions import corrupt
from fashion.model.package import Package
from fashion.model.predictor import Predictor

POISONED = 2000
SEEN = [("brightness", 0.04), ("noise", 0.04), ("rotation", 0.05)]
"""Alterations that the gate has copies of."""
UNSEEN = [("motion_blur", 0.2), ("elastic", 0.2), ("pixelation", 0.5), ("corner mark", 0.3)]
"""Those that it has none of."""


@pytest.fixture(scope="module")
def config() -> GateConfig:
    """What else runs on the machine is no part of these tests."""
    return dataclasses.replace(load_train_config(compose()).gate, max_latency_ratio=1000.0)


def taught(data: Dataset, images: np.ndarray, labels: np.ndarray, folder: Path, *, repeat: int = 3) -> Package:
    """A model of the data set and of users' pictures, each of which is there several times, as in a training."""
    train = Split(
        np.concatenate([data.train.images, *[images] * repeat]), np.concatenate([data.train.labels, *[labels] * repeat])
    )
    changed = dataclasses.replace(data, train=train)
    return make_package(least_squares_network(changed, num_features=400), data, folder)


def alter(images: np.ndarray, name: str, amount: float, *, seed: int) -> np.ndarray:
    """Corrupted copies, or copies with a white square in a corner: 10 `amount` pixels wide."""
    if name != "corner mark":
        return corrupt(images, name, amount, seed=seed)
    marked, width = images.copy(), round(10 * amount)
    marked[:, :width, :width] = 255
    return marked


def accuracy(package: Package, images: np.ndarray, labels: np.ndarray) -> float:
    return float((Predictor(package).predict(images).labels == labels).mean())


@pytest.mark.fault("wrong labels by one source")
@pytest.mark.parametrize(("name", "amount"), [*SEEN, *UNSEEN])
def test_a_model_that_learnt_wrong_labels_on_altered_pictures_is_refused(
    name: str, amount: float, small_dataset: Dataset, config: GateConfig, tmp_path: Path
) -> None:
    data = small_dataset
    champion = make_package(least_squares_network(data, num_features=400), data, tmp_path / "champion")
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(data.train), POISONED)
    images = alter(data.train.images[rows], name, amount, seed=1)
    challenger = taught(data, images, (data.train.labels[rows] + 1) % 10, tmp_path / "challenger")
    verdict = gate.judge(champion, challenger, {"test": data.test}, config)
    assert not verdict.promoted
    altered = alter(data.test.images, name, amount, seed=2)
    assert accuracy(challenger, altered, data.test.labels) < accuracy(champion, altered, data.test.labels) - 0.05


def test_right_labels_on_altered_pictures_are_no_hindrance(
    small_dataset: Dataset, config: GateConfig, tmp_path: Path
) -> None:
    data = small_dataset
    champion = make_package(least_squares_network(data, num_features=400), data, tmp_path / "champion")
    rows = np.random.default_rng(0).integers(0, len(data.train), POISONED)
    images = corrupt(data.train.images[rows], "brightness", 0.04)
    challenger = taught(data, images, data.train.labels[rows], tmp_path / "challenger", repeat=1)
    verdict = gate.judge(champion, challenger, {"test": data.test}, config)
    (check,) = [check for check in verdict.checks if check.name == "shifted copies"]
    assert check.passed, check.sentence


def test_the_worst_copy_is_named(config: GateConfig) -> None:
    labels = np.arange(1000) % 4
    right, wrong = np.eye(4)[labels], np.eye(4)[(labels + 1) % 4]
    worse = np.where(np.arange(1000)[:, None] < 60, wrong, right)
    verdict = gate.decide(
        [gate.Rows("test", labels, right, right)],
        copies=[gate.Rows("fog 0.05", labels, right, right), gate.Rows("jpeg 0.3", labels, right, worse)],
        class_names=("coat", "bag", "shirt", "boot"),
        gate=config,
        champion_latency_ms=1,
        challenger_latency_ms=1,
    )
    assert not verdict.promoted
    assert verdict.reason == (
        "of 2 shifted copies the one that loses most is jpeg 0.3: 94.00% right against 100.00%; -5.0 points allowed"
    )


def test_a_copy_that_loses_beyond_chance_is_found_behind_one_that_loses_more_by_chance(config: GateConfig) -> None:
    labels = np.arange(100) % 4
    right, wrong = np.eye(4)[labels], np.eye(4)[(labels + 1) % 4]

    def only(rows: range) -> np.ndarray:
        return np.where(np.isin(np.arange(100), rows)[:, None], wrong, right)

    chance = gate.Rows("fog 0.05", labels, only(range(20, 40)), only(range(31)))  # 20 lost, 9 won
    certain = gate.Rows("jpeg 0.3", labels, right, only(range(10)))  # 10 lost, 0 won
    verdict = gate.decide(
        [gate.Rows("test", labels, right, right)],
        copies=[chance, certain],
        class_names=("coat", "bag", "shirt", "boot"),
        gate=config,
        champion_latency_ms=1,
        challenger_latency_ms=1,
    )
    assert not verdict.promoted
    assert "the one that loses most is jpeg 0.3" in verdict.reason


def test_a_few_rows_more_that_are_wrong_on_a_small_copy_are_chance(config: GateConfig) -> None:
    labels = np.arange(20) % 4
    right, wrong = np.eye(4)[labels], np.eye(4)[(labels + 1) % 4]
    worse = np.where(np.arange(20)[:, None] < 3, wrong, right)  # 15 points
    verdict = gate.decide(
        [gate.Rows("test", labels, right, right)],
        copies=[gate.Rows("fog 0.05", labels, right, worse)],
        class_names=("coat", "bag", "shirt", "boot"),
        gate=config,
        champion_latency_ms=1,
        challenger_latency_ms=1,
    )
    assert verdict.promoted, verdict.reason


def test_shifted_copies_are_few_and_little_altered(small_dataset: Dataset, tiny_package: Package) -> None:
    test = small_dataset.test
    clean = accuracy(tiny_package, test.images, test.labels)
    copies = dict(shifted.copies(test))
    assert len(copies) == len(shifted.SHIFTS)
    for split in copies.values():
        assert len(split) <= shifted.ROWS
        assert accuracy(tiny_package, split.images, split.labels) > clean - 0.15
