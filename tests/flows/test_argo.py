"""The chain of flows on a cluster, from their compiled manifests, with real servers and a pod for each step."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import bucket, firestore, google_credentials, log_rows, mlflow_server, postgres
from support.argo import events
from support.argo.pods import absent_from, require_namespaces
from support.argo.workflows import Cluster, Workflow
from support.keys import key_pair
from support.machine import ROWS, Machine
from support.served import Served

from fashion.config.compose import compose
from fashion.config.train import load_train_config
from fashion.registry import lineage, versions
from fashion.traffic.sampling import SOURCE, apply_shifts, sample_rows
from fashion.traffic.sending import send

pytestmark = pytest.mark.slow
MODEL = "shoes"
"""Not the default: it reaches TrainFlow and DeployFlow by events alone."""
DATA = [f"data.limit={ROWS}", "data.live_rows=400", "data.sources=[{kind: bucket, address: gs://data/fashion}]"]
TRAIN = ["training.num_epochs=1", "tuning.num_trials=2", "tuning.num_workers=2", "tuning.num_epochs=1"]
LENIENT = (
    "gate.margin=0.9 gate.max_class_drop=1 gate.max_ece_increase=1 gate.max_latency_ratio=100 gate.max_shifted_drop=1"
)
"""Of a thousand pictures, one training differs from another by more than the gate allows."""
DRIFT = [
    f"tracking.registered_model={MODEL}",
    "cron='30 4 * * *'",
    "report.examples=0",
    "workers=2",
    "retrain.enabled=true",
    "retrain.min_new_labels=100",
    f"retrain.overrides='tuning=off training.num_epochs=2 {LENIENT}'",
    "retrain.deploy_overrides='serve.gallery=3'",
]
ROWS_OF_TRAFFIC = 300


@dataclass
class Chain:
    """A cluster with the manifests applied, and what has run on it."""

    cluster: Cluster
    manifests: list[dict[str, Any]]
    webhook: events.Webhook
    environment: dict[str, str]
    """Of a person who deploys."""
    folder: Path
    tracking_uri: str
    commit: str
    """Of the code, when the flows were compiled."""
    ran: list[Workflow] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.manifests if each["kind"] == kind]

    def template(self, flow: str) -> dict[str, Any]:
        name = f"fashion.prod.{flow}flow"
        (found,) = (each for each in self.of_kind("WorkflowTemplate") if each["metadata"]["name"] == name)
        return found

    def start(self, flow: str, **parameters: Any) -> Workflow:
        """Run a template to its end, as `argo submit --from` would."""
        given = {name: json.dumps(value) for name, value in parameters.items()}
        return self._run(f"fashion.prod.{flow}flow", given)

    def react(self) -> list[Workflow]:
        """Run what the events since the last call start."""
        started = []
        posted, self.webhook.events = self.webhook.events, []
        for event in posted:
            for name, parameters in events.started_by(event, self.of_kind("Sensor")):
                started.append(self._run(name, parameters))
        return started

    def _run(self, name: str, parameters: Mapping[str, str]) -> Workflow:
        (template,) = (each for each in self.of_kind("WorkflowTemplate") if each["metadata"]["name"] == name)
        workflow = Workflow(template, self.cluster, f"{name}-{len(self.ran):05d}", parameters)
        self.ran.append(workflow.run())
        return workflow


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """Servers, and production's manifests as `fashion cluster manifests` writes them."""
    require_namespaces()
    folder = tmp_path_factory.mktemp("argo")
    with ExitStack() as stack:
        database = stack.enter_context(postgres.serve()).replace("postgresql://", "postgresql+psycopg://")
        for name in ("mlflow", "studies"):
            postgres.create_database(database.replace("+psycopg", ""), name)
        storage = stack.enter_context(bucket.serve("metaflow", "data", "team"))
        key = stack.enter_context(google_credentials.serve(folder))
        webhook = stack.enter_context(events.serve())
        tracking = stack.enter_context(mlflow_server.serve(f"{database}/mlflow", str(folder / "artifacts")))
        signing, trusted = key_pair(folder, "keys")  # files of this machine: pods get what is in them
        environment = Machine(folder / "var").environment | {
            "STORAGE_EMULATOR_HOST": storage,
            "FIRESTORE_EMULATOR_HOST": stack.enter_context(firestore.serve()),
            "GOOGLE_APPLICATION_CREDENTIALS": str(key),
            "METAFLOW_HOME": str(metaflow_home(folder, webhook.url)),
            "MLFLOW_TRACKING_URI": tracking,
            "FASHION_STUDIES": f"{database}/studies",
            "FASHION_CHECKPOINTS": "gs://team/checkpoints",
            "FASHION_REPORTS": "gs://team/reports",
            "FASHION_IMAGES": "gs://team/images",
            "FASHION_BENTOS": "gs://team/bentos",
            "FASHION_FIRESTORE": "argo",
            "FASHION_DATA_BUCKET": "gs://data/fashion",
            "FASHION_SIGNING_KEY": str(signing),
            "FASHION_TRUSTED_KEYS": str(trusted),
            "FASHION_TRAIN_IMAGE": "registry.example/fashion-train:1",
            "FASHION_FLOWS_IMAGE": "registry.example/fashion-flows:1",
        }
        overrides = {"train": [*DATA, *TRAIN], "deploy": [*DATA, "serve.log.images=true"], "drift": [*DATA, *DRIFT]}
        words = [f"{flow}:{each}" for flow, given in overrides.items() for each in given]
        fashion(environment, "data", "push")
        commit = lineage.git_commit()
        written = fashion(
            environment, "cluster", "manifests", "--production", "--unchecked", "--folder", str(folder / "m"), *words
        )
        paths = [Path(line) for line in written.splitlines() if line.endswith(".yaml")]
        secret = yaml.safe_load(fashion(environment, "cluster", "secret", "--production"))
        values = {"GOOGLE_APPLICATION_CREDENTIALS": "/mnt/home/key.json", **secret["stringData"]}
        lean = absent_from("requirements-flows.lock")
        cluster = Cluster(
            folder / "pods",
            secrets={secret["metadata"]["name"]: values},
            absent=lambda image: lean if "flows" in image else (),
            files={"key.json": key.read_bytes()},
        )
        manifests = [each for path in paths for each in yaml.safe_load_all(path.read_text())]
        yield Chain(cluster, manifests, webhook, environment, folder, tracking, commit)


