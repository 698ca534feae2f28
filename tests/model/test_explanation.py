"""The heat map: it shows what a prediction rests on, and a person can see it."""

import io

import numpy as np
from PIL import Image

from fashion.data.dataset import Dataset
from fashion.model.explanation import COST, GAIN, heat_map_png, occlusion
from fashion.model.predictor import Predictor


def test_hiding_the_hottest_place_costs_more_than_hiding_the_coolest(
    predictor: Predictor, small_dataset: Dataset
) -> None:
    costs = []
    for image in small_dataset.test.images[:20]:
        found = predictor.predict(image[None])
        label = int(found.labels[0])
        heat = occlusion(predictor, image, label)
        drops = []
        for at in (heat.argmax(), heat.argmin()):
            y, x = np.unravel_index(at, heat.shape)
            hidden = image.copy()
            hidden[max(0, y - 3) : y + 3, max(0, x - 3) : x + 3] = 0
            drops.append(found.confidences[0] - predictor.predict(hidden[None]).probabilities[0, label])
        costs.append(drops)
    hottest, coolest = np.mean(costs, axis=0)
    assert hottest > coolest + 0.05


def test_the_map_is_the_same_each_time_and_covers_every_pixel(predictor: Predictor, small_dataset: Dataset) -> None:
    image = small_dataset.test.images[0]
    first, again = (occlusion(predictor, image, 0) for _ in range(2))
    assert first.shape == (28, 28)
    assert first.dtype == np.float32
    assert (first == again).all()
    one = occlusion(predictor, image, 0, patch=5, stride=3)
    assert np.isfinite(one).all()


def test_a_blank_picture_rests_on_nothing(predictor: Predictor) -> None:
    assert not occlusion(predictor, np.zeros((28, 28), np.uint8), 3).any()


def colours(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (280, 280))
        return np.asarray(picture).astype(int)


def test_cost_is_warm_gain_is_cool_and_the_rest_is_grey() -> None:
    heat = np.zeros((28, 28), np.float32)
    heat[:10], heat[18:] = 0.5, -0.5
    pixels = colours(heat_map_png(np.zeros((28, 28), np.uint8), heat))
    top, middle, bottom = pixels[30, 140], pixels[140, 140], pixels[250, 140]
    assert top.argmax() == np.argmax(COST) == 0
    assert bottom.argmax() == np.argmax(GAIN) == 2
    assert middle.max() - middle.min() < 10


def test_without_heat_the_picture_is_shown() -> None:
    image = np.tile(np.linspace(0, 255, 28).astype(np.uint8), (28, 1))
    pixels = colours(heat_map_png(image, np.zeros((28, 28), np.float32)))
    assert (pixels.max(axis=2) == pixels.min(axis=2)).all()
    assert pixels[140, 270, 0] > pixels[140, 10, 0] + 100


def test_a_faint_change_is_not_painted_strongly() -> None:
    heat = np.full((28, 28), 0.001, np.float32)
    pixels = colours(heat_map_png(np.zeros((28, 28), np.uint8), heat))
    assert pixels.max() < 40


def test_colour_pictures_are_explained_too() -> None:
    image = np.random.default_rng(0).integers(0, 255, (28, 28, 3)).astype(np.uint8)
    assert colours(heat_map_png(image, np.zeros((28, 28), np.float32))).any()
