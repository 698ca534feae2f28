"""Which part of a window changed: its clients, hours of the day and predicted classes, each compared by itself.

All slices share an alpha of their own, by Holm's method (Scandinavian Journal of Statistics 1979): a slice decides
nothing, it says where to look. Knows arrays, no logs.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fashion.drift.clusters import Clusters
from fashion.drift.comparison import compare, family_p_values
from fashion.drift.distinct import Rows
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.result import FAMILIES, Column, Slice

MIN_PICTURES = 50
"""Distinct pictures of a slice below which it is not compared."""
MIN_LABELS = 20
"""Distinct pictures with feedback below which a slice's accuracy is not tested."""
MAX_SLICES = 24
"""Slices of a kind: those with most pictures."""
HOUR_US = 3_600_000_000

Kind = Literal["client", "hour", "predicted class"]


class _Part(NamedTuple):
    kind: Kind
    name: str
    pictures: Rows
    labelled: Rows | None
    reference: ReferenceStats


def find_slices(pictures: Rows, labelled: Rows | None, reference: ReferenceStats, *, alpha: float) -> tuple[Slice, ...]:
    """Compare every slice that is large enough with the reference.

    Args:
        pictures: a row for each distinct picture.
        labelled: likewise of those with feedback.
        reference: of the model.
        alpha: share of the windows without a change in which a slice may be called changed; and likewise declined.

    Returns:
        The slices, the most changed first.
    """
    parts = list(_parts(pictures, labelled, reference))
    columns = [_columns(part, alpha) for part in parts]
    changed = _holm([_p_value(each) for each in columns])
    declined = _holm([_p_decline(part) for part in parts])
    found = [
        _slice(part, each, p_value, p_decline, alpha)
        for part, each, p_value, p_decline in zip(parts, columns, changed, declined, strict=True)
    ]
    order = {"client": 0, "hour": 1, "predicted class": 2}
    return tuple(
        sorted(found, key=lambda each: (not each.is_unusual, _last(each.p_value), order[each.kind], each.name))
    )


def _parts(pictures: Rows, labelled: Rows | None, reference: ReferenceStats) -> Iterator[_Part]:
    for kind in ("client", "hour", "predicted class"):
        names, with_feedback = _names(kind, pictures), None if labelled is None else _names(kind, labelled)
        values, counts = np.unique(names, return_counts=True)
        if len(values) == 1:  # the whole window
            continue
        for index in np.argsort(-counts, kind="stable")[:MAX_SLICES]:
            name = values[index]
            if name == "" or counts[index] < MIN_PICTURES:
                continue
            compared = reference if kind != "predicted class" else reference.of_class(int(name))
            if compared.rows < MIN_PICTURES:
                continue
            part = None if labelled is None else labelled[with_feedback == name]
            yield _Part(kind, _title(kind, name, reference), pictures[names == name], part, compared)


def _names(kind: Kind, rows: Rows) -> NDArray[np.object_] | NDArray[np.int64]:
    if kind == "client":
        return rows.origins.clients
    return rows.times_us // HOUR_US % 24 if kind == "hour" else rows.predictions.labels


def _title(kind: Kind, name: object, reference: ReferenceStats) -> str:
    if kind == "client":
        return str(name)
    return f"{name:02d}:00" if kind == "hour" else reference.class_names[int(str(name))]


def _columns(part: _Part, alpha: float) -> tuple[Column, ...]:
    return compare(part.pictures, part.reference, alpha).columns


def _p_value(columns: Sequence[Column]) -> float:
    """That at least one column differs, by the rule of the decision; NaN if none could be tested."""
    tested = [p_value for p_value in family_p_values(columns).values() if not math.isnan(p_value)]
    return min(1.0, len(FAMILIES) * min(tested)) if tested else math.nan


def _p_decline(part: _Part) -> float:
    rows = part.labelled
    if rows is None or len(rows) < MIN_LABELS:
        return math.nan
    return part.reference.p_decline(rows.predictions.labels == rows.true_labels, Clusters(rows.origins.clients))


def _holm(p_values: Sequence[float]) -> list[float]:
    """Holm's corrected p-values, in the same order; NaN stays NaN and does not count."""
    tested = sorted((p_value, index) for index, p_value in enumerate(p_values) if not math.isnan(p_value))
    corrected, largest = list(p_values), 0.0
    for rank, (p_value, index) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p_value))
        corrected[index] = largest
    return corrected


def _slice(part: _Part, columns: Sequence[Column], p_value: float, p_decline: float, alpha: float) -> Slice:
    drifted = sorted((each for each in columns if each.drifted), key=lambda each: (each.p_value, -each.distance))
    rows, changed = part.labelled, p_value < alpha
    right = math.nan if not rows else float((rows.predictions.labels == rows.true_labels).mean())
    return Slice(
        kind=part.kind,
        name=part.name,
        pictures=len(part.pictures),
        p_value=p_value,
        changed=changed,
        columns=tuple(each.name for each in drifted[:3]) if changed else (),
        labelled=len(rows) if rows else 0,
        accuracy=right,
        p_decline=p_decline,
        declined=p_decline < alpha,
    )


def _last(p_value: float) -> float:
    return math.inf if math.isnan(p_value) else p_value