@pytest.fixture(scope="module")
def trained(chain: Chain) -> Workflow:
    """A training that a person starts, with overrides of their own."""
    return chain.start("train", overrides=f"tracking.registered_model={MODEL}", deploy_overrides="serve.gallery=2")


@pytest.fixture(scope="module")
def deployed(chain: Chain, trained: Workflow) -> Workflow:
    """What the training's events start."""
    assert trained.status == "Succeeded", trained.logs()
    (workflow,) = chain.react()
    return workflow


@pytest.fixture(scope="module")
def predicted(chain: Chain, deployed: Workflow) -> str:
    """Traffic with another brightness to the bento, with labels; all is in the shared log and the bucket."""
    assert deployed.status == "Succeeded", deployed.logs()
    home = bentos(deployed)
    environment = chain.environment | {"BENTOML_HOME": str(home), "FASHION_HOME": str(chain.folder / "service")}
    service = Served(tag(home), environment, chain.folder / "service.log")
    overrides = [each for each in DATA if "sources" not in each]
    data = load_train_config(compose(overrides)).data
    rows, source = sample_rows(data, ROWS_OF_TRAFFIC, seed=1)
    assert source == SOURCE
    shifted = apply_shifts(rows.images, [("brightness", 0.5)])
    summary = send(
        shifted, rows.labels, url=service.url, class_names=data.class_names, label_share=1.0, source=source, seed=1
    )
    log_rows.review(chain.folder / "service" / "predictions.db", 60)
    assert service.stop() == 0, service.output.read_text()[-2000:]
    return str(summary)


@pytest.fixture(scope="module")
def drifted(chain: Chain, predicted: str) -> Workflow:
    """What the clock starts."""
    (cron,) = chain.of_kind("CronWorkflow")
    assert cron["spec"]["schedules"] == ["30 4 * * *"]
    assert cron["spec"]["workflowSpec"]["workflowTemplateRef"]["name"] == "fashion.prod.driftflow"
    return chain.start("drift")


@pytest.fixture(scope="module")
def retrained(chain: Chain, drifted: Workflow) -> Workflow:
    """What the drift flow's events start."""
    assert drifted.status == "Succeeded", drifted.logs()
    (workflow,) = chain.react()
    return workflow


@pytest.fixture(scope="module")
def redeployed(chain: Chain, retrained: Workflow) -> Workflow:
    """What the second training's events start."""
    assert retrained.status == "Succeeded", retrained.logs()
    (workflow,) = chain.react()
    return workflow


def test_a_training_runs_in_a_pod_for_each_step(trained: Workflow) -> None:
    assert trained.status == "Succeeded", trained.logs()
    steps = ["start", "plan", "collect", "train", "evaluate", "register", "end"]
    assert [each.strip("/") for each in trained.tasks() if "(" not in each] == steps
    assert len(trained.attempts("tune")) == 2 == len({pod.folder for pod in trained.attempts("tune")})
    assert "version 1 is the champion" in trained.attempts("end")[0].log


def test_a_version_knows_the_commit_that_it_was_compiled_from(chain: Chain, trained: Workflow) -> None:
    version = registered(chain, 1)
    assert version.tags["git_commit"] == chain.commit != "unknown"
    assert version.tags["metaflow_run_id"].startswith("TrainFlow/argo-fashion.prod.trainflow-")


def test_pods_sign_and_trust_by_the_keys_of_whoever_deploys(chain: Chain, deployed: Workflow) -> None:
    assert deployed.status == "Succeeded", deployed.logs()
    signature = registered(chain, 1).tags[versions.SIGNATURE]
    chain_client(chain).set_model_version_tag(MODEL, "1", versions.SIGNATURE, "AAAA")
    done = chain.start("deploy", overrides=f"tracking.registered_model={MODEL}")
    chain_client(chain).set_model_version_tag(MODEL, "1", versions.SIGNATURE, signature)
    assert done.status == "Failed"
    assert "has a signature of no key that is trusted here, and FASHION_TRUSTED_KEYS asks for one" in done.logs()


