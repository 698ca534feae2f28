"""What `fashion gc` lists and removes, and what stays whatever its age."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from fashion.commands.main import main
from fashion.config.names import MODEL_NAME
from fashion.home import Home
from fashion.model.package import Package
from fashion.registry import champions, tracking, versions

DAY = 86_400


def write(path: Path, content: str, *, days: float) -> Path:
    """A file that was changed some days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path


def bento(home: Home, name: str, model: str, *, days: float, of: str = "fashion-classifier") -> Path:
    folder = home.bentos / "bentos" / of / name
    write(folder / "src" / "service.py", "x" * 100, days=days)
    write(folder / "bento.yaml", f"services:\n- models:\n  - tag: {of}:{model}\n", days=days)
    write(home.bentos / "models" / of / model / "model.yaml", "name: x", days=days)
    write(folder.parent / "latest", name, days=days)
    return folder


def flow_run(home: Home, name: str, digests: list[str], *, days: float) -> Path:
    flow = home.root / "metaflow" / ".metaflow" / "TrainFlow"
    content = json.dumps({"objects": dict(enumerate(digests))})
    write(flow / name / "start" / "1" / "0.data.json", content, days=days)
    for digest in digests:
        write(flow / "data" / digest[:2] / digest, "artifact", days=days)
    write(flow / "latest_run", name, days=days)
    return flow / name


@pytest.fixture
def champion(mlflow_home: Home, tiny_package: Package) -> Home:
    """A home whose version 2 is the champion, after version 1; version 3 never was."""
    client = MlflowClient()
    experiment = tracking.get_or_create_experiment(mlflow_home, "fashion")
    client.create_registered_model(MODEL_NAME)
    for number in (1, 2, 3):
        run = tracking.start_run(experiment, f"run {number}", {})
        tags = {"metaflow_run_id": f"TrainFlow/{number}"}
        client.create_model_version(MODEL_NAME, str(tiny_package.folder), run_id=run, tags=tags)
        if number < 3:
            champions.promote(versions.get(str(number)), reason="better")
        tracking.finish_run(run, failed=True)  # after the version was made
    return mlflow_home


@pytest.fixture
def listed(capsys: pytest.CaptureFixture[str]) -> Callable[..., set[str]]:
    """Run the command, and return what it lists."""

    def listed(*arguments: str) -> set[str]:
        assert main(["gc", "--json", *arguments]) == 0
        return {f"{each['kind']} {each['name'].rpartition(' ')[2]}" for each in json.loads(capsys.readouterr().out)}

    return listed


