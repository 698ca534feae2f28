"""What each step's pod is given besides the step's own decorators: a time limit, and the variables of a deployment."""

import os
import sys
from typing import Any

from metaflow import FlowMutator, environment, timeout

from fashion.registry import lineage

MINUTES = 120
"""Time limit of the steps of a flow without a configuration."""


class Pods(FlowMutator):
    """A flow decorator that adds `@timeout` to each step, and on a cluster `@environment`.

    The time limit is the configuration's `resources.timeout_minutes`. A pod has no checkout: the commit of the code,
    and the overrides that the configuration was composed of, are put into its environment when the flow is compiled.
    """

    def pre_mutate(self, mutable_flow: Any) -> None:
        """Called by Metaflow once the configuration is known."""
        minutes = next((config.resources.timeout_minutes for _, config in mutable_flow.configs), MINUTES)
        variables = deployed_variables() if is_for_cluster(sys.argv) else {}
        for _, step in mutable_flow.steps:
            step.add_decorator(timeout, deco_kwargs={"minutes": minutes})
            if variables:
                step.add_decorator(environment, deco_kwargs={"vars": variables})


def is_for_cluster(arguments: list[str]) -> bool:
    """True if a command line sends a flow's steps to a cluster, or runs one of them there."""
    return "argo-workflows" in arguments or any("kubernetes" in argument for argument in arguments)


def deployed_variables() -> dict[str, str]:
    """Variables that a pod cannot know by itself."""
    return {"FASHION_GIT_COMMIT": lineage.git_commit(), "HYDRA_ARGS": os.environ.get("HYDRA_ARGS", "")}
