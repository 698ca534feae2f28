"""The objective of a study: a complete short training. Knows nothing of workers or of other trials."""

import dataclasses
from collections.abc import Callable

import optuna
from optuna.trial import Trial
from torch import nn

from fashion.config.train import TrainConfig
from fashion.data.dataset import Dataset
from fashion.training.divergence import Diverged
from fashion.training.recipe import train
from fashion.training.search_space import VAL_ROWS, suggest, with_params
from fashion.training.state import Epoch


class Objective:
    """The best validation accuracy of a training with a trial's values.

    Values are reported at percents of the schedule, not at epochs: as the learning rate falls to 0, trials compare at
    equal fractions.
    """

    def __init__(self, config: TrainConfig, dataset: Dataset, *, report: Callable[[str], None] | None = None) -> None:
        """
        Args:
            config: the configuration that a trial's values replace.
            dataset: to train and validate on.
            report: called with a sentence at the start and the end of each trial.
        """
        self._config = config
        self._dataset = dataset
        self._report = report or (lambda _: None)

    def __call__(self, trial: Trial) -> float:
        params = suggest(trial, self._config)
        config = self._with_trial_epochs(with_params(self._config, params))
        num_epochs = config.training.num_epochs
        self._report(f"trial {trial.number}: {num_epochs} epochs with {_readable(params)}")

        def on_epoch(epoch: Epoch, _: nn.Module) -> None:
            trial.report(epoch.val_accuracy, step=round(100 * epoch.epoch / num_epochs))
            if epoch.epoch < num_epochs and trial.should_prune():
                self._report(f"trial {trial.number}: pruned at validation accuracy {epoch.val_accuracy:.2%}")
                raise optuna.TrialPruned

        try:
            _, result = train(config, self._dataset, on_epoch=on_epoch)
        except Diverged as error:
            trial.set_user_attr("diverged", str(error))
            self._report(f"trial {trial.number}: {error}")
            raise optuna.TrialPruned from error
        trial.set_user_attr(VAL_ROWS, len(self._dataset.val))
        trial.set_user_attr("cpu_seconds", result.history[-1].cpu_seconds)
        self._report(f"trial {trial.number}: validation accuracy {result.best.val_accuracy:.2%}")
        return result.best.val_accuracy

    def _with_trial_epochs(self, config: TrainConfig) -> TrainConfig:
        # A study may vary num_epochs itself.
        if "num_epochs" in config.search.training:
            return config
        training = dataclasses.replace(config.training, num_epochs=config.tuning.num_epochs)
        return dataclasses.replace(config, training=training)


def _readable(params: dict[str, object]) -> str:
    return ", ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items()
    )
