"""Small SVG charts for the drift report: reference beside window."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.drift.result import LABELS
from fashion.images.statistics import STATISTICS
from fashion.model.predictor import Predictions

BINS = 24


def column_values(rows: Predictions, column: str, class_names: Sequence[str]) -> NDArray[Any]:
    if column == LABELS:
        return rows.labels
    if column in STATISTICS:
        return rows.statistics[:, STATISTICS.index(column)]
    return rows.probabilities[:, [f"p({name})" for name in class_names].index(column)]


def histogram(before: NDArray[Any], now: NDArray[Any]) -> str:
    low, high = (float(f([f(before), f(now)])) for f in (np.min, np.max))
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    # Square roots: probabilities lie nearly all at the two ends, and the rest would not be seen.
    shares = [np.sqrt(np.histogram(values, edges)[0] / len(values)) for values in (before, now)]
    top = max(float(max(share.max() for share in shares)), 1e-9)
    width, height = 240, 84
    lines = []
    for share, kind in zip(shares, ("before", "now"), strict=True):
        points = [f"0,{height}"]
        for index, value in enumerate(share):
            y = height * (1 - value / top)
            points += [f"{width * index / BINS:.1f},{y:.1f}", f"{width * (index + 1) / BINS:.1f},{y:.1f}"]
        lines.append(f"<polygon class='{kind}' points='{' '.join([*points, f'{width},{height}'])}'/>")
    return (
        f"<svg viewBox='0 0 {width} {height + 14}' role='img' aria-label='two histograms'>{''.join(lines)}"
        f"<text x='0' y='{height + 12}'>{low:.2f}</text>"
        f"<text x='{width}' y='{height + 12}' text-anchor='end'>{edges[-1]:.2f}</text></svg>"
    )


def bars(before: NDArray[np.int64], now: NDArray[np.int64], class_names: Sequence[str]) -> str:
    shares = [np.bincount(labels, minlength=len(class_names)) / len(labels) for labels in (before, now)]
    top = max(float(share.max()) for share in shares)
    line, width = 15, 240
    parts = []
    for index, name in enumerate(class_names):
        y = index * line
        parts.append(f"<text x='84' y='{y + 10}' text-anchor='end'>{escape(name[:14])}</text>")
        for offset, share, kind in ((1, shares[0], "before"), (6, shares[1], "now")):
            length = 150 * share[index] / top
            parts.append(f"<rect class='{kind}' x='90' y='{y + offset}' width='{length:.1f}' height='5'/>")
    height = line * len(class_names)
    return f"<svg viewBox='0 0 {width} {height}' role='img' aria-label='shares of the classes'>{''.join(parts)}</svg>"
