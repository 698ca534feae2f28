"""The loop on a team's servers: MLflow on PostgreSQL, Optuna on the same, everything else in a bucket or Firestore.

Told once from the first training to the rollback; the tests look where things are.
"""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import bucket, firestore, google_credentials, log_rows, mlflow_server, postgres
from support.machine import Machine
from support.served import Served

from fashion.config.compose import compose
from fashion.config.train import load_train_config
from fashion.model.package import Package
from fashion.predictions.firestore import FirestoreLog
from fashion.registry import tracking, versions
from fashion.storage.address import open_store
from fashion.traffic import sampling, sending

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("team")]

SMALL = ["data.limit=600", "data.live_rows=400", "training.num_epochs=2"]
TUNING = ["tuning.num_trials=2", "tuning.num_workers=2", "tuning.num_epochs=1"]
LENIENT = [
    *("gate.margin=0.9", "gate.max_class_drop=1", "gate.max_ece_increase=1", "gate.max_latency_ratio=100"),
    *("gate.min_feedback_rows=20", "gate.confidence=0.999999", "gate.max_shifted_drop=1"),
]
"""A gate that lets networks of two epochs pass."""
ROWS = 240


class Team:
    """Two machines that share servers, and what their flows printed.

    Attributes:
        machine: trains, serves and looks for drift.
        other: a second machine, which has nothing but the addresses.
        servers: variables that name the servers.
        database: address of Optuna's database.
        mlflow_database: address of MLflow's.
        output: what each flow printed.
        summary: of the pictures that were sent.
        readiness: what the service answered to `/readyz` after that.
    """

    def __init__(self, folder: Path, servers: dict[str, str], *, database: str, mlflow_database: str) -> None:
        self.servers, self.database, self.mlflow_database = servers, database, mlflow_database
        self.machine, self.other = Machine(folder / "machine" / "var"), Machine(folder / "other" / "var")
        for each in (self.machine, self.other):
            each.environment |= servers
        self.output: dict[str, str] = {}
        self.summary: Any = None
        self.readiness: Any = None

    @property
    def mlflow(self) -> str:
        return self.servers["MLFLOW_TRACKING_URI"]

    def names(self, part: str) -> set[str]:
        """Names in a folder of the bucket."""
        return set(open_store(f"gs://team/{part}").list())

    def command(self, *words: str) -> str:
        """Output of a command that succeeds on the other machine."""
        done = self.other.python("-m", "fashion", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """The servers, empty, and the variables that name them, which this process has too."""
    folder = tmp_path_factory.mktemp("team")
    with contextlib.ExitStack() as stack:
        google = {
            "STORAGE_EMULATOR_HOST": stack.enter_context(bucket.serve("team")),
            "GOOGLE_APPLICATION_CREDENTIALS": str(stack.enter_context(google_credentials.serve(folder))),
            "FIRESTORE_EMULATOR_HOST": stack.enter_context(firestore.serve()),
        }
        database = stack.enter_context(postgres.serve())
        runs, studies = (postgres.create_database(database, name) for name in ("mlflow", "optuna"))
        address = stack.enter_context(mlflow_server.serve(runs, "gs://team/mlflow", environment=google))
        variables = google | {
            "MLFLOW_TRACKING_URI": address,
            "METAFLOW_DEFAULT_DATASTORE": "gs",
            "METAFLOW_DATASTORE_SYSROOT_GS": "gs://team/metaflow",
            "FASHION_STUDIES": studies,
            "FASHION_FIRESTORE": "team",
            **{f"FASHION_{part.upper()}": f"gs://team/{part}" for part in ("checkpoints", "images", "reports")},
        }
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in variables.items():
            patch.setenv(name, value)
        yield Team(folder, variables, database=studies, mlflow_database=runs)


@pytest.fixture(scope="module")
def team(servers: Team, tmp_path_factory: pytest.TempPathFactory) -> Team:
    """The same after the whole story."""
    machine, output = servers.machine, servers.output
    output["train"] = machine.flow("run", *SMALL, *TUNING)
    output["deploy"] = machine.flow("run", "serve.gallery=0", "serve.log.images=true", name="deploy_flow")
    served = Served("fashion-classifier:latest", machine.serving(), tmp_path_factory.mktemp("served") / "log")
    try:
        data = load_train_config(compose(SMALL)).data
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FASHION_HOME", str(machine.root))
            rows, source = sampling.sample_rows(data, ROWS, seed=1)
        images = sampling.apply_shifts(rows.images, [("brightness", 0.4)])
        send = functools.partial(sending.send, url=served.url, class_names=data.class_names, source=source)
        servers.summary = send(images, rows.labels, label_share=1.0)
        servers.readiness = served.json("GET", "/readyz")
        log_rows.review(machine.root / "predictions.db", 60)
        log_rows.until(lambda: len(servers.names("images")) == ROWS, 120)  # a service that ends gives up some
    finally:
        assert served.stop() == 0  # ships what waits
    retraining = " ".join(["tuning=off", *SMALL, *LENIENT])
    words = ["retrain.enabled=true", "retrain.deploy=false", f'retrain.overrides="{retraining}"']
    looks = [f"rows={ROWS}", "report.examples=1", "decision.resplits=20"]
    output["drift"] = servers.other.flow("run", *looks, *words, name="drift_flow", seconds=1500)
    assert "new champion" in output["drift"], output["drift"]
    output["rollback"] = servers.command("registry", "rollback", "--reason", "to show that it can be")
    output["redeploy"] = servers.other.flow("run", "serve.gallery=0", name="deploy_flow")
    return servers


@pytest.fixture(scope="module")
def client(team: Team) -> Any:
    """MLflow's client on the server."""
    import mlflow

    mlflow.set_tracking_uri(team.mlflow)
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def first(team: Team, client: Any) -> Any:
    """The MLflow run of the first version."""
    return client.get_run(versions.get("1").mlflow_run_id)


def metaflow_run(machine: Machine, flow: str) -> Any:
    return machine.runs(flow)[-1]


class TestTraining:
    def test_the_run_and_its_trials_are_on_the_server(self, client: Any, first: Any) -> None:
        assert first.info.status == "FINISHED"
        trials = client.search_runs([first.info.experiment_id], f"tags.`mlflow.parentRunId` = '{first.info.run_id}'")
        assert sorted(trial.data.tags["trial.number"] for trial in trials) == ["0", "1"]
        assert {trial.info.status for trial in trials} == {"FINISHED"}

    def test_each_of_two_workers_ran_a_trial_of_one_study_in_postgresql(self, team: Team) -> None:
        import optuna

        (name,) = optuna.get_all_study_names(team.database)
        trials = optuna.load_study(study_name=name, storage=team.database).trials
        assert {trial.user_attrs["worker"] for trial in trials} == {0, 1}

    def test_curves_pictures_tables_and_system_metrics_arrive(self, client: Any, first: Any) -> None:
        run_id = first.info.run_id
        assert [metric.step for metric in client.get_metric_history(run_id, "val/accuracy")] == [1, 2]
        assert any(name.startswith("system/") for name in first.data.metrics)
        assert any(entry.path.endswith(".png") for entry in client.list_artifacts(run_id, "images"))
        table = client.load_table(first.info.experiment_id, "evaluation/metrics.json", [run_id])
        assert "test/accuracy" in set(table["metric"])

    def test_artifacts_go_through_the_server_into_the_bucket(self, team: Team, first: Any) -> None:
        assert first.info.artifact_uri.startswith("mlflow-artifacts:/")
        stored = {name.rpartition("/")[2] for name in team.names("mlflow")}
        assert {"verdict.json", "model.onnx", "weights.safetensors", "package.json", "reference.parquet"} <= stored

    def test_checkpoints_are_in_the_bucket(self, team: Team) -> None:
        run = metaflow_run(team.machine, "TrainFlow")
        assert f"TrainFlow/{run.id}/checkpoint.pt" in team.names("checkpoints")

    def test_metaflow_keeps_its_artifacts_and_cards_there_too(self, team: Team) -> None:
        run = metaflow_run(team.machine, "TrainFlow")
        assert run.successful
        assert run.data.version == 1  # read from the bucket
        names = team.names("metaflow")
        assert any(name.startswith("TrainFlow/data/") for name in names)
        assert any(name.startswith(f"mf.cards/TrainFlow/runs/{run.id}/") and name.endswith(".html") for name in names)

    def test_the_page_of_the_run_is_printed(self, team: Team, first: Any) -> None:
        page = f"{team.mlflow}/#/experiments/{first.info.experiment_id}/runs/{first.info.run_id}"
        assert f"MLflow run: {page}\n" in team.output["train"]
        assert team.output["train"].count(team.mlflow) == 1  # not once a trial


class TestService:
    def test_predictions_and_feedback_are_in_firestore(self, team: Team) -> None:
        log = FirestoreLog("team")
        rows = list(log.latest(10 * ROWS))
        log.close()
        assert team.summary.rows == team.summary.labelled == len(rows) == ROWS
        assert all(row.feedback for row in rows)
        assert team.readiness["log"]["ships_to"] == "firestore://team/(default)/predictions"

    def test_pictures_are_in_the_bucket(self, team: Team) -> None:
        assert len(team.names("images")) == ROWS


class TestDrift:
    def test_a_machine_that_served_nothing_reads_the_rows_of_the_one_that_did(self, team: Team) -> None:
        assert not (team.other.root / "predictions.db").exists()
        assert f"{ROWS} rows" in team.output["drift"].replace(",", "")
        assert metaflow_run(team.other, "DriftFlow").data.decision == "drift"

    def test_the_report_is_in_the_bucket_and_in_mlflow(self, team: Team, client: Any) -> None:
        (name,) = metaflow_run(team.other, "DriftFlow").data.reports
        assert {f"{name}/report.html", f"{name}/result.json"} <= team.names("reports")
        experiment = client.get_experiment_by_name("fashion-drift")
        named = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
        run = named[name]
        digest = run.data.tags["model_digest"][:8]
        assert set(named) == {name, f"fashion-classifier version 1 ({digest}) over time"}
        assert {entry.path for entry in client.list_artifacts(run.info.run_id, "drift")} == {
            "drift/report.html",
            "drift/result.json",
        }

    def test_feedback_retrained_the_model_and_the_gate_let_it_in(self, team: Team) -> None:
        run = metaflow_run(team.other, "TrainFlow")
        assert (run.data.version, run.data.promoted) == (2, True)
        assert len(run.data.feedback.train) + len(run.data.feedback.held_out) <= ROWS
        assert {check["name"].partition(":")[0] for check in run.data.verdict["checks"]} >= {"test", "feedback"}


class TestRegistry:
    def test_rollback_makes_the_first_version_the_champion_again(self, team: Team, client: Any) -> None:
        assert team.output["rollback"].startswith("champion: version 1\n")
        assert "pictures that version 2 had learnt are not learnt again" in team.output["rollback"]
        first, second = versions.get("1"), versions.get("2")
        assert first.aliases == ("champion",)
        assert second.tags["promoted.replaced"] == "1"
        assert second.tags["rolled_back.reason"] == "to show that it can be"

    def test_both_machines_built_a_bento_of_the_same_version(self, team: Team) -> None:
        for machine in (team.machine, team.other):
            assert metaflow_run(machine, "DeployFlow").data.model["version"] == "1"

    def test_the_version_loads_as_mlflow_loads_models(self, team: Team, client: Any) -> None:
        import mlflow
        import numpy as np

        model = mlflow.pyfunc.load_model("models:/fashion-classifier@champion")
        assert model.predict(np.zeros((2, 28, 28), np.uint8)).shape == (2, 10)

    def test_commands_of_any_machine_see_it(self, team: Team) -> None:
        listed = team.command("registry", "list")
        assert "version 1  champion" in listed
        assert "rolled_back.reason: to show that it can be" in listed
        shown = " ".join(team.command("status").split())
        assert "champion version 1: test accuracy" in shown
        assert "drift drift, " in shown

    def test_the_ui_is_that_of_the_server(self, team: Team) -> None:
        assert team.command("ui") == f"the MLflow UI is on {team.mlflow}, the server that MLFLOW_TRACKING_URI names\n"


def test_clients_may_write_artifacts_to_the_bucket_themselves(
    team: Team, client: Any, tiny_package: Package, tmp_path: Path
) -> None:
    """As where the server was started with `--default-artifact-root gs://... --no-serve-artifacts`."""
    experiment = client.create_experiment("direct", "gs://team/direct")
    run = tracking.start_run(experiment, "direct", {})
    tracking.log_files(run, {"notes/a.txt": b"1"})
    assert {entry.path for entry in client.list_artifacts(run, "notes")} == {"notes/a.txt"}
    assert tiny_package.folder is not None
    address = versions.log_package(run, tiny_package.folder)
    version = versions.register(address, run_id=run, tags={}, name="direct")
    assert versions.fetch(version, tmp_path).metrics == tiny_package.metrics
    assert {"a.txt", "model.onnx"} <= {name.rpartition("/")[2] for name in team.names("direct")}


def test_a_machine_holds_caches_the_outbox_and_bentos_only(team: Team) -> None:
    allowed = {"data", "bentoml", "metaflow", "mlflow.lock", "drift.lock", "open-runs", "home.json", "home.lock"}
    log = {"predictions.db", "predictions.db-shm", "predictions.db-wal", "predictions.db.shipper"}
    log |= {"predictions-over-time.db"}  # counts of this machine's rows, made again where it is missing
    served = {"serving"}  # how many requests each client of this machine's service made in the last minute
    assert {path.name for path in team.machine.root.iterdir()} <= allowed | log | served
    assert {path.name for path in team.other.root.iterdir()} <= allowed
    for machine in (team.machine, team.other):
        # Of Metaflow, names and states of runs and tasks: they need a metadata service to be shared.
        kinds = {path.suffix for path in (machine.root / "metaflow").rglob("*") if path.is_file()}
        assert kinds <= {".json", ""}
    assert not Path("/mlruns").exists()
    assert not Path("/mlartifacts").exists()


class TestTrouble:
    """A wrong address ends a training before anything is downloaded or tried."""

    @pytest.mark.parametrize(
        ("variable", "address", "sentence"),
        [
            (
                "MLFLOW_TRACKING_URI",
                "http://127.0.0.1:1",
                "error: MLflow at http://127.0.0.1:1 cannot be reached: the co",
            ),
            (
                "FASHION_STUDIES",
                "postgresql://me:secret@127.0.0.1:1/x",
                "error: postgresql://me:***@127.0.0.1:1/x cannot be",
            ),
            (
                "FASHION_CHECKPOINTS",
                "carrier-pigeon://loft",
                "error: 'carrier-pigeon://loft' is not the address of a sto",
            ),
        ],
    )
    def test_a_training_is_not_begun(
        self, servers: Team, tmp_path: Path, variable: str, address: str, sentence: str
    ) -> None:
        machine = Machine(tmp_path / "var")
        machine.environment |= servers.servers | {variable: address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        process = machine.start("run", *SMALL, *TUNING)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 1
        assert output.count(sentence) == 1  # not tried again
        assert "Traceback" not in output
        assert "secret" not in output
        assert {path.name for path in machine.root.iterdir()} <= {
            *("data", "metaflow", "mlflow.lock", "open-runs", "home.json", "home.lock")
        }
