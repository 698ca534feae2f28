"""What is wrong with the machine is one sentence with its remedy; errors of the program keep their traceback."""

import errno
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import faults as injected
from support.machine import FLOWS

from fashion.commands.main import main
from fashion.home import REPOSITORY
from fashion.state import faults

from .conftest import Original, use

ROOT = Path("/srv/fashion")
READ_ONLY = ("unshare", "--map-root-user", "--mount", "sh", "-c")
READ_ONLY += ('mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"',)
"""Runs a command that sees a folder as read-only; the machine's own mounts stay as they are. The folder comes first."""
TINY_FLOW = """
import os, signal, sqlite3, sys
sys.path.insert(0, {flows!r})
from fashion.home import prepare_environment
prepare_environment()
from metaflow import FlowSpec, retry, step
from runtime import launch

class TinyFlow(FlowSpec):
    @retry(times=1, minutes_between_retries=0)
    @step
    def start(self):
        exec(os.environ["TEST_STATEMENT"])
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    launch.run_plain(TinyFlow)
"""


def raised(action: Callable[[], object]) -> BaseException:
    """What a function raises."""
    try:
        action()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def garbage(path: Path) -> None:
    path.write_bytes(b"neither is this a database" * 100)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100_000])


def overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8192:400_000] = os.urandom(400_000 - 8192)
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


class TestFind:
    @pytest.mark.parametrize(
        ("error", "sentence"),
        [
            (OSError(errno.ENOSPC, "No space left", "/srv/x"), "the disk of /srv/x is full: free some space"),
            (OSError(errno.EDQUOT, "Quota exceeded"), "the disk of /srv/fashion is full"),
            (OSError(errno.EROFS, "Read-only file system", "/srv/x"), "/srv/x cannot be used (Read-only file system)"),
            (PermissionError(errno.EACCES, "Permission denied", "/srv/x"), "give this user the right to write there"),
            (OSError(errno.EMFILE, "Too many open files"), "raise the limit with `ulimit -n 4096`"),
            (OSError(errno.EIO, "Input/output error", "/srv/x"), "the disk of /srv/x does not work"),
            (MemoryError(), "out of memory: lower training.batch_size"),
            (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), "out of memory"),
            (UnicodeEncodeError("ascii", "größe", 2, 4, "ordinal not in range"), "set LC_ALL=C.UTF-8"),
        ],
        ids=["full", "quota", "read-only", "denied", "files", "io", "memory", "torch", "locale"],
    )
    def test_errors_of_the_machine_have_a_remedy(self, error: Exception, sentence: str) -> None:
        found = faults.find(error, ROOT)
        assert found is not None
        assert sentence in found.sentence
        assert "\n" not in found.sentence

    @pytest.mark.parametrize(
        "error",
        [ValueError("x"), KeyError("x"), FileNotFoundError(2, "No such file", "x"), RuntimeError("shape mismatch")],
    )
    def test_errors_of_the_program_are_none(self, error: Exception) -> None:
        assert faults.find(error, ROOT) is None

    def test_what_torch_raises_without_memory_is_known(self) -> None:
        error = raised(lambda: torch.empty(2**60, dtype=torch.uint8))
        assert faults.is_out_of_memory(error)

    def test_an_error_is_found_behind_those_that_libraries_raise_in_its_place(self) -> None:
        def wrapped() -> None:
            try:
                try:
                    raise OSError(errno.ENOSPC, "No space left on device")
                except OSError:
                    raise KeyError("a library's") from None
            except KeyError as error:
                raise RuntimeError("another library's") from error

        found = faults.find(raised(wrapped), ROOT)
        assert found is not None
        assert "is full" in found.sentence

    def test_a_full_database_is_a_full_disk(self, tmp_path: Path) -> None:
        database = sqlite3.connect(tmp_path / "x.db")
        database.execute("PRAGMA max_page_count = 2")
        error = raised(lambda: database.execute("CREATE TABLE t AS SELECT randomblob(100000)"))
        found = faults.find(error, ROOT)
        assert found is not None
        assert found.sentence.startswith("the disk of /srv/fashion is full")


