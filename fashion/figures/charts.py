"""Draw the confusion matrix, per-class scores and the reliability diagram. Knows metrics, not images."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fashion.figures.frame import (
    BLUE,
    GRID,
    INK,
    MUTED,
    PALE,
    VERMILION,
    new_figure,
    new_plot,
    style_axes,
    text_width,
)
from fashion.metrics.calibration import ReliabilityBins
from fashion.metrics.classification import ClassScore, wilson_interval

_MISTAKES = LinearSegmentedColormap.from_list("mistakes", ["white", "#fdd0a2", VERMILION, "#7f2704"])
_EN_DASH = "\N{EN DASH}"


def confusion(matrix: NDArray[np.integer[Any]], class_names: Sequence[str], *, split: str = "test") -> Figure:
    """Draw a confusion matrix of counts; mistakes are coloured by their share of the true class.

    Args:
        matrix: `(C, C)` counts, rows the true class, columns the predicted one.
        class_names: the C names, in the order of the matrix.
        split: name of the images in the title.

    Raises:
        ValueError: the matrix counts no images, or its shape does not match `class_names`.
    """
    matrix, num_classes = np.asarray(matrix), len(class_names)
    if matrix.shape != (num_classes, num_classes):
        raise ValueError(f"matrix must be ({num_classes}, {num_classes}), got {matrix.shape}")
    if not np.issubdtype(matrix.dtype, np.integer) or matrix.min() < 0 or matrix.sum() == 0:
        raise ValueError(f"matrix must hold counts of at least one image, got {matrix.dtype} {matrix.sum()}")
    support, correct = matrix.sum(axis=1), np.diag(matrix)
    mistakes = np.where(np.eye(num_classes, dtype=bool), 0, matrix)
    share = 100 * mistakes / np.maximum(support, 1)[:, None]
    # At least 1 %, so that the few mistakes of a near-perfect classifier are pale.
    scale = max(1.0, float(share.max()))

    # More classes leave no room for legible numbers.
    numbered = num_classes <= 25
    cell = float(np.clip(8 / num_classes, 0.42 if numbered else 0.18, 1.3))
    font = float(np.clip(20 * cell, 7, 11))
    names_width = max(text_width(name, 10) for name in class_names)
    figure, axes = new_plot(
        cell * num_classes + names_width + 2.6,
        cell * num_classes + 0.7 * names_width + 0.8,
        f"{_format_percent(correct.sum(), matrix.sum())} of {matrix.sum():,} {split} images are classified correctly "
        f"({_format_interval(correct.sum(), matrix.sum())})",
        _most_common_mistake(mistakes, support, class_names)
        + (" Numbers are counts of images." if numbered else "")
        + " In brackets: 95 % Wilson interval.",
    )
    image = axes.imshow(share, cmap=_MISTAKES, vmin=0, vmax=scale)
    axes.text(num_classes - 0.4, -0.6, "recall", va="bottom", fontsize=font, color=MUTED)
    for i in range(num_classes):
        axes.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, color=PALE, linewidth=0))
        if support[i]:
            axes.text(num_classes - 0.4, i, _format_percent(correct[i], support[i]), va="center", fontsize=font)
        for j in np.flatnonzero(matrix[i]) if numbered else ():
            colour = MUTED if i == j else "white" if share[i, j] > 0.6 * scale else INK
            axes.text(float(j), i, f"{matrix[i, j]:,}", ha="center", va="center", fontsize=font, color=colour)
    _label_classes(axes, class_names, angle=45 if numbered else 90)
    bar = figure.colorbar(image, ax=axes, shrink=0.5, aspect=25, pad=0.03, ticks=MaxNLocator(5))
    bar.set_label("mistakes, % of the true class")
    bar.ax.spines["outline"].set_visible(False)
    for each in (axes, bar.ax):
        style_axes(each, spines=(), grid=None)
    return figure


def per_class(scores: Sequence[ClassScore]) -> Figure:
    """Draw precision, recall and F1 of each class as dots, the best F1 on top.

    Raises:
        ValueError: there are no scores.
    """
    if not scores:
        raise ValueError("scores is empty: at least one class is needed")
    ordered = sorted(scores, key=lambda score: score.f1)
    best, worst = ordered[-1], ordered[0]
    rows = np.arange(len(ordered))
    columns = {name: 100 * np.array([getattr(s, name) for s in ordered]) for name in ("precision", "recall", "f1")}
    figure, axes = new_plot(
        9.5,
        0.36 * len(ordered) + 1.5,
        f"Hardest class: {worst.name} (F1 {100 * worst.f1:.1f} %); easiest: {best.name} ({100 * best.f1:.1f} %)",
        f"Mean F1 of the {len(ordered)} classes: {columns['f1'].mean():.1f} %. "
        "Precision: share of the images with this prediction that are of this class. "
        "Recall: share of the images of this class with this prediction.",
    )
    low, high = (f(np.stack(list(columns.values())), axis=0) for f in (np.min, np.max))
    axes.hlines(rows, low, high, color="#b8b8b8", linewidth=2, zorder=1)
    style = {"precision": (BLUE, "<"), "recall": (VERMILION, ">"), "f1": (INK, "o")}
    for name, (colour, marker) in style.items():
        label = "F1" if name == "f1" else name
        axes.scatter(
            columns[name],
            rows,
            c=colour,
            marker=marker,
            s=52,
            label=label,
            zorder=2,
            linewidths=0,
            clip_on=False,
        )
    _add_columns(axes, ordered)
    axes.set_yticks(rows, [s.name for s in ordered])
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.set_xlim(max(0.0, 5 * math.floor((low.min() - 1) / 5)), 100)
    axes.set_xlabel("%")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderpad=0, handletextpad=0.2)
    style_axes(axes, spines=("bottom",), grid="x")
    return figure


def reliability(
    before: ReliabilityBins,
    after: ReliabilityBins,
    *,
    ece_before: float,
    ece_after: float,
    temperature: float,
) -> Figure:
    """Draw accuracy against confidence before and after temperature scaling, over histograms of confidence.

    Args:
        before: bins of the unscaled probabilities.
        after: bins of the scaled probabilities.
        ece_before: expected calibration error in [0, 1] of the unscaled probabilities.
        ece_after: expected calibration error in [0, 1] of the scaled probabilities.
        temperature: what the logits are divided by.
    """
    before_percent, after_percent = f"{100 * ece_before:.1f}", f"{100 * ece_after:.1f}"
    if before_percent == after_percent:
        change = f"leaves the calibration error at {after_percent} %"
    else:
        verb = "lowers" if ece_after < ece_before else "raises"
        change = f"{verb} the calibration error from {before_percent} to {after_percent} %"
    figure = new_figure(
        10.5,
        5.6,
        f"Temperature {temperature:.2f} {change}",
        "On the dashed line, accuracy equals confidence. "
        "The error is the mean gap, weighted by number of images. Thin lines: 95 % intervals.",
    )
    grid = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=[3, 1])
    for column, (heading, bins, error) in enumerate(
        [("Before", before, before_percent), ("After", after, after_percent)]
    ):
        _reliability_panel(grid[0, column], bins)
        grid[0, column].set_title(f"{heading}: error {error} %", loc="left", fontsize=12, color=INK, fontweight="bold")
        _confidence_histogram(grid[1, column], bins)
    grid[0, 0].set_ylabel("accuracy, %")
    grid[1, 0].set_ylabel("images, %")
    figure.align_ylabels(grid[:, 0])
    grid[0, 0].legend(loc="upper left", frameon=False)
    return figure


def _label_classes(axes: Axes, class_names: Sequence[str], *, angle: int) -> None:
    """Name the rows and columns of a confusion matrix, and draw lines between its cells."""
    ticks, edges = range(len(class_names)), np.arange(len(class_names) + 1) - 0.5
    axes.set_xticks(ticks, class_names, rotation=angle, rotation_mode="anchor")
    for label in axes.get_xticklabels():
        label.set(horizontalalignment="right", verticalalignment="center")
    axes.set_yticks(ticks, class_names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color=GRID, linewidth=0.8)


def _add_columns(axes: Axes, scores: Sequence[ClassScore]) -> None:
    """Write F1 and the number of images of each class to the right of the dots."""
    for points, heading, cells in (
        (52, "F1, %", [f"{100 * score.f1:.1f}" for score in scores]),
        (110, "images", [f"{score.support:,}" for score in scores]),
    ):
        for y, cell in enumerate([*cells, heading]):
            axes.annotate(
                cell,
                (1, y),
                xycoords=axes.get_yaxis_transform(),
                xytext=(points, 0),
                textcoords="offset points",
                color=MUTED if cell == heading else INK,
                ha="right",
                va="center_baseline",
            )


def _reliability_panel(axes: Axes, bins: ReliabilityBins) -> None:
    filled = np.flatnonzero(bins.counts)
    confidence, accuracy = 100 * bins.confidence[filled], 100 * bins.accuracy[filled]
    intervals = [wilson_interval(round(bins.accuracy[i] * bins.counts[i]), int(bins.counts[i])) for i in filled]
    ends = np.abs(100 * np.array(intervals).T - accuracy)
    axes.plot([0, 100], [0, 100], "--", color=MUTED, linewidth=1.2)
    axes.vlines(confidence, confidence, accuracy, color=VERMILION, alpha=0.45, linewidth=5, label="gap")
    axes.errorbar(
        confidence,
        accuracy,
        yerr=ends,
        fmt="o",
        color=BLUE,
        markersize=6,
        elinewidth=1.2,
        label="bin of images",
        clip_on=False,
    )
    axes.set(xlim=(0, 100), ylim=(0, 102))
    style_axes(axes, spines=("bottom", "left"), grid="both")


def _confidence_histogram(axes: Axes, bins: ReliabilityBins) -> None:
    share = 100 * bins.counts / bins.counts.sum()
    axes.bar(100 * bins.edges[:-1], share, 100 * np.diff(bins.edges), align="edge", color=BLUE, edgecolor="white")
    axes.set_xlabel("confidence, %")
    style_axes(axes, spines=("bottom", "left"), grid="y")


def _most_common_mistake(
    mistakes: NDArray[np.integer[Any]], support: NDArray[np.integer[Any]], class_names: Sequence[str]
) -> str:
    if not mistakes.any():
        return "No mistakes."
    i, j = divmod(int(np.argmax(mistakes)), len(class_names))
    return f"Most common mistake: {class_names[i]} predicted as {class_names[j]}, {mistakes[i, j]:,} of {support[i]:,}."


def _format_percent(part: int, whole: int) -> str:
    """Format `part` of `whole` as a percentage with one decimal."""
    return f"{100 * part / whole:.1f} %"


def _format_interval(part: int, whole: int) -> str:
    """Format the 95 % Wilson interval of `part` of `whole` as percentages."""
    low, high = wilson_interval(int(part), int(whole))
    return f"{100 * low:.1f}{_EN_DASH}{100 * high:.1f} %"
