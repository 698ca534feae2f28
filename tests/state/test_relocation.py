"""A home goes on at another path, and leaves the one it came from alone."""

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from support import faults
from support.log_rows import record

from fashion.home import REPOSITORY
from fashion.predictions.log import PredictionLog
from fashion.registry import tracking, versions
from fashion.state import relocation
from fashion.storage import sqlite

from .conftest import METADATA, Original, use

SETTLE = "import sys; from pathlib import Path; from fashion.state import relocation; "
SETTLE += "relocation.settle(Path(sys.argv[1]))"


def addresses(root: Path) -> list[str]:
    """All addresses of artifacts in a home's registry that are not of the unused default experiment."""
    found: list[str] = []
    with sqlite3.connect(root / "mlflow.db") as database:
        for table, column in relocation.COLUMNS:
            found += [str(value) for (value,) in database.execute(f"SELECT {column} FROM {table}") if value]
    return [each for each in found if "mlflow-artifacts" in each]


def goes_on(root: Path, run: str, folder: Path) -> None:
    """Read the model and write a run, in a home that was used elsewhere."""
    home = use(root)
    champion = versions.champion()
    assert champion is not None
    assert versions.fetch(champion, folder).folder is not None
    assert mlflow.artifacts.load_text(f"runs:/{run}/notes/a.txt") == "first"
    new = tracking.start_run(tracking.get_or_create_experiment(home, "fashion"), "second", {})
    tracking.log_files(new, {"b.txt": b"second"})
    assert [path.read_bytes() for path in root.glob("mlflow-artifacts/**/b.txt")] == [b"second"]
    with PredictionLog(home.predictions) as log:
        log.append([record()])
        assert log.count() == 4


@pytest.mark.fault("the home was moved")
def test_a_moved_home_goes_on_and_writes_nothing_where_it_was(original: Original, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "state"
    moved.parent.mkdir()
    original.root.rename(moved)
    goes_on(moved, original.run, tmp_path / "model")
    assert not original.root.exists()
    assert all(each.startswith(moved.as_uri()) for each in addresses(moved))
    assert json.loads((moved / METADATA).read_text())["location"] == f":root:{moved}/metaflow/.metaflow"


@pytest.mark.fault("the home was copied")
def test_a_copy_uses_its_own_files_and_leaves_the_originals_alone(original: Original, tmp_path: Path) -> None:
    copied = shutil.copytree(original.root, tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in original.root.rglob("*")}
    for path in original.root.glob("mlflow-artifacts/**/model.onnx"):
        path.write_bytes(b"of the original")
        before[path] = path.stat().st_mtime_ns
    goes_on(copied, original.run, tmp_path / "model")
    assert {path: path.stat().st_mtime_ns for path in original.root.rglob("*")} == before


@pytest.mark.fault("a home of an older version was moved")
def test_a_moved_home_of_a_version_without_a_record_is_recognised(original: Original, tmp_path: Path) -> None:
    (original.root / "home.json").unlink()
    moved = original.root.rename(tmp_path / "moved")
    goes_on(moved, original.run, tmp_path / "model")
    assert not original.root.exists()
    assert json.loads((moved / "home.json").read_text())["format"] == 1


def test_artifacts_that_were_elsewhere_stay_there(original: Original, tmp_path: Path) -> None:
    bucket = "gs://team/mlflow-artifacts/fashion"
    with sqlite3.connect(original.root / "mlflow.db") as database:
        database.execute("UPDATE experiments SET artifact_location = ? WHERE name = 'fashion'", (bucket,))
    beside = f"file://{original.root}-2/mlflow-artifacts/x"  # begins with the same characters
    with sqlite3.connect(original.root / "mlflow.db") as database:
        database.execute("UPDATE runs SET artifact_uri = ?", (beside,))
    moved = original.root.rename(tmp_path / "moved")
    relocation.settle(moved)
    assert {bucket, beside} <= set(addresses(moved))


@pytest.mark.fault("killed while a moved home is adapted")
@pytest.mark.parametrize(
    "function", ["fashion.state.relocation:move_metadata", "fashion.state.record:write"], ids=["half", "unrecorded"]
)
def test_adapting_a_moved_home_that_was_killed_is_done_again(function: str, original: Original, tmp_path: Path) -> None:
    moved = original.root.rename(tmp_path / "moved")
    command = [sys.executable, "-c", SETTLE, str(moved)]
    fault = faults.at(function, tmp_path)
    killed = subprocess.run(command, env={**fault, "PYTHONPATH": f"{REPOSITORY}:{fault['PYTHONPATH']}"}, check=False)
    assert killed.returncode == -9
    assert (tmp_path / "done").exists()
    relocation.settle(moved)
    assert all(each.startswith(moved.as_uri()) for each in addresses(moved))
    assert str(moved) in (moved / METADATA).read_text()


@pytest.mark.fault("a path with characters that mean something in an address")
@pytest.mark.parametrize("name", ["a?b", "100%20x", "a#b", "two words", 'it\'s "it"', "größe 山", "a;b&c=d+e"])
def test_a_home_at_an_odd_path_holds_all_of_its_state(name: str, original: Original, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    root = original.root.rename(tmp_path / "odd" / name)
    goes_on(root, original.run, tmp_path / "model")
    home = use(root)
    assert sqlite.path_of(home.tracking_uri) == root / "mlflow.db"
    assert [path.name for path in (tmp_path / "odd").iterdir()] == [name]
    assert (root / "mlflow.db").stat().st_size > 0


@pytest.mark.parametrize("name", ["../outside", "#1", "a/b", "..", "50%", "größe"])
def test_artifacts_of_an_experiment_stay_in_the_home_whatever_its_name(name: str, original: Original) -> None:
    home = use(original.root)
    run = tracking.start_run(tracking.get_or_create_experiment(home, name), "r", {})
    tracking.log_files(run, {"c.txt": b"here"})
    (path,) = original.root.parent.glob("**/c.txt")
    assert path.is_relative_to(original.root / "mlflow-artifacts")
    assert mlflow.artifacts.load_text(f"runs:/{run}/c.txt") == "here"


@pytest.mark.fault("a home of a newer version")
def test_a_home_of_a_newer_version_says_what_to_do(original: Original, capsys: pytest.CaptureFixture[str]) -> None:
    from fashion.commands.main import main

    content = json.loads((original.root / "home.json").read_text())
    (original.root / "home.json").write_text(json.dumps(content | {"format": 99}))
    assert main(["log", "status"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {original.root} was written by a newer version of this program (format 99")
    assert "install that version" in shown


@pytest.mark.fault("FASHION_HOME names a file")
@pytest.mark.parametrize("command", [["-m", "fashion", "log", "status"], ["flows/train_flow.py", "show"]])
def test_a_home_that_is_a_file_is_one_sentence(command: list[str], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    done = subprocess.run(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env={"FASHION_HOME": str(path), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == f"error: FASHION_HOME={path} is a file: name a folder, which is made where it is missing\n"
    assert path.read_text() == "mine"
