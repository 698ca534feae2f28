"""Studies: the same trials whatever is killed and whoever is faster, and a choice that is reasoned."""

import dataclasses
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, Trial, TrialState
from support import postgres, proxy
from support.proxy import Proxy

from fashion.config.compose import compose
from fashion.config.schema import ConfigError
from fashion.config.train import TrainConfig, load_train_config
from fashion.training import study_storage, tuning
from fashion.training.search_space import Params, configured_params, suggest, with_params
from fashion.training.study_storage import StudyUnavailable
from fashion.training.tuning import NothingCompleted

optuna.logging.set_verbosity(optuna.logging.WARNING)

WORKER = """
import sys, time
from pathlib import Path
from fashion.config.compose import compose
from fashion.config.train import load_train_config
from fashion.training import tuning
from fashion.training.search_space import suggest

storage, worker, hang_at, *words = sys.argv[1:]
settings = load_train_config(compose(words))

def objective(trial):
    params = suggest(trial, settings)
    if trial.number == int(hang_at):
        print("hangs", flush=True)
        time.sleep(600)  # until it is killed
    return -abs(params["training.label_smoothing"] - 0.1)

tuning.work(storage, "study", int(worker), settings, objective)
"""
WORDS = ["tuning.num_trials=10", "tuning.num_workers=3", "tuning.optimizers=[sgd,adamw,muon]"]


def configured(*words: str) -> TrainConfig:
    return load_train_config(compose(words))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials here take no time."""
    monkeypatch.setattr(tuning, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(tuning, "MIN_PATIENCE_SECONDS", 0.3)


@pytest.fixture(params=["journal", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    folder = tmp_path / "studies"
    if request.param == "journal":
        return str(folder)
    folder.mkdir()
    return f"sqlite:///{folder}/studies.db"


def run(storage: str, settings: TrainConfig, objective: Callable[[Trial], float], worker: int = 0) -> list[FrozenTrial]:
    tuning.create_study(storage, "study")
    tuning.work(storage, "study", worker, settings, objective)
    return tuning.trials(storage, "study")


def outcomes(trials: list[FrozenTrial]) -> list[tuple[Any, ...]]:
    """What must not depend on when trials ran, and where."""
    return [(trial.number, trial.state, trial.value, trial.params, trial.intermediate_values) for trial in trials]


def bumpy(settings: TrainConfig, seconds: Callable[[int], float] = lambda _: 0.0) -> Callable[[Trial], float]:
    """An objective that reports, may be pruned, and takes a time for each trial's number."""

    def objective(trial: Trial) -> float:
        params = suggest(trial, settings)
        time.sleep(seconds(trial.number))
        value = -abs(float(params["training.label_smoothing"]) - 0.1)
        for step in (50, 75):
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    return objective


