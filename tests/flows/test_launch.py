"""Flows from the command line: configuration overrides, and how wrong ones are reported."""

import importlib
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from fashion.config.compose import compose
from fashion.config.schema import ConfigError
from fashion.home import REPOSITORY

FLOW = REPOSITORY / "flows" / "train_flow.py"


@pytest.fixture(scope="module")
def runtime() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module as flows do, which run as scripts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FLOW.parent)
        yield lambda name: importlib.import_module(f"runtime.{name}")


@pytest.fixture(scope="module")
def launch(runtime: Callable[[str], ModuleType]) -> ModuleType:
    return runtime("launch")


def call(
    *arguments: str, folder: Path, flow: str = "train_flow", **environment: str
) -> subprocess.CompletedProcess[str]:
    """The flow as from a shell, in a folder that holds nothing."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HYDRA", "METAFLOW", "USER"))}
    return subprocess.run(
        [sys.executable, str(FLOW.with_name(f"{flow}.py")), *arguments],
        cwd=folder,
        env={**kept, "FASHION_HOME": str(folder / "var"), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


class TestSplitArguments:
    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("run training.seed=3", "training.seed=3"),
            ("training.seed=3 run", "training.seed=3"),
            ("architecture=resnet run training.seed=3 tuning=off", "architecture=resnet training.seed=3 tuning=off"),
            (
                "run +search.training.num_epochs={low:3} ++a.b=1 ~c=2",
                "+search.training.num_epochs={low:3} ++a.b=1 ~c=2",
            ),
            ("run optimizer@optimizers.sgd=adamw", "optimizer@optimizers.sgd=adamw"),
            ("run data.name= data.manifest=a/b=c", "data.name= data.manifest=a/b=c"),
            ("run --tag a=b --tag=c=d", ""),
            ("run --tag a=b training.seed=3 --tag c=d", "training.seed=3"),
            ("--with kubernetes:cpu=2 run", ""),
            ("run --with retry:times=3 --max-workers 2 --run-id-file=x", ""),
            ("--config-value config training.seed=3 run", ""),
            ("--config config words=3 run tuning=off", "tuning=off"),
            ("run --overrides training.seed=3 --deploy_overrides version=2 tuning=off", "tuning=off"),
            ("--environment=local --metadata=local run", ""),
            ("show", ""),
            ("", ""),
        ],
    )
    def test_overrides_are_told_from_metaflows_own_options(self, launch: ModuleType, line: str, words: str) -> None:
        arguments = line.split()
        overrides, rest = launch.split_arguments(arguments)
        assert overrides == words.split()
        assert rest == [argument for argument in arguments if argument not in overrides]


class TestParser:
    def test_words_and_json_are_composed_alike(self, launch: ModuleType) -> None:
        import json

        composed = launch.parse_config("architecture=resnet 'data.name=two words'")
        assert composed == compose(["architecture=resnet", "data.name=two words"])
        assert launch.parse_config(json.dumps(composed)) == composed
        assert launch.parse_config(composed) == composed
        assert launch.parse_config("") == compose()

    @pytest.mark.parametrize("text", ["training.epochs=3", "data.name='", '{"training": 3}'])
    def test_what_is_wrong_is_told_in_metaflows_way(self, launch: ModuleType, text: str) -> None:
        with pytest.raises(launch.ConfigurationError) as caught:
            launch.parse_config(text)
        assert "\n" not in str(caught.value)

    def test_words_come_from_the_environment(self, launch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HYDRA_ARGS", "training.seed=3")
        assert launch.overrides_from_environment(None) == "training.seed=3"
        monkeypatch.delenv("HYDRA_ARGS")
        assert launch.overrides_from_environment(None) == ""

    def test_exit_on_passes_other_errors(self, launch: ModuleType) -> None:
        with pytest.raises(KeyError), launch.exit_on(ConfigError):
            raise KeyError

    def test_exit_on_ends_the_process_with_one_sentence(self, tmp_path: Path) -> None:
        code = f"import sys; sys.path.insert(0, {str(FLOW.parent)!r}); from runtime import launch\n"
        code += "with launch.exit_on(ValueError): int('x')"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 202  # Metaflow does not try again
        assert done.stderr == "error: invalid literal for int() with base 10: 'x'\n"

    @pytest.mark.fault("disk full")
    def test_a_full_disk_is_one_sentence(self, tmp_path: Path) -> None:
        code = f"import sys; sys.path.insert(0, {str(FLOW.parent)!r}); from runtime import launch\n"
        code += "from fashion.storage.blobs import StoreUnavailable\n"
        code += "with launch.exit_on(StoreUnavailable):\n    try: open('/dev/full', 'w', buffering=1).write('x\\n')\n"
        code += "    except OSError as error: raise RuntimeError('in a library') from error"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 202
        assert done.stderr.startswith("error: a file of the home or a temporary file cannot be written (No space left")
        assert len(done.stderr.splitlines()) == 1


class TestRefused:
    @pytest.mark.parametrize(
        ("line", "environment", "sentence"),
        [
            ("run training.epochs=3", "", "training.epochs=3: there is no key 'epochs'; training has batch_size, "),
            (
                "architecture=resnet50 run",
                "",
                "architecture=resnet50: no such option; architecture is one of convnet, ",
            ),
            ("run training.num_epochs=x", "", "training.num_epochs: input should be a valid integer"),
            ("run architecture.name=nonsense", "", "architecture.name=nonsense: there is no such network; "),
            (
                "run +architecture.kwargs.speed=3",
                "",
                "architecture.kwargs={'widths': [16, 64, 128], 'speed': 3} do not make a convnet: ",
            ),
            ("run architecture.name=test_maxvit", "", "architecture: this network cannot be exported to ONNX ("),
            (
                "run architecture.min_final_map=99",
                "",
                "architecture.min_final_map=99: the last map of this network is ",
            ),
            ("run --tag a=b", "training.seed=-1", "training: seed must be in [0, 2**32), got -1"),
            ("run tuning=off", "data.name='", '"data.name=\'" is not a list of key=value overrides as in HYDRA_ARGS'),
            ("resume training.seed=3", "", "training.seed=3: resume keeps the configuration of the run"),
        ],
    )
    @pytest.mark.slow
    def test_wrong_words_end_in_one_sentence_before_anything_is_made(
        self, line: str, environment: str, sentence: str, tmp_path: Path
    ) -> None:
        done = call(*line.split(), folder=tmp_path, HYDRA_ARGS=environment)
        assert done.returncode == 1
        assert done.stdout == ""
        (told,) = done.stderr.splitlines()
        assert told.startswith(f"error: {sentence}")
        assert {path.name for path in tmp_path.glob("var/*")} <= {"home.json", "home.lock"}

    def test_later_words_win_over_the_environment(self, tmp_path: Path) -> None:
        # Both are wrong; the command line's comes last.
        done = call("run", "data.limit=3", folder=tmp_path, HYDRA_ARGS="data.limit=2")
        assert "got 3" in done.stderr


class TestCommands:
    @pytest.mark.parametrize("arguments", [["show"], ["show", "training.seed=3"], ["--help"], ["run", "--help"]])
    def test_work_from_any_folder_with_no_variable_set(self, arguments: list[str], tmp_path: Path) -> None:
        done = call(*arguments, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        told = {"show": "Step evaluate", "--help": "--config", "run": "--max-workers"}[arguments[0]]
        assert told in done.stdout + done.stderr
        assert not [path for path in tmp_path.iterdir() if path.name not in {"var", ".metaflow"}]

    @pytest.mark.parametrize(
        ("flow", "line", "sentence"),
        [
            (
                "train_flow",
                "run foo",
                "got unexpected extra argument (foo); overrides are key=value, and `train_flow.py",
            ),
            ("deploy_flow", "run --nonsense 3", "no such option: --nonsense; overrides are key=value, and `deploy_f"),
            ("drift_flow", "run --multirun", "no such option: --multirun; one run has one configuration: start a run "),
            ("predict_flow", "run architecture=x", "missing option '--images'; overrides are key=value, and `predict_"),
            (
                "drift_flow",
                "run \"retrain.overrides='training.epochs=3'\"",
                "training.epochs=3: there is no key 'epochs'",
            ),
        ],
    )
    @pytest.mark.fault("mistyped command line")
    def test_a_mistyped_command_line_ends_in_one_sentence(
        self, flow: str, line: str, sentence: str, tmp_path: Path
    ) -> None:
        done = call(*shlex.split(line), folder=tmp_path, flow=flow)
        assert done.returncode in (1, 2)
        *banner, told = done.stderr.splitlines()
        assert told.startswith(f"error: {sentence}")
        assert all("executing" in each or each.startswith("Project: ") for each in banner)


@pytest.mark.parametrize("flow", ["train_flow", "deploy_flow", "drift_flow"])
def test_flows_take_the_triggers_of_a_cluster(flow: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "FASHION_HOME": str(tmp_path),
        "METAFLOW_ARGO_EVENTS_WEBHOOK_URL": "http://127.0.0.1:9",
    }
    command = [sys.executable, str(REPOSITORY / "flows" / f"{flow}.py"), "show"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Step start" in done.stdout + done.stderr


def test_only_the_retrain_event_makes_a_training_use_feedback(runtime: Callable[[str], ModuleType]) -> None:
    events = runtime("events")
    from metaflow import current
    from metaflow.events import Trigger

    def triggered_by(*names: str) -> bool:
        triggers = [{"name": name, "type": "event", "id": name, "timestamp": 1_800_000_000} for name in names]
        current._update_env({"trigger": Trigger(triggers)})
        try:
            return bool(events.was_started_by(events.RETRAIN))
        finally:
            del type(current).trigger

    assert not events.was_started_by(events.RETRAIN)
    assert not triggered_by("another")
    assert triggered_by("another", events.RETRAIN)
    assert triggered_by(events.RETRAIN)


def test_a_wrong_alert_address_is_told_before_the_drift_flow_starts_and_does_not_keep_it_from_looking(
    tmp_path: Path,
) -> None:
    addresses = {"FASHION_SMTP": "smtp://me:secret@host", "FASHION_WEBHOOK": "nonsense"}
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "flows" / "drift_flow.py"), "run"],
        cwd=tmp_path,
        env={**os.environ, "FASHION_HOME": str(tmp_path / "var"), **addresses},
        capture_output=True,
        text=True,
        timeout=120,
    )
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert warnings[0] == "warning: FASHION_WEBHOOK must be an http or https address"
    assert warnings[1].startswith("warning: FASHION_SMTP must be ")
    assert "Task is starting" in done.stdout
    assert "secret" not in done.stdout + done.stderr


class TestBranches:
    @pytest.mark.parametrize(
        ("line", "branch"),
        [
            ("--production argo-workflows create", None),
            ("--branch ada argo-workflows create", "ada"),
            ("--branch=ada argo-workflows create", "ada"),
            ("--production --branch ada argo-workflows create", "ada"),
            ("argo-workflows create", "some_body"),
        ],
    )
    def test_a_deployment_is_of_one_branch(
        self, runtime: Callable[[str], ModuleType], line: str, branch: str | None
    ) -> None:
        assert runtime("branches").branch_of(line.split(), "Some.Body") == branch

    def test_a_branch_shares_no_names_with_production(self, runtime: Callable[[str], ModuleType]) -> None:
        overrides = runtime("branches").branch_overrides
        composed = compose()
        assert overrides(None, composed, []) == []
        assert overrides("ada", composed, []) == [
            "tracking.registered_model=ada-fashion-classifier",
            "tracking.experiment=ada-fashion",
        ]
        given = ["tracking.registered_model=mine"]
        assert overrides("ada", composed, given) == ["tracking.experiment=ada-fashion"]


class TestFurtherOverrides:
    def test_none_keep_the_configuration(self, launch: ModuleType) -> None:
        configured = compose(["training.seed=3"])
        assert launch.with_overrides(configured, " ") == configured

    def test_they_come_after_those_of_the_deployment(self, launch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HYDRA_ARGS", "training.seed=3 training.num_epochs=2")
        found = launch.with_overrides({}, "tuning=off training.num_epochs=5")
        assert found == compose(["training.seed=3", "training.num_epochs=5", "tuning=off"])

    def test_a_wrong_one_is_rejected(self, launch: ModuleType) -> None:
        with pytest.raises(ConfigError, match=r"there is no key 'epochs'"):
            launch.with_overrides({}, "training.epochs=5")


def test_an_event_without_an_address_is_one_sentence(
    runtime: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    events = runtime("events")
    monkeypatch.setattr(events, "webhook", lambda: None)
    with pytest.raises(events.EventsUnavailable, match=r"METAFLOW_ARGO_EVENTS_WEBHOOK_URL is not set"):
        events.publish(events.RETRAIN, {})
