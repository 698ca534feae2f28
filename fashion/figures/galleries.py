"""Draw grids of images: mistakes, saliency maps, samples of the data. Knows images and labels, not metrics."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fashion.figures.frame import INK, MUTED, TIMES, VERMILION, new_canvas, shorten, text_width


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
    """Draw the most confident mistakes, each with its true and its predicted class and their probabilities.

    Args:
        images: `(N, H, W)` or `(N, H, W, channels)` uint8.
        labels: `(N,)` true classes.
        predictions: `(N,)` predicted classes.
        probabilities: `(N, C)` of the classes, in [0, 1].
        class_names: the C names.
        count: most mistakes to draw.
        split: name of the images in the title.

    Raises:
        ValueError: a shape or type is wrong, a label is out of range, or `count` is less than 1.
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
    captions = [
        [
            (f"{word}: {class_names[index]}", f"{100 * probabilities[i, index]:.0f} %")
            for word, index in (("true", labels[i]), ("predicted", predictions[i]))
        ]
        for i in shown
    ]
    widths = [
        text_width(name, 9, bold=True) + 0.1 + text_width(percent, 9, bold=True)
        for pair in captions
        for name, percent in pair
    ]
    caption, gap = 0.5, 0.22
    width = float(np.clip(max(widths, default=0), 1.5, 2.2))
    side = min(width, 1.8)
    columns = min(6, int((11.6 + gap) / (width + gap)), max(4, len(shown)))
    rows = math.ceil(len(shown) / columns)
    figure, axes, left, top = new_canvas(
        columns * (width + gap) - gap,
        max(rows * (side + caption + gap) - gap, 0),
        f"{_describe_selection(len(shown), len(wrong))} in {len(images):,} {split} images",
        "Under each image: the true and the predicted class, each with its predicted probability."
        if len(shown)
        else "",
    )
    for place, (i, pair) in enumerate(zip(shown, captions, strict=True)):
        x = left + (place % columns) * (width + gap)
        y = top + (place // columns) * (side + caption + gap)
        _draw(axes, images[i], x, y, side)
        _write_captions(axes, pair, x, y + side, width)
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
    """Draw each image beside a copy overlaid with its saliency map.

    Args:
        images: `(N, H, W)` or `(N, H, W, channels)` uint8, commonly one of each class.
        maps: `(N, H, W)`; absolute values are drawn, each map scaled to its own 99th percentile.
        class_names: the names that labels and predictions index.
        labels: `(N,)` true classes.
        predictions: `(N,)` predicted classes.
        confidences: `(N,)` probabilities of the predictions, in [0, 1]; None to leave them out.
        when: end of the title's clause, such as "after epoch 3".

    Raises:
        ValueError: a shape or type is wrong, a label is out of range, or a map is not finite.
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
    correct = int(np.sum(labels == predictions))
    figure, axes, left, top = new_canvas(
        columns * (width + gap) - gap,
        rows * (side + caption + gap) - gap,
        f"Where the model looks {when}".rstrip() + f": {correct} of {len(images)} predictions are correct",
        "Bright pixels change the prediction most: absolute gradient of the predicted class's output, "
        "each map on its own scale.",
    )
    for place in range(len(images)):
        x = left + (place % columns) * (width + gap)
        y = top + (place // columns) * (side + caption + gap)
        _draw(axes, images[place], x, y + caption, side)
        _draw(axes, _overlaid(images[place], maps[place]), x + side + 0.05, y + caption, side)
        certainty = "" if confidences is None else f" {100 * confidences[place]:.0f} %"
        is_correct = labels[place] == predictions[place]
        name = shorten(class_names[labels[place]], width, 10, bold=True)
        predicted = shorten(class_names[predictions[place]], width - text_width(f"predicted: {certainty}", 9), 9)
        result = ("correct," if is_correct else f"predicted: {predicted}") + certainty
        axes.text(x, y + 0.14, name, fontsize=10, fontweight="bold", color=INK, parse_math=False)
        axes.text(x, y + 0.33, result, fontsize=9, color=MUTED if is_correct else VERMILION, parse_math=False)
    return figure


def samples(
    images: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    class_names: Sequence[str],
    *,
    split: str = "training",
    per_class: int = 12,
) -> Figure:
    """Draw a row for each class with its first images and its number of images.

    Args:
        images: `(N, H, W)` or `(N, H, W, channels)` uint8.
        labels: `(N,)` classes.
        class_names: the names that labels index; a class without images has an empty row.
        split: name of the images in the title.
        per_class: most images in a row.

    Raises:
        ValueError: a shape or type is wrong, a label is out of range, or `per_class` is less than 1.
    """
    images, labels = _checked_images(images), np.asarray(labels)
    _check_classes("labels", labels, (len(images),), class_names)
    if per_class < 1:
        raise ValueError(f"per_class must be at least 1, got {per_class}")
    counts = np.bincount(labels, minlength=len(class_names))
    side, gap = float(np.clip(8 / len(class_names), 0.5, 0.85)), 0.05
    names_width = min(max(text_width(name, 11) for name in class_names), 3.4)
    start = names_width + 0.2
    height, width = images.shape[1:3]
    colours = {1: "grey", 3: "colour"}.get(images.shape[3], f"{images.shape[3]} channels")
    figure, axes, left, top = new_canvas(
        start + per_class * (side + gap) + 0.6,
        len(class_names) * (side + gap),
        f"{len(images):,} {split} images of {len(class_names)} classes",
        f"{width} {TIMES} {height} pixels, {colours}. "
        "The first images of each class, and on the right its number of images.",
    )
    for row, name in enumerate(class_names):
        y = top + row * (side + gap)
        shown = np.flatnonzero(labels == row)[:per_class]
        for column, i in enumerate(shown):
            _draw(axes, images[i], left + start + column * (side + gap), y, side)
        axes.text(
            left,
            y + side / 2,
            shorten(name, names_width, 11),
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


def _describe_selection(num_shown: int, num_mistakes: int) -> str:
    if num_shown < num_mistakes:
        return f"The {num_shown} most confident of {num_mistakes:,} mistakes"
    return {0: "No mistakes", 1: "The only mistake"}.get(num_mistakes, f"All {num_mistakes:,} mistakes")


def _write_captions(axes: Axes, pair: Sequence[tuple[str, str]], x: float, y: float, width: float) -> None:
    """Write the true and the predicted class, each with its probability, below an image that ends at y."""
    for (name, percent), bold, below in zip(pair, (False, True), (0.17, 0.36), strict=True):
        style: dict[str, Any] = {"fontsize": 9, "fontweight": "bold" if bold else "normal"}
        style |= {"color": VERMILION if bold else INK, "parse_math": False}
        room = width - 0.09 - text_width(percent, 9, bold=bold)
        axes.text(x, y + below, shorten(name, room, 9, bold=bold), **style)
        axes.text(x + width, y + below, percent, ha="right", **style)


def _draw(axes: Axes, image: NDArray[Any], x: float, y: float, side: float) -> None:
    """Draw an image `(H, W, channels)` into a square of `side` inches at (x, y), keeping its proportions."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    x, y = x + (side - width * scale) / 2, y + (side - height * scale) / 2
    extent = (x, x + width * scale, y + height * scale, y)
    axes.imshow(_visible(image), extent=extent, aspect="auto", interpolation="nearest")


def _visible(image: NDArray[Any]) -> NDArray[Any]:
    """Return `(H, W, 3)` of any number of channels: the first three, or the first as grey."""
    return image[:, :, :3] if image.shape[2] >= 3 else np.repeat(image[:, :, :1], 3, axis=2)


def _overlaid(image: NDArray[np.uint8], saliency_map: NDArray[np.float64]) -> NDArray[np.float64]:
    strength = np.clip(saliency_map / max(float(np.percentile(saliency_map, 99)), 1e-12), 0, 1)
    grey = _visible(image).mean(axis=2, keepdims=True) / 255
    heat = matplotlib.colormaps["inferno"](0.25 + 0.75 * strength)[:, :, :3]
    opacity = np.sqrt(strength)[:, :, None]
    return np.asarray((1 - opacity) * 0.55 * grey + opacity * heat)


def _checked_images(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Check images and return them as `(N, H, W, channels)`."""
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
