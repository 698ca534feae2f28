"""What Evidently draws agrees with what was decided, and needs no connection."""

import re
from pathlib import Path

import numpy as np
import pytest
from support import shifts
from support.imagined import HARMLESS, decide, sample_predictions

from fashion.config.drift import DecisionConfig
from fashion.data.dataset import Dataset
from fashion.drift import evidently_report, reports
from fashion.drift.evidently_report import EvidentlyPage
from fashion.drift.reference_stats import ReferenceStats
from fashion.model.package import Package
from fashion.model.predictor import Predictions, Predictor
from fashion.model.reference import Reference
from fashion.predictions.batch import Batch
from fashion.predictions.record import UNLABELLED
from fashion.storage.address import open_store

SETTINGS = DecisionConfig(alpha=0.01, min_rows=200, min_labels=50, resplits=0)
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
        window,
        Reference.of(sound_package),
        reference_stats,
        compared=Reference.of(sound_package).predictions,
        alpha=SETTINGS.alpha,
        total_rows=ROWS,
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
        few,
        Reference.of(sound_package),
        ReferenceStats.of(sound_package),
        compared=Reference.of(sound_package).predictions,
        alpha=0.01,
        total_rows=ROWS,
    )
    assert drawn[0].note.startswith("Shows 50 of its distinct pictures, sampled at random")
    assert [drawing.title for drawing in drawn] == ["Distributions"]  # 17 judged rows are too few


@pytest.mark.parametrize(("classes", "seen"), [(2, 2), (2, 1), (3, 3), (3, 2), (3, 1)])
def test_two_classes_are_drawn_and_two_of_more_fail_no_report(classes: int, seen: int) -> None:
    names = ("cat", "dog", "bird")[:classes]
    rng = np.random.default_rng(0)

    def rows(count: int, among: int) -> Predictions:
        labels = np.arange(count) % among
        probabilities = np.full((count, classes), 0.1 / (classes - 1), np.float32)
        probabilities[np.arange(count), labels] = 0.9
        values = rng.normal(size=(count, 8)).astype(np.float32)
        return Predictions(
            labels, probabilities[:, 0], probabilities, values, rng.normal(size=(count, 16)).astype("f2")
        )

    reference = Reference(np.arange(120) % classes, rows(120, classes))
    sent = [str(row) for row in range(60)]
    sample = Batch(rows(60, seen), np.arange(60) % seen, np.arange(1, 61), sent, sent, ["1"] * 60)
    stats = ReferenceStats(reference, HARMLESS, names)
    drawn = evidently_report.render(sample, reference, stats, compared=reference.predictions, alpha=0.01, total_rows=60)
    assert len(drawn) == (1 if (classes, seen) in ((3, 2), (2, 1)) else 2)
    assert "all 120 held-out rows. Its tests do not know clients" in drawn[0].note


def test_notes_tell_accepted_rows_from_held_out_ones() -> None:
    rows = sample_predictions(120, seed=1)
    reference, accepted = Reference(rows.labels, rows), sample_predictions(150, seed=2)
    sample = sample_predictions(60, seed=3)
    sent = [str(row) for row in range(60)]
    window = Batch(sample, sample.labels, np.arange(1, 61), sent, sent, ["1"] * 60)
    stats = ReferenceStats(reference, HARMLESS, ("cat", "dog", "bird"), accepted=accepted)
    drawn = evidently_report.render(window, reference, stats, compared=accepted, alpha=0.01, total_rows=60)
    assert "and all 150 rows of accepted windows." in drawn[0].note
    assert drawn[1].note == "Shows 60 rows with feedback, and all 120 held-out rows."


def test_snapshots_open_in_evidentlys_own_workspace_and_hold_no_rows(
    drawings: list[EvidentlyPage], window: Batch, tmp_path: Path
) -> None:
    from evidently.ui.workspace import Workspace

    store = open_store(str(tmp_path / "reports"))
    report_id = reports.make_id(1_800_000_000_000_000, "shoes", "3")
    reports.publish(store, report_id, "", {"model_name": "shoes"}, {each.title: each.snapshot for each in drawings})
    kept = [
        ("shoes", f"{report} {title}", reports.time_of(report), text)
        for report, title, text in reports.read_snapshots(store)
    ]
    assert evidently_report.build_workspace(tmp_path / "workspace", kept) == 2
    workspace = Workspace(str(tmp_path / "workspace"))
    (project,) = workspace.list_projects()
    assert project.name == "shoes"
    runs = [workspace.get_run(project.id, run) for run in workspace.list_runs(project.id)]
    assert {run.name for run in runs} == {f"{report_id} distributions", f"{report_id} classification quality"}
    assert {run.timestamp.isoformat() for run in runs} == {"2027-01-15T08:00:00"}
    # A single row could be told from its probabilities.
    exact = f"{float(window.predictions.probabilities[0, 0])!r}"
    assert all(exact not in each.snapshot for each in drawings)
    assert reports.delete_before(store, 1_900_000_000) == 1
    assert list(store.list()) == []
