"""Studies: an exact number of trials whatever is killed, the configured values first, and a choice that is reasoned."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, Trial, TrialState

from fashion.config.compose import compose
from fashion.config.schema import ConfigError
from fashion.config.train import TrainConfig, load_train_config
from fashion.training import tuning
from fashion.training.search_space import Params, configured_params, suggest, with_params
from fashion.training.tuning import NothingCompleted

optuna.logging.set_verbosity(optuna.logging.WARNING)

WORKER = """
import sys, time
from pathlib import Path
import optuna
from fashion.config.compose import compose
from fashion.config.train import load_train_config
from fashion.training import tuning
from fashion.training.search_space import suggest

optuna.logging.set_verbosity(optuna.logging.WARNING)
storage, worker, signs, hang_at, *words = sys.argv[1:]
settings = load_train_config(compose(words))
calls = 0

def objective(trial):
    global calls
    params = suggest(trial, settings)
    calls += 1
    if calls == int(hang_at):
        Path(signs, worker).touch()
        time.sleep(600)  # until it is killed
    time.sleep(0.02)
    if trial.number % 4 == 3:
        raise optuna.TrialPruned
    return -abs(params["training.label_smoothing"] - 0.1)

tuning.work(storage, "study", int(worker), settings, objective)
"""
WORDS = ["tuning.num_trials=10", "tuning.num_workers=3", "tuning.optimizers=[sgd,adamw,muon]"]


def configured(*words: str) -> TrainConfig:
    return load_train_config(compose(words))


def finished(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state in tuning.FINISHED]


@pytest.fixture(params=["journal", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    folder = tmp_path / "studies"
    if request.param == "journal":
        return str(folder / "journal.log")
    folder.mkdir()
    return f"sqlite:///{folder}/studies.db"


def run(storage: str, settings: TrainConfig, objective: Callable[[Trial], float], worker: int = 0) -> list[FrozenTrial]:
    tuning.create_study(storage, "study", settings)
    tuning.work(storage, "study", worker, settings, objective)
    return tuning.trials(storage, "study")


@pytest.mark.slow
class TestWorkers:
    def test_exactly_num_trials_finish_though_workers_are_killed_in_mid_trial(
        self, storage: str, tmp_path: Path
    ) -> None:
        settings = configured(*WORDS)
        tuning.create_study(storage, "study", settings)

        def start(worker: int, hang_at: int = 0) -> subprocess.Popen[bytes]:
            arguments = [storage, str(worker), str(tmp_path), str(hang_at), *WORDS]
            return subprocess.Popen([sys.executable, "-c", WORKER, *arguments], stderr=subprocess.PIPE)

        def kill_in_trial(worker: int, hang_at: int) -> None:
            process, sign = start(worker, hang_at), tmp_path / str(worker)
            deadline = time.monotonic() + 60
            while not sign.exists():
                assert process.poll() is None, process.communicate()[1].decode()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            process.communicate()

        kill_in_trial(0, hang_at=1)  # in the trial of the configured values
        kill_in_trial(1, hang_at=2)
        left = optuna.load_study(storage=tuning._storage(storage), study_name="study").trials
        interrupted = [trial.params for trial in left if trial.state == TrialState.RUNNING]
        assert len(interrupted) == 2
        processes = [start(worker) for worker in range(3)]
        for process in processes:
            assert process.wait(timeout=120) == 0, process.communicate()[1].decode()
            process.communicate()

        trials = tuning.trials(storage, "study")
        done = finished(trials)
        assert len(done) == settings.tuning.num_trials
        by_worker = [sum(trial.user_attrs["worker"] == worker for trial in done) for worker in range(3)]
        assert by_worker == [tuning.quota(settings.tuning, worker) for worker in range(3)]
        failed = [trial for trial in trials if trial.state == TrialState.FAIL]
        assert [trial.params for trial in failed] == interrupted
        for params in interrupted:
            assert [trial.params for trial in done].count(params) == 1
        assert len(trials) == len(done) + len(failed)  # nothing is left waiting
        (own,) = [trial for trial in done if trial.user_attrs.get("configured")]
        assert own.params == configured_params(settings)

    def test_values_given_to_a_trial_come_back_though_it_had_drawn_none(self, storage: str) -> None:
        settings = configured("tuning.num_trials=2", "tuning.num_workers=1")
        tuning.create_study(storage, "study", settings)
        study = optuna.load_study(storage=tuning._storage(storage), study_name="study")
        study.ask().set_user_attr("worker", 0)  # and is killed here
        tuning.work(storage, "study", 0, settings, lambda trial: float(len(suggest(trial, settings))))
        first, second, _ = tuning.trials(storage, "study")
        assert first.state == TrialState.FAIL
        assert second.params == configured_params(settings)
        assert second.user_attrs["configured"]

    def test_a_worker_that_was_killed_does_not_draw_the_same_values_again(self, storage: str) -> None:
        settings = configured("tuning.num_trials=6", "tuning.num_workers=1")

        def killed(trial: Trial) -> float:
            suggest(trial, settings)
            if trial.number == 1:
                raise KeyboardInterrupt
            return 0.5

        tuning.create_study(storage, "study", settings)
        with pytest.raises(KeyboardInterrupt):
            tuning.work(storage, "study", 0, settings, killed)
        tuning.work(storage, "study", 0, settings, lambda trial: float(len(suggest(trial, settings))))
        tried = [trial.params for trial in finished(tuning.trials(storage, "study"))]
        assert len(tried) == 6
        assert [tried.count(params) for params in tried] == [1] * 6

    @pytest.mark.parametrize("tagged_last", [0, 1])
    def test_a_trial_that_two_workers_were_handed_counts_once(self, tagged_last: int, storage: str) -> None:
        settings = configured("tuning.num_trials=4", "tuning.num_workers=2")
        calls = 0

        def objective(trial: Trial) -> float:
            nonlocal calls
            calls += 1
            if calls == 1:  # worker 1 was handed it too, and is the faster one
                other = optuna.load_study(storage=tuning._storage(storage), study_name="study")
                if tagged_last == 1:
                    other._storage.set_trial_user_attr(trial._trial_id, "worker", 1)
                other.tell(trial.number, 0.5)
                suggest(trial, settings)
            return 0.7

        tuning.create_study(storage, "study", settings)
        for worker in range(2):
            tuning.work(storage, "study", worker, settings, objective)
        trials = tuning.trials(storage, "study")
        assert [trial.value for trial in trials] == [0.5, 0.7, 0.7, 0.7]
        assert [trial.user_attrs["worker"] for trial in trials].count(0) == 2

    def test_finished_share_is_not_repeated(self, storage: str) -> None:
        settings = configured("tuning.num_trials=3", "tuning.num_workers=1")
        run(storage, settings, lambda trial: 0.5)
        run(storage, settings, lambda trial: pytest.fail("was tried again"))  # type: ignore[arg-type, return-value]
        assert len(tuning.trials(storage, "study")) == 3

    def test_what_no_worker_is_left_to_finish_is_marked_failed(self, storage: str) -> None:
        settings = configured("tuning.num_trials=2", "tuning.num_workers=1")
        run(storage, settings, lambda trial: 0.5)
        optuna.load_study(storage=tuning._storage(storage), study_name="study").ask()
        assert [trial.state.name for trial in tuning.trials(storage, "study")] == ["COMPLETE", "COMPLETE", "FAIL"]

    @pytest.mark.parametrize(("num_trials", "num_workers"), [(6, 2), (7, 3), (3, 3), (1, 1), (11, 4)])
    def test_shares_add_up(self, num_trials: int, num_workers: int) -> None:
        words = [f"tuning.num_trials={num_trials}", f"tuning.num_workers={num_workers}"]
        settings = configured(*words).tuning
        shares = [tuning.quota(settings, worker) for worker in range(num_workers)]
        assert sum(shares) == num_trials
        assert max(shares) - min(shares) <= 1


class TestSuggest:
    def draws(self, settings: TrainConfig, count: int) -> list[Params]:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        return [suggest(study.ask(), settings) for _ in range(count)]

    def test_values_stay_in_their_ranges_and_fill_them(self) -> None:
        settings = configured("architecture=resnet")
        draws = self.draws(settings, 60)
        assert set(draws[0]) == {
            *("optimizer.learning_rate", "optimizer.weight_decay", "training.label_smoothing"),
            *("augmentation.crop_padding", "architecture.drop_rate", "architecture.drop_path_rate"),
        }
        rates = [draw["optimizer.learning_rate"] for draw in draws]
        assert 0.02 <= min(rates) < 0.05 < 0.2 < max(rates) <= 0.4
        assert {draw["augmentation.crop_padding"] for draw in draws} == {0, 1, 2, 3}
        for draw in draws:
            with_params(settings, draw)

    def test_a_chosen_optimizer_brings_its_own_values(self) -> None:
        settings = configured("tuning.optimizers=[sgd,adamw,muon]", "optimizer.learning_rate=0.33")
        names = set()
        for draw in self.draws(settings, 40):
            name = draw["optimizer.name"]
            names.add(name)
            ranges = settings.search.optimizer[name]
            drawn = {key.split(".")[1] for key in draw if key.startswith("optimizer.")} - {"name"}
            assert drawn == set(ranges)
            for key, distribution in ranges.items():
                assert distribution.low is not None
                assert distribution.high is not None
                assert distribution.low <= draw[f"optimizer.{key}"] <= distribution.high
            optimizer = with_params(settings, draw).optimizer
            own = settings.optimizer if name == "muon" else settings.optimizers[name]
            untouched = {field.name for field in dataclasses.fields(own)} - drawn
            assert {key: getattr(optimizer, key) for key in untouched} == {key: getattr(own, key) for key in untouched}
        assert names == {"sgd", "adamw", "muon"}

    def test_integers_are_drawn_for_integers_alone(self) -> None:
        words = ["+search.training.num_epochs={low: 2, high: 5}", "+search.training.ema_decay={choices: [0.9, null]}"]
        settings = configured(*words, "+search.augmentation.erase_probability={low: 0, high: 1}")
        draws = self.draws(settings, 30)
        assert {draw["training.num_epochs"] for draw in draws} == {2, 3, 4, 5}
        assert {draw["training.ema_decay"] for draw in draws} == {0.9, None}
        assert any(0 < draw["augmentation.erase_probability"] < 1 for draw in draws)


class TestConfigured:
    @pytest.mark.parametrize("architecture", ["convnet", "visiontransformer", "vgg"])
    def test_configured_values_are_the_first_trial(self, architecture: str, tmp_path: Path) -> None:
        settings = configured(f"architecture={architecture}", "tuning.num_trials=2", "tuning.num_workers=1")
        seen: list[TrainConfig] = []

        def objective(trial: Trial) -> float:
            seen.append(with_params(settings, suggest(trial, settings)))
            return 0.5

        run(str(tmp_path / "journal.log"), settings, objective)
        assert seen[0] == settings
        assert seen[1] != settings

    def test_a_configured_value_outside_its_range_is_moved_to_it(self, tmp_path: Path) -> None:
        words = [
            "optimizer.learning_rate=3",
            "augmentation.crop_padding=9",
            "tuning.num_trials=1",
            "tuning.num_workers=1",
        ]
        settings = configured(*words)
        (trial,) = run(str(tmp_path / "journal.log"), settings, lambda t: len(suggest(t, settings)))
        assert trial.params["muon.learning_rate"] == settings.search.optimizer["muon"]["learning_rate"].high
        assert trial.params["augmentation.crop_padding"] == 3

    def test_study_is_created_once(self, storage: str) -> None:
        settings = configured()
        for _ in range(2):
            tuning.create_study(storage, "study", settings)
        assert len(optuna.load_study(storage=tuning._storage(storage), study_name="study").trials) == 1


class TestWithParams:
    def test_named_values_are_replaced_and_others_stay(self) -> None:
        settings = configured()
        changed = with_params(settings, {"training.label_smoothing": 0.05, "optimizer.learning_rate": 0.2})
        expected = dataclasses.replace(
            settings,
            training=dataclasses.replace(settings.training, label_smoothing=0.05),
            optimizer=dataclasses.replace(settings.optimizer, learning_rate=0.2),
        )
        assert changed == expected
        assert with_params(settings, {}) == settings

    @pytest.mark.parametrize(
        ("params", "sentence"),
        [
            ({"optimizer.learning_rate": -1.0}, "optimizer: learning_rate must be positive, got -1.0"),
            ({"optimizer.name": "adam"}, "optimizer.name must be 'sgd', 'adamw' or 'muon', got 'adam'"),
            ({"training.num_epochs": "x"}, "training.num_epochs: input should be a valid integer"),
            ({"training.speed": 3}, "training.speed: there is no such key"),
            ({"speed.up": 3}, "speed: there is no such key"),
            ({"speed": 3}, "speed: there is no such key"),
        ],
    )
    def test_nonsense_is_refused_with_the_fields_sentence(self, params: dict[str, Any], sentence: str) -> None:
        with pytest.raises(ConfigError, match=sentence):
            with_params(configured(), params)


class TestChoose:
    def study(self, settings: TrainConfig, values: list[float | None], tmp_path: Path) -> list[FrozenTrial]:
        """Trials with these values in turn, None for a pruned one."""
        rest = iter(values)

        def objective(trial: Trial) -> float:
            suggest(trial, settings)
            value = next(rest)
            if value is None:
                raise optuna.TrialPruned
            return value

        count = [f"tuning.num_trials={len(values)}", "tuning.num_workers=1"]
        tuned = dataclasses.replace(settings, tuning=configured(*count).tuning)
        return run(str(tmp_path / "journal.log"), tuned, objective)

    def test_the_best_trial_wins_by_enough(self, tmp_path: Path) -> None:
        settings = configured("tuning.min_improvement=0.01")
        trials = self.study(settings, [0.90, 0.93, None, 0.91], tmp_path)
        choice = tuning.choose(trials, settings)
        assert choice.best_value == 0.93
        assert "the configured values reached 90.00%" in choice.reason
        assert "takes the values of trial 1" in choice.reason
        assert choice.params["optimizer.learning_rate"] == trials[1].params["muon.learning_rate"]
        assert with_params(settings, choice.params) != settings

    def test_by_less_than_noise_the_configured_values_stay(self, tmp_path: Path) -> None:
        settings = configured("tuning.min_improvement=0.01")
        choice = tuning.choose(self.study(settings, [0.90, 0.905, 0.8], tmp_path), settings)
        assert choice.params == {}
        assert choice.best_value == 0.905
        assert "the configured values reached 90.00%, less than min_improvement (1 points) below" in choice.reason
        assert with_params(settings, choice.params) == settings

    def test_where_the_configured_values_were_pruned_the_best_trial_wins(self, tmp_path: Path) -> None:
        settings = configured()
        choice = tuning.choose(self.study(settings, [None, 0.9], tmp_path), settings)
        assert "the configured values did not complete" in choice.reason
        assert choice.params

    def test_without_a_completed_trial_there_is_nothing_to_choose(self, tmp_path: Path) -> None:
        settings = configured()
        with pytest.raises(NothingCompleted, match="none of 2 trials completed: all diverged or were pruned; narrow"):
            tuning.choose(self.study(settings, [None, None], tmp_path), settings)

    def test_finished_trials_are_told_to_tracking(self, tmp_path: Path) -> None:
        settings = configured()
        trials = self.study(settings, [0.9, None], tmp_path)
        first, second = tuning.tracked(trials)
        assert (first.number, first.state, first.value) == (0, "complete", 0.9)
        assert first.params == trials[0].params
        assert (second.state, second.value) == ("pruned", None)
        assert 0 < first.start_ms <= first.end_ms <= second.end_ms


class TestPruning:
    def trials(self, *words: str, tmp_path: Path) -> tuple[list[FrozenTrial], TrainConfig]:
        """Trials of 10 epochs, each worse than the one before from the start."""
        settings = configured("tuning.num_trials=8", "tuning.num_workers=1", "tuning.keep_percentile=1", *words)

        def objective(trial: Trial) -> float:
            suggest(trial, settings)
            for step in range(10, 101, 10):
                trial.report(1 - trial.number / 10 + step / 10000, step=step)
                if trial.should_prune():
                    raise optuna.TrialPruned
            return 1 - trial.number / 10

        return run(str(tmp_path / "journal.log"), settings, objective), settings

    @pytest.mark.parametrize("prune_after", [0.0, 0.5, 1.0])
    def test_nothing_is_pruned_before_its_time(self, prune_after: float, tmp_path: Path) -> None:
        trials, _ = self.trials(f"tuning.prune_after={prune_after}", tmp_path=tmp_path)
        lasts = [max(trial.intermediate_values) for trial in trials if trial.state == TrialState.PRUNED]
        assert lasts == [max(10, 100 * prune_after)] * 5  # all but the first three, which nothing can be compared with
        assert all(trial.state == TrialState.COMPLETE for trial in trials[: tuning.STARTUP_TRIALS])

    def test_at_100_percent_all_are_kept(self, tmp_path: Path) -> None:
        trials, _ = self.trials("tuning.keep_percentile=100", tmp_path=tmp_path)
        assert {trial.state for trial in trials} == {TrialState.COMPLETE}
