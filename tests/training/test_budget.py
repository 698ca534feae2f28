"""What is trained in a budget of processor time: the number of epochs, and which network."""

import dataclasses

import pytest

from fashion.config.compose import compose
from fashion.config.schema import ConfigError
from fashion.config.train import TrainConfig, load_train_config
from fashion.data.dataset import Dataset, Split
from fashion.training import budget, recipe

EPOCH = 10.0
"""Seconds of the default network; the wider one takes twice as long."""


def configured(*words: str) -> TrainConfig:
    return load_train_config(compose(words))


@pytest.fixture
def many(small_dataset: Dataset) -> Dataset:
    """As many training rows as Fashion-MNIST has, all of one memory."""
    rows = [0] * 50_000
    return dataclasses.replace(
        small_dataset, train=Split(small_dataset.train.images[rows], small_dataset.train.labels[rows])
    )


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of measuring, which would depend on the machine."""

    def seconds(config: TrainConfig, _: Dataset) -> float:
        is_wide = list(config.architecture.kwargs.get("widths", [])) == list(budget.WIDER)
        return 2 * EPOCH if is_wide else EPOCH

    monkeypatch.setattr(budget, "seconds_of_an_epoch", seconds)


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    ("words", "epochs", "widths"),
    [
        (["fit_budget=35"], 3, [16, 64, 128]),
        (["fit_budget=159"], 15, [16, 64, 128]),
        (["fit_budget=160"], 8, [32, 96, 192]),
        (["fit_budget=300"], 15, [32, 96, 192]),
        (["fit_budget=300", "architecture.kwargs.widths=[16,32,64]"], 30, [16, 32, 64]),
        (["fit_budget=300", "augmentation.crop_padding=2"], 30, [16, 64, 128]),
    ],
)
def test_as_many_epochs_as_fit_are_trained_of_the_network_that_is_better_then(
    words: list[str], epochs: int, widths: list[int], many: Dataset
) -> None:
    plan = budget.plan(configured(*words), many)
    assert plan.config.training.num_epochs == epochs
    assert list(plan.config.architecture.kwargs["widths"]) == widths
    assert plan.config.fit_budget is None  # the run's configuration is a training that can be repeated
    is_wider = widths == list(budget.WIDER)
    assert plan.config.augmentation.crop_padding == (
        budget.WIDER_CROP if is_wider else configured(*words).augmentation.crop_padding
    )
    assert plan.seconds == epochs * (2 if is_wider else 1) * EPOCH
    assert ("wider than the default" in plan.sentence) == is_wider


@pytest.mark.usefixtures("measured")
def test_another_architecture_keeps_its_network(many: Dataset) -> None:
    plan = budget.plan(configured("architecture=resnet", "fit_budget=1000"), many)
    assert (
        plan.sentence == "fit_budget=1000: resnet18 for 100 epochs of about 10 CPU-seconds, the most that are planned"
    )


@pytest.mark.usefixtures("measured")
def test_a_budget_below_one_epoch_says_that_it_takes_longer(many: Dataset) -> None:
    plan = budget.plan(configured("fit_budget=4"), many)
    assert plan.config.training.num_epochs == 1
    assert (
        plan.sentence == "fit_budget=4: convnet for 1 epoch of about 10 CPU-seconds: one takes longer than the budget"
    )


@pytest.mark.usefixtures("measured")
def test_few_pictures_are_not_trained_for_thousands_of_epochs_nor_with_a_wider_network(small_dataset: Dataset) -> None:
    plan = budget.plan(configured("fit_budget=100000"), small_dataset)
    assert plan.config.training.num_epochs == budget.MOST_EPOCHS
    assert list(plan.config.architecture.kwargs["widths"]) == [16, 64, 128]


def test_what_was_measured_can_be_trained(small_dataset: Dataset) -> None:
    settings = configured("architecture.kwargs.widths=[8,8,8]")
    seconds = budget.seconds_of_an_epoch(settings, small_dataset)
    assert 0 < seconds < 60
    plan = budget.plan(dataclasses.replace(settings, fit_budget=seconds), small_dataset)
    _, result = recipe.train(plan.config, small_dataset)
    assert len(result.history) == plan.config.training.num_epochs


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["fit_budget=0"], "fit_budget must be positive, got 0"),
        (["fit_budget=60", "resources.gpu=1"], "fit_budget is measured on one processor: with resources.gpu or"),
        (["fit_budget=60", "resources.nodes=2"], "set training.num_epochs instead"),
        (["fit_budget=fast"], "fit_budget"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused(words: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        configured(*words)
