"""Each figure: real pixels, a title with the finding, nothing cut off, no global state changed."""

import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from fashion.figures import charts, frame, galleries
from fashion.metrics import calibration, classification

LONG_NAMES = [
    f"{colour} {bird} of the North"
    for colour in ("Grey", "Common spotted", "Lesser", "Black-headed", "$5 or $6")
    for bird in ("heron", "woodpecker", "gull", "flycatcher")
]
DATA_SETS = {
    "three colour classes": (["healthy", "rust", "blight"], (64, 64, 3)),
    "ten grey classes": ([f"Class {i}" for i in range(10)], (28, 28)),
    "twenty long names": (LONG_NAMES, (20, 30)),
}


@pytest.fixture(params=DATA_SETS, scope="module")
def evaluation(request):
    """Class names and everything that the figures draw, from a classifier about 85 % right."""
    names, shape = DATA_SETS[request.param]
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(names), 300)
    logits = rng.normal(size=(300, len(names))) + 4 * np.eye(len(names))[labels]
    images = rng.integers(0, 256, (300, *shape), dtype=np.uint8)
    first = np.array([np.flatnonzero(labels == index)[0] for index in range(len(names))])
    return {
        "names": names,
        "images": images,
        "labels": labels,
        "predictions": logits.argmax(axis=1),
        "logits": logits,
        "probabilities": calibration.softmax(logits),
        "first": first,
        "maps": rng.normal(size=(len(names), *shape[:2])),
    }


def draw_confusion(e):
    matrix = classification.confusion_matrix(e["labels"], e["predictions"], len(e["names"]))
    return charts.confusion(matrix, e["names"])


def draw_per_class(e):
    return charts.per_class(classification.classification_report(e["labels"], e["predictions"], e["names"]))


def draw_reliability(e):
    temperature = calibration.fit_temperature(e["logits"], e["labels"])
    after = calibration.softmax(e["logits"], temperature)
    return charts.reliability(
        calibration.reliability_bins(e["probabilities"], e["labels"]),
        calibration.reliability_bins(after, e["labels"]),
        ece_before=calibration.expected_calibration_error(e["probabilities"], e["labels"]),
        ece_after=calibration.expected_calibration_error(after, e["labels"]),
        temperature=temperature,
    )


def draw_mistakes(e):
    return galleries.mistakes(e["images"], e["labels"], e["predictions"], e["probabilities"], e["names"], count=9)


def draw_saliency(e):
    rows = e["first"]
    return galleries.saliency(
        e["images"][rows],
        e["maps"],
        e["names"],
        labels=e["labels"][rows],
        predictions=e["predictions"][rows],
        confidences=e["probabilities"][rows].max(axis=1),
        when="after epoch 3",
    )


def draw_samples(e):
    return galleries.samples(e["images"], e["labels"], e["names"], per_class=6)


DRAWINGS = [
    draw_confusion,
    draw_per_class,
    draw_reliability,
    draw_mistakes,
    draw_saliency,
    draw_samples,
]


def headline(figure):
    return " ".join(text.get_text() for text in figure.texts)


