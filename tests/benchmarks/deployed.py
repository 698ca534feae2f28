"""A bento in a home of its own, built by the flow and served as people serve it."""

import contextlib
import dataclasses
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fashion.home import REPOSITORY, current_home
from fashion.model import package
from tests.benchmarks.load import HOST
from tests.benchmarks.measurement import ServingOptions, fashion_mnist, say
from tests.benchmarks.servers import Served, environment, free_port


@dataclass(frozen=True)
class Deployed:
    """A bento and where it keeps its state."""

    folder: Path
    bento: Path
    package: Path
    """The model package inside BentoML's store: what the service loads."""

    def serve(self, *prefix: str, **variables: str) -> Served:
        """The bento as `bentoml serve` runs it, with nothing set but `variables`; after the words of a prefix."""
        port = free_port()
        command = [
            *prefix,
            sys.executable,
            "-m",
            "bentoml",
            "serve",
            str(self.bento),
            "--host",
            HOST,
            "--port",
            str(port),
        ]
        return Served(command, environment(self.folder) | variables, port, self.folder / "bento.log")

    def follow(self, **variables: str) -> Served:
        """The latest bento as `make serve` runs it, with nothing set but `variables`."""
        port = free_port()
        command = [sys.executable, "-m", "fashion", "serve", "--follow", "--port", str(port)]
        settings = environment(self.folder) | {"PYTHONPATH": str(REPOSITORY)} | variables
        return Served(command, settings, port, self.folder / "serve.log", workers_may_end=True)

    def logged(self) -> set[str]:
        """Ids of all predictions in the log."""
        with contextlib.closing(sqlite3.connect(f"file:{self.folder / 'predictions.db'}?mode=ro", uri=True)) as log:
            return {row[0] for row in log.execute("SELECT prediction_id FROM predictions WHERE role = 'champion'")}

    def feedback(self) -> Counter[str]:
        """How often there is feedback, by prediction."""
        with contextlib.closing(sqlite3.connect(f"file:{self.folder / 'predictions.db'}?mode=ro", uri=True)) as log:
            return Counter(row[0] for row in log.execute("SELECT prediction_id FROM feedback"))


def deploy(folder: Path, options: ServingOptions, overrides: Sequence[str] = ()) -> Deployed:
    """Build a bento in a home of its own, of a model that is there or that is trained for it.

    Args:
        folder: the home.
        options: of the benchmark.
        overrides: of the bento.
    """
    fashion_mnist(None)  # fetched, so that the flows find it
    (folder / "data").symlink_to(current_home().data, target_is_directory=True)
    if options.home is None:
        training = ["tuning=off", f"data.limit={1000 if options.quick else 5000}", "training.num_epochs=1"]
        run_flow("train_flow", training, folder, options)
    (bento,) = _built(overrides, folder, options)
    used = next(
        file.parent for file in (folder / "bentoml").rglob(package.MANIFEST) if (file.parent / package.MODEL).exists()
    )
    return Deployed(folder, bento, used)


def another(deployed: Deployed, overrides: list[str], options: ServingOptions) -> Deployed:
    """Another bento of the same model, beside the first one; it is the latest."""
    (bento,) = _built(overrides, deployed.folder, options)
    return dataclasses.replace(deployed, bento=bento)


def with_shadow(deployed: Deployed, options: ServingOptions) -> Deployed:
    """The same bento and state, with the model's twin as its shadow."""
    return another(deployed, ["serve.shadow=champion"], options)


def run_flow(flow: str, arguments: Sequence[str], folder: Path, options: ServingOptions) -> None:
    """Run a flow, its state in a folder, and its registry in the home that is measured where one is named.

    Raises:
        SystemExit: it failed.
    """
    settings = environment(folder)
    if options.home is not None:
        settings["MLFLOW_TRACKING_URI"] = f"sqlite:///{options.home.resolve() / 'mlflow.db'}"
    command = [options.python, str(REPOSITORY / "flows" / f"{flow}.py"), "run", *arguments]
    say(" ".join(command))
    done = subprocess.run(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)} failed:\n{done.stdout[-5000:]}")


def _built(overrides: Sequence[str], folder: Path, options: ServingOptions) -> set[Path]:
    """The bentos that a run of the flow adds."""
    before = set(folder.glob("bentoml/bentos/*/*/bento.yaml"))
    run_flow("deploy_flow", overrides, folder, options)
    return {file.parent for file in set(folder.glob("bentoml/bentos/*/*/bento.yaml")) - before}
