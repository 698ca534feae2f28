"""An answer's prediction set: the classes above their thresholds, most probable first, and never empty."""

import dataclasses
from pathlib import Path

import pytest

from bentos.classifier.covering import Covering
from fashion.config.compose import compose, load_as
from fashion.config.serve import ServeConfig, ServiceConfig
from fashion.model import package
from fashion.model.package import SETS, Package
from fashion.model.prediction_sets import PredictionSets
from fashion.predictions.record import PredictionRecord, new_prediction_id


def settings(*overrides: str) -> ServiceConfig:
    return load_as(ServeConfig, compose(list(overrides), root="serve")).serve


def record(probabilities: list[float]) -> PredictionRecord:
    label = probabilities.index(max(probabilities))
    return PredictionRecord(
        prediction_id=new_prediction_id(),
        time_us=1,
        model_version="1",
        model_name="m",
        model_digest="0" * 16,
        role="champion",
        label=label,
        confidence=probabilities[label],
        probabilities=tuple(probabilities),
        statistics=(0.0,) * 8,
        embedding=(0.0,) * 16,
        image_sha256="0" * 64,
        latency_ms=1.0,
        client=None,
    )


def test_a_set_holds_what_is_above_its_threshold_most_probable_first(tiny_package: Package) -> None:
    names, sets = tiny_package.class_names, PredictionSets.of(tiny_package)
    assert sets is not None
    least = sets.thresholds(0.9).tolist()
    probabilities = [0.0] * len(names)
    probabilities[3], probabilities[5] = 0.55, 0.45
    found = Covering(tiny_package, settings()).prediction_set(record(probabilities))
    expected = [label for label in range(len(names)) if probabilities[label] >= least[label] or label == 3]
    assert found is not None
    assert found[0] == names[3]
    assert set(found) == {names[label] for label in expected}


def test_sets_grow_with_their_coverage_and_are_never_empty(tiny_package: Package) -> None:
    even = record([1 / len(tiny_package.class_names)] * len(tiny_package.class_names))
    sizes = []
    for coverage in (0.01, 0.5, 0.9, 0.99):
        found = Covering(tiny_package, settings(f"serve.coverage={coverage}")).prediction_set(even)
        assert found is not None
        sizes.append(len(found))
    assert sizes == sorted(sizes)
    assert sizes[0] >= 1


def test_an_older_package_has_no_sets(tiny_package: Package, tmp_path: Path) -> None:
    assert tiny_package.folder is not None
    files = {name: (tiny_package.folder / name).read_bytes() for name in package.FILES if name != SETS}
    older = package.write(dataclasses.replace(tiny_package, folder=None), tmp_path, files)
    assert Covering(older, settings()).prediction_set(record([0.5] * 10)) is None


@pytest.mark.parametrize("coverage", [0, 1, -0.1, 0.99999])
def test_a_coverage_that_is_none_is_refused(coverage: float) -> None:
    with pytest.raises(ValueError, match=r"coverage must be in \(0, 1\) and have at most three decimals, got"):
        settings(f"serve.coverage={coverage}")
