"""What Evidently draws agrees with what was decided, and needs no connection."""

import re

import numpy as np
import pytest
from support import shifts
from support.imagined import decide

from fashion.config.drift import DecisionConfig
from fashion.data.dataset import Dataset
from fashion.drift import evidently_report
from fashion.drift.evidently_report import EvidentlyPage
from fashion.drift.reference_stats import ReferenceStats
from fashion.model.package import Package
from fashion.model.predictor import Predictor
from fashion.model.reference import Reference
from fashion.predictions.batch import Batch
from fashion.predictions.record import UNLABELLED

SETTINGS = DecisionConfig(alpha=0.01, min_rows=200, min_labels=50, coverage=0.9, resplits=0)
ROWS = 300


@pytest.fixture(scope="module", params=[None, "slightly darker", "no shirts", "brighter"])
def window(request: pytest.FixtureRequest, sound_package: Package, whole_dataset: Dataset) -> Batch:
    """Test images under a shift, a third of them judged."""
    rows = shifts.sample_rows(whole_dataset.test.labels, request.param, ROWS, np.random.default_rng(3))
    images = whole_dataset.test.images[rows]
    predicted = Predictor(sound_package).predict(shifts.apply(images, request.param) if request.param else images)
    truth = np.where(np.arange(ROWS) % 3 == 0, whole_dataset.test.labels[rows], UNLABELLED)
    names = [str(row) for row in rows]
    return Batch(predicted, truth, np.arange(1, ROWS + 1), names, names, ["1"] * ROWS)


@pytest.fixture(scope="module")
def drawings(window: Batch, sound_package: Package) -> list[EvidentlyPage]:
    reference_stats = ReferenceStats.of(sound_package)
    return evidently_report.render(
        window, Reference.of(sound_package), reference_stats, alpha=SETTINGS.alpha, total_rows=ROWS
    )


def test_evidently_agrees_with_the_decision(
    window: Batch, drawings: list[EvidentlyPage], sound_package: Package
) -> None:
    result = decide(ReferenceStats.of(sound_package), window.predictions, settings=SETTINGS)
    tests = re.findall(r'"title": "([^"]*)", "description": "Drift score is [^"]*", "state": "(\w+)"', drawings[0].html)
    drawn = {re.sub(r".*column (.*)$", r"\1", title): state == "fail" for title, state in tests}
    assert len(drawn) == len(result.columns) + 2  # and what is shown only
    assert {name: drawn[name] for name in drawn if "shown only" not in name} == {
        column.name: column.drifted for column in result.columns
    }


def test_the_quality_page_shows_only_rows_with_feedback(drawings: list[EvidentlyPage]) -> None:
    assert [drawing.title for drawing in drawings] == ["Distributions", "Classification quality"]
    assert drawings[1].note.startswith(f"Shows {ROWS // 3} rows with feedback")


def test_nothing_is_loaded_from_elsewhere(drawings: list[EvidentlyPage]) -> None:
    for drawing in drawings:
        assert re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=['\"]?(?:https?:)?//", drawing.html) == []


def test_the_note_says_that_rows_were_sampled(window: Batch, sound_package: Package) -> None:
    few = window[list(range(50))]
    drawn = evidently_report.render(
        few, Reference.of(sound_package), ReferenceStats.of(sound_package), alpha=0.01, total_rows=ROWS
    )
    assert drawn[0].note.startswith("Shows 50 of its rows, sampled at random")
    assert [drawing.title for drawing in drawn] == ["Distributions"]  # 17 judged rows are too few