def test_the_end_of_a_training_starts_a_deployment_of_its_model(deployed: Workflow) -> None:
    assert deployed.status == "Succeeded", deployed.logs()
    assert deployment(deployed)["model"]["name"] == MODEL
    assert deployment(deployed)["settings"]["gallery"] == 2
    assert f"serves {MODEL} version 1" in deployed.attempts("end")[0].log


def test_the_bento_answers(predicted: str) -> None:
    assert f"{ROWS_OF_TRAFFIC} predicted by version 1" in predicted
    assert f"feedback on {ROWS_OF_TRAFFIC}" in predicted


def test_the_schedule_finds_drift_and_publishes_an_event(drifted: Workflow) -> None:
    assert drifted.status == "Succeeded", drifted.logs()
    assert len(drifted.attempts("divide")) == len(drifted.attempts("join")) == 1
    assert len({pod.folder for pod in drifted.attempts("count")}) == 2
    assert "training due" in drifted.attempts("act")[0].log
    assert "event fashion-retrain published" in drifted.attempts("retrain")[0].log


def test_the_retraining_has_the_overrides_and_the_model_of_the_drift_flow(chain: Chain, retrained: Workflow) -> None:
    assert retrained.status == "Succeeded", retrained.logs()
    assert [each.strip("/") for each in retrained.tasks()] == ["start", "train", "evaluate", "register", "end"]
    assert "labelled pictures of users to train on" in retrained.attempts("start")[0].log
    assert "version 2 is the champion" in retrained.attempts("end")[0].log
    run = chain_client(chain).get_run(registered(chain, 2).run_id)
    assert run.data.params["training.num_epochs"] == "2"


def test_its_deployment_has_the_overrides_of_the_drift_flow(redeployed: Workflow) -> None:
    assert redeployed.status == "Succeeded", redeployed.logs()
    found = deployment(redeployed)
    assert (found["model"]["name"], found["model"]["version"], found["settings"]["gallery"]) == (MODEL, "2", 3)


def test_pictures_of_a_bucket_are_predicted_to_a_bucket(chain: Chain, redeployed: Workflow) -> None:
    done = chain.start("predict", images="gs://team/images", output="gs://team/out.parquet", model=MODEL, workers=2)
    assert done.status == "Succeeded", done.logs()
    assert len(done.attempts("predict")) == 2
    assert "pictures predicted, 0 could not be read" in done.attempts("join")[0].log


def test_an_error_that_a_retry_does_not_mend_is_not_tried_again(chain: Chain, trained: Workflow) -> None:
    done = chain.start("deploy", overrides=f"tracking.registered_model={MODEL} version=99")
    assert done.status == "Failed"
    (only,) = done.attempts("start")
    assert only.exit_code == 202
    assert "error: " in only.log


def test_overrides_of_a_run_are_checked_in_one_sentence(chain: Chain) -> None:
    done = chain.start("train", overrides="training.epochs=3")
    (only,) = done.attempts("start")
    assert only.exit_code == 202
    assert "error: training.epochs=3: there is no key 'epochs'" in only.log


def metaflow_home(folder: Path, webhook: str) -> Path:
    """A folder with Metaflow's configuration file: what is set there counts as in the environment."""
    home = folder / "metaflow-home"
    home.mkdir()
    settings = {
        "METAFLOW_DEFAULT_DATASTORE": "gs",
        "METAFLOW_DATASTORE_SYSROOT_GS": "gs://metaflow/flows",
        "METAFLOW_ARGO_EVENTS_WEBHOOK_URL": webhook,
        "METAFLOW_ARGO_EVENTS_EVENT": "metaflow-event",
        "METAFLOW_ARGO_EVENTS_EVENT_SOURCE": "argo-events-webhook",
        "METAFLOW_ARGO_EVENTS_SERVICE_ACCOUNT": "operate-workflow",
    }
    (home / "config.json").write_text(json.dumps(settings))
    return home


def fashion(environment: Mapping[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "fashion", *arguments]
    done = subprocess.run(command, env=dict(environment), cwd="/", capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def bentos(workflow: Workflow) -> Path:
    """BentoML's store in the pod that built."""
    return workflow.attempts("build")[0].folder / "work/metaflow/var/bentoml"


def tag(home: Path) -> str:
    (bento,) = (path for path in (home / "bentos").glob("*/*") if path.is_dir())
    return f"{bento.parent.name}:{bento.name}"


def deployment(workflow: Workflow) -> Any:
    (file,) = bentos(workflow).glob("bentos/*/*/src/bentos/classifier/deployment.json")
    return json.loads(file.read_text())


def chain_client(chain: Chain) -> Any:
    import mlflow

    return mlflow.MlflowClient(tracking_uri=chain.tracking_uri, registry_uri=chain.tracking_uri)


def registered(chain: Chain, number: int) -> Any:
    return chain_client(chain).get_model_version(MODEL, str(number))
