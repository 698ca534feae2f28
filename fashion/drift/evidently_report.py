"""Evidently's pages on a window and its reference. The only file that uses Evidently; decides nothing.

Every column names the method and threshold of `fashion.drift.decision`: Evidently's defaults depend on the number of
rows.
"""

import datetime
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.result import FAMILIES, LABELS
from fashion.images.statistics import STATISTICS
from fashion.model.predictor import Predictions
from fashion.model.reference import Reference
from fashion.predictions.batch import Batch
from fashion.predictions.record import UNLABELLED

TRUE_LABEL = "true label"
CONFIDENCE = "confidence (shown only)"
DISTANCE = "embedding distance (shown only)"
"""Columns that no decision rests on: the class probabilities already cover them."""
MIN_LABELLED = 20
"""Rows with feedback that are needed for a page on classification quality."""


@dataclass(frozen=True)
class EvidentlyPage:
    """One page by Evidently that needs no connection."""

    title: str
    note: str
    """One sentence on the rows that it shows."""
    html: str
    snapshot: str
    """What Evidently's own UI opens: JSON of distributions, without rows."""


def render(
    sample: Batch,
    reference: Reference,
    reference_stats: ReferenceStats,
    *,
    compared: Predictions,
    alpha: float,
    total_rows: int,
) -> list[EvidentlyPage]:
    """A page on what changed and, with enough feedback, one on classification quality.

    Args:
        sample: rows of the window.
        reference: held-out rows, to compare the quality with.
        reference_stats: of these rows.
        compared: rows to compare the distributions with: the same, or accepted ones.
        alpha: of the decision.
        total_rows: distinct pictures of the whole window, of which the sample has one row each.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")  # Evidently reads it when it is imported
    of_all = f"{len(sample):,} of its distinct pictures, sampled at random"
    shown = of_all if len(sample) < total_rows else "each of its distinct pictures"
    before = "rows of accepted windows" if reference_stats.is_accepted else "held-out rows"
    note = (
        f"Shows {shown}, and all {reference_stats.rows:,} {before}. Its tests do not know clients: where a client's "
        "pictures are like each other, they say drift more often than the decision."
    )
    pages = [EvidentlyPage("Distributions", note, *_distributions(sample, compared, reference_stats, alpha))]
    with_feedback = np.flatnonzero(sample.true_labels != UNLABELLED)
    if len(with_feedback) >= MIN_LABELLED:
        labelled = sample[with_feedback.tolist()]
        if not _can_be_drawn(labelled, reference, reference_stats.class_names):
            return pages
        note = f"Shows {len(labelled):,} rows with feedback, and all {len(reference.labels):,} held-out rows."
        drawn = _quality(labelled, reference, reference_stats.class_names)
        pages.append(EvidentlyPage("Classification quality", note, *drawn))
    return pages


def _can_be_drawn(labelled: Batch, reference: Reference, class_names: Sequence[str]) -> bool:
    """False where Evidently would fail: it takes rows that show two labels for a binary task, which needs both."""
    pairs = ((labelled.true_labels, labelled.predictions.labels), (reference.labels, reference.predictions.labels))
    if len(class_names) == 2:
        return all(len({*true, *predicted}) == 2 for true, predicted in pairs)
    return all(2 not in (len(set(true)), len({*true, *predicted})) for true, predicted in pairs)


def build_workspace(folder: Path, snapshots: Iterable[tuple[str, str, float, str]]) -> int:
    """Write a workspace of Evidently's own UI, with a project for each model, and return how many snapshots it has.

    Args:
        folder: of the workspace, which is made anew.
        snapshots: project, name, time in seconds since 1970, and `EvidentlyPage.snapshot`.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from evidently.core.report import Snapshot
    from evidently.ui.workspace import Workspace

    workspace, projects, count = Workspace.create(str(folder)), dict[str, Any](), 0
    for project, name, time_s, content in snapshots:
        if project not in projects:
            projects[project] = workspace.create_project(project)
        snapshot = Snapshot.loads(content)
        snapshot.set_name(name)
        snapshot._timestamp = datetime.datetime.fromtimestamp(time_s, datetime.UTC).replace(tzinfo=None)
        workspace.add_run(projects[project].id, snapshot)
        count += 1
    return count


def _distributions(
    sample: Batch, compared: Predictions, reference_stats: ReferenceStats, alpha: float
) -> tuple[str, str]:
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    names = reference_stats.class_names
    window, before = (
        _frame(rows, reference_stats.meter.distances(rows.embeddings), names) for rows in (sample.predictions, compared)
    )
    numerical = [name for name in before.columns if name != LABELS]
    outputs = reference_stats.threshold(FAMILIES[1], alpha)
    thresholds = {column.name: reference_stats.threshold(column.family, alpha) for column in reference_stats.columns}
    metrics = [
        ValueDrift(column=LABELS, method="chisquare", threshold=reference_stats.threshold(FAMILIES[2], alpha)),
        *(ValueDrift(column=name, method="ks", threshold=thresholds.get(name, outputs)) for name in numerical),
    ]
    definition = DataDefinition(numerical_columns=numerical, categorical_columns=[LABELS])
    snapshot = Report(metrics, include_tests=True).run(
        current_data=Dataset.from_pandas(window, data_definition=definition),
        reference_data=Dataset.from_pandas(before, data_definition=definition),
    )
    return str(snapshot.get_html_str(as_iframe=False)), str(snapshot.dumps())


def _quality(labelled: Batch, reference: Reference, class_names: Sequence[str]) -> tuple[str, str]:
    import pandas as pd
    from evidently import BinaryClassification, DataDefinition, Dataset, MulticlassClassification, Report
    from evidently.metrics import Accuracy
    from evidently.presets import ClassificationQuality, ClassificationQualityByLabel

    def dataset(true: NDArray[np.int64], predicted: NDArray[np.int64]) -> Any:
        columns = {TRUE_LABEL: _named(true, class_names), LABELS: _named(predicted, class_names)}
        task: BinaryClassification | MulticlassClassification
        if len(class_names) == 2:
            task = BinaryClassification(target=TRUE_LABEL, prediction_labels=LABELS, pos_label=class_names[1])
        else:
            task = MulticlassClassification(target=TRUE_LABEL, prediction_labels=LABELS)
        definition = DataDefinition(categorical_columns=list(columns), classification=[task])
        return Dataset.from_pandas(pd.DataFrame(columns), data_definition=definition)

    # Without tests: the decision is by Fisher's exact test on accuracy, which Evidently does not have.
    metrics = [Accuracy(), ClassificationQuality(conf_matrix=True), ClassificationQualityByLabel()]
    snapshot = Report(metrics).run(
        current_data=dataset(labelled.true_labels, labelled.predictions.labels),
        reference_data=dataset(reference.labels, reference.predictions.labels),
    )
    return str(snapshot.get_html_str(as_iframe=False)), str(snapshot.dumps())


def _frame(rows: Predictions, distances: NDArray[np.float64], class_names: Sequence[str]) -> Any:
    import pandas as pd

    return pd.DataFrame(
        {
            LABELS: _named(rows.labels, class_names),
            **{name: rows.statistics[:, column] for column, name in enumerate(STATISTICS)},
            **{f"p({name})": rows.probabilities[:, column] for column, name in enumerate(class_names)},
            CONFIDENCE: rows.confidences,
            DISTANCE: distances,
        }
    )


def _named(labels: NDArray[np.int64], class_names: Sequence[str]) -> list[str]:
    return [class_names[label] for label in labels]
