"""What a whole TrainFlow takes: CPU-seconds, wall-clock seconds and memory of all its processes. Knows no prices."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from fashion.home import REPOSITORY, current_home
from tests.benchmarks.costs import account
from tests.benchmarks.costs.account import Account
from tests.benchmarks.measurement import fashion_mnist, say
from tests.benchmarks.servers import environment

QUICK = ("show",)
"""A training of any size takes a minute: a quick run only has the flow describe itself."""
GPU = Path("/dev/nvidia0")


@dataclass(frozen=True)
class Training:
    """A TrainFlow with its defaults."""

    on_cpu: Account
    on_gpu: Account | None
    """None where this machine has no GPU."""


def measure(python: str, *, quick: bool) -> Training:
    """Run TrainFlow as a user would, in an empty home that has the data; on a GPU too, where there is one.

    Args:
        python: interpreter that runs the flow.
        quick: train nothing.

    Raises:
        SystemExit: the flow failed; the message has the end of its output.
    """
    fashion_mnist(None)  # fetched, so that the runs find it
    command = [python, str(REPOSITORY / "flows" / "train_flow.py"), *(QUICK if quick else ("run",))]
    on_cpu = _run(command, CUDA_VISIBLE_DEVICES="")
    return Training(on_cpu, _run([*command, "resources.gpu=1"]) if GPU.exists() else None)


def _run(command: list[str], **variables: str) -> Account:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "data").symlink_to(current_home().data, target_is_directory=True)
        settings = environment(Path(folder))
        settings.pop("CUDA_VISIBLE_DEVICES", None)  # the benchmarks hide GPUs from themselves
        say(" ".join(command))
        return account.run(command, environment=settings | variables, folder=REPOSITORY)[0]
