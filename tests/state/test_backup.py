"""A backup is whole or not there; a restore verifies before it replaces; a restored home goes on."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
from support import faults
from support.log_rows import record

from fashion.commands.main import main
from fashion.home import REPOSITORY
from fashion.predictions.log import PredictionLog
from fashion.state import backup
from fashion.state.record import StateError

from .conftest import Original
from .test_relocation import goes_on


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A home with a log and a few files."""
    root = tmp_path / "small"
    root.mkdir()
    with PredictionLog(root / "predictions.db") as log:
        log.append([record()])
    (root / "images").mkdir()
    (root / "images" / "a.png").write_bytes(bytes(range(256)))
    (root / "train.lock").write_text("process 1")
    (root / "metaflow").mkdir()
    (root / "metaflow" / "0.DONE.lock").touch()  # a task that has succeeded
    return root


def files(root: Path) -> dict[str, bytes]:
    """What a home holds beside its databases."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".db" and (path.suffix != ".lock" or path.parent != root)
    }


def run_command(*arguments: str, home: Path, **fault: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(REPOSITORY), fault.pop("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "fashion", "home", *arguments],
        env={"FASHION_HOME": str(home), "PYTHONPATH": path, **fault},
        capture_output=True,
        text=True,
    )


@pytest.mark.fault("the machine was lost")
def test_a_backup_restored_at_another_path_goes_on(
    original: Original, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, restored = tmp_path / "backups" / "b.tar.gz", tmp_path / "other" / "var"
    before = files(original.root)
    assert main(["home", "backup", str(file)]) == 0
    shutil.rmtree(original.root)
    os.environ["FASHION_HOME"] = str(restored)
    os.environ.pop("MLFLOW_TRACKING_URI")
    assert main(["home", "verify", str(file)]) == 0
    assert not restored.exists()
    assert main(["home", "restore", str(file)]) == 0
    assert set(files(restored)) == set(before)
    goes_on(restored, original.run, tmp_path / "model")
    assert main(["registry", "list"]) == 0
    assert main(["log", "status"]) == 0
    shown = capsys.readouterr().out
    assert "version 1  champion" in shown
    assert "4 predictions" in shown  # three were backed up, and `goes_on` added one
    assert not original.root.exists()


@pytest.mark.fault("predictions are logged during a backup")
def test_a_backup_of_a_log_that_is_written_to_is_of_one_moment(small: Path, tmp_path: Path) -> None:
    written, ending = [1], threading.Event()

    def write() -> None:
        with PredictionLog(small / "predictions.db") as log:
            while not ending.is_set():
                log.append([record() for _ in range(5)])
                written[0] += 5

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while written[0] < 50:
            pass
        before = written[0]
        backup.back_up(small, tmp_path / "b.tar.gz")
        after = written[0] + 5
    finally:
        ending.set()
        writer.join()
    backup.restore(tmp_path / "b.tar.gz", tmp_path / "restored")
    with PredictionLog(tmp_path / "restored" / "predictions.db") as log:
        assert before <= log.count() <= after
        assert log.count() % 5 == 1  # whole transactions


@pytest.mark.fault("a damaged backup")
@pytest.mark.parametrize("damage", ["cut", "changed", "foreign", "missing", "added", "escaping"])
def test_a_backup_that_is_not_intact_changes_nothing(damage: str, small: Path, tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    backup.back_up(small, file)
    content = file.read_bytes()
    match damage:
        case "cut":
            file.write_bytes(content[: len(content) * 2 // 3])
        case "foreign":
            file.write_bytes(b"no archive")
        case "missing":
            file.unlink()
        case _:
            rewrite(file, damage)
    before = files(small)
    with pytest.raises(StateError, match="is no intact backup|there is no backup") as raised:
        backup.restore(file, small, force=True)
    assert str(file) in str(raised.value)
    assert files(small) == before
    assert [path.name for path in tmp_path.iterdir() if path != file] == ["small"]
    assert list(tmp_path.glob("*escaped*")) == []


def rewrite(file: Path, damage: str) -> None:
    """Write the archive anew, with one file that is not what its checksum says, or that does not belong in it."""
    with tarfile.open(file) as archive:
        entries = [(entry, archive.extractfile(entry).read()) for entry in archive]  # type: ignore[union-attr]
    with tarfile.open(file, "w:gz") as archive:
        for entry, content in entries:
            changed = content[::-1] if damage == "changed" and entry.name.endswith("a.png") else content
            if damage in ("added", "escaping") and entry.name == backup.MANIFEST:
                extra = tarfile.TarInfo(f"home/{'../escaped' if damage == 'escaping' else 'extra'}")
                archive.addfile(extra, io.BytesIO())
            archive.addfile(entry, io.BytesIO(changed))


def test_a_home_that_is_not_empty_is_replaced_by_force_only_and_kept_aside(small: Path, tmp_path: Path) -> None:
    backup.back_up(small, tmp_path / "b.tar.gz")
    (small / "later.txt").write_text("mine")
    with pytest.raises(StateError, match=r"is not empty: name another folder in FASHION_HOME, or give --force"):
        backup.restore(tmp_path / "b.tar.gz", small)
    _, aside = backup.restore(tmp_path / "b.tar.gz", small, force=True)
    assert not (small / "later.txt").exists()
    assert aside is not None
    assert (aside / "later.txt").read_text() == "mine"
    assert not (small / "train.lock").exists()


@pytest.mark.fault("killed during a restore")
def test_a_restore_that_was_killed_leaves_the_home_as_it_was(small: Path, tmp_path: Path) -> None:
    backup.back_up(small, tmp_path / "b.tar.gz")
    before = files(small)
    fault = faults.at("fashion.state.backup:_put_aside", tmp_path)
    assert run_command("restore", str(tmp_path / "b.tar.gz"), "--force", home=small, **fault).returncode == -9
    assert files(small) == before
    again = run_command("restore", str(tmp_path / "b.tar.gz"), "--force", home=small)
    assert again.returncode == 0, again.stderr
    assert list(tmp_path.glob(".*.part")) == []  # what the killed one left


@pytest.mark.fault("the disk is full during a backup")
def test_a_backup_on_a_full_disk_is_one_sentence_and_leaves_the_last_one(small: Path, tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    file.write_bytes(b"the last one")
    fault = faults.at("fashion.state.backup:_add", tmp_path, action="full", call=2)
    done = run_command("backup", str(file), home=small, **fault)
    assert (done.returncode, done.stderr) == (1, f"error: {file} was not written: No space left on device\n")
    assert file.read_bytes() == b"the last one"
    assert {path.name for path in tmp_path.iterdir()} == {"b.tar.gz", "done", "small"}


@pytest.mark.fault("a damaged log during a backup")
def test_a_damaged_database_is_named_and_no_backup_is_written(original: Original, tmp_path: Path) -> None:
    path = original.root / "mlflow.db"
    content = bytearray(path.read_bytes())
    content[8192:300_000] = bytes(len(content[8192:300_000]))
    path.write_bytes(content)
    with pytest.raises(StateError, match=rf"no backup was written: {path} cannot be copied"):
        backup.back_up(original.root, tmp_path / "b.tar.gz")
    assert not (tmp_path / "b.tar.gz").exists()


def test_a_mounted_home_is_filled_and_its_files_are_kept_aside(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup.back_up(small, tmp_path / "b.tar.gz")
    (small / "later.txt").write_text("mine")
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == small)  # no test may mount
    inode = small.stat().st_ino
    _, aside = backup.restore(tmp_path / "b.tar.gz", small, force=True)
    assert small.stat().st_ino == inode
    assert aside is not None
    assert aside.parent == small
    assert (aside / "later.txt").read_text() == "mine"
    restored = {name for name in files(small) if not name.startswith(aside.name)}
    assert restored == {"home.json", "images/a.png", "metaflow/0.DONE.lock"}
    made = backup.back_up(small, tmp_path / "again.tar.gz")
    assert set(made.files) == {"home.json", "images/a.png", "metaflow/0.DONE.lock", "predictions.db"}


def test_a_backup_of_a_newer_version_says_what_to_do(small: Path, tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    backup.back_up(small, file)
    with tarfile.open(file) as archive:
        entries = [(entry, archive.extractfile(entry).read()) for entry in archive]  # type: ignore[union-attr]
    with tarfile.open(file, "w:gz") as archive:
        for entry, content in entries:
            if entry.name == backup.MANIFEST:
                manifest = json.loads(content)
                manifest["home"]["format"] = 99
                content = json.dumps(manifest).encode()
                entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    with pytest.raises(StateError, match=r"is of a newer version of this program \(format 99.*install that version"):
        backup.restore(file, tmp_path / "restored")


@pytest.mark.parametrize(
    ("name", "sentence"), [("b.zip", "end it in .tar.gz"), ("b.tar.gz", "holds nothing to back up")]
)
def test_what_cannot_be_backed_up_is_one_sentence(name: str, sentence: str, small: Path, tmp_path: Path) -> None:
    root = small if name == "b.zip" else tmp_path / "none"
    with pytest.raises(StateError, match=sentence):
        backup.back_up(root, tmp_path / name)
    assert not (tmp_path / name).exists()
    assert not (tmp_path / "none").exists()
