"""What a trial is worth: real trainings on a few real images."""

import dataclasses
from pathlib import Path

import optuna
import pytest
from optuna.trial import FixedTrial, TrialState

from fashion.config.compose import compose
from fashion.config.train import TrainConfig, load_train_config
from fashion.data.dataset import Dataset, Split
from fashion.training import recipe, tuning
from fashion.training.objective import Objective
from fashion.training.search_space import configured_params

WORDS = ["architecture.kwargs.widths=[8,8]", "training.batch_size=50", "tuning.num_workers=1", "tuning.num_epochs=4"]
WORDS += ["training.min_steps=0"]


def configured(*words: str) -> TrainConfig:
    return load_train_config(compose([*WORDS, *words]))


@pytest.fixture(scope="module")
def data(small_dataset: Dataset) -> Dataset:
    few = {name: Split(split.images[:200], split.labels[:200]) for name, split in small_dataset.splits.items()}
    return dataclasses.replace(small_dataset, **few)


def run(settings: TrainConfig, data: Dataset, tmp_path: Path) -> tuple[list[optuna.trial.FrozenTrial], list[str]]:
    said: list[str] = []
    storage = str(tmp_path)
    tuning.create_study(storage, "study")
    tuning.work(storage, "study", 0, settings, Objective(settings, data, report=said.append))
    return tuning.trials(storage, "study"), said


def test_value_is_the_best_accuracy_of_a_whole_short_training(data: Dataset) -> None:
    settings = configured("training.num_epochs=30")
    trial = FixedTrial(configured_params(settings))
    value = Objective(settings, data)(trial)  # type: ignore[arg-type]
    short = dataclasses.replace(settings.training, num_epochs=4)
    _, fitted = recipe.train(dataclasses.replace(settings, training=short), data)
    assert value == fitted.best.val_accuracy
    reported = trial._suggested_params  # what was suggested is what was configured
    assert reported == configured_params(settings)
    assert trial.user_attrs["cpu_seconds"] > 0


def test_values_are_reported_at_percents_of_the_schedule(data: Dataset, tmp_path: Path) -> None:
    settings = configured("tuning.num_trials=1")
    (trial,), said = run(settings, data, tmp_path)
    assert list(trial.intermediate_values) == [25, 50, 75, 100]
    assert trial.value == max(trial.intermediate_values.values())
    assert said[0].startswith("trial 0: 4 epochs with optimizer.learning_rate=")
    assert said[1] == f"trial 0: validation accuracy {trial.value:.2%}"


def test_a_budget_in_the_search_space_counts(data: Dataset, tmp_path: Path) -> None:
    settings = configured("+search.training.num_epochs={low: 1, high: 3}", "tuning.num_trials=6")
    trials, said = run(settings, data, tmp_path)
    steps = {1: {100}, 2: {50, 100}, 3: {33, 67, 100}}
    for trial in trials:
        num_epochs = trial.params["training.num_epochs"]
        if trial.state == TrialState.COMPLETE:
            assert set(trial.intermediate_values) == steps[num_epochs]
        assert any(line.startswith(f"trial {trial.number}: {num_epochs} epochs with ") for line in said)
    assert len({trial.params["training.num_epochs"] for trial in trials}) > 1


@pytest.mark.slow
def test_trials_are_pruned_no_earlier_than_configured(data: Dataset, tmp_path: Path) -> None:
    settings = configured("tuning.num_trials=8", "tuning.prune_after=0.6", "tuning.keep_percentile=1")
    trials, said = run(settings, data, tmp_path)
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert pruned
    for trial in pruned:
        assert list(trial.intermediate_values) == [25, 50, 75]  # the first look after 60 %
        assert f"trial {trial.number}: pruned at validation accuracy {trial.intermediate_values[75]:.2%}" in said


def test_a_study_in_which_all_diverge_says_so(data: Dataset, tmp_path: Path) -> None:
    words = ["optimizer=sgd", "search.optimizer.sgd.learning_rate={low: 1e6, high: 1e7, log: true}"]
    settings = configured(*words, "tuning.num_trials=2", "tuning.num_epochs=8")
    trials, said = run(settings, data, tmp_path)
    for trial in trials:
        assert trial.state == TrialState.PRUNED
        assert "lower optimizer.learning_rate" in trial.user_attrs["diverged"]
        assert f"trial {trial.number}: {trial.user_attrs['diverged']}" in said
    with pytest.raises(tuning.NothingCompleted, match="none of 2 trials completed"):
        tuning.choose(trials, settings)
