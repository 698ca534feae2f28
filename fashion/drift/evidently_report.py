"""A window beside its reference, drawn by Evidently. The one home of Evidently; decides nothing.

Every column names its method and its threshold, those that `fashion.drift.decision` decides with: Evidently's
defaults change with the number of rows.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.drift.decision import ReferenceStats
from fashion.drift.result import FAMILIES, LABELS
from fashion.images.statistics import STATISTICS
from fashion.model.predictor import Predictions
from fashion.model.reference import Reference
from fashion.predictions.batch import Batch
from fashion.predictions.record import UNLABELLED

TRUE_LABEL = "true label"
CONFIDENCE = "confidence (drawn only)"
DISTANCE = "embedding distance (drawn only)"
"""Columns that no decision rests on: the class probabilities say the same, and more."""
MIN_LABELLED = 20
"""Rows with feedback from which classification quality is drawn."""


@dataclass(frozen=True)
class Drawing:
    """One page by Evidently, that needs no connection."""

    title: str
    note: str
    html: str


def draw(
    sample: Batch,
    reference: Reference,
    yardstick: ReferenceStats,
    *,
    alpha: float,
    rows: int,
) -> list[Drawing]:
    """Draw what changed and, where there is feedback, how good the classification was.

    Args:
        sample: rows of the window.
        reference: what they are compared with.
        yardstick: made of it.
        alpha: of the decision.
        rows: how many the window has in all.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")  # Evidently reads it when it is imported
    drawn = f"{len(sample):,} of its rows, chosen at random" if len(sample) < rows else "all of its rows"
    note = f"The window by {drawn}, and the reference by all of its {yardstick.rows:,}."
    drawings = [Drawing("Distributions", note, _drift(sample, reference, yardstick, alpha))]
    judged = np.flatnonzero(sample.true_labels != UNLABELLED)
    if len(judged) >= MIN_LABELLED:
        labelled = sample[judged.tolist()]
        note = f"{len(judged):,} rows with feedback, beside the reference's {yardstick.rows:,}."
        drawings.append(Drawing("Classification quality", note, _quality(labelled, reference, yardstick.class_names)))
    return drawings


def _drift(sample: Batch, reference: Reference, yardstick: ReferenceStats, alpha: float) -> str:
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    names = yardstick.class_names
    window, before = (
        _frame(rows, yardstick.ruler.distances(rows.embeddings), names)
        for rows in (sample.predictions, reference.predictions)
    )
    numerical = [name for name in before.columns if name != LABELS]
    outputs = yardstick.threshold(FAMILIES[1], alpha)
    thresholds = {column.name: yardstick.threshold(column.family, alpha) for column in yardstick.columns}
    metrics = [
        ValueDrift(column=LABELS, method="chisquare", threshold=yardstick.threshold(FAMILIES[2], alpha)),
        *(ValueDrift(column=name, method="ks", threshold=thresholds.get(name, outputs)) for name in numerical),
    ]
    definition = DataDefinition(numerical_columns=numerical, categorical_columns=[LABELS])
    snapshot = Report(metrics, include_tests=True).run(
        current_data=Dataset.from_pandas(window, data_definition=definition),
        reference_data=Dataset.from_pandas(before, data_definition=definition),
    )
    return str(snapshot.get_html_str(as_iframe=False))


def _quality(labelled: Batch, reference: Reference, class_names: Sequence[str]) -> str:
    import pandas as pd
    from evidently import DataDefinition, Dataset, MulticlassClassification, Report
    from evidently.metrics import Accuracy
    from evidently.presets import ClassificationQuality, ClassificationQualityByLabel

    def dataset(true: NDArray[np.int64], predicted: NDArray[np.int64]) -> Any:
        columns = {TRUE_LABEL: _named(true, class_names), LABELS: _named(predicted, class_names)}
        task = MulticlassClassification(target=TRUE_LABEL, prediction_labels=LABELS)
        definition = DataDefinition(categorical_columns=list(columns), classification=[task])
        return Dataset.from_pandas(pd.DataFrame(columns), data_definition=definition)

    # Of all its tests the decision is Fisher's on accuracy, which Evidently has not: so this only draws.
    metrics = [Accuracy(), ClassificationQuality(conf_matrix=True), ClassificationQualityByLabel()]
    snapshot = Report(metrics).run(
        current_data=dataset(labelled.true_labels, labelled.predictions.labels),
        reference_data=dataset(reference.labels, reference.predictions.labels),
    )
    return str(snapshot.get_html_str(as_iframe=False))


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
