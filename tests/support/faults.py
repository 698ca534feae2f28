"""Faults at exact points of a child process: killed, interrupted, slow, or without disk space in one call."""

import json
import os
from pathlib import Path
from typing import Literal

Action = Literal["kill", "kill parent", "interrupt", "wait", "full"]


def at(
    function: str,
    folder: Path,
    *,
    action: Action = "kill",
    when: Literal["before", "after"] = "before",
    call: int = 1,
    seconds: float = 0,
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
    """
    fault = {
        "function": function,
        "action": action,
        "when": when,
        "call": call,
        "seconds": seconds,
        "done": str(folder / "done"),
    }
    points = Path(__file__).with_name("fault_points")
    return {
        "FASHION_TEST_FAULT": json.dumps(fault),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(points), os.environ.get("PYTHONPATH")])),
    }
