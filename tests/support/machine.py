"""A fresh machine for flows: an empty home that shares only the verified data files with the repository's."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from fashion.home import REPOSITORY

FLOWS = REPOSITORY / "flows"
ROWS = 1000
"""Rows of each split in the slice."""
FLOW_OVERRIDES = [f"data.limit={ROWS}", "training.num_epochs=2"]
"""Hydra overrides of a training flow that takes seconds."""
STATE_PREFIXES = ("METAFLOW", "MLFLOW", "HYDRA", "FASHION", "BENTOML", "PROMETHEUS", "OTEL")
"""Of environment variables that a fresh machine does not have."""


class Machine:
    """Runs commands as somebody would who has just cloned the repository.

    Attributes:
        root: its FASHION_HOME.
        environment: variables of its processes.
        output: what its first training flow printed; set by the fixture that ran it, as are the rest.
        challenger_output: what its second training flow printed.
        challenger: the version that this flow registered.
        deployment_output: what its deploy flow printed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.output = self.challenger_output = self.deployment_output = ""
        self.challenger: Any = None
        root.mkdir(parents=True)
        files = REPOSITORY / "var" / "data"
        files.mkdir(parents=True, exist_ok=True)  # missing in a new clone
        (root / "data").symlink_to(files)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(STATE_PREFIXES)}
        # Trainings of the tests end before MLflow's default of 5 seconds.
        self.environment = {**inherited, "FASHION_HOME": str(root), "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.5"}

    def start(self, *arguments: str, name: str = "train_flow") -> subprocess.Popen[str]:
        """Start a flow, its standard output and error in one pipe."""
        return subprocess.Popen(
            [sys.executable, str(FLOWS / f"{name}.py"), *arguments],
            cwd="/",  # flows work from any directory
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def flow(self, *arguments: str, name: str = "train_flow", seconds: float = 600) -> str:
        """Run a flow to its end and return its output; fail after `seconds`."""
        process = self.start(*arguments, name=name)
        output, _ = process.communicate(timeout=seconds)
        assert process.returncode == 0, output
        return output

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments in the repository's root."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def serving(self, **more: str) -> dict[str, str]:
        """The environment of a service on this machine."""
        return {**self.environment, "BENTOML_HOME": str(self.root / "bentoml"), "BENTOML_DO_NOT_TRACK": "True", **more}

    def runs(self, flow: str = "TrainFlow") -> list[Any]:
        """Metaflow runs, oldest first."""
        import metaflow

        metaflow.metadata(f"local@{self.root / 'metaflow'}")
        metaflow.namespace(None)
        return sorted(metaflow.Flow(flow).runs(), key=lambda run: run.created_at)

    def card(self, run: Any, step: str, name: str) -> str:
        """HTML of the card `name` of a step."""
        path = self.root / f"{name}.html"
        self.flow("card", "get", f"{run.id}/{step}", str(path), "--id", name)
        return path.read_text()

    def connect(self) -> Any:
        """MLflow's client on this machine's tracking store."""
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{self.root / 'mlflow.db'}")
        return mlflow.MlflowClient()


def twin(machine: Machine, folder: Path) -> Machine:
    """A machine with the registry and the log of another, in a folder of its own."""
    mine = Machine(folder / "var")
    for name in ("mlflow.db", "predictions.db"):
        if (machine.root / name).exists():
            copy_database(machine.root / name, mine.root / name)
    return mine


def copy_database(source: Path, target: Path) -> None:
    """With what lies in its write-ahead log, which a copy of the file alone misses."""
    with contextlib.closing(sqlite3.connect(source)) as here, contextlib.closing(sqlite3.connect(target)) as there:
        here.backup(there)
