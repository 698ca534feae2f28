"""The columns of a drift report: SVG charts of reference and window, and a table of all tests. Decides nothing."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.drift.report_style import TABLE
from fashion.drift.result import LABELS, Column, DriftResult
from fashion.drift.verdict import format_p_value
from fashion.images.statistics import STATISTICS
from fashion.model.predictor import Predictions

BINS = 24
"""Of a histogram."""
MAX_CHARTS = 6
"""Columns with a chart: the most changed ones."""


def section(
    result: DriftResult, reference: Predictions, window: Predictions, class_names: Sequence[str]
) -> Iterator[str]:
    """The section of the report on what changed, as HTML; nothing where nothing was tested.

    Args:
        result: the tests.
        reference: rows that the window was compared with.
        window: a sample of the window.
        class_names: of the version.
    """
    if not result.columns:
        return
    ranked = sorted(result.columns, key=_rank)
    drifted = sum(column.drifted for column in result.columns)
    yield f"<section><h2>What changed</h2><p>{drifted} of {len(ranked)} columns drifted. The most changed ones:</p>"
    yield "<div class='charts'>"
    for column in ranked[:MAX_CHARTS]:
        before, now = (column_values(rows, column.name, class_names) for rows in (reference, window))
        chart = bars(before, now, class_names) if column.name == LABELS else histogram(before, now)
        flag = "hit" if column.drifted else ""
        yield (
            f"<figure><figcaption class='{flag}'><b>{escape(column.name)}</b>distance {column.distance:.2f}, "
            f"p = {format_p_value(column.p_value)}, drift below {format_p_value(column.threshold)}</figcaption>"
            f"{chart}</figure>"
        )
    yield "</div><p class='small'><span class='key before'></span>reference "
    yield "<span class='key now'></span>this window; "
    yield "heights are square roots of shares, so that small shares stay visible</p>"
    yield f"<details><summary>Every column, with its test</summary>{TABLE}<tr><th>column</th><th>test</th>"
    yield "<th class='n'>distance</th><th class='n'>p-value</th><th class='n'>drift below</th><th>result</th></tr>"
    for column in ranked:
        test = "chi-square" if column.name == LABELS else "Kolmogorov-Smirnov"
        yield (
            f"<tr><th>{escape(column.name)}</th><td>{test}</td><td class='n'>{column.distance:.3f}</td>"
            f"<td class='n'>{format_p_value(column.p_value)}</td><td class='n'>{column.threshold:.2g}</td>"
            f"<td class='{'hit' if column.drifted else ''}'>{_verdict(column)}</td></tr>"
        )
    yield "</table></details></section>"


def _verdict(column: Column) -> str:
    return "drift" if column.drifted else "" if math.isnan(column.p_value) else "no drift"


def _rank(column: Column) -> tuple[bool, bool, float, float]:
    """The most changed first, what was not tested last."""
    untested = math.isnan(column.p_value)
    return not column.drifted, untested, 1.0 if untested else column.p_value, -column.distance


def column_values(rows: Predictions, column: str, class_names: Sequence[str]) -> NDArray[Any]:
    """The values of one tested column.

    Args:
        rows: N rows.
        column: its name in `DriftResult.columns`.
        class_names: of the version.

    Returns:
        `(N,)`
    """
    if column == LABELS:
        return rows.labels
    if column in STATISTICS:
        return rows.statistics[:, STATISTICS.index(column)]
    return rows.probabilities[:, [f"p({name})" for name in class_names].index(column)]


def histogram(before: NDArray[Any], now: NDArray[Any]) -> str:
    """Two histograms over each other as SVG, of the reference's `(N,)` values and the window's `(M,)`."""
    low, high = (float(f([f(before), f(now)])) for f in (np.min, np.max))
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    # Square roots: nearly all probabilities are close to 0 or 1, and the others would be invisible.
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
    """Shares of the predicted classes as SVG.

    Args:
        before: `(N,)` labels of the reference.
        now: `(M,)` labels of the window.
        class_names: of the version.
    """
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
