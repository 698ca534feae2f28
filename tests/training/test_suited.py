"""A training is suited to what there is: few pictures are seen often, many as configured, digits never mirrored."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fashion.config.compose import compose
from fashion.config.train import TrainConfig, load_train_config
from fashion.data.dataset import Dataset, Split
from fashion.images.transform import normalise
from fashion.training import recipe


def configured(*words: str) -> TrainConfig:
    return load_train_config(compose(list(words)))


def of_rows(data: Dataset, count: int) -> Dataset:
    rows = np.resize(np.arange(len(data.train)), count)
    return dataclasses.replace(data, train=Split(data.train.images[rows], data.train.labels[rows]))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 3000))
def test_few_pictures_get_the_least_steps_and_no_more_than_an_epoch_above(small_dataset: Dataset, count: int) -> None:
    config = configured()
    suit_to_data, data = recipe.suit_to_data(config, of_rows(small_dataset, count))
    steps_of_an_epoch = max(1, len(data.train) // suit_to_data.training.batch_size)
    steps = suit_to_data.training.num_epochs * steps_of_an_epoch
    assert steps >= 0.99 * config.training.min_steps
    assert len(data.train) % count == 0
    assert 2 <= suit_to_data.training.batch_size <= config.training.batch_size


@pytest.mark.parametrize("words", [["data.limit=1000"], ["training.min_steps=0"]])
def test_quick_runs_stay_as_they_are(small_dataset: Dataset, words: list[str]) -> None:
    config = configured(*words)
    suit_to_data, data = recipe.suit_to_data(config, small_dataset)
    assert suit_to_data == config
    assert data.train is small_dataset.train


def test_many_pictures_stay_as_they_are(small_dataset: Dataset) -> None:
    config, many = configured(), of_rows(small_dataset, 50_000)
    suit_to_data, data = recipe.suit_to_data(config, many)
    assert suit_to_data == config
    assert data.train is many.train


@pytest.mark.parametrize("words", [["training.num_epochs=2"], ["training.num_epochs=1", "training.batch_size=1024"]])
def test_few_epochs_of_many_pictures_stay_as_they_are(small_dataset: Dataset, words: list[str]) -> None:
    config, many = configured(*words), of_rows(small_dataset, 48_000)
    suit_to_data, data = recipe.suit_to_data(config, many)
    assert suit_to_data == config
    assert data.train is many.train


def test_what_may_not_be_mirrored_is_not(small_dataset: Dataset) -> None:
    assert recipe.suit_to_data(configured("data.mirrored=false"), small_dataset)[0].augmentation.flip == "none"
    assert recipe.suit_to_data(configured(), small_dataset)[0].augmentation.flip == "alternating"


def test_each_of_many_classes_is_seen_often_enough(small_dataset: Dataset) -> None:
    few = dataclasses.replace(of_rows(small_dataset, 360), class_names=tuple(map(str, range(120))))
    suit_to_data, data = recipe.suit_to_data(configured(), few)
    assert suit_to_data.training.num_epochs * len(data.train) >= 120 * recipe.SEEN_OF_A_CLASS


def test_no_adjustment_leaves_the_loss_alone() -> None:
    assert recipe.loss_offsets(np.repeat([0, 1], [9, 1]), 2, 0.0) is None


@pytest.mark.parametrize(("adjustment", "rare"), [(0.0, 0.1), (0.5, 0.25), (1.0, 0.5)])
def test_probabilities_are_those_of_the_shares_that_are_asked_for(
    small_dataset: Dataset, adjustment: float, rare: float
) -> None:
    """On rows that say nothing, a network gives the shares alone: 9 to 1 of the data, 3 to 1, or equal ones."""
    rng = np.random.default_rng(0)
    noise = Split(rng.integers(0, 256, (360, 28, 28), dtype=np.uint8), np.repeat([0, 1], [324, 36]))
    data = dataclasses.replace(small_dataset, train=noise, val=noise, class_names=("often", "rare"))
    words = ["data.class_names=[often,rare]", f"training.logit_adjustment={adjustment}", "training.min_steps=0"]
    words += ["training.num_epochs=3", "training.batch_size=60", "training.label_smoothing=0"]
    model, _ = recipe.train(configured(*words, "architecture.kwargs.widths=[4,4,4]"), data)
    images = normalise(rng.integers(0, 256, (200, 28, 28), dtype=np.uint8), data.mean, data.std)
    with torch.inference_mode():
        given = model.eval()(torch.from_numpy(images)).softmax(1)[:, 1]
    assert float(given.mean()) == pytest.approx(rare, abs=0.12)