def laid_out(figure):
    """Draw a figure; return the renderer that measures its texts."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def pixels(figure, dpi=100):
    return np.asarray(Image.open(io.BytesIO(frame.to_png(figure, dpi=dpi))).convert("RGB"))


@pytest.mark.parametrize("draw", DRAWINGS)
def test_picture_has_its_size_and_nothing_is_cut_off_at_its_edges(draw, evaluation):
    figure = draw(evaluation)
    picture = pixels(figure)
    width, height = figure.get_size_inches()
    assert picture.shape == pytest.approx((100 * height, 100 * width, 3), abs=1)
    assert len(np.unique(picture[:, :, 0])) > 20
    inside = np.zeros(picture.shape, bool)
    inside[3:-3, 3:-3] = True
    assert np.all(picture[~inside] == 255)


def test_equal_figures_give_equal_bytes():
    matrix = np.array([[3, 1], [0, 2]])
    first, second = (frame.to_png(charts.confusion(matrix, ["coat", "shirt"])) for _ in range(2))
    assert first == second
    assert Image.open(io.BytesIO(first)).format == "PNG"


@pytest.mark.parametrize("draw", [draw_mistakes, draw_saliency, draw_samples])
def test_captions_of_a_gallery_do_not_overlap(draw, evaluation):
    figure = draw(evaluation)
    renderer = laid_out(figure)
    boxes = [text.get_window_extent(renderer) for text in figure.findobj(Text) if text.get_text()]
    assert len(boxes) > len(evaluation["names"])
    x0, y0, x1, y1 = np.array([box.extents for box in boxes]).T
    across = np.minimum.outer(x1, x1) - np.maximum.outer(x0, x0)
    down = np.minimum.outer(y1, y1) - np.maximum.outer(y0, y0)
    overlap = (across > 1) & (down > 1)  # pixels
    assert np.array_equal(overlap, np.eye(len(boxes), dtype=bool))


def test_confusion_title_gives_accuracy_and_interval():
    matrix = np.array([[4700, 300], [380, 4620]])
    text = headline(charts.confusion(matrix, ["coat", "shirt"], split="validation"))
    assert "93.2 % of 10,000 validation images are classified correctly (92.7–93.7 %)" in text  # noqa: RUF001
    assert "shirt predicted as coat, 380 of 5,000" in text


def test_confusion_shows_counts_up_to_25_classes_and_survives_empty_classes():
    figure = charts.confusion(np.diag([5, 0, 1234]), ["a", "b", "c"])
    words = {text.get_text() for text in figure.axes[0].texts}
    assert {"5", "1,234", "100.0 %"} <= words
    assert "No mistakes." in headline(figure)
    many = charts.confusion(np.eye(26, dtype=int), [str(i) for i in range(26)])
    assert "Numbers are counts" not in headline(many)
    assert not {text.get_text() for text in many.axes[0].texts} & {"1"}


def test_per_class_names_the_hardest_and_the_easiest_class_and_sorts_by_f1():
    scores = [
        classification.ClassScore("bag", 0.9, 0.9, 0.9, 10),
        classification.ClassScore("shirt", 0.5, 0.7, 0.583, 1000),
        classification.ClassScore("boot", 1.0, 0.98, 0.99, 10),
    ]
    figure = charts.per_class(scores)
    assert "Hardest class: shirt (F1 58.3 %); easiest: boot (99.0 %)" in headline(figure)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["shirt", "bag", "boot"]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (0.012, "Temperature 0.65 lowers the calibration error from 8.1 to 1.2 %"),
        (0.093, "Temperature 0.65 raises the calibration error from 8.1 to 9.3 %"),
        (0.0812, "Temperature 0.65 leaves the calibration error at 8.1 %"),
    ],
)
def test_reliability_title_states_the_effect_of_the_temperature(after, expected):
    bins = calibration.reliability_bins(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0]))
    figure = charts.reliability(bins, bins, ece_before=0.081, ece_after=after, temperature=0.65)
    assert expected in headline(figure)


def test_mistakes_are_the_most_confident_ones_in_order():
    probabilities = np.array([[0.6, 0.4], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    arguments = (np.zeros((4, 8, 8), np.uint8), np.array([1, 0, 0, 0]), np.array([0, 1, 0, 1]), probabilities)
    figure = galleries.mistakes(*arguments, ["coat", "shirt"], count=2)
    assert "The 2 most confident of 3 mistakes in 4 test images" in headline(figure)
    captions = [text.get_text() for text in figure.axes[0].texts]
    assert captions[:4] == ["true: coat", "10 %", "predicted: shirt", "90 %"]
    assert captions[4:] == ["true: coat", "30 %", "predicted: shirt", "70 %"]
    assert "All 3 mistakes" in headline(galleries.mistakes(*arguments, ["coat", "shirt"]))


def test_a_classifier_without_mistakes_still_gets_a_figure():
    labels = np.array([0, 1])
    figure = galleries.mistakes(np.zeros((2, 8, 8), np.uint8), labels, labels, np.eye(2), ["coat", "shirt"])
    assert "No mistakes in 2 test images" in headline(figure)
    assert pixels(figure).size > 0


def test_saliency_marks_mistakes_and_accepts_a_map_of_zeros():
    figure = galleries.saliency(
        np.full((2, 8, 8), 100, np.uint8),
        np.zeros((2, 8, 8)),
        ["coat", "shirt"],
        labels=np.array([0, 1]),
        predictions=np.array([0, 0]),
        confidences=np.array([0.9, 0.6]),
        when="after epoch 3",
    )
    assert "Where the model looks after epoch 3: 1 of 2 predictions are correct" in headline(figure)
    captions = [text.get_text() for text in figure.axes[0].texts]
    assert captions == ["coat", "correct, 90 %", "shirt", "predicted: coat 60 %"]
    assert pixels(figure).size > 0


def test_saliency_overlay_is_bright_where_the_map_is():
    maps = np.zeros((1, 10, 10))
    maps[0, :5] = -1.0  # the sign of a gradient does not matter
    figure = galleries.saliency(
        np.zeros((1, 10, 10), np.uint8), maps, ["coat"], labels=np.array([0]), predictions=np.array([0])
    )
    overlay = figure.axes[0].images[1].get_array()
    assert overlay[:5].mean() > 0.5 > 0.1 > overlay[5:].mean()


def test_samples_keep_colours_and_proportions():
    images = np.zeros((3, 10, 20, 3), np.uint8)
    images[:] = (213, 94, 0)
    figure = galleries.samples(images, np.array([0, 0, 2]), ["coat", "shirt", "bag"], per_class=2)
    assert "3 training images of 3 classes 20 × 10 pixels, colour" in headline(figure)  # noqa: RUF001
    assert np.sum(np.all(pixels(figure) == (213, 94, 0), axis=2)) > 500
    left, right, bottom, top = figure.axes[0].images[0].get_extent()
    assert (right - left) == pytest.approx(2 * (bottom - top))
    assert [t.get_text() for t in figure.axes[0].texts] == ["coat", "2", "shirt", "0", "bag", "1"]


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_number_of_channels_can_be_drawn(channels):
    images = np.zeros((4, 8, 8, channels), np.uint8)
    assert pixels(galleries.samples(images, np.array([0, 1, 0, 1]), ["coat", "shirt"])).size > 0


def test_class_names_are_never_parsed_as_mathematics():
    names = ["$x^2$ broken $", r"\frac"]
    matrix = np.array([[3, 1], [0, 2]])
    scores = classification.classification_report(np.array([0, 1]), np.array([0, 0]), names)
    images, labels = np.zeros((2, 8, 8), np.uint8), np.array([0, 1])
    for figure in (
        charts.confusion(matrix, names),
        charts.per_class(scores),
        galleries.samples(images, labels, names),
        galleries.mistakes(images, labels, labels[::-1], np.full((2, 2), 0.5), names),
        galleries.saliency(images, np.ones((2, 8, 8)), names, labels=labels, predictions=labels[::-1]),
    ):
        assert pixels(figure).size > 0
        assert not any(text.get_parse_math() for text in figure.findobj(Text) if "$" in text.get_text())


IMAGES, LABELS = np.zeros((2, 8, 8), np.uint8), np.array([0, 1])
NAMES = ["coat", "shirt"]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: charts.confusion(np.zeros((2, 2), int), NAMES), "matrix must hold counts"),
        (lambda: charts.confusion(np.ones((3, 3), int), NAMES), r"matrix must be \(2, 2\), got \(3, 3\)"),
        (lambda: charts.confusion(np.full((2, 2), np.nan), NAMES), "matrix must hold counts"),
        (lambda: charts.per_class([]), "scores is empty"),
        (lambda: galleries.samples(IMAGES[:0], LABELS[:0], NAMES), "images must be .* not empty"),
        (lambda: galleries.samples(IMAGES / 255, LABELS, NAMES), "images must be uint8"),
        (lambda: galleries.samples(IMAGES, LABELS, NAMES[:1]), r"labels must be in \[0, 1\), got 0 to 1"),
        (lambda: galleries.samples(IMAGES, LABELS[:1], NAMES), r"labels must be \(2,\) integers"),
        (lambda: galleries.samples(IMAGES, LABELS, NAMES, per_class=0), "per_class must be at least 1, got 0"),
        (
            lambda: galleries.mistakes(IMAGES, LABELS, LABELS, np.ones((2, 3)), NAMES),
            r"probabilities must be \(2, 2\), got \(2, 3\)",
        ),
        (
            lambda: galleries.mistakes(IMAGES, LABELS, LABELS, np.eye(2), NAMES, count=0),
            "count must be at least 1, got 0",
        ),
        (
            lambda: galleries.saliency(IMAGES, np.full((2, 8, 8), np.nan), NAMES, labels=LABELS, predictions=LABELS),
            "maps must be finite",
        ),
        (
            lambda: galleries.saliency(
                IMAGES, IMAGES, NAMES, labels=LABELS, predictions=LABELS, confidences=np.ones(3)
            ),
            r"confidences must be \(2,\), got \(3,\)",
        ),
    ],
)
def test_wrong_arguments_are_rejected_by_name(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_drawing_changes_no_global_state():
    script = """
import sys, matplotlib, numpy as np
# Reading "backend" is what would import pyplot.
settings = lambda: {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}
before = settings()
from fashion.figures import charts, frame
figure = charts.confusion(np.array([[3, 1], [0, 2]]), ["coat", "shirt"])
assert frame.to_png(figure)[:8] == b"\\x89PNG\\r\\n\\x1a\\n"
assert "matplotlib.pyplot" not in sys.modules
assert settings() == before
assert not {"torch", "sklearn", "pandas"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)