class TestCommands:
    @pytest.mark.fault("a damaged registry")
    @pytest.mark.parametrize("damage", [garbage, cut, overwritten, empty])
    @pytest.mark.parametrize("words", [["registry", "list"], ["gc"]], ids=["list", "gc"])
    def test_a_damaged_registry_is_one_sentence_and_stays_for_repair(
        self, words: list[str], damage: Callable[[Path], None], original: Original, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = original.root / "mlflow.db"
        damage(path)
        content = path.read_bytes()
        assert main(words) == 1
        (sentence,) = capsys.readouterr().err.splitlines()
        assert sentence.startswith(f"error: {path} is damaged (")
        assert "bring a backup back with `fashion home restore FILE --force`" in sentence
        assert path.read_bytes() == content

    @pytest.mark.fault("another process locks the registry")
    def test_a_locked_registry_is_one_sentence_and_the_next_run_works(
        self, original: Original, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("fashion.storage.sqlite.LOCKED_SECONDS", 0.2)
        path = original.root / "mlflow.db"
        with sqlite3.connect(path, isolation_level=None) as database:
            database.execute("BEGIN EXCLUSIVE")
            assert main(["registry", "list"]) == 1
            database.execute("ROLLBACK")
        (sentence,) = capsys.readouterr().err.splitlines()
        assert sentence == f"error: {path} is locked by another process: end it, or try again later"
        assert main(["registry", "list"]) == 0

    @pytest.mark.fault("the home cannot be written")
    def test_a_home_that_cannot_be_made_is_one_sentence(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "fashion", "registry", "list"],
            env={"FASHION_HOME": "/proc/fashion", "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (1, "")
        (sentence,) = done.stderr.splitlines()
        assert sentence.startswith("error: FASHION_HOME=/proc/fashion cannot be made (")

    @pytest.mark.fault("the home is mounted read-only")
    @pytest.mark.parametrize(
        "words",
        [
            ["-m", "fashion", "registry", "list"],
            ["-m", "fashion", "gc"],
            [str(FLOWS / "train_flow.py"), "run", "data.limit=1000"],
            [str(FLOWS / "drift_flow.py"), "run"],
        ],
        ids=["list", "gc", "train", "drift"],
    )
    def test_a_home_that_is_mounted_read_only_is_one_sentence(self, words: list[str], original: Original) -> None:
        done = subprocess.run(
            [*READ_ONLY, str(original.root), sys.executable, *words],
            env={**os.environ, "FASHION_HOME": str(original.root), "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )
        if "unshare:" in done.stderr or "mount:" in done.stderr:
            pytest.skip(f"this user cannot mount anything: {done.stderr}")
        assert done.returncode == 1
        (sentence,) = done.stderr.splitlines()
        assert re.match(rf"error: {original.root}/\S+ cannot be (used|written) \(Read-only file system\): ", sentence)
        assert "set FASHION_HOME to a" in sentence

    @pytest.mark.fault("the disk is full")
    def test_a_command_on_a_full_disk_is_one_sentence(self, tmp_path: Path) -> None:
        fault = injected.at("fashion.data.fetch:fetch_data", tmp_path, action="full")
        path = os.pathsep.join([str(REPOSITORY), fault["PYTHONPATH"]])
        done = subprocess.run(
            [sys.executable, "-m", "fashion", "data", "fetch"],
            env={**fault, "FASHION_HOME": str(tmp_path / "var"), "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: the disk of {tmp_path / 'var'} is full: free some space")
        assert done.stderr.count("\n") == 1

    @pytest.mark.fault("the port is in use")
    def test_a_port_in_use_is_one_sentence_that_names_who_listens(
        self, original: Original, capsys: pytest.CaptureFixture[str]
    ) -> None:
        use(original.root)
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            assert main(["ui", "--port", str(port)]) == 1
        (sentence,) = capsys.readouterr().err.splitlines()
        assert sentence.startswith(f"error: port {port} of 127.0.0.1 is in use by process {os.getpid()} (")
        assert sentence.endswith(f"end that program, or give --port {port + 1}")


class TestFlows:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("statement", "sentence"),
        [
            pytest.param(
                "raise OSError(28, 'No space left on device')",
                "error: the disk of {home} is full: free some space (`fashion gc` lists what can go), and start again",
                marks=pytest.mark.fault("the disk is full in a task"),
                id="full",
            ),
            pytest.param(
                "os.kill(os.getpid(), signal.SIGKILL)",
                f"The task was killed, probably because memory ran out: {faults.LESS_MEMORY}.",
                marks=pytest.mark.fault("a task is killed, as the system does when memory runs out"),
                id="killed",
            ),
            pytest.param("{}['a bug']", "KeyError: 'a bug'", id="bug"),
        ],
    )
    def test_a_task_ends_with_one_sentence(self, statement: str, sentence: str, tmp_path: Path) -> None:
        flow, home = tmp_path / "tiny_flow.py", tmp_path / "var"
        flow.write_text(TINY_FLOW.format(flows=str(REPOSITORY / "flows")))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("METAFLOW", "FASHION"))}
        done = subprocess.run(
            [sys.executable, str(flow), "run"],
            env={**kept, "FASHION_HOME": str(home), "PYTHONPATH": str(REPOSITORY), "TEST_STATEMENT": statement},
            capture_output=True,
            text=True,
        )
        output = done.stdout + done.stderr
        assert done.returncode == 1
        assert sentence.format(home=home) in output
        is_bug = "bug" in statement
        assert ("Traceback" in output) == is_bug
        if "OSError" in statement:
            assert output.count("error: ") == 1  # a retry would not mend it
            assert "will not be retried" in output


@pytest.mark.fault("resuming a run of another version")
def test_a_run_of_another_version_is_not_resumed_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "flows")
    from runtime import launch  # as flows do, which run as scripts

    from fashion.config.compose import compose
    from fashion.config.schema import ConfigError
    from fashion.config.train import TrainConfig

    older = compose()
    del older["data"]["preparation"]
    with pytest.raises(ConfigError) as error:
        launch.stored_config(TrainConfig, older)
    assert str(error.value).startswith("this run was started by another version of this program (data.preparation: ")
    assert str(error.value).endswith("start a new one in place of resuming it")


@pytest.mark.fault("an ASCII locale")
@pytest.mark.parametrize("switches", [{}, {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}], ids=["C", "ASCII"])
def test_commands_and_flows_work_in_an_ascii_locale(switches: dict[str, str], tmp_path: Path) -> None:
    home = tmp_path / "größe"
    commands = {
        ("-m", "fashion", "data", "status"): (1, f"cache    {home}/data"),
        ("flows/train_flow.py", "show"): (0, "Print the outcome, and on a cluster"),
    }
    for words, (code, said) in commands.items():
        done = subprocess.run(
            [sys.executable, *words],
            cwd=REPOSITORY,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C", "FASHION_HOME": str(home), "PYTHONPATH": ".", **switches},
            capture_output=True,
        )
        assert done.returncode == code, done.stderr.decode()
        assert said.encode() in done.stdout + done.stderr
        assert b"Traceback" not in done.stdout + done.stderr


@pytest.mark.fault("a checkout at a path with spaces and quotes")
def test_make_container_works_at_any_path(tmp_path: Path) -> None:
    checkout = tmp_path / 'my dir\'s "best" $HOME'
    (checkout / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(REPOSITORY / "Makefile", checkout)
    for name in ("requirements.lock", "pyproject.toml"):
        (checkout / name).touch()
    (checkout / ".venv" / ".installed").touch()
    for name in ("python", "bentoml", "fashion"):
        program = checkout / ".venv" / "bin" / name
        said = "roses:latest" if name == "fashion" else "$0 in $BENTOML_HOME: $@"
        program.write_text(f'#!/bin/sh\necho "{said}"\n')
        program.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FASHION", "BENTOML", "MAKE"))}
    done = subprocess.run(["make", "container"], cwd=checkout, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[-1]
    assert said.startswith(f"{checkout}/.venv/bin/bentoml in {checkout}/var/bentoml: containerize roses:latest")
