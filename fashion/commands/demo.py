"""The whole story on one machine, with real parts: drift is seen, told, learnt from, and the gate decides.

fashion demo            # about 15 minutes on two cores
fashion demo --short    # a small model on little data: shows that every part works, in a few minutes
"""

import argparse
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion.home import REPOSITORY, current_home, prepare_environment

NOISE = re.compile(
    r"Task (is starting|finished)|[Pp]ylint|Metaflow 2|Workflow starting|Done!|mlflow\.system_metrics|images/s"
    r"|Validating|graph looks|tasks? (is|are) running|No tasks are waiting|steps? ha(s|ve) not started|^\s*$"
)
"""What Metaflow and MLflow say of themselves."""
PREFIX = re.compile(r"^(\d{4}-\d\d-\d\d \S+ )?(\[\d+/(?P<step>\w+)/\d+ \(pid \d+\)\] )?")
DEPLOY = ["serve.log.images=true", "serve.gallery=10"]


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    train: tuple[str, ...]
    """Words of both trainings."""
    live: int
    """Test rows that play the users."""
    clean: int
    shifted: int
    labelled: int
    shift: tuple[str, float]


FULL = Size(
    train=("tuning=off", "data.limit=20000", "training.num_epochs=4", "gate.margin=0.02"),
    live=4000,
    clean=600,
    shifted=1000,
    labelled=2000,
    shift=("brightness", 0.4),
)
SHORT = Size(
    train=(
        *("tuning=off", "data.limit=3000", "training.num_epochs=4"),
        *("gate.margin=0.05", "gate.max_class_drop=0.3", "gate.min_feedback_rows=50"),
    ),
    live=1600,
    clean=300,
    shifted=300,
    labelled=900,
    shift=("brightness", 0.4),
)


class StoryFailed(RuntimeError):
    """Something did not come out as the story has it. The message says what, and where to look."""


