"""Which run of a flow is the latest, by the folders of Metaflow's local datastore. Knows no Metaflow."""

import contextlib
import re
from pathlib import Path

RUN_ID = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


def latest_run(flow: Path) -> str | None:
    """Return the id of the run that was started last; None where the file that names it is missing or damaged.

    Args:
        flow: the folder of a flow.
    """
    with contextlib.suppress(OSError, UnicodeDecodeError):
        run_id = (flow / "latest_run").read_text(encoding="utf-8").strip()
        # Runs of a metadata service have numbers, and no folder here.
        if RUN_ID.fullmatch(run_id) and (run_id.isdecimal() or (flow / run_id).is_dir()):
            return run_id
    return None


def newest_run(flow: Path) -> str | None:
    """Return the highest number of a run that has a folder; None where there is none.

    Args:
        flow: the folder of a flow.
    """
    numbers = [path.name for path in flow.glob("[0-9]*") if path.name.isdecimal() and path.is_dir()]
    return max(numbers, key=int, default=None)
