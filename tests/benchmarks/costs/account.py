"""Run a command and account for it: `python -m tests.benchmarks.costs.account FILE COMMAND ...` writes FILE.

A process of its own, and a small one: the kernel counts the memory of the process that starts another as the other's.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory


@dataclass(frozen=True)
class Account:
    """What a command took."""

    cpu_seconds: float
    """Of all its processes, from the kernel's own account."""
    wall_seconds: float
    megabytes: float
    """Resident memory of its largest process, at its largest."""


def run(command: Sequence[str], *, environment: Mapping[str, str] | None = None, folder: Path) -> tuple[Account, str]:
    """Run a command from a folder, and return what it took and what it printed.

    Raises:
        SystemExit: it failed; the message has the end of its output.
    """
    with TemporaryDirectory() as own:
        file = Path(own, "account.json")
        words = [sys.executable, "-m", __name__, str(file), *command]
        done = subprocess.run(
            words,
            cwd=folder,
            env=dict(os.environ if environment is None else environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"error: {' '.join(command)} failed:\n{done.stdout[-5000:]}")
        return Account(**json.loads(file.read_text())), done.stdout


def main(file: Path, command: Sequence[str]) -> int:
    """Run a command, write its account, and return its exit code."""
    started = time.perf_counter()
    code = subprocess.run(command).returncode
    wall = time.perf_counter() - started
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    found = Account(usage.ru_utime + usage.ru_stime, wall, kilobytes * 1024 / 1e6)
    file.write_text(json.dumps(asdict(found)))
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
