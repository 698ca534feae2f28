"""Draw what an evaluation found, fit for a stranger: the title says the finding, the axes the units.

Knows arrays, names and matplotlib's object interface; not where the numbers came from nor where pictures go.
Never imports pyplot, so drawing leaves no global state behind. Colours are Okabe and Ito's, told apart by
colour-blind readers, and never the only sign. Class names are printed as they are, `$` included.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fashion.calibration import ReliabilityBins
from fashion.metrics import ClassScore, wilson_interval

DPI = 150
INK, MUTED, GRID, PALE = "#1a1a1a", "#5f5f5f", "#dedede", "#e6e6e6"
BLUE, VERMILION = "#0072b2", "#d55e00"
MISTAKES = LinearSegmentedColormap.from_list("mistakes", ["white", "#fdd0a2", VERMILION, "#7f2704"])
MARGIN = 0.25
"""Inches left free at each edge of a figure."""
EN_DASH, TIMES, ELLIPSIS = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}", "\N{HORIZONTAL ELLIPSIS}"


def to_png(figure: Figure, *, dpi: int = DPI) -> bytes:
    """The figure as the bytes of a PNG, its size in inches times dpi; equal figures give equal bytes.

    Below 96 dots per inch long lines may reach over the edge.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def confusion(matrix: NDArray[np.integer[Any]], class_names: Sequence[str], *, split: str = "test") -> Figure:
    """Confusion matrix (C, C), rows the true class; mistakes are coloured by their share of the row.

    The numbers are counts. The diagonal is grey, so that only mistakes have a colour. `split` names the
    images in the title. Raises ValueError when the matrix holds no images or does not fit class_names.
    """
    matrix, num_classes = np.asarray(matrix), len(class_names)
    if matrix.shape != (num_classes, num_classes):
        raise ValueError(f"matrix must be ({num_classes}, {num_classes}), got {matrix.shape}")
    if not np.issubdtype(matrix.dtype, np.integer) or matrix.min() < 0 or matrix.sum() == 0:
        raise ValueError(f"matrix must hold counts of at least one image, got {matrix.dtype} {matrix.sum()}")
    support, right = matrix.sum(axis=1), np.diag(matrix)
    mistakes = np.where(np.eye(num_classes, dtype=bool), 0, matrix)
    share = 100 * mistakes / np.maximum(support, 1)[:, None]
    # A scale of at least 1 % keeps the few mistakes of a near-perfect classifier pale.
    scale = max(1.0, float(share.max()))

    # More classes than this leave no room for legible numbers: colour alone has to do.
    numbered = num_classes <= 25
    cell = float(np.clip(8 / num_classes, 0.42 if numbered else 0.18, 1.3))
    font = float(np.clip(20 * cell, 7, 11))
    names_width = max(_width(name, 10) for name in class_names)
    figure, axes = _plot(
        cell * num_classes + names_width + 2.6,
        cell * num_classes + 0.7 * names_width + 0.8,
        f"{_percent(right.sum(), matrix.sum())} of {matrix.sum():,} {split} images right "
        f"({_interval(right.sum(), matrix.sum())})",
        _commonest_mistake(mistakes, support, class_names)
        + (" Numbers count images." if numbered else "")
        + " In brackets: 95 % Wilson interval.",
    )
    image = axes.imshow(share, cmap=MISTAKES, vmin=0, vmax=scale)
    for i in range(num_classes):
        axes.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, color=PALE, linewidth=0))
        if support[i]:
            axes.text(num_classes - 0.4, i, _percent(right[i], support[i]), va="center", fontsize=font)
        for j in np.flatnonzero(matrix[i]) if numbered else ():
            colour = MUTED if i == j else "white" if share[i, j] > 0.6 * scale else INK
            axes.text(float(j), i, f"{matrix[i, j]:,}", ha="center", va="center", fontsize=font, color=colour)
    axes.text(num_classes - 0.4, -0.6, "right", va="bottom", fontsize=font, color=MUTED)
    angle = 45 if numbered else 90
    axes.set_xticks(range(num_classes), class_names, rotation=angle, rotation_mode="anchor")
    for label in axes.get_xticklabels():
        label.set(horizontalalignment="right", verticalalignment="center")
    axes.set_yticks(range(num_classes), class_names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_xticks(np.arange(num_classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(num_classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=GRID, linewidth=0.8)
    bar = figure.colorbar(image, ax=axes, shrink=0.5, aspect=25, pad=0.03, ticks=MaxNLocator(5))
    bar.set_label("mistakes, % of the true class")
    bar.ax.spines["outline"].set_visible(False)
    for each in (axes, bar.ax):
        _plain(each, spines=(), grid=None)
    return figure


def per_class(scores: Sequence[ClassScore]) -> Figure:
    """Precision, recall and F1 of each class as dots, the best F1 on top. Raises ValueError for no scores."""
    if not scores:
        raise ValueError("scores is empty")
    ordered = sorted(scores, key=lambda score: score.f1)
    best, worst = ordered[-1], ordered[0]
    rows = np.arange(len(ordered))
    columns = {name: 100 * np.array([getattr(s, name) for s in ordered]) for name in ("precision", "recall", "f1")}
    figure, axes = _plot(
        9.5,
        0.36 * len(ordered) + 1.5,
        f"Hardest class: {worst.name} (F1 {100 * worst.f1:.1f} %); easiest: {best.name} ({100 * best.f1:.1f} %)",
        f"Mean F1 of the {len(ordered)} classes: {columns['f1'].mean():.1f} %. "
        "Precision: share of the images given this label that are right. "
        "Recall: share of the images of this class that are found.",
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
    for points, heading, cells in (
        (52, "F1, %", [f"{100 * score.f1:.1f}" for score in ordered]),
        (110, "images", [f"{score.support:,}" for score in ordered]),
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
    axes.set_yticks(rows, [s.name for s in ordered])
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.set_xlim(max(0.0, 5 * math.floor((low.min() - 1) / 5)), 100)
    axes.set_xlabel("%")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderpad=0, handletextpad=0.2)
    _plain(axes, spines=("bottom",), grid="x")
    return figure


def reliability(
    before: ReliabilityBins,
    after: ReliabilityBins,
    *,
    ece_before: float,
    ece_after: float,
    temperature: float,
) -> Figure:
    """Accuracy against confidence before and after temperature scaling, over histograms of confidence.

    The errors are shares in [0, 1], as `fashion.calibration.expected_calibration_error` gives them.
    """
    before_percent, after_percent = f"{100 * ece_before:.1f}", f"{100 * ece_after:.1f}"
    if before_percent == after_percent:
        change = f"leaves the calibration error at {after_percent} %"
    else:
        verb = "lowers" if ece_after < ece_before else "raises"
        change = f"{verb} the calibration error from {before_percent} to {after_percent} %"
    figure = _figure(
        10.5,
        5.6,
        f"Temperature {temperature:.2f} {change}",
        "On the dashed line the model is right as often as it says. "
        "The error is the mean gap, weighted by images. Thin lines: 95 % intervals.",
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


def mistakes(
    images: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    predictions: NDArray[np.integer[Any]],
    probabilities: NDArray[np.floating[Any]],
    class_names: Sequence[str],
    *,
    count: int = 24,
    split: str = "test",
) -> Figure:
    """The most confident mistakes, each with the true and the predicted class and their probabilities.

    images (N, H, W) or (N, H, W, channels), labels and predictions (N,), probabilities (N, C). Draws fewer
    than count when there are fewer mistakes, and says so when there are none.
    """
    images, labels, predictions = _checked_images(images), np.asarray(labels), np.asarray(predictions)
    probabilities = np.asarray(probabilities)
    _check_classes("labels", labels, (len(images),), class_names)
    _check_classes("predictions", predictions, (len(images),), class_names)
    if probabilities.shape != (len(images), len(class_names)):
        raise ValueError(f"probabilities must be ({len(images)}, {len(class_names)}), got {probabilities.shape}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    wrong = np.flatnonzero(predictions != labels)
    confidence = probabilities[wrong, predictions[wrong]]
    shown = wrong[np.argsort(-confidence, kind="stable")][:count]
    if len(shown) < len(wrong):
        which = f"The {len(shown)} most confident of {len(wrong):,} mistakes"
    else:
        which = {0: "No mistakes", 1: "The only mistake"}.get(len(wrong), f"All {len(wrong):,} mistakes")

    captions = [
        [
            (f"{word} {class_names[index]}", f"{100 * probabilities[i, index]:.0f} %")
            for word, index in (("is", labels[i]), ("said", predictions[i]))
        ]
        for i in shown
    ]
    widths = [
        _width(name, 9, bold=True) + 0.1 + _width(percent, 9, bold=True) for pair in captions for name, percent in pair
    ]
    caption, gap = 0.5, 0.22
    width = float(np.clip(max(widths, default=0), 1.5, 2.2))
    side = min(width, 1.8)
    columns = min(6, int((11.6 + gap) / (width + gap)), max(4, len(shown)))
    rows = math.ceil(len(shown) / columns)
    figure, axes, left, top = _canvas(
        columns * (width + gap) - gap,
        max(rows * (side + caption + gap) - gap, 0),
        f"{which} in {len(images):,} {split} images",
        "Under each image: what it is and what the model said, each with the model's probability."
        if len(shown)
        else "",
    )
    for place, (i, pair) in enumerate(zip(shown, captions, strict=True)):
        x = left + (place % columns) * (width + gap)
        y = top + (place // columns) * (side + caption + gap)
        _draw(axes, images[i], x, y, side)
        for (name, percent), bold, below in zip(pair, (False, True), (0.17, 0.36), strict=True):
            style: dict[str, Any] = {"fontsize": 9, "fontweight": "bold" if bold else "normal"}
            style |= {"color": VERMILION if bold else INK, "parse_math": False}
            room = width - 0.09 - _width(percent, 9, bold=bold)
            axes.text(x, y + side + below, _shortened(name, room, 9, bold=bold), **style)
            axes.text(x + width, y + side + below, percent, ha="right", **style)
    return figure


def saliency(
    images: NDArray[np.uint8],
    maps: NDArray[np.floating[Any]],
    class_names: Sequence[str],
    *,
    labels: NDArray[np.integer[Any]],
    predictions: NDArray[np.integer[Any]],
    confidences: NDArray[np.floating[Any]] | None = None,
    when: str = "",
) -> Figure:
    """Images beside themselves overlaid with their saliency: commonly one of each class.

    images (N, H, W) or (N, H, W, channels), maps (N, H, W) of which the size of the values counts, labels,
    predictions and confidences (N,). Each map is scaled to its own 99th percentile. `when`, such as
    "after epoch 3", ends the title.
    """
    images, maps = _checked_images(images), np.abs(np.asarray(maps, np.float64))
    if maps.shape != images.shape[:3] or not np.all(np.isfinite(maps)):
        raise ValueError(f"maps must be finite and {images.shape[:3]}, got shape {maps.shape}")
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    _check_classes("labels", labels, (len(images),), class_names)
    _check_classes("predictions", predictions, (len(images),), class_names)
    if confidences is not None and np.shape(confidences) != labels.shape:
        raise ValueError(f"confidences must be {labels.shape}, got {np.shape(confidences)}")

    columns, side, caption, gap = min(5, max(3, len(images))), 1.15, 0.45, 0.3
    rows = math.ceil(len(images) / columns)
    width = 2 * side + 0.05
    right = int(np.sum(labels == predictions))
    figure, axes, left, top = _canvas(
        columns * (width + gap) - gap,
        rows * (side + caption + gap) - gap,
        f"Where the model looks {when}".rstrip() + f": {right} of these {len(images)} images right",
        "Bright pixels change the prediction most: size of the gradient of the winning output, "
        "each map on its own scale.",
    )
    for place in range(len(images)):
        x = left + (place % columns) * (width + gap)
        y = top + (place // columns) * (side + caption + gap)
        _draw(axes, images[place], x, y + caption, side)
        _draw(axes, _overlaid(images[place], maps[place]), x + side + 0.05, y + caption, side)
        certainty = "" if confidences is None else f" {100 * confidences[place]:.0f} %"
        is_right = labels[place] == predictions[place]
        name = _shortened(class_names[labels[place]], width, 10, bold=True)
        said = _shortened(class_names[predictions[place]], width - _width(f"said {certainty}", 9), 9)
        answer = ("right," if is_right else f"said {said}") + certainty
        axes.text(x, y + 0.14, name, fontsize=10, fontweight="bold", color=INK, parse_math=False)
        axes.text(x, y + 0.33, answer, fontsize=9, color=MUTED if is_right else VERMILION, parse_math=False)
    return figure


def training_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Losses and validation accuracy against epoch, the best epoch marked.

    Each mapping has "epoch" and may have "train/loss", "val/loss" (nats) and "val/accuracy" (share in
    [0, 1]); what is absent, None or NaN is left out. Raises ValueError when history is empty.
    """
    if not history:
        raise ValueError("history is empty")
    accuracy = _series(history, "val/accuracy")
    last = history[-1]["epoch"]
    best = int(np.argmax(accuracy[1])) if accuracy[1].size else None
    title = (
        f"No validation accuracy up to epoch {last}"
        if best is None
        else f"Validation accuracy {100 * accuracy[1][best]:.2f} % in epoch {accuracy[0][best]:.0f}"
        + (f", the best of {len(accuracy[1])}" if len(accuracy[1]) > 1 else "")
    )
    figure = _figure(
        10.5,
        3.9,
        title,
        "Validation images are never trained on. The circle marks the best epoch.",
    )
    losses, accuracies = figure.subplots(1, 2)
    for key, colour, marker, line in (("train/loss", VERMILION, "s", "--"), ("val/loss", BLUE, "o", "-")):
        epochs, values = _series(history, key)
        name = "training" if key == "train/loss" else "validation"
        losses.plot(epochs, values, line, color=colour, marker=marker, markersize=4, linewidth=2, label=name)
    losses.set_ylabel("loss, nats")
    losses.legend(frameon=False)
    accuracies.plot(accuracy[0], 100 * accuracy[1], "-o", color=BLUE, markersize=4, linewidth=2)
    if best is not None:
        at = (accuracy[0][best], 100 * accuracy[1][best])
        accuracies.plot(*at, "o", markersize=11, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.5)
    accuracies.set_ylabel("validation accuracy, %")
    for axes in (losses, accuracies):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(history[0]["epoch"] - 0.5, last + 0.5)
        axes.margins(y=0.12)
        _plain(axes, spines=("bottom", "left"), grid="y")
    return figure


def samples(
    images: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    class_names: Sequence[str],
    *,
    split: str = "training",
    per_class: int = 12,
) -> Figure:
    """A sheet of the data: a row for each class with its first images and its number of images.

    images (N, H, W) or (N, H, W, channels), labels (N,). A class without images keeps its empty row.
    """
    images, labels = _checked_images(images), np.asarray(labels)
    _check_classes("labels", labels, (len(images),), class_names)
    if per_class < 1:
        raise ValueError(f"per_class must be at least 1, got {per_class}")
    counts = np.bincount(labels, minlength=len(class_names))
    side, gap = float(np.clip(8 / len(class_names), 0.5, 0.85)), 0.05
    names_width = min(max(_width(name, 11) for name in class_names), 3.4)
    start = names_width + 0.2
    height, width = images.shape[1:3]
    colours = {1: "grey", 3: "colour"}.get(images.shape[3], f"{images.shape[3]} channels")
    figure, axes, left, top = _canvas(
        start + per_class * (side + gap) + 0.6,
        len(class_names) * (side + gap),
        f"{len(images):,} {split} images of {len(class_names)} classes",
        f"{width} {TIMES} {height} pixels, {colours}. The first of each class; on the right, how many there are.",
    )
    for row, name in enumerate(class_names):
        y = top + row * (side + gap)
        shown = np.flatnonzero(labels == row)[:per_class]
        for column, i in enumerate(shown):
            _draw(axes, images[i], left + start + column * (side + gap), y, side)
        axes.text(
            left,
            y + side / 2,
            _shortened(name, names_width, 11),
            fontsize=11,
            va="center",
            parse_math=False,
        )
        axes.text(
            left + start + per_class * (side + gap) + 0.6,
            y + side / 2,
            f"{counts[row]:,}",
            fontsize=10,
            va="center",
            ha="right",
            color=MUTED,
        )
    return figure


# The frame of a figure: all lengths in inches


def _figure(width: float, height: float, title: str, subtitle: str) -> Figure:
    """A figure whose body is at least this large, under a headline that wraps and is never cut off."""
    return _headed(width, height, title, subtitle)[0]


def _plot(width: float, height: float, title: str, subtitle: str) -> tuple[Figure, Axes]:
    figure = _figure(width, height, title, subtitle)
    return figure, figure.add_subplot()


def _canvas(width: float, height: float, title: str, subtitle: str) -> tuple[Figure, Axes, float, float]:
    """A figure with one bare axes in inches, y downwards, and the left and top of its body.

    One axes for a gallery draws several times faster than an axes for each picture.
    """
    figure, top = _headed(width, height, title, subtitle)
    full_width, full_height = figure.get_size_inches()
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, full_width), ylim=(full_height, 0), autoscale_on=False)
    axes.set_axis_off()
    return figure, axes, MARGIN, top


def _headed(width: float, height: float, title: str, subtitle: str) -> tuple[Figure, float]:
    width = max(width, 7.0)
    titles, subtitles = _wrapped(title, width, 15, bold=True), _wrapped(subtitle, width, 10.5)
    top = MARGIN + 0.27 * len(titles) + 0.06 + 0.2 * len(subtitles) + 0.2
    full_width, full_height = width + 2 * MARGIN, height + top + MARGIN
    figure = Figure(figsize=(full_width, full_height), dpi=DPI, facecolor="white")
    y = MARGIN
    for lines, size, step, weight, colour in (
        (titles, 15, 0.27, "bold", INK),
        (subtitles, 10.5, 0.2, "normal", MUTED),
    ):
        for line in lines:
            y += step
            x = MARGIN / full_width
            figure.text(x, 1 - y / full_height, line, fontsize=size, fontweight=weight, color=colour, parse_math=False)
        y += 0.06
    sides = (MARGIN / full_width, MARGIN / full_height, width / full_width, height / full_height)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=sides, w_pad=0.06, h_pad=0.06, wspace=0.05))
    return figure, top


def _plain(axes: Any, *, spines: Sequence[str], grid: str | None) -> None:
    for name, spine in axes.spines.items():
        spine.set_visible(name in spines)
        spine.set_color("#888888")
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, labelsize=10, labelcolor=INK)
    for text in axes.findobj(Text):
        text.set_parse_math(False)


# Parts of figures


def _reliability_panel(axes: Axes, bins: ReliabilityBins) -> None:
    held = np.flatnonzero(bins.counts)
    confidence, accuracy = 100 * bins.confidence[held], 100 * bins.accuracy[held]
    intervals = [wilson_interval(round(bins.accuracy[i] * bins.counts[i]), int(bins.counts[i])) for i in held]
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
    _plain(axes, spines=("bottom", "left"), grid="both")


def _confidence_histogram(axes: Axes, bins: ReliabilityBins) -> None:
    share = 100 * bins.counts / bins.counts.sum()
    axes.bar(100 * bins.edges[:-1], share, 100 * np.diff(bins.edges), align="edge", color=BLUE, edgecolor="white")
    axes.set_xlabel("confidence, %")
    _plain(axes, spines=("bottom", "left"), grid="y")


def _draw(axes: Axes, image: NDArray[Any], x: float, y: float, side: float) -> None:
    """Put an image (H, W, channels) into a square at (x, y), keeping its proportions."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    x, y = x + (side - width * scale) / 2, y + (side - height * scale) / 2
    extent = (x, x + width * scale, y + height * scale, y)
    axes.imshow(_visible(image), extent=extent, aspect="auto", interpolation="nearest")


def _visible(image: NDArray[Any]) -> NDArray[Any]:
    """(H, W, 3) of any number of channels: the first three, or the first as grey."""
    return image[:, :, :3] if image.shape[2] >= 3 else np.repeat(image[:, :, :1], 3, axis=2)


def _overlaid(image: NDArray[np.uint8], saliency_map: NDArray[np.float64]) -> NDArray[np.float64]:
    strength = np.clip(saliency_map / max(float(np.percentile(saliency_map, 99)), 1e-12), 0, 1)
    grey = _visible(image).mean(axis=2, keepdims=True) / 255
    heat = matplotlib.colormaps["inferno"](0.25 + 0.75 * strength)[:, :, :3]
    opacity = np.sqrt(strength)[:, :, None]
    return np.asarray((1 - opacity) * 0.55 * grey + opacity * heat)


def _series(history: Sequence[Mapping[str, Any]], key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    points = [(row["epoch"], row[key]) for row in history if row.get(key) is not None]
    held = np.array([point for point in points if math.isfinite(point[1])], np.float64).reshape(-1, 2)
    return held[:, 0], held[:, 1]


def _commonest_mistake(
    mistakes: NDArray[np.integer[Any]], support: NDArray[np.integer[Any]], class_names: Sequence[str]
) -> str:
    if not mistakes.any():
        return "No mistakes."
    i, j = divmod(int(np.argmax(mistakes)), len(class_names))
    return f"The commonest mistake: {class_names[i]} taken for {class_names[j]}, {mistakes[i, j]:,} of {support[i]:,}."


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


def _interval(part: int, whole: int) -> str:
    low, high = wilson_interval(int(part), int(whole))
    return f"{100 * low:.1f}{EN_DASH}{100 * high:.1f} %"


def _shortened(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """Text cut, and said to be cut, to at most this many inches."""
    kept = text
    while _width(kept, size, bold=bold) > width and len(kept) > 1:
        kept = kept.removesuffix(ELLIPSIS)[:-1].rstrip() + ELLIPSIS
    return kept


def _wrapped(text: str, width: float, size: float, *, bold: bool = False) -> list[str]:
    """Lines of at most this many inches; a number keeps its percent sign."""
    lines = [""]
    for word in text.replace(" %", "\N{NO-BREAK SPACE}%").split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _width(longer, size, bold=bold) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _width(text: str, size: float, *, bold: bool = False) -> float:
    """Inches that the text takes at most, at 96 dots per inch or more."""
    font = FontProperties(size=size, weight="bold" if bold else "normal")
    points, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    # Rounding glyphs to whole pixels widens a line: by up to 9 % at 100 dots per inch, 6 % at 150 (n = 36).
    return 1.09 * float(points) / 72


# What is refused


def _checked_images(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """As (N, H, W, channels)."""
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.size == 0:
        raise ValueError(
            f"images must be uint8, (N, H, W) or (N, H, W, channels) and not empty, got {images.dtype} {images.shape}"
        )
    return images[..., None] if images.ndim == 3 else images


def _check_classes(
    name: str, values: NDArray[np.integer[Any]], shape: tuple[int, ...], class_names: Sequence[str]
) -> None:
    if values.shape != shape or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{name} must be {shape} integers, got {values.dtype} {values.shape}")
    if values.min() < 0 or values.max() >= len(class_names):
        raise ValueError(f"{name} must be in [0, {len(class_names)}), got {values.min()} to {values.max()}")
