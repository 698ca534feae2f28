"""What follows a flow on one machine, where no cluster starts it: a training, and a bento of a new champion."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fashion.config.compose import parse_overrides
from fashion.config.drift import RetrainConfig

FLOWS = Path(__file__).parents[1]


def train_overrides(settings: RetrainConfig, model: str) -> list[str]:
    """Overrides of a TrainFlow that drift starts, on this machine or on a cluster.

    Args:
        settings: with the configured overrides.
        model: registered model that DriftFlow looks at.
    """
    own = parse_overrides(settings.overrides)
    return [*_same_data(own), *own, "feedback.use=true", f"tracking.registered_model={model}"]


def deploy_overrides(configured: str, model: str) -> str:
    """Overrides of the DeployFlow that follows a training, as in HYDRA_ARGS.

    Args:
        configured: as in HYDRA_ARGS.
        model: registered model that was trained.
    """
    own = parse_overrides(configured)
    return shlex.join([*_same_data(own), f"tracking.registered_model={model}", *own])


def _same_data(overrides: Sequence[str]) -> list[str]:
    """The choice of the data set that this flow was started with, unless another one is configured."""
    if any(override.startswith("data=") for override in overrides):
        return []
    started = parse_overrides(os.environ.get("HYDRA_ARGS", ""))
    return [override for override in started if override.startswith("data=")][-1:]


class Outcome(NamedTuple):
    """The outcome of a training, and of the bento after it."""

    sentence: str
    """Ends without a full stop."""
    ended_well: bool
    """False if the training or the building failed."""
    promoted: bool
    command: str
    """What to type next."""
    awaits_approval: bool = False


def train_and_deploy(overrides: Sequence[str], settings: RetrainConfig, model: str) -> Outcome:
    """Run TrainFlow, and DeployFlow if the new version became the champion.

    Args:
        overrides: of TrainFlow's configuration.
        settings: whether to deploy, and with which overrides.
        model: registered model that is trained.
    """
    try:
        trained = run_flow("train_flow.py", overrides)
    except RuntimeError:  # of Metaflow's Runner, where the flow refuses to start; its own sentence is above
        command = shlex.join(["python", "flows/train_flow.py", "run", *overrides])
        return Outcome("training was refused: see the lines above; the champion stays", False, False, command)
    if not trained.successful:
        sentence = (
            f"training failed: see {trained.pathspec}; the champion stays, and the feedback is learnt by the next one"
        )
        return Outcome(sentence, False, False, f"python flows/train_flow.py resume --origin-run-id {trained.id}")
    outcome: str = trained.data.outcome
    if not trained.data.promoted:
        waits = bool(trained.data.verdict["awaits_approval"] or trained.data.verdict["awaits_canary"])
        return Outcome(outcome, True, False, "fashion registry list", waits)
    if not settings.deploy:
        return Outcome(outcome, True, True, "make bento")
    deployed = run_flow("deploy_flow.py", parse_overrides(deploy_overrides(settings.deploy_overrides, model)))
    if not deployed.successful:
        return Outcome(f"{outcome}; building failed: {deployed.pathspec}", False, True, "make bento")
    return Outcome(f"{outcome}; bento {deployed.data.bento} is built", True, True, "fashion status")


def run_flow(file: str, overrides: Sequence[str]) -> Any:
    """Run a flow to its end, and return Metaflow's run.

    Args:
        file: name of a file in `flows/`.
        overrides: of that flow's configuration.
    """
    from metaflow import Runner

    # Runner composes the flow's configuration in this process, where HYDRA_ARGS holds another flow's overrides.
    os.environ["HYDRA_ARGS"] = shlex.join(overrides)
    with Runner(str(FLOWS / file), show_output=True).run() as running:
        return running.run
