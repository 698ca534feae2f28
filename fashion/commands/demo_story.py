"""The demo, with real parts: train, serve, drift, alert, retrain with feedback, deploy, roll back."""

import contextlib
import itertools
import json
import os
import re
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
"""Lines of Metaflow and MLflow that are not about the work."""

PREFIX = re.compile(r"^(\d{4}-\d\d-\d\d \S+ )?(\[\d+/(?P<step>\w+)/\d+ \(pid \d+\)\] )?")
REVIEWED = 40
DEPLOY_OVERRIDES = ["serve.log.images=true", "serve.gallery=10"]


@dataclass(frozen=True)
class Size:
    """How much data the demo uses."""

    train: tuple[str, ...]
    """Overrides of both trainings."""
    live: int
    """Test rows set aside for simulated users."""
    clean: int
    """Pictures sent as they are."""
    shifted: int
    """Pictures sent under the shift."""
    labelled: int
    """Pictures sent under the shift, half of them with feedback."""
    shift: tuple[str, float]
    """Name and amount of the corruption."""


FULL = Size(
    train=("tuning=off", "data.limit=20000", "training.num_epochs=4", "gate.margin=0.02", "gate.max_shifted_drop=0.1"),
    live=4000,
    clean=600,
    shifted=1000,
    labelled=2000,
    shift=("brightness", 0.4),
)
SHORT = Size(
    train=(
        *("tuning=off", "data.limit=3000", "training.num_epochs=4"),
        *("gate.margin=0.05", "gate.max_class_drop=0.3", "gate.max_shifted_drop=0.2", "gate.min_feedback_rows=50"),
    ),
    live=1600,
    clean=300,
    shifted=300,
    labelled=900,
    shift=("brightness", 0.4),
)


class DemoFailed(RuntimeError):
    """A step did not end as the demo expects. The message says which, and where to look."""


class Sandbox:
    """A home of its own, and the commands that a person would type there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "demo.log"
        self.started = time.monotonic()
        self.environment = {**os.environ, "FASHION_HOME": str(root), "BENTOML_HOME": str(root / "bentoml")}
        # Addresses in the shell are of other places.
        for name in [name for name in self.environment if name.startswith(("MLFLOW_", "METAFLOW_", "HYDRA_"))]:
            del self.environment[name]

    def print_heading(self, text: str) -> None:
        """Print a heading with the time since the start."""
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        print(f"\n[{minutes:02d}:{seconds:02d}] {text}", flush=True)

    def run_flow(self, name: str, *overrides: str) -> None:
        """Run a flow, and show what its steps print.

        Raises:
            DemoFailed: it ended with an error.
        """
        command = [sys.executable, str(REPOSITORY / "flows" / f"{name}.py"), "run", *overrides]
        print(f"  $ python flows/{name}.py run {' '.join(overrides)}", flush=True)
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
            raise DemoFailed(f"{name} ended with an error: see {self.log}")

    def _show(self, line: str) -> None:
        line = PREFIX.sub("", line, count=1)  # of a flow within a flow
        if line and not NOISE.search(line):
            print(f"    {line[:400]}", flush=True)

    @contextlib.contextmanager
    def service(self) -> Iterator[str]:
        """Serve the latest bento, and each newer one in its place; gives the address.

        Raises:
            DemoFailed: it did not become ready.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        with (self.root / "service.log").open("a") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "fashion", "serve", "--follow", "--port", str(port)],
                env=self.environment,
                cwd=REPOSITORY,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait(process, url)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def wait_for(self, url: str, version: str) -> None:
        """Wait until the service has loaded a version.

        Raises:
            DemoFailed: it does not within 90 seconds.
        """
        until = time.monotonic() + 90
        while time.monotonic() < until:
            with (
                contextlib.suppress(OSError, ValueError),
                urllib.request.urlopen(f"{url}/model", timeout=2) as response,
            ):
                if json.load(response)["version"] == version:
                    return
            time.sleep(0.2)
        raise DemoFailed(f"version {version} does not serve: see {self.root / 'service.log'}")

    def _wait(self, process: "subprocess.Popen[bytes]", url: str) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=2):
                return
            time.sleep(0.1)
        raise DemoFailed(f"the service did not become ready: see {self.root / 'service.log'}")


