"""Faults at exact points of a child process: killed, interrupted, slow, or without disk space in one call."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

VARIABLE = "FASHION_TEST_FAULT"
Action = Literal["kill", "kill parent", "interrupt", "wait", "full"]


def at(
    function: str,
    folder: Path,
    *,
    action: Action = "kill",
    when: Literal["before", "after"] = "before",
    call: int = 1,
    seconds: float = 0,
    task: str = "",
) -> dict[str, str]:
    """Environment of a child process, and of its own children, in one of which the fault happens once.

    Args:
        function: `module:function` or `module:Class.method`, called by that name at run time.
        folder: holds `done` once the fault has happened: look, or the test shows nothing.
        action: `kill` by SIGKILL the process or its parent, `interrupt` its process group as Ctrl-C does, `wait`, or
            raise the error of a `full` disk.
        when: before or after the function's own work.
        call: at which call in a process, from 1.
        seconds: how long to wait.
        task: `flow_file/step`, the only tasks in which it may happen; any process without it.
    """
    fault = {
        "function": function,
        "action": action,
        "when": when,
        "call": call,
        "seconds": seconds,
        "done": str(folder / "done"),
        "task": task,
    }
    points = Path(__file__).with_name("fault_points")
    return {
        VARIABLE: json.dumps([fault]),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(points), os.environ.get("PYTHONPATH")])),
    }


def together(faults: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Environment in which each of several faults happens; in one process only the first that may.

    Args:
        faults: as `at` returns them; at least one.
    """
    each = list(faults)
    return {**each[0], VARIABLE: json.dumps([fault for one in each for fault in json.loads(one[VARIABLE])])}
