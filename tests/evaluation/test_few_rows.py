"""Every place that assumes thousands of held-out rows works on a few: evaluation, severity, typicality, drift, gate."""

import dataclasses
import json
import math

import numpy as np
import pytest
from support.imagined import SETTINGS
from support.networks import least_squares_network

from fashion.config.compose import compose
from fashion.config.schema import DataConfig
from fashion.config.train import load_train_config
from fashion.data import selection
from fashion.data.checks import check_dataset
from fashion.data.dataset import Dataset, split
from fashion.data.layout import Entry
from fashion.data.selection import Pictures
from fashion.drift.decision import WindowStats
from fashion.drift.reference_stats import ReferenceStats
from fashion.evaluation import gate, scoring
from fashion.model import package
from fashion.model.package import Package
from fashion.model.predictor import Predictor
from fashion.model.typicality import Typicality


def tiny_data(num_classes: int, each: int) -> tuple[DataConfig, Dataset]:
    """Pictures of a class are one random pattern with noise, divided as a folder of them would be."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 256, (num_classes, 1, 28, 28))
    images = np.clip(patterns + rng.normal(0, 40, (num_classes, each, 28, 28)), 0, 255).astype(np.uint8)
    names = [f"c{number}" for number in range(num_classes)]
    entries = [Entry(f"{name}/{number}", name, None, None) for name in names for number in range(each)]
    pictures = Pictures(entries, images.reshape(-1, 28, 28))
    made, left, _ = selection.select(pictures, names, seed=42, fractions={"val": None, "test": None})
    usual = load_train_config(compose()).data
    data = dataclasses.replace(usual, name="few", class_names=left, val_fraction=None)
    return data, split(made["train"], made["test"], data, digest="0" * 64, val=made["val"])


@pytest.fixture(scope="module", params=[(2, 3), (2, 15), (3, 5), (120, 5)], ids=lambda each: f"{each[0]}x{each[1]}")
def few(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Package]:
    data, rows = tiny_data(*request.param)
    evaluation = scoring.evaluate(
        {"onnx": least_squares_network(rows, num_features=64), "weights": b"", **EXPORTED},
        rows,
        check_dataset(rows, data),
        data=data,
        architecture={"name": "tiny"},
        training={},
        lineage={},
    )
    return rows, package.write(evaluation.package, tmp_path_factory.mktemp("few"), evaluation.files)


EXPORTED = {"rows": 0, "max_difference": 0.0, "label_agreement": 1.0}


def test_every_number_of_the_package_is_finite(few: tuple[Dataset, Package]) -> None:
    fields = json.loads((few[1].folder / "package.json").read_text())  # type: ignore[operator]

    def numbers(value: object) -> list[float]:
        if isinstance(value, dict):
            return [number for each in value.values() for number in numbers(each)]
        if isinstance(value, list):
            return [number for each in value for number in numbers(each)]
        return [value] if isinstance(value, float) else []

    assert all(map(math.isfinite, numbers(fields)))


def test_the_interval_of_accuracy_is_as_wide_as_so_few_rows_make_it(few: tuple[Dataset, Package]) -> None:
    rows, found = few
    accuracy = found.metrics["test/accuracy"]
    assert accuracy.low is not None
    assert accuracy.high is not None
    assert accuracy.high - accuracy.low >= 3 / (len(rows.test) + 4)  # the rule of three, where all are right


def test_no_model_is_certain_after_so_few_rows(few: tuple[Dataset, Package]) -> None:
    rows, found = few
    confidence = Predictor(found).predict(rows.val.images).confidences.mean()
    assert confidence < 1 - 0.05 / len(rows.val)


def test_windows_are_judged(few: tuple[Dataset, Package]) -> None:
    rows, found = few
    stats = ReferenceStats.of(found)
    window = WindowStats(stats)
    sent = np.resize(np.arange(len(rows.test)), 60)
    window.add(Predictor(found).predict(rows.test.images[sent]), rows.test.labels[sent], 1000 + np.arange(60))
    result = window.decide(dataclasses.replace(SETTINGS, resplits=20), model_version="1")
    assert result.decision in ("drift", "no_drift")
    assert result.false_alarms is not None
    assert math.isfinite(result.mean_confidence)


def test_what_is_usual_is_known(few: tuple[Dataset, Package]) -> None:
    rows, found = few
    typicality = Typicality.of(found)
    assert typicality is not None
    shares = typicality.shares(typicality.distances(Predictor(found).predict(rows.test.images)))
    assert np.isfinite(shares).all()


def test_the_gate_compares_and_judges_alone(few: tuple[Dataset, Package]) -> None:
    rows, found = few
    settings = dataclasses.replace(load_train_config(compose()).gate, max_latency_ratio=1000.0)
    same = gate.judge(found, found, {"test": rows.test}, settings)
    assert same.promoted, same.reason
    alone = gate.judge_alone(found, {"test": rows.test}, settings, why="first")
    assert alone.promoted == (len(rows.test) > 2)