def run_demo(sandbox: Sandbox, size: Size) -> None:
    """Run the demo from the first model to the rollback.

    Raises:
        DemoFailed: a flow failed, or decided otherwise than expected.
    """
    from fashion.config.compose import compose
    from fashion.config.train import load_train_config
    from fashion.drift import reports
    from fashion.storage.address import open_store
    from fashion.traffic import sampling, sending

    overrides = [*size.train, f"data.live_rows={size.live}"]
    sandbox.print_heading("A first model is trained, and becomes the champion")
    sandbox.run_flow("train_flow", *overrides)
    data = load_train_config(compose([f"data.live_rows={size.live}"])).data
    rows, source = sampling.sample_rows(data, size.live, seed=1)
    bounds = [0, size.clean, size.clean + size.shifted, size.clean + size.shifted + size.labelled]
    clean, shifted, labelled = (slice(low, high) for low, high in itertools.pairwise(bounds))
    dark = sampling.apply_shifts(rows.images, [size.shift])
    shift = f"{size.shift[0]}={size.shift[1]:g}"
    results: list[dict[str, Any]] = []

    def send(url: str, images: Any, part: slice, **more: Any) -> sending.TrafficSummary:
        summary = sending.send(
            images[part], rows.labels[part], url=url, class_names=data.class_names, source=source, **more
        )
        print(f"    {summary}", flush=True)
        return summary

    def detect_drift(*more: str, expected: str) -> dict[str, Any]:
        sandbox.run_flow("drift_flow", *more)
        result = reports.latest(open_store(current_home().reports), 1)[0]
        results.append(result)
        if result["decision"] != expected:
            raise DemoFailed(f"the drift flow decided {result['decision']}, not {expected}: {result['reason']}")
        return result

    sandbox.print_heading("A bento of it is built and served")
    sandbox.run_flow("deploy_flow", *DEPLOY_OVERRIDES)
    with sandbox.service() as url:
        sandbox.print_heading(f"Users send {size.clean:,} pictures like those it knows")
        before_clean = send(url, rows.images, clean)
        detect_drift(f"rows={before_clean.rows}", expected="no_drift")
        sandbox.print_heading(f"Their lamps change: {size.shifted:,} pictures with {shift}")
        before = send(url, dark, shifted)
        detect_drift(f"rows={before.rows}", expected="drift")
        sandbox.print_heading(f"{size.labelled:,} more, and people say what half of them are; a new model is due")
        labelled_summary = send(url, dark, labelled, label_share=0.5)
        sandbox.print_heading(f"A person reviews {REVIEWED} of them, so that what people say is believed")
        _review(source)
        train = " ".join(overrides)
        detect_drift(
            f"rows={labelled_summary.rows}",
            "retrain.enabled=true",
            f'retrain.overrides="{train}"',
            f'retrain.deploy_overrides="{" ".join(DEPLOY_OVERRIDES)}"',
            expected="drift",
        )
        champion = _champion()
        if champion != "2":
            raise DemoFailed(f"the gate rejected the new model, version {champion} stays: see {sandbox.log}")
        sandbox.print_heading("The new champion has taken its place, and gets the same pictures as before the training")
        sandbox.wait_for(url, "2")
        after = send(url, dark, shifted)
        after_clean = send(url, rows.images, clean)
        detect_drift(f"rows={after.rows + after_clean.rows}", expected="drift")
        sandbox.print_heading("One command goes back")
        _roll_back(sandbox)
        sandbox.wait_for(url, "1")
        send(url, rows.images, slice(0, 20))
    _print_results(sandbox, shift, results, before, after, before_clean, after_clean)


def _review(source: str) -> None:
    """Review pictures that people have labelled, as on the page `/review`: they were right."""
    from fashion.predictions.log import PredictionLog
    from fashion.predictions.record import REVIEW, Feedback

    with PredictionLog(current_home().predictions) as log:
        labelled = log.latest(10 * REVIEWED, role="champion", with_feedback=True)
        said = [row.judgement for row in labelled if row.judgement is not None and row.judgement.source == source]
        now_us = time.time_ns() // 1000
        log.append_feedback(Feedback(each.prediction_id, each.true_label, REVIEW, now_us) for each in said[:REVIEWED])


def _champion() -> str:
    from fashion.registry import tracking, versions

    tracking.connect(prepare_environment())
    champion = versions.champion()
    return "" if champion is None else str(champion.number)


def _roll_back(sandbox: Sandbox) -> None:
    command = [sys.executable, "-m", "fashion", "registry", "rollback", "--reason", "to show that it can be"]
    print("  $ make rollback", flush=True)
    subprocess.run(command, env=sandbox.environment, cwd=REPOSITORY, check=True)
    sandbox.run_flow("deploy_flow", *DEPLOY_OVERRIDES)


def _print_results(
    sandbox: Sandbox, shift: str, results: Sequence[dict[str, Any]], before: Any, after: Any, clean: Any, still: Any
) -> None:
    sandbox.print_heading("What happened")
    windows = ["usual pictures", shift, f"{shift}, with feedback", "the new champion"]
    print(f"    {'window':32}{'rows':>7}  {'decision':12}{'severity':10}{'by feedback':>12}")
    for name, result in zip(windows, results, strict=True):
        accuracy = result["feedback"]["accuracy"] if result["feedback"] else None
        cell = "-" if accuracy is None else f"{accuracy:.1%}"
        print(f"    {name:32}{result['rows']:>7,}  {result['decision']:12}{result['level']:10}{cell:>12}")
    accuracy_before, accuracy_after = before.correct / before.rows, after.correct / after.rows
    change = 100 * (accuracy_after - accuracy_before)
    print(f"\n    {'right, of the same pictures':36}{'version 1':>11}{'version 2':>11}")
    print(f"    {shift:36}{accuracy_before:>11.1%}{accuracy_after:>11.1%}   {change:+.1f} points")
    print(f"    {'usual pictures':36}{clean.correct / clean.rows:>11.1%}{still.correct / still.rows:>11.1%}")
    folder = sandbox.root / "reports"
    print("\n    reports")
    for result in results:
        print(f"      {(folder / result['id'] / 'report.html').as_uri()}")
    print(f"    see more\n      FASHION_HOME={sandbox.root} make ui\n      FASHION_HOME={sandbox.root} make serve")
