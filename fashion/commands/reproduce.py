"""`fashion registry reproduce`: train a version again from its records, and say whether the bits are equal."""

import dataclasses
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fashion.commands.arguments import DataSet, ModelName, chosen_model, with_version
from fashion.commands.errors import DONE, FAILED, CommandError, failing_on
from fashion.commands.registry import connected
from fashion.config.names import MODEL_NAME
from fashion.home import REPOSITORY

if TYPE_CHECKING:
    from fashion.config.train import TrainConfig
    from fashion.data.manifest import Manifest
    from fashion.evaluation.reproduction import Reproduction


def reproduce(
    version: Annotated[str, typer.Argument(help="Number or alias.")] = "champion",
    overrides: DataSet = None,
    name: ModelName = MODEL_NAME,
) -> int:
    """Train a version again from its records, and say whether its weights come out equal, bit for bit.

    It is trained on its own version of the data, whichever is the present one. What differs from then (commit,
    libraries, processor) is named. Nothing is registered.
    """
    version, overrides = with_version(version, overrides)
    name = chosen_model(name, overrides)
    with connected() as home:
        from fashion.config.schema import ConfigError
        from fashion.data.loading import find_version
        from fashion.data.manifest import DataError
        from fashion.evaluation import reproduction, run_record
        from fashion.model.package import WEIGHTS
        from fashion.registry import lineage, tracking, versions

        found = versions.get(version, name)
        with tempfile.TemporaryDirectory() as folder, failing_on(ConfigError, DataError):
            package = versions.fetch(found, Path(folder))
            assert package.folder is not None, "a fetched package has a folder"
            weights = hashlib.sha256((package.folder / WEIGHTS).read_bytes()).hexdigest()
            params, tags = tracking.run_records(found.mlflow_run_id)
            config = reproduction.recorded_config(found, package, params, tags)
            recorded = tracking.read_file(found.mlflow_run_id, run_record.MANIFEST)
            data_version = find_version(config.data, package.data["digest"], home.data, recorded=recorded)
        differences = reproduction.list_differences(found, package, commit=lineage.git_commit())
        for each in differences:
            print(f"differs: {each}", flush=True)
        epochs = config.training.num_epochs
        print(
            f"version {found.number} of {name}: training again, {epochs} epochs with seed {config.training.seed}",
            flush=True,
        )
        repeated = _train(config, data_version)
        others = reproduction.list_machine_differences(package, repeated)
        for each in others:
            print(f"differs: {each}")
    if repeated.weights == weights:
        print(f"equal: the weights are those of version {found.number}, bit for bit (sha256 {weights})")
        return DONE
    print(f"not equal: version {found.number} has weights of sha256 {weights}, this training {repeated.weights}")
    if not differences + others:
        print("nothing of what was recorded differs: another processor, or another number of threads, may be the cause")
    return FAILED


def _train(config: "TrainConfig", data_version: "Manifest") -> "Reproduction":
    """Train in a process of its own, which shows its progress."""
    from fashion.config.compose import as_dict
    from fashion.evaluation.reproduction import Reproduction

    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "flows" / "reproduce.py")],
        input=json.dumps({"config": as_dict(config), "data_version": dataclasses.asdict(data_version)}),
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode != 0:
        raise CommandError("the training did not come to its end: see the lines above")
    return Reproduction(**json.loads(done.stdout.splitlines()[-1]))
