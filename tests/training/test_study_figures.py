"""Plots of studies, drawn from trials as a study leaves them."""

import io
import re

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial
from PIL import Image

from fashion.training.study_figures import PLOTS, study_figures


def run_trials(count: int) -> list[FrozenTrial]:
    """Trials of two parameters: every fifth is pruned, and one fails."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))

    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("muon.learning_rate", 0.01, 1, log=True)
        padding = trial.suggest_int("augmentation.crop_padding", 0, 3)
        trial.report(rate, step=50)
        if trial.number % 5 == 4:
            raise optuna.TrialPruned
        return 0.9 - (np.log10(rate) + 1) ** 2 / 10 + padding / 100

    study.optimize(objective, n_trials=count)
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    return study.trials


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return study_figures(run_trials(12))


def test_every_plot_is_a_picture(files: dict[str, bytes]) -> None:
    assert sorted(files) == sorted([*(f"{name}.png" for name in PLOTS), "study.html"])
    for name in PLOTS:
        picture = Image.open(io.BytesIO(files[f"{name}.png"]))
        assert picture.format == "PNG"
        assert picture.width >= 800
        assert np.asarray(picture.convert("L")).std() > 5  # not blank


def test_the_page_shows_every_plot_and_refers_to_nothing_outside(files: dict[str, bytes]) -> None:
    page = files["study.html"].decode()
    assert page.count('class="plotly-graph-div"') == len(PLOTS)
    assert "muon.learning_rate" in page
    tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page)
    assert tags
    assert not [tag for tag in tags if re.search(r"(src|href)\s*=", tag)]
    assert "@import" not in page


def test_plots_that_need_more_trials_are_left_out() -> None:
    few = study_figures(run_trials(1))
    assert "optimization_history.png" in few
    assert "param_importances.png" not in few  # Optuna's bars would all be equal
    assert few["study.html"].count(b'class="plotly-graph-div"') == len(few) - 1


def test_no_trial_gives_no_broken_file() -> None:
    for content in study_figures([]).values():
        assert content