def test_what_is_old_is_listed_and_removed_on_request_only(
    champion: Home, listed: Callable[..., set[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    old = write(champion.root / "checkpoints" / "TrainFlow" / "8" / "checkpoint.pt", "c" * 5000, days=31)
    new = write(champion.root / "checkpoints" / "TrainFlow" / "9" / "checkpoint.pt", "c", days=29)
    study = write(champion.root / "optuna" / "old.log", "{}", days=91)
    assert listed() == {"checkpoint TrainFlow/8", "study old.log"}
    assert old.exists()
    assert main(["gc"]) == 0
    shown = capsys.readouterr().out
    assert "5.0 KB" in shown
    assert "31 days  TrainFlow/8" in shown
    assert shown.endswith("2 may go, 5.0 KB: `fashion gc --delete`\n")
    assert main(["gc", "--delete"]) == 0
    assert capsys.readouterr().out.endswith("2 removed, 5.0 KB\n")
    assert not old.exists()
    assert not study.exists()
    assert new.exists()
    assert listed("checkpoints_days=20") == {"checkpoint TrainFlow/9"}
    assert listed("checkpoints_days=0") == {"checkpoint TrainFlow/9"}


def test_nothing_of_the_last_day_goes_whatever_the_ages(champion: Home, listed: Callable[..., set[str]]) -> None:
    write(champion.root / "checkpoints" / "TrainFlow" / "9" / "checkpoint.pt", "c", days=0.5)
    ages = ("checkpoints", "studies", "failed_runs", "bentos", "flow_runs", "damaged")
    run = tracking.start_run(tracking.get_or_create_experiment(champion, "fashion"), "failed just now", {})
    tracking.finish_run(run, failed=True)
    assert listed(*(f"{each}_days=0" for each in ages), "bentos_kept=0") == set()


def test_bentos_of_champions_and_their_models_stay(champion: Home, listed: Callable[..., set[str]]) -> None:
    old_of_champion = bento(champion, "v2-100", "v2-aa", days=90)
    for name, model in (("v1-101", "v1-aa"), ("v3-102", "v3-aa"), ("v2-103", "v2-aa")):
        bento(champion, name, model, days=80)
    write(champion.bentos / "models" / "fashion-classifier" / "v3-bb" / "model.yaml", "", days=80)
    write(champion.bentos / "damaged" / "bentos-x" / "bento.yaml", "", days=40)
    assert listed() == {"model copy fashion-classifier:v3-bb", "damaged bento bentos-x"}  # bentos_kept=5
    expected = {
        "bento fashion-classifier:v2-100",
        "bento fashion-classifier:v3-102",
        "model copy fashion-classifier:v3-aa",
        "model copy fashion-classifier:v3-bb",
        "damaged bento bentos-x",
    }
    assert listed("--delete", "bentos_kept=0") == expected
    assert not old_of_champion.exists()
    left = {path.name for path in (champion.bentos / "bentos" / "fashion-classifier").iterdir() if path.is_dir()}
    assert left == {"v1-101", "v2-103"}
    models = {path.name for path in (champion.bentos / "models" / "fashion-classifier").iterdir() if path.is_dir()}
    assert models == {"v1-aa", "v2-aa"}


@pytest.mark.fault("two registered models have versions of the same number")
def test_bentos_of_the_champion_of_each_model_stay(
    champion: Home, listed: Callable[..., set[str]], tiny_package: Package
) -> None:
    client = MlflowClient()
    client.create_registered_model("My Shoes")
    for _ in range(2):
        run = tracking.start_run(tracking.get_or_create_experiment(champion, "shoes"), "run", {})
        client.create_model_version("My Shoes", str(tiny_package.folder), run_id=run)
    champions.promote(versions.get("1", "My Shoes"), reason="first", name="My Shoes")
    for name, model in (("v1-100", "v1-aa"), ("v2-101", "v2-aa")):
        bento(champion, name, model, days=90)
        bento(champion, name, model, days=80, of="my-shoes")  # newer ones
    assert listed("--delete", "bentos_kept=0") == {"bento my-shoes:v2-101", "model copy my-shoes:v2-aa"}
    left = {f"{path.parent.name}:{path.name}" for path in (champion.bentos / "bentos").glob("*/v*")}
    assert left == {"fashion-classifier:v1-100", "fashion-classifier:v2-101", "my-shoes:v1-100"}


def test_latest_means_a_bento_that_is_there(champion: Home, listed: Callable[..., set[str]]) -> None:
    bento(champion, "v2-103", "v2-aa", days=80)
    bento(champion, "v3-104", "v3-aa", days=90)
    latest = champion.bentos / "bentos" / "fashion-classifier" / "latest"
    assert latest.read_text() == "v3-104"
    listed("--delete", "bentos_kept=0")
    assert latest.read_text() == "v2-103"


def test_a_bento_that_a_process_serves_stays(champion: Home, listed: Callable[..., set[str]]) -> None:
    folder = bento(champion, "v3-102", "v3-aa", days=80)
    command = [sys.executable, "-c", "input()", "serve", "fashion-classifier:v3-102"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as serving:
        assert listed("--delete", "bentos_kept=0") == set()
        serving.communicate(b"\n")
    assert folder.exists()
    assert listed("bentos_kept=0") == {"bento fashion-classifier:v3-102", "model copy fashion-classifier:v3-aa"}


def test_runs_of_versions_and_the_latest_stay_and_shared_artifacts_too(
    champion: Home, listed: Callable[..., set[str]]
) -> None:
    shared, own = "a" * 40, "b" * 40
    for name, digests in (("1", [shared]), ("7", [shared, own]), ("8", [own]), ("9", [])):
        flow_run(champion, name, digests, days=100)
    store = champion.root / "metaflow" / ".metaflow"
    card = write(store / "mf.cards" / "TrainFlow" / "runs" / "7" / "card.html", "card", days=100)
    assert listed("--delete") == {"flow run TrainFlow/7", "flow run TrainFlow/8"}
    assert {path.name for path in (store / "TrainFlow").glob("[0-9]")} == {"1", "9"}
    assert (store / "TrainFlow" / "data" / "aa" / shared).exists()
    assert not (store / "TrainFlow" / "data" / "bb" / own).exists()
    assert not card.exists()


@pytest.mark.fault("Metaflow's file that names the latest run is damaged or empty")
@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"../../mf.cards"])
def test_where_the_latest_run_is_unknown_the_newest_stays(
    content: bytes, champion: Home, listed: Callable[..., set[str]]
) -> None:
    for name in ("7", "10", "9"):
        latest = flow_run(champion, name, [], days=100).with_name("latest_run")
    latest.write_bytes(content)
    assert listed() == {"flow run TrainFlow/7", "flow run TrainFlow/9"}


@pytest.mark.fault("BentoML's file that names the latest bento is damaged or empty")
@pytest.mark.parametrize("content", [b"", b"\xff"])
def test_latest_is_mended_where_it_is_damaged(content: bytes, champion: Home, listed: Callable[..., set[str]]) -> None:
    bento(champion, "v2-103", "v2-aa", days=80)
    latest = bento(champion, "v3-104", "v3-aa", days=90).with_name("latest")
    latest.write_bytes(content)
    listed("--delete", "bentos_kept=0")
    assert latest.read_text() == "v2-103"


def test_while_a_flow_runs_its_runs_and_checkpoints_stay(champion: Home, listed: Callable[..., set[str]]) -> None:
    write(champion.root / "checkpoints" / "TrainFlow" / "8" / "checkpoint.pt", "c", days=100)
    flow_run(champion, "8", ["a" * 40], days=100)
    flow_run(champion, "9", ["a" * 40], days=100)
    command = [sys.executable, "-c", "input()", "train_flow.py", "run"]
    environment = {**os.environ, "FASHION_HOME": str(champion.root)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as flow:
        assert listed() == set()
        flow.communicate(b"\n")
    assert listed() == {"checkpoint TrainFlow/8", "flow run TrainFlow/8"}


def test_failed_runs_go_with_their_artifacts_and_what_a_version_needs_stays(
    champion: Home, listed: Callable[..., set[str]]
) -> None:
    client = MlflowClient()
    experiment = tracking.get_or_create_experiment(champion, "fashion")
    long_ago = int((time.time() - 40 * DAY) * 1000)
    failed = tracking.start_run(experiment, "failed", {})
    trial = tracking.start_run(experiment, "trial", {}, parent=failed)
    finished = tracking.start_run(experiment, "finished", {})
    for run in (failed, trial, finished):
        tracking.log_files(run, {"a.txt": b"a"})
    client.set_terminated(failed, "FAILED", long_ago)
    client.set_terminated(trial, "FINISHED", long_ago)
    client.set_terminated(finished, "FINISHED", long_ago)
    for version in versions.list_versions():  # failed after the version was made, long ago
        client.set_terminated(version.mlflow_run_id, "FAILED", long_ago)
    other = client.create_experiment("deleted in the UI", (champion.root / "mlflow-artifacts").as_uri() + "/other")
    kept = client.create_run(other).info.run_id
    client.delete_experiment(other)
    assert listed("--delete") == {"failed run failed"}
    left = {run.info.run_name for run in client.search_runs([experiment], run_view_type=3)}
    assert left == {"finished", "run 1", "run 2", "run 3"}
    assert len(list(champion.root.glob("mlflow-artifacts/fashion/*"))) == 1
    assert client.get_run(kept).info.lifecycle_stage == "deleted"  # it can still be restored, with its experiment


@pytest.mark.fault("a folder that cannot be removed")
def test_what_cannot_be_removed_is_named_and_the_rest_goes(
    champion: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stuck = write(champion.root / "checkpoints" / "TrainFlow" / "7" / "checkpoint.pt", "c", days=40).parent
    other = write(champion.root / "checkpoints" / "TrainFlow" / "8" / "checkpoint.pt", "c", days=40).parent
    remove = shutil.rmtree

    def refuse(path: Path) -> None:
        if path == stuck:
            raise PermissionError(13, "Permission denied", str(path))
        remove(path)

    monkeypatch.setattr("fashion.cleaning.candidates.shutil.rmtree", refuse)
    assert main(["gc", "--delete"]) == 1
    shown = capsys.readouterr().err
    assert "checkpoint TrainFlow/7: Permission denied" in shown
    assert shown.endswith("error: 1 of 2 could not be removed, the others are\n")
    assert not other.exists()


def test_archives_of_champions_and_the_newest_stay(
    champion: Home, listed: Callable[..., set[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("v2-100", "v2-101", "v1-102", "v3-103")
    for days, name in zip((90, 80, 70, 60), names, strict=True):
        write(tmp_path / "archives" / f"fashion-classifier-{name}.bento", "x", days=days)
    write(tmp_path / "archives" / "notes.txt", "x", days=90)
    monkeypatch.setenv("FASHION_BENTOS", str(tmp_path / "archives"))
    assert listed() == set()  # bentos_kept=5
    expected = {f"bento archive fashion-classifier-{name}.bento" for name in ("v2-100", "v3-103")}
    assert listed("--delete", "bentos_kept=0") == expected
    left = {path.name for path in (tmp_path / "archives").iterdir()}
    assert left == {"fashion-classifier-v2-101.bento", "fashion-classifier-v1-102.bento", "notes.txt"}


@pytest.mark.fault("the bucket of archives is away")
def test_a_store_that_cannot_be_listed_is_one_sentence(
    champion: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASHION_BENTOS", str(write(tmp_path / "file", "", days=0) / "below"))
    assert main(["gc"]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/file/below cannot be used: ")
    monkeypatch.setenv("FASHION_BENTOS", "ftp://archives")
    assert main(["gc"]) == 1
    assert "error: FASHION_BENTOS: 'ftp://archives' is not the address of a store: " in capsys.readouterr().err
