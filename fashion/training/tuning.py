"""Search hyperparameters with Optuna: one study, several workers, the same trials each time. Knows no torch.

What a trial tries, and whether it is pruned, follows from the seed, its number, and the trials that are more than
`num_workers` before it: not from which worker is faster. A trial is therefore the same whoever runs it, and however
often.
"""

import contextlib
import dataclasses
import datetime
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from fashion.config.train import TrainConfig, TuningConfig
from fashion.training.search_space import VAL_ROWS, Params, configured_params, suggest
from fashion.training.study_storage import open_storage, reading

if TYPE_CHECKING:
    from fashion.registry.tracking import TrackedTrial

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
STARTUP_TRIALS = 3
"""Trials that complete before any is pruned."""
NUMBER, WORKER = "number", "worker"
"""Attributes of a stored trial."""
LOOK_SECONDS = 0.5
"""Between two looks at whether another worker has finished a trial."""
PATIENCE = 3.0
"""Times the longest trial so far: how long another worker's trial is waited for, before it is run here too."""
MIN_PATIENCE_SECONDS = 60.0


class NothingCompleted(RuntimeError):
    """No trial of a study completed."""


def create_study(storage: str, name: str) -> None:
    """Create a study. Call before any worker; a second call changes nothing.

    Args:
        storage: folder of journal files, or any storage URL of Optuna.
        name: of the study.

    Raises:
        StudyUnavailable: the storage cannot be used.
    """
    with reading(storage, name):
        opened = open_storage(storage, name, replace_damaged=True)
        optuna.create_study(storage=opened, study_name=name, direction="maximize", load_if_exists=True)


def work(storage: str, name: str, worker: int, config: TrainConfig, objective: Callable[[Trial], float]) -> None:
    """Run one worker's share of the trials, or the rest of it if this worker was killed before.

    Over all workers exactly `num_trials` trials finish. A worker that needs the result of another worker's trial waits
    for it; if nobody has begun that trial, or it takes far too long, this worker runs it too: the result is the same.

    Args:
        storage: as for `create_study`.
        name: of the study.
        worker: from 0, below `num_workers`.
        config: of the study.
        objective: returns the value to maximise; see `fashion.training.objective`.

    Raises:
        StudyUnavailable: the storage cannot be used.
    """
    with reading(storage, name):
        study = optuna.load_study(storage=open_storage(storage, name), study_name=name)
    own = _Worker(study, storage, worker, config, objective)
    for number in range(worker, config.tuning.num_trials, config.tuning.num_workers):
        own.finish(number)


def run_trial(
    number: int, known: Sequence[FrozenTrial], config: TrainConfig, objective: Callable[[Trial], float]
) -> FrozenTrial:
    """Run one trial, and return it finished. It is the same for the same arguments.

    Args:
        number: of the trial; 0 has the configured values.
        known: the finished trials that its values follow from, and that it is compared with to be pruned.
        config: of the study.
        objective: see `work`.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it says that a study was made, for each trial
    tuning = config.tuning
    seed = int(np.random.SeedSequence([tuning.seed, number]).generate_state(1)[0])
    alone = optuna.create_study(direction="maximize", sampler=_sampler(tuning, seed=seed), pruner=_pruner(tuning))
    alone.add_trials(known)
    # Those between are running elsewhere, or will be; failed ones count for nothing, and keep the numbers right.
    alone.add_trials([create_trial(state=TrialState.FAIL)] * (number - len(known)))
    if number == 0:
        alone.enqueue_trial(configured_params(config), user_attrs={"configured": True})
    trial = alone.ask()
    try:
        return alone.tell(trial, objective(trial))
    except optuna.TrialPruned:
        return alone.tell(trial, state=TrialState.PRUNED)


def _horizon(number: int, tuning: TuningConfig) -> int:
    """How many of the first trials a trial may know: those that have ended by the time a worker comes to it."""
    return max(0, number - tuning.num_workers + 1)


@dataclasses.dataclass(frozen=True)
class _Worker:
    """One of a study's workers. The arguments are those of `work`."""

    study: optuna.Study
    storage: str
    index: int
    config: TrainConfig
    objective: Callable[[Trial], float]

    def finish(self, number: int) -> None:
        """Run a trial unless it is stored, once those that it depends on are finished."""
        while (missing := self._missing(number)) is not None:
            self._await(missing)
        with self._reading():
            known = _stored(self.study)
            if number in known:
                return
            self.study.set_user_attr(f"begun {number}", time.time())
        before = [known[each] for each in range(_horizon(number, self.config.tuning))]
        trial = run_trial(number, before, self.config, self.objective)
        with self._reading():
            if number not in _stored(self.study):
                trial.user_attrs = {**trial.user_attrs, NUMBER: number, WORKER: self.index}
                self.study.add_trial(trial)

    def _missing(self, number: int) -> int | None:
        """The first trial that another one depends on and that is not finished."""
        with self._reading():
            known = _stored(self.study)
        return next((each for each in range(_horizon(number, self.config.tuning)) if each not in known), None)

    def _await(self, number: int) -> None:
        """Wait for another worker's trial, or run it."""
        waited_since = time.monotonic()
        while True:
            with self._reading():
                known = _stored(self.study)
                is_begun = f"begun {number}" in self.study.user_attrs
            if number in known:
                return
            durations = [trial.duration.total_seconds() for trial in known.values() if trial.duration is not None]
            patience = max(MIN_PATIENCE_SECONDS, PATIENCE * max(durations, default=0.0))
            if not is_begun or time.monotonic() - waited_since > patience:
                return self.finish(number)
            time.sleep(LOOK_SECONDS)

    def _reading(self) -> contextlib.AbstractContextManager[None]:
        return reading(self.storage, self.study.study_name)


def _stored(study: optuna.Study) -> dict[int, FrozenTrial]:
    """The finished trials by number. Of several of one number, run by several workers, the first."""
    found: dict[int, FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=True, states=FINISHED):
        trial.number = trial.user_attrs[NUMBER]
        found.setdefault(trial.number, trial)
    return found


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
    needed = config.tuning.min_improvement
    noise = 0.0 if configured is None else _noise(configured, best.user_attrs.get(VAL_ROWS))
    if configured is not None and best.value < configured + max(needed, noise):
        bound = f"min_improvement ({100 * needed:g} points)"
        if noise > needed:
            bound = f"what chance makes of {best.user_attrs[VAL_ROWS]:,} rows ({100 * noise:.1f} points)"
        reason = (
            f"trial {best.number} is best with {best.value:.2%}; the configured values reached {configured:.2%}, less "
            f"than {bound} below, and stay"
        )
        return Choice({}, best.value, reason)
    reached = "did not complete" if configured is None else f"reached {configured:.2%}"
    reason = f"training takes the values of trial {best.number}, {best.value:.2%}; the configured values {reached}"
    return Choice(_suggested(best, config), best.value, reason)


def _noise(accuracy: float, rows: int | None) -> float:
    """Standard error of the difference of two accuracies on rows of their own; 0 where their number is not known."""
    return 0.0 if not rows else math.sqrt(2 * accuracy * (1 - accuracy) / rows)


def trials(storage: str, name: str) -> list[FrozenTrial]:
    """The finished trials of a study, in the order of their numbers.

    Raises:
        StudyUnavailable: the storage cannot be used.
    """
    with reading(storage, name):
        stored = _stored(optuna.load_study(storage=open_storage(storage, name), study_name=name))
    return [stored[number] for number in sorted(stored)]


def to_tracked_trials(trials: Sequence[FrozenTrial]) -> "list[TrackedTrial]":
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
