"""Search hyperparameters with Optuna: one study, several workers, an exact number of trials. Knows no torch."""

import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from fashion.config.train import TrainConfig, TuningConfig
from fashion.training.search_space import Params, configured_params, suggest

if TYPE_CHECKING:
    from fashion.registry.tracking import TrackedTrial

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
STARTUP_TRIALS = 3
"""Trials that complete before any is pruned."""


class NothingCompleted(RuntimeError):
    """No trial of a study completed."""


def create_study(storage: str, name: str, config: TrainConfig) -> None:
    """Create a study whose first trial is the configured values. Call once, before any worker.

    Args:
        storage: path of a journal file, or any storage URL of Optuna.
        name: of the study.
        config: its values are the first trial.
    """
    study = optuna.create_study(storage=_storage(storage), study_name=name, direction="maximize", load_if_exists=True)
    if not study.trials:
        study.enqueue_trial(configured_params(config), user_attrs={"configured": True})


def work(storage: str, name: str, worker: int, config: TrainConfig, objective: Callable[[Trial], float]) -> None:
    """Run one worker's share of the trials, or the rest of it if this worker was killed before.

    Trials are tagged with their worker. A trial that a killed worker left is marked failed and its values are tried
    again, so that exactly `num_trials` trials finish over all workers.

    Args:
        storage: as for `create_study`.
        name: of the study.
        worker: from 0, below `num_workers`.
        config: of the study.
        objective: returns the value to maximise; see `fashion.training.objective`.
    """
    tuning = config.tuning
    study = optuna.load_study(storage=_storage(storage), study_name=name, pruner=_pruner(tuning))
    begun = len(_of_worker(study, worker, None))
    # After a restart the same seed would sample the same values again.
    study.sampler = _sampler(tuning, seed=tuning.seed + worker + tuning.num_workers * begun)
    for left in _of_worker(study, worker, (TrialState.RUNNING,)):
        study.tell(left.number, state=TrialState.FAIL, skip_if_finished=True)
        # A trial that was killed early has sampled few of its values; enqueued ones are in `fixed_params`.
        params = {**left.system_attrs.get("fixed_params", {}), **left.params}
        study.enqueue_trial(params, user_attrs={"configured": left.user_attrs.get("configured", False)})
    while len(_of_worker(study, worker, FINISHED)) < quota(tuning, worker):
        trial = study.ask()
        # SQLite locks no rows and may give a waiting trial to two workers. It counts for the worker that tagged it
        # last; the one that finishes second gets this error and continues.
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            trial.set_user_attr("worker", worker)
            try:
                study.tell(trial, objective(trial), skip_if_finished=True)
            except optuna.TrialPruned:
                study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)


def quota(tuning: TuningConfig, worker: int) -> int:
    """Number of trials that this worker has to finish; over all workers they add up to `num_trials`."""
    share, rest = divmod(tuning.num_trials, tuning.num_workers)
    return share + (worker < rest)


@dataclasses.dataclass(frozen=True)
class Choice:
    """The result of a study."""

    params: Params
    """Dotted configuration key -> value to train with; empty for the configured values."""
    best_value: float
    """Validation accuracy of the best trial, in [0, 1]."""
    reason: str
    """One sentence."""


def choose(trials: list[FrozenTrial], config: TrainConfig) -> Choice:
    """Take the best trial's values if it beats the configured ones by more than noise.

    Args:
        trials: of the study.
        config: with `min_improvement`.

    Raises:
        NothingCompleted: all trials diverged or were pruned.
    """
    completed = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    if not completed:
        raise NothingCompleted(
            f"none of {len(trials)} trials completed: all diverged or were pruned; narrow the ranges in `search`"
        )
    best = max(completed, key=lambda trial: trial.value or 0.0)
    assert best.value is not None
    configured = next((trial.value for trial in completed if trial.user_attrs.get("configured")), None)
    if configured is not None and best.value < configured + config.tuning.min_improvement:
        reason = (
            f"trial {best.number} is best with {best.value:.2%}; the configured values reached {configured:.2%}, less "
            f"than min_improvement ({100 * config.tuning.min_improvement:g} points) below, and stay"
        )
        return Choice({}, best.value, reason)
    reached = "did not complete" if configured is None else f"reached {configured:.2%}"
    reason = f"training takes the values of trial {best.number}, {best.value:.2%}; the configured values {reached}"
    return Choice(_suggested(best, config), best.value, reason)


def trials(storage: str, name: str) -> list[FrozenTrial]:
    """All trials of a study, after its workers have ended: unfinished ones are marked failed first."""
    study = optuna.load_study(storage=_storage(storage), study_name=name)
    for left in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(left.number, state=TrialState.FAIL)
    return study.get_trials()


def tracked(trials: Sequence[FrozenTrial]) -> "list[TrackedTrial]":
    """The finished trials as `fashion.registry.tracking` logs them."""
    from fashion.registry.tracking import TrackedTrial  # mlflow takes a second to import, and no worker needs it

    def milliseconds(moment: datetime.datetime | None) -> int:
        return int(moment.timestamp() * 1000) if moment else 0

    return [
        TrackedTrial(
            number=trial.number,
            params=trial.params,
            state=trial.state.name.lower(),
            value=trial.value if trial.state == TrialState.COMPLETE else None,
            intermediate=trial.intermediate_values,
            start_ms=milliseconds(trial.datetime_start),
            end_ms=milliseconds(trial.datetime_complete),
        )
        for trial in trials
        if trial.state in FINISHED
    ]


def _suggested(trial: FrozenTrial, config: TrainConfig) -> Params:
    return suggest(optuna.trial.FixedTrial(trial.params), config)  # type: ignore[arg-type]


def _sampler(tuning: TuningConfig, *, seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(STARTUP_TRIALS, tuning.num_trials // 3))


def _pruner(tuning: TuningConfig) -> optuna.pruners.BasePruner:
    if tuning.keep_percentile == 100:  # Optuna's percentile of 100 still prunes the worst trial
        return optuna.pruners.NopPruner()
    return optuna.pruners.PercentilePruner(
        tuning.keep_percentile,
        n_startup_trials=STARTUP_TRIALS,
        n_warmup_steps=round(100 * tuning.prune_after),
    )


def _storage(address: str) -> BaseStorage | str:
    if "://" in address:
        return address
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    Path(address).parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(address))


def _of_worker(study: optuna.Study, worker: int, states: tuple[TrialState, ...] | None) -> list[FrozenTrial]:
    trials = study.get_trials(deepcopy=False, states=states)
    return [trial for trial in trials if trial.user_attrs.get("worker") == worker]
