"""A computer of its own for a flow: an empty home that shares only the verified data files with the repository's."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fashion.home import REPOSITORY

FLOWS = REPOSITORY / "flows"
ROWS = 1000
"""Rows of each split in the slice."""
FLOW_WORDS = [f"data.limit={ROWS}", "training.num_epochs=2"]
"""Configuration of a flow that takes seconds."""
OTHERS = ("METAFLOW", "MLFLOW", "HYDRA", "FASHION", "BENTOML", "PROMETHEUS")
"""Variables that a fresh machine has not."""


class Machine:
    """Runs commands as a person would who has just cloned the repository."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.said = self.said_of_challenger = self.said_of_deployment = ""
        self.challenger: Any = None
        root.mkdir(parents=True)
        (root / "data").symlink_to(REPOSITORY / "var" / "data")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(OTHERS)}
        # A training here is over before the usual 5 seconds between two looks at the system have passed.
        self.environment = {**kept, "FASHION_HOME": str(root), "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.5"}

    def start(self, *arguments: str, name: str = "train_flow") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(FLOWS / f"{name}.py"), *arguments],
            cwd="/",  # any working directory does
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def flow(self, *arguments: str, name: str = "train_flow") -> str:
        """Run a flow to its end, and return what it said."""
        process = self.start(*arguments, name=name)
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said
        return said

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
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
        path = self.root / f"{name}.html"
        self.flow("card", "get", f"{run.id}/{step}", str(path), "--id", name)
        return path.read_text()

    def connect(self) -> Any:
        """MLflow's client on this machine's tracking store."""
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{self.root / 'mlflow.db'}")
        return mlflow.MlflowClient()
