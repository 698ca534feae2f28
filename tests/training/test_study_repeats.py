"""A study of real trainings by two processes, twice: the same trials, the same choice, the same weights."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fashion.config.compose import compose
from fashion.config.train import TrainConfig, load_train_config
from fashion.data.dataset import Dataset
from fashion.data.loading import load_dataset
from fashion.home import REPOSITORY
from fashion.training import export, recipe, tuning
from fashion.training.search_space import with_params

DATA = REPOSITORY / "var" / "data"
WORDS = [
    *("data.limit=400", "architecture.kwargs.widths=[4,8]", "training.num_epochs=1", "training.batch_size=50"),
    *("tuning.num_trials=4", "tuning.num_workers=2", "tuning.num_epochs=1", "tuning.min_improvement=0"),
]
WORKER = """
import sys
from pathlib import Path
from fashion.config.compose import compose
from fashion.config.train import load_train_config
from fashion.data.loading import load_dataset
from fashion.training import tuning
from fashion.training.objective import Objective

storage, worker, data, *words = sys.argv[1:]
settings = load_train_config(compose(words))
objective = Objective(settings, load_dataset(settings.data, Path(data)), report=lambda _: None)
tuning.work(storage, "study", int(worker), settings, objective)
"""


def study(storage: str, workers: tuple[int, ...]) -> list[tuple[Any, ...]]:
    """Run the workers at once, started in this order; returns what must not depend on it."""
    tuning.create_study(storage, "study")
    commands = [[sys.executable, "-c", WORKER, storage, str(worker), str(DATA), *WORDS] for worker in workers]
    processes = [subprocess.Popen(command, cwd=REPOSITORY) for command in commands]
    assert [process.wait() for process in processes] == [0] * len(workers)
    trials = tuning.trials(storage, "study")
    return [(trial.number, trial.state, trial.value, trial.params, trial.intermediate_values) for trial in trials]


def weights(config: TrainConfig, data: Dataset) -> str:
    model, _ = recipe.train(config, data, on_epoch=lambda *_: None)
    exported = export.export(model, data.val.images[: export.COMPARED_ROWS], mean=data.mean, std=data.std)
    return hashlib.sha256(exported.weights).hexdigest()


@pytest.mark.slow
@pytest.mark.fault("a study of real trainings is repeated, with its workers in another order")
def test_a_study_of_two_processes_gives_the_same_trials_choice_and_weights(tmp_path: Path) -> None:
    settings = load_train_config(compose(WORDS))
    data = load_dataset(settings.data, DATA)
    outcomes, chosen, digests = [], [], []
    for name, workers in (("first", (0, 1)), ("again", (1, 0))):
        outcomes.append(study(str(tmp_path / name), workers))
        choice = tuning.choose(tuning.trials(str(tmp_path / name), "study"), settings)
        chosen.append(choice.params)
        digests.append(weights(with_params(settings, choice.params), data))
    assert [number for number, *_ in outcomes[0]] == [0, 1, 2, 3]
    assert outcomes[0] == outcomes[1]
    assert chosen[0] == chosen[1] != {}
    assert digests[0] == digests[1]