class TestWorkers:
    def study(self, storage: str, settings: TrainConfig, seconds: Callable[[int], float]) -> list[FrozenTrial]:
        """All workers at once."""
        tuning.create_study(storage, "study")
        workers = range(settings.tuning.num_workers)
        with ThreadPoolExecutor(len(workers)) as pool:
            list(
                pool.map(lambda each: tuning.work(storage, "study", each, settings, bumpy(settings, seconds)), workers)
            )
        return tuning.trials(storage, "study")

    @pytest.mark.fault("workers of different speeds")
    def test_a_study_has_the_same_trials_whichever_worker_is_faster(self, tmp_path: Path) -> None:
        settings = configured("tuning.num_trials=12", "tuning.num_workers=2", "tuning.keep_percentile=30")
        speeds: list[Callable[[int], float]] = [
            lambda _: 0,
            lambda number: 0.2 * (number % 2),
            lambda n: 0.2 * (n == 0),
        ]
        studies = [self.study(str(tmp_path / str(n)), settings, speed) for n, speed in enumerate(speeds)]
        assert outcomes(studies[0]) == outcomes(studies[1]) == outcomes(studies[2])
        assert {trial.state for trial in studies[0]} == {TrialState.COMPLETE, TrialState.PRUNED}
        assert [trial.number for trial in studies[0]] == list(range(12))

    @pytest.mark.fault("only one worker at a time")
    def test_a_worker_runs_a_trial_that_it_needs_and_nobody_has_begun(self, storage: str, tmp_path: Path) -> None:
        settings = configured("tuning.num_trials=6", "tuning.num_workers=2")
        together = self.study(str(tmp_path / "together"), settings, lambda _: 0)
        tuning.create_study(storage, "study")
        for worker in (0, 1):
            tuning.work(storage, "study", worker, settings, bumpy(settings))
        assert outcomes(tuning.trials(storage, "study")) == outcomes(together)

    @pytest.mark.fault("kill -9 of a worker in mid-trial")
    def test_exactly_num_trials_finish_though_a_worker_is_killed(self, storage: str, tmp_path: Path) -> None:
        settings = configured(*WORDS)
        tuning.create_study(storage, "study")
        command = [sys.executable, "-c", WORKER, storage, "1", "4", *WORDS]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "hangs\n"
            process.kill()

        def objective(trial: Trial) -> float:
            return -abs(float(suggest(trial, settings)["training.label_smoothing"]) - 0.1)

        for worker in (0, 2, 1):  # the first one runs what the killed one had begun
            tuning.work(storage, "study", worker, settings, objective)
        trials = tuning.trials(storage, "study")
        assert [trial.number for trial in trials] == list(range(10))
        assert trials[0].params == configured_params(settings)
        assert trials[0].user_attrs["configured"]
        tried = [trial.params for trial in trials]
        assert [tried.count(params) for params in tried] == [1] * 10
        unbroken = run(str(tmp_path / "unbroken"), configured(*WORDS), objective)
        for worker in (1, 2):
            tuning.work(str(tmp_path / "unbroken"), "study", worker, settings, objective)
        unbroken = tuning.trials(str(tmp_path / "unbroken"), "study")
        assert outcomes(unbroken) == outcomes(trials)

    def test_finished_share_is_not_repeated(self, storage: str) -> None:
        settings = configured("tuning.num_trials=3", "tuning.num_workers=1")
        run(storage, settings, lambda trial: 0.5)
        run(storage, settings, lambda trial: pytest.fail("was tried again"))  # type: ignore[arg-type, return-value]
        assert len(tuning.trials(storage, "study")) == 3


