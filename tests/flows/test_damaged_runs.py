"""`resume` goes on from the latest run, and says in one sentence that what Metaflow stored of it is damaged."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fashion.home import REPOSITORY

FLOW = """
import os
import sys
from fashion.home import prepare_environment
prepare_environment()
sys.path.insert(0, {flows!r})
from metaflow import FlowSpec, Parameter, step
from runtime import launch

class SmallFlow(FlowSpec):
    count = Parameter("count", default=10)

    @step
    def start(self):
        self.numbers = list(range(self.count))
        self.next(self.end)

    @step
    def end(self):
        print(f"sum {{sum(self.numbers)}}")
        if os.environ.get("FAILS"):
            os._exit(3)

if __name__ == "__main__":
    launch.run_plain(SmallFlow)
"""


def call(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The flow, as from a shell that knows no other home."""
    addresses = ("METAFLOW_", "MLFLOW_", "FASHION_", "BENTOML_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(addresses)}
    return subprocess.run(
        [sys.executable, str(home.parent / "small_flow.py"), *arguments],
        cwd=home.parent,
        env={**kept, "FASHION_HOME": str(home), "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the last step of a run failed."""
    home = tmp_path_factory.mktemp("failed") / "var"
    home.mkdir()
    (home.parent / "small_flow.py").write_text(FLOW.format(flows=str(REPOSITORY / "flows")))
    done = call(home, "run", "--count", "1000", FAILS="yes")
    assert done.returncode == 1, done.stderr
    assert "sum 499500" in done.stdout
    return home


@pytest.fixture
def home(failed: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copy(failed.parent / "small_flow.py", tmp_path)
    shutil.copytree(failed, tmp_path / "var", symlinks=True)
    return tmp_path / "var"


def flow_folder(home: Path) -> Path:
    return home / "metaflow" / ".metaflow" / "SmallFlow"


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a flow that ends with an error, after Metaflow's banner."""
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    (said,) = [line for line in (done.stdout + done.stderr).splitlines() if "error: " in line]
    return said


@pytest.mark.fault("a resumed run fails again")
def test_resume_goes_on_from_a_run_that_was_itself_resumed(home: Path) -> None:
    latest = flow_folder(home) / "latest_run"
    first = latest.read_text()
    done = call(home, "resume", FAILS="yes")
    assert (done.returncode, f"Cloning SmallFlow/{first}" in done.stdout) == (1, True), done.stdout
    second = latest.read_text()
    done = call(home, "resume")
    assert (done.returncode, f"Cloning SmallFlow/{second}" in done.stdout) == (0, True), done.stdout
    assert latest.read_text() != second != first


@pytest.mark.fault("Metaflow's file that names the latest run is damaged or empty")
@pytest.mark.parametrize("content", [b"", b"\x00\x00\xff\xfe", b"no such run", b"../../x"])
def test_resume_asks_for_the_run_where_the_latest_is_unknown(content: bytes, home: Path) -> None:
    latest = flow_folder(home) / "latest_run"
    run_id = latest.read_text()
    latest.write_bytes(content)
    said = sentence(call(home, "resume"))
    assert said == (
        f"error: {latest} names no run: name it by `resume --origin-run-id RUN`; the newest here is {run_id}"
    )
    done = call(home, "resume", "--origin-run-id", run_id)
    assert done.returncode == 0, done.stderr
    assert "sum 499500" in done.stdout


@pytest.mark.fault("what a task of Metaflow stored is cut off")
@pytest.mark.parametrize("pattern", ["*/start/*/*.data.json", "data/*/*"])
@pytest.mark.parametrize("cut", [lambda content: b"", lambda content: content[: len(content) // 2]], ids=["0", "half"])
def test_resume_says_that_a_run_is_damaged(pattern: str, cut: Callable[[bytes], bytes], home: Path) -> None:
    found, latest = list(flow_folder(home).glob(pattern)), (flow_folder(home) / "latest_run").read_text()
    assert found
    for path in found:
        path.write_bytes(cut(path.read_bytes()))
    said = sentence(call(home, "resume"))
    assert "error: what an earlier task stored cannot be read (" in said
    assert said.endswith("): start a new run in place of this one")
    assert (flow_folder(home) / "latest_run").read_text() == latest
