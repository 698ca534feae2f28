"""How the nodes of a training run as Metaflow's parallel step: on this machine as processes, on Kubernetes as pods."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from metaflow import current

from fashion.config.train import ResourcesConfig

if TYPE_CHECKING:
    from fashion.training.ranks import Ranks

DEFAULT_PORT = 29500
"""Of node 0 in a pod, which has an address of its own. The one that torchrun uses."""
STOP_SECONDS = 15.0
"""How long local nodes have to end by themselves once node 0 has failed."""

_others: list[subprocess.Popen[bytes]] = []
"""On node 0 of one machine: the processes of the other nodes."""


def this_node(resources: ResourcesConfig) -> "Ranks":
    """All ranks of this step, as seen from this task."""
    from fashion.training.launcher import ranks_per_node
    from fashion.training.ranks import Ranks

    is_parallel = resources.nodes > 1
    return Ranks(
        num_nodes=current.parallel.num_nodes if is_parallel else 1,
        per_node=ranks_per_node(resources),
        node=current.parallel.node_index if is_parallel else 0,
        address=current.parallel.main_ip if is_parallel else "127.0.0.1",
        port=_port() if is_parallel else 0,
        timeout_seconds=60 * resources.rank_timeout_minutes,
    )


def ended_node() -> str | None:
    """Which local node has ended with an error; None on a cluster, where nobody here knows."""
    for number, process in enumerate(_others, start=1):
        if code := process.poll():
            return f"node {number} ended with exit code {code}; see its lines above"
    return None


def run_control_task(flow: Any, environment: Any, step: Callable[[], None], retry_count: int, input_paths: str) -> None:
    """Run node 0 of a parallel step on this machine, and the other nodes in processes of their own.

    Takes the place of Metaflow's function of these arguments, which starts the bare `python` of PATH, waits for
    workers that never started, and leaves workers behind when node 0 fails.
    """
    from metaflow.cli_args import cli_args
    from metaflow.unbounded_foreach import UBF_TASK

    num_nodes = flow._parallel_ubf_iter.num_parallel
    names = [current.task_id, *(f"{current.task_id}_node_{node}" for node in range(1, num_nodes))]
    os.environ |= {
        "MF_PARALLEL_NUM_NODES": str(num_nodes),
        "MF_PARALLEL_MAIN_IP": "127.0.0.1",
        "MF_PARALLEL_CONTROL_TASK_ID": str(current.task_id),
        "MF_PARALLEL_NODE_INDEX": "0",
        "MF_MASTER_PORT": str(_free_port()),
    }
    for node in range(1, num_nodes):
        options = {
            **cli_args.step_kwargs,
            "split_index": str(node),
            "run_id": current.run_id,
            "task_id": names[node],
            "input_paths": input_paths,
            "ubf_context": UBF_TASK,
            "retry_count": str(retry_count),
        }
        command = cli_args.step_command(sys.executable, sys.argv[0], current.step_name, step_kwargs=options)
        _others.append(subprocess.Popen(command, env={**os.environ, "MF_PARALLEL_NODE_INDEX": str(node)}))
    flow._control_mapper_tasks = [f"{current.run_id}/{current.step_name}/{name}" for name in names]
    try:
        step()
        for process in _others:
            process.wait()
    except BaseException as error:
        stop_other_nodes(error if isinstance(error, Exception) else None)
        raise
    if (reason := ended_node()) is not None:
        raise RuntimeError(reason)


def stop_other_nodes(_: Exception | None = None) -> None:
    """Wait for the other local nodes to end, and end those that do not."""
    for process in _others:
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port() -> int:
    port = os.environ.get("MF_MASTER_PORT", "")  # "None" on Kubernetes, unless the flow names one
    return int(port) if port.isdecimal() else DEFAULT_PORT


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
