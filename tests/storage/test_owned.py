"""Folders of processes that are killed: found and removed by the next process, and never under a running one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fashion.home import REPOSITORY
from fashion.storage import owned

OWNER = """
import sys, tempfile
from pathlib import Path
from fashion.storage import owned
with owned.claim(Path(sys.argv[1])) as folder, owned.temporary_folder():
    (folder / "work").touch()
    print(folder, tempfile.mkdtemp(), flush=True)
    sys.stdin.read()
"""


@pytest.mark.fault("kill -9 of a process with temporary files")
def test_what_a_killed_process_left_is_removed_by_the_next_one_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    command = [sys.executable, "-c", OWNER, str(tmp_path / "owned")]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        folder, temporary = map(Path, process.stdout.readline().split())
        owned.clear_abandoned(tmp_path / "owned")
        owned.clear_temporary()
        assert (folder / "work").exists()
        assert temporary.is_relative_to(tmp_path / "tmp")
        assert temporary.exists()
        process.kill()
    seen: list[bool] = []
    owned.clear_abandoned(tmp_path / "owned", first=lambda each: seen.append((each / "work").exists()))
    owned.clear_temporary()
    assert seen == [True]
    assert not list((tmp_path / "owned").iterdir())
    assert not temporary.parent.exists()


def test_a_folder_whose_work_cannot_be_done_now_stays(tmp_path: Path) -> None:
    def fail(_: Path) -> None:
        raise OSError("away")

    with owned.claim(tmp_path) as folder:
        (folder / "left").touch()
    with pytest.raises(OSError, match="away"):
        owned.clear_abandoned(tmp_path, first=fail)
    assert folder.exists()
    owned.clear_abandoned(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_gone_after_its_block(tmp_path: Path) -> None:
    with owned.claim(tmp_path) as folder:
        assert folder.is_dir()
    assert not list(tmp_path.iterdir())