class TestDamage:
    SETTINGS = ("tuning.num_trials=3", "tuning.num_workers=1")

    @pytest.mark.fault("half a line in a study's journal")
    def test_half_a_line_at_the_end_of_a_journal_costs_nothing(self, tmp_path: Path) -> None:
        settings = configured(*self.SETTINGS)
        before = run(str(tmp_path), settings, lambda trial: 0.5)
        with study_storage.journal_file(str(tmp_path), "study").open("ab") as journal:
            journal.write(b'{"op_code": 4, "wor')
        more = configured("tuning.num_trials=5", "tuning.num_workers=1")
        after = run(str(tmp_path), more, lambda trial: 0.5)
        assert outcomes(after)[:3] == outcomes(before)
        assert len(after) == 5

    @pytest.mark.fault("damaged journal of a study")
    def test_a_damaged_study_is_one_sentence_and_concerns_no_other(self, tmp_path: Path) -> None:
        settings = configured(*self.SETTINGS)
        run(str(tmp_path), settings, lambda trial: 0.5)
        journal = study_storage.journal_file(str(tmp_path), "study")
        journal.write_bytes(b"\x00\x00 no JSON\n" * 3)
        sentence = f"the study study in {journal} cannot be used .*; `resume plan --origin-run-id RUN` begins the study"
        with pytest.raises(StudyUnavailable, match=sentence) as caught:
            tuning.work(str(tmp_path), "study", 0, settings, lambda trial: 0.5)
        assert "\n" not in str(caught.value)
        tuning.create_study(str(tmp_path), "another")
        tuning.work(str(tmp_path), "another", 0, settings, lambda trial: 0.5)
        assert len(run(str(tmp_path), settings, lambda trial: 0.5)) == 3  # as resuming `plan` does
        assert journal.with_suffix(".damaged").exists()

    @pytest.mark.fault("PostgreSQL goes away in mid-study")
    def test_a_database_that_dies_costs_the_trial_under_way_only(self, postgres_server: str) -> None:
        self.interrupt(postgres_server, "dying", Proxy.cut, "cannot be used .*; check FASH")

    @pytest.mark.fault("PostgreSQL hangs in mid-study")
    def test_a_database_that_hangs_is_given_up_and_the_study_goes_on_later(
        self, postgres_server: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FASHION_SERVER_SECONDS", "2")
        reason = r"cannot be used \((it does not answer in time|connection timeout expired)\)"
        self.interrupt(postgres_server, "hanging", Proxy.stall, reason)

    def interrupt(self, server: str, name: str, break_off: Callable[[Proxy], None], sentence: str) -> None:
        """Lose the database in the second trial: it ends with a sentence, and the study goes on when it is back."""
        settings = configured(*self.SETTINGS)
        address = postgres.create_database(server, name)
        host = urllib.parse.urlsplit(address).netloc.rpartition("@")[2]
        tried: list[int] = []
        with proxy.between(host) as between:
            storage = address.replace(host, between.address)

            def objective(trial: Trial) -> float:
                suggest(trial, settings)
                tried.append(trial.number)
                if tried == [0, 1]:
                    break_off(between)
                return 0.5

            with pytest.raises(StudyUnavailable, match=f"{between.address}/{name} {sentence}"):
                run(storage, settings, objective)
            between.resume()
            assert [trial.number for trial in run(storage, settings, objective)] == [0, 1, 2]
        assert tried == [0, 1, 1, 2]

    @pytest.mark.fault("the database of studies is away")
    def test_a_database_that_goes_away_is_one_sentence_without_its_password(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FASHION_SERVER_SECONDS", "2")
        address = "postgresql://me:secret@127.0.0.1:1/studies"
        sentence = (
            r"in postgresql://me:\*\*\*@127.0.0.1:1/studies cannot be used .*; check FASHION_STUDIES, and that its"
        )
        with pytest.raises(StudyUnavailable, match=sentence) as caught:
            tuning.create_study(address, "study")
        assert "secret" not in str(caught.value)


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

        run(str(tmp_path), settings, objective)
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
        (trial,) = run(str(tmp_path), settings, lambda t: len(suggest(t, settings)))
        assert trial.params["muon.learning_rate"] == settings.search.optimizer["muon"]["learning_rate"].high
        assert trial.params["augmentation.crop_padding"] == 3


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
        return run(str(tmp_path), tuned, objective)

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
        first, second = tuning.to_tracked_trials(trials)
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

        return run(str(tmp_path), settings, objective), settings

    @pytest.mark.parametrize("prune_after", [0.0, 0.5, 1.0])
    def test_nothing_is_pruned_before_its_time(self, prune_after: float, tmp_path: Path) -> None:
        trials, _ = self.trials(f"tuning.prune_after={prune_after}", tmp_path=tmp_path)
        lasts = [max(trial.intermediate_values) for trial in trials if trial.state == TrialState.PRUNED]
        assert lasts == [max(10, 100 * prune_after)] * 5  # all but the first three, which nothing can be compared with
        assert all(trial.state == TrialState.COMPLETE for trial in trials[: tuning.STARTUP_TRIALS])

    def test_at_100_percent_all_are_kept(self, tmp_path: Path) -> None:
        trials, _ = self.trials("tuning.keep_percentile=100", tmp_path=tmp_path)
        assert {trial.state for trial in trials} == {TrialState.COMPLETE}