class Machine:
    """A home of its own, and the commands that a person would type there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "demo.log"
        self.started = time.monotonic()
        self.environment = {**os.environ, "FASHION_HOME": str(root), "BENTOML_HOME": str(root / "bentoml")}
        # What a person's shell says of other places is not meant here.
        for name in [name for name in self.environment if name.startswith(("MLFLOW_", "METAFLOW_", "HYDRA_"))]:
            del self.environment[name]

    def say(self, text: str) -> None:
        """A heading, with the time that has passed."""
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        print(f"\n[{minutes:02d}:{seconds:02d}] {text}", flush=True)

    def flow(self, name: str, *words: str) -> None:
        """Run a flow, showing what it says of its own.

        Raises:
            StoryFailed: it ended with an error.
        """
        command = [sys.executable, str(REPOSITORY / "flows" / f"{name}.py"), "run", *words]
        print(f"  $ python flows/{name}.py run {' '.join(words)}", flush=True)
        with self.log.open("a") as log:
            process = subprocess.Popen(
                command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                match = PREFIX.match(line)
                if match and match["step"] and not NOISE.search(line):
                    self._show(line[match.end() :].rstrip())
        if process.wait() != 0:
            raise StoryFailed(f"{name} ended with an error: see {self.log}")

    def _show(self, line: str) -> None:
        line = PREFIX.sub("", line, count=1)  # of a flow within a flow
        if line and not NOISE.search(line):
            print(f"    {line[:400]}", flush=True)

    @contextlib.contextmanager
    def service(self) -> Iterator[str]:
        """The latest bento, served; a newer one takes its place. Gives its address.

        Raises:
            StoryFailed: it did not become ready.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        with (self.root / "service.log").open("a") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "fashion", "serve", "--follow", "--port", str(port)],
                env=self.environment,
                cwd=REPOSITORY,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait(process, url)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def wait_for(self, url: str, version: str) -> None:
        """Wait until a version answers.

        Raises:
            StoryFailed: it does not.
        """
        until = time.monotonic() + 90
        while time.monotonic() < until:
            with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(f"{url}/model", timeout=2) as answer:
                if json.load(answer)["version"] == version:
                    return
            time.sleep(0.2)
        raise StoryFailed(f"version {version} does not serve: see {self.root / 'service.log'}")

    def _wait(self, process: "subprocess.Popen[bytes]", url: str) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=2):
                return
            time.sleep(0.1)
        raise StoryFailed(f"the service did not become ready: see {self.root / 'service.log'}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Tell the story; returns the exit code."""
    parser = argparse.ArgumentParser(prog="fashion demo", description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="a small model on little data, in a few minutes")
    parser.add_argument("--home", type=Path, help="where its state goes; anything there is removed first")
    options = parser.parse_args(arguments)
    own = current_home()
    root = (options.home or own.root / "demo").resolve()
    if root.exists() and any(root.iterdir()) and not (root / "demo.log").exists():
        print(f"error: {root} holds something that is no demo: choose another --home", file=sys.stderr)
        return 1
    if root.exists():
        shutil.rmtree(root)
    root.mkdir(parents=True)
    own.data.mkdir(parents=True, exist_ok=True)
    (root / "data").symlink_to(own.data)
    machine = Machine(root)
    machine.log.touch()
    os.environ["FASHION_HOME"] = str(root)  # what this process reads is the demo's too
    for name in ("MLFLOW_TRACKING_URI", "BENTOML_HOME", "HYDRA_ARGS"):
        os.environ.pop(name, None)
    try:
        told(machine, SHORT if options.short else FULL)
    except StoryFailed as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    return 0


def told(machine: Machine, size: Size) -> None:
    """The story, from the first model to the way back.

    Raises:
        StoryFailed: see there.
    """
    from fashion.commands import traffic
    from fashion.config.compose import compose
    from fashion.config.train import load_train_config
    from fashion.drift import reports
    from fashion.storage.address import open_store

    words = [*size.train, f"data.live_rows={size.live}"]
    machine.say("A first model is trained, and becomes the champion")
    machine.flow("train_flow", *words)
    data = load_train_config(compose([f"data.live_rows={size.live}"])).data
    rows, source = traffic.rows_of(data, size.live, seed=1)
    bounds = [0, size.clean, size.clean + size.shifted, size.clean + size.shifted + size.labelled]
    clean, shifted, labelled = (slice(low, high) for low, high in itertools.pairwise(bounds))
    dark = traffic.corrupted(rows.images, [size.shift])
    how = f"{size.shift[0]}={size.shift[1]:g}"
    results: list[dict[str, Any]] = []

    def send(url: str, images: Any, part: slice, **more: Any) -> traffic.Sent:
        sent = traffic.send(
            images[part], rows.labels[part], url=url, class_names=data.class_names, source=source, **more
        )
        print(f"    {sent}", flush=True)
        return sent

    def look(*more: str, expected: str) -> dict[str, Any]:
        machine.flow("drift_flow", *more)
        result = reports.latest(open_store(current_home().reports), 1)[0]
        results.append(result)
        if result["decision"] != expected:
            raise StoryFailed(f"the drift flow decided {result['decision']}, not {expected}: {result['reason']}")
        return result

    machine.say("A bento of it is built and served")
    machine.flow("deploy_flow", *DEPLOY)
    with machine.service() as url:
        machine.say(f"Users send {size.clean:,} pictures like those it knows")
        before_clean = send(url, rows.images, clean)
        look(f"rows={before_clean.rows}", expected="no_drift")
        machine.say(f"Their lamps change: {size.shifted:,} pictures with {how}")
        before = send(url, dark, shifted)
        look(f"rows={before.rows}", expected="drift")
        machine.say(f"{size.labelled:,} more, and people say what half of them are; a new model is due")
        taught = send(url, dark, labelled, label_share=0.5)
        train = " ".join(words)
        look(
            f"rows={taught.rows}",
            "retrain.enabled=true",
            f'retrain.overrides="{train}"',
            f'retrain.deploy_overrides="{" ".join(DEPLOY)}"',
            expected="drift",
        )
        champion = _champion()
        if champion != "2":
            raise StoryFailed(f"the gate refused the new model, version {champion} stays: see {machine.log}")
        machine.say("The new champion has taken its place, and gets the same pictures as before the training")
        machine.wait_for(url, "2")
        after = send(url, dark, shifted)
        after_clean = send(url, rows.images, clean)
        look(f"rows={after.rows + after_clean.rows}", expected="drift")
        machine.say("One command goes back")
        _roll_back(machine)
        machine.wait_for(url, "1")
        send(url, rows.images, slice(0, 20))
    _end(machine, how, results, before, after, before_clean, after_clean)


def _champion() -> str:
    from fashion.registry import tracking, versions

    tracking.connect(prepare_environment())
    champion = versions.champion()
    return "" if champion is None else str(champion.number)


def _roll_back(machine: Machine) -> None:
    command = [sys.executable, "-m", "fashion", "registry", "rollback", "--reason", "to show that it can be"]
    print("  $ make rollback", flush=True)
    subprocess.run(command, env=machine.environment, cwd=REPOSITORY, check=True)
    machine.flow("deploy_flow", *DEPLOY)


def _end(
    machine: Machine, how: str, results: Sequence[dict[str, Any]], before: Any, after: Any, clean: Any, still: Any
) -> None:
    machine.say("What happened")
    seen = ["usual pictures", how, f"{how}, with feedback", "the new champion"]
    print(f"    {'window':32}{'rows':>7}  {'decision':12}{'severity':10}{'by feedback':>12}")
    for name, result in zip(seen, results, strict=True):
        judged = result["feedback"]["accuracy"] if result["feedback"] else None
        said = "-" if judged is None else f"{judged:.1%}"
        print(f"    {name:32}{result['rows']:>7,}  {result['decision']:12}{result['level']:10}{said:>12}")
    then, now = before.right / before.rows, after.right / after.rows
    print(f"\n    {'right, of the same pictures':36}{'version 1':>11}{'version 2':>11}")
    print(f"    {how:36}{then:>11.1%}{now:>11.1%}   {100 * (now - then):+.1f} points")
    print(f"    {'usual pictures':36}{clean.right / clean.rows:>11.1%}{still.right / still.rows:>11.1%}")
    folder = machine.root / "reports"
    print("\n    reports")
    for result in results:
        print(f"      {(folder / result['id'] / 'report.html').as_uri()}")
    print(f"    see more\n      FASHION_HOME={machine.root} make ui\n      FASHION_HOME={machine.root} make serve")
