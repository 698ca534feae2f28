"""`fashion cluster`: what it says of addresses, and how wrong arguments are rejected. No cluster is reached."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.keys import key_pair

from fashion.commands import cluster_manifests, cluster_needs
from fashion.commands.cluster_needs import find_needs, why_unreachable
from fashion.commands.main import main

GOOD = {
    "MLFLOW_TRACKING_URI": "https://mlflow.example",
    "FASHION_STUDIES": "postgresql+psycopg://fashion:secret@db.example/studies",
    "FASHION_CHECKPOINTS": "gs://team/checkpoints",
    "FASHION_REPORTS": "s3://team/reports",
    "FASHION_IMAGES": "az://team/images",
    "FASHION_BENTOS": "gs://team/bentos",
    "FASHION_LOG": "firestore://team",
    "FASHION_DATA_BUCKET": "gs://team/data",
    "FASHION_TRAIN_IMAGE": "registry.example/fashion-train:1",
    "FASHION_FLOWS_IMAGE": "registry.example/fashion-flows:1",
}
SETTINGS = {
    "METAFLOW_DEFAULT_DATASTORE": "gs",
    "METAFLOW_DATASTORE_SYSROOT_GS": "gs://team/metaflow",
    "METAFLOW_SERVICE_URL": "http://metadata:8080",
    "METAFLOW_KUBERNETES_NAMESPACE": "ml",
    "METAFLOW_KUBERNETES_SECRETS": "",
    "METAFLOW_KUBERNETES_SERVICE_ACCOUNT": "",
    "METAFLOW_ARGO_EVENTS_WEBHOOK_URL": "http://argo-events:12000/metaflow-event",
    "METAFLOW_ARGO_EVENTS_EVENT": "metaflow-event",
    "METAFLOW_ARGO_EVENTS_EVENT_SOURCE": "argo-events-webhook",
    "METAFLOW_ARGO_EVENTS_SERVICE_ACCOUNT": "operate-workflow",
}


def needs(branch: str | None = None, settings: dict[str, str] | None = None, **changed: str) -> cluster_needs.Needs:
    environment = {name: value for name, value in (GOOD | changed).items() if value}
    return find_needs(environment, SETTINGS | (settings or {}), branch=branch, flows=cluster_manifests.FLOWS)


def test_addresses_of_servers_and_buckets_are_all_that_is_needed() -> None:
    found = needs()
    assert (found.problems, found.remarks) == ((), ())
    assert (found.namespace, found.secret, found.service_account) == ("ml", "fashion", "fashion")
    assert set(found.secret_keys) == {name for name in GOOD if not name.endswith("_IMAGE")}
    assert found.images == {"train": GOOD["FASHION_TRAIN_IMAGE"]} | dict.fromkeys(
        ("deploy", "drift", "predict"), GOOD["FASHION_FLOWS_IMAGE"]
    )


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        (
            "MLFLOW_TRACKING_URI",
            "",
            "MLFLOW_TRACKING_URI is not set: it must be the http(s) address of an MLflow server",
        ),
        ("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db", "MLFLOW_TRACKING_URI=sqlite:///mlflow.db is on the disk of one"),
        ("MLFLOW_TRACKING_URI", "http://localhost:5000", "MLFLOW_TRACKING_URI=http://localhost:5000 names the machine"),
        (
            "FASHION_STUDIES",
            "postgresql://me:secret@127.0.0.1/s",
            "FASHION_STUDIES=postgresql://me:***@127.0.0.1/s names",
        ),
        (
            "FASHION_CHECKPOINTS",
            "/data/checkpoints",
            "FASHION_CHECKPOINTS=/data/checkpoints is on the disk of one machine",
        ),
        ("FASHION_REPORTS", "file:///data", "FASHION_REPORTS=file:///data is on the disk of one machine"),
        ("FASHION_BENTOS", "", "FASHION_BENTOS is not set: it must be the bucket for bentos"),
        ("FASHION_LOG", "", "FASHION_LOG is not set: it must be the log that services share"),
        (
            "FASHION_LOG",
            "postgresql://me:secret@localhost/log",
            "FASHION_LOG=postgresql://me:***@localhost/log names the",
        ),
        ("FASHION_FLOWS_IMAGE", "", "FASHION_FLOWS_IMAGE is not set: it must be the image that configs/deploy/"),
        (
            "STORAGE_EMULATOR_HOST",
            "http://127.0.0.1:1",
            "STORAGE_EMULATOR_HOST is set: pods would write to an emulator",
        ),
    ],
)
def test_an_address_that_only_exists_in_a_pod_is_named(variable: str, value: str, sentence: str) -> None:
    (problem,) = needs(**{variable: value}).problems
    assert problem.startswith(sentence)
    assert "secret" not in problem


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        (
            "METAFLOW_DEFAULT_DATASTORE",
            "local",
            "METAFLOW_DEFAULT_DATASTORE=local is on one machine: it must be one of gs",
        ),
        ("METAFLOW_DATASTORE_SYSROOT_GS", "", "METAFLOW_DATASTORE_SYSROOT_GS is not set"),
        ("METAFLOW_ARGO_EVENTS_EVENT", "", "METAFLOW_ARGO_EVENTS_EVENT is not set: drift starts no training"),
        (
            "METAFLOW_ARGO_EVENTS_WEBHOOK_URL",
            "http://127.0.0.1:1/",
            "METAFLOW_ARGO_EVENTS_WEBHOOK_URL=http://127.0.0.1:1/",
        ),
    ],
)
def test_so_is_a_setting_of_metaflow(setting: str, value: str, sentence: str) -> None:
    (problem,) = needs(settings={setting: value}).problems
    assert problem.startswith(sentence)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("source=/exports", "drift:source=/exports is on the disk of one machine: each pod would have its own"),
        ("source='file:///e'", "drift:source='file:///e' is on the disk of one machine"),
        ("source=local", "drift:source=local reads the log of the pod itself, which is empty: leave it out"),
    ],
)
def test_so_is_an_override(override: str, sentence: str) -> None:
    (problem,) = cluster_needs.override_problems({"drift": ["window=7d", override]})
    assert problem.startswith(sentence)
    assert list(cluster_needs.override_problems({"drift": ["source=gs://b/x", "source=shared"]})) == []


def test_firestore_may_be_named_in_the_older_way() -> None:
    found = needs(FASHION_LOG="", FASHION_FIRESTORE="team")
    assert found.problems == ()
    assert "FASHION_FIRESTORE" in found.secret_keys


@pytest.mark.parametrize(
    "address", ["gs://b/x", "s3://b", "az://c/x", "firestore://p/d", "https://m.example", "http://db"]
)
def test_servers_and_buckets_are_shared(address: str) -> None:
    assert why_unreachable(address) is None


def test_a_branch_has_a_secret_of_its_own_unless_metaflows_settings_name_one() -> None:
    assert needs("ada_2").secret == "fashion-ada-2"
    assert needs("ada", settings={"METAFLOW_KUBERNETES_SECRETS": "team"}).secret == "team"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("cluster check --production --branch ada", "give --production or --branch ada, not both"),
        ("cluster check --branch Ada-2", "--branch must be lower-case letters, digits and underscores, got Ada-2"),
    ],
)
def test_wrong_arguments_are_one_sentence(line: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 1
    assert capsys.readouterr().err == f"error: {sentence}\n"


@pytest.mark.slow
class TestCommand:
    def call(self, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("METAFLOW", "FASHION", "MLFLOW"))
        }
        return subprocess.run(
            [sys.executable, "-m", "fashion", "cluster", *arguments],
            env={**kept, "FASHION_HOME": str(folder / "var"), "METAFLOW_HOME": str(folder), **environment},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def test_check_lists_what_is_needed_and_reads_metaflows_file(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps({name: value for name, value in SETTINGS.items() if value}))
        done = self.call(tmp_path, "check", "--production", **GOOD)
        assert (done.returncode, done.stderr) == (0, "")
        assert "Namespace ml of a cluster" in done.stdout
        assert "secret           fashion: MLFLOW_TRACKING_URI, FASHION_STUDIES, " in done.stdout
        assert "event metaflow-event of source argo-events-webhook" in done.stdout
        assert "db.example" not in done.stdout

    def test_manifests_are_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        done = self.call(
            tmp_path, "manifests", "--folder", str(tmp_path / "m"), **(GOOD | {"FASHION_REPORTS": "/data"})
        )
        assert done.returncode == 1
        (error,) = done.stderr.splitlines()
        assert error.startswith("error: FASHION_REPORTS=/data is on the disk of one machine")
        assert not (tmp_path / "m").exists()

    @pytest.mark.parametrize("word", ["training.num_epochs=3", "fly:a=1", "train:a"])
    def test_an_override_names_its_flow(self, word: str, tmp_path: Path) -> None:
        done = self.call(tmp_path, "manifests", "--unchecked", word, **GOOD)
        assert done.returncode == 1
        expected = f"error: {word}: write flow:key=value, where flow is one of train, deploy, drift, predict\n"
        assert done.stderr == expected

    def test_a_wrong_override_is_one_sentence(self, tmp_path: Path) -> None:
        done = self.call(tmp_path, "manifests", "--unchecked", "train:training.epochs=3", **GOOD)
        assert done.returncode == 1
        (error,) = done.stderr.splitlines()
        assert "training.epochs=3: there is no key 'epochs'" in error

    def test_the_secret_is_printed_with_its_values(self, tmp_path: Path) -> None:
        done = self.call(tmp_path, "secret", "--branch", "ada", **GOOD)
        found = yaml.safe_load(done.stdout)
        assert found["metadata"]["name"] == "fashion-ada"
        assert found["stringData"]["FASHION_STUDIES"] == GOOD["FASHION_STUDIES"]
        assert not list(tmp_path.glob("var/argo/*"))

    def test_the_secret_holds_the_keys_that_files_of_this_machine_hold(self, tmp_path: Path) -> None:
        signing, trusted = key_pair(tmp_path, "keys")
        keys = {"FASHION_SIGNING_KEY": str(signing), "FASHION_TRUSTED_KEYS": trusted.read_text()}
        found = yaml.safe_load(self.call(tmp_path, "secret", **GOOD, **keys).stdout)["stringData"]
        assert found["FASHION_SIGNING_KEY"] == signing.read_text()
        assert found["FASHION_TRUSTED_KEYS"] == trusted.read_text()
        signing.unlink()
        done = self.call(tmp_path, "secret", **GOOD, **keys)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: FASHION_SIGNING_KEY={signing} cannot be read (No such file or")
