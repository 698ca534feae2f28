"""Which processes of this machine use a home: what they need must stay."""

import os
from dataclasses import dataclass
from pathlib import Path

FLOW = "_flow.py"
"""In the command line of a flow, and of each of its tasks."""
STORE = "METAFLOW_DATASTORE_SYSROOT_LOCAL"
"""Set in the environment of a flow's tasks."""


@dataclass(frozen=True)
class Running:
    """What runs now, as far as this user can see."""

    commands: str
    """Command lines of all processes, one a line."""
    has_flow: bool
    """True if a flow, or a task of one, uses the home."""


def look(root: Path) -> Running:
    """Look at all processes.

    Args:
        root: the home.
    """
    import psutil

    lines, has_flow = [], False
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        lines.append(" ".join(words))
        script = next((word for word in words if word.endswith(FLOW)), None)
        if script is None or process.pid == os.getpid():
            continue
        try:
            environment, folder = process.environ(), process.cwd()
        except psutil.Error:  # another user's, or it has ended
            continue
        checkout = Path(folder, script).resolve().parents[1]
        home = Path(folder, environment.get("FASHION_HOME") or checkout / "var").resolve()
        has_flow |= home == root or environment.get(STORE) == f"{root}/metaflow"
    return Running("\n".join(lines), has_flow)
