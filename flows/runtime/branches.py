"""Names of a branch of the project that is deployed to a cluster beside production.

Metaflow's `@project` keeps templates and events apart. What the flows share outside of Metaflow, the registered model
and MLflow's experiment, is kept apart by overrides here.
"""

import itertools
import re
from collections.abc import Sequence

SHARED_NAMES = ("tracking.registered_model", "tracking.experiment")
"""Configured names that a branch must not share with production."""


def branch_of(arguments: Sequence[str], user: str) -> str | None:
    """Return the branch that a command line deploys to; None for production.

    Args:
        arguments: of a flow, with Metaflow's `--branch NAME` or `--production`.
        user: as Metaflow knows the person, whose branch is the default.
    """
    branch = next((second for first, second in itertools.pairwise(arguments) if first == "--branch"), "")
    branch = branch or next((each[len("--branch=") :] for each in arguments if each.startswith("--branch=")), "")
    if branch:
        return branch
    return None if "--production" in arguments else re.sub(r"[^a-z0-9_]", "_", user.lower())


def branch_overrides(branch: str | None, composed: dict[str, dict[str, str]], given: Sequence[str]) -> list[str]:
    """Overrides that put the branch before each shared name. A name that is overridden by hand stays.

    Args:
        branch: None for production.
        composed: the configuration with the given overrides.
        given: overrides of the command line and of HYDRA_ARGS.
    """
    by_hand = {each.partition("=")[0] for each in given}
    names = [] if branch is None else [name for name in SHARED_NAMES if name not in by_hand]
    return [f"{name}={branch}-{composed['tracking'][name.removeprefix('tracking.')]}" for name in names]
