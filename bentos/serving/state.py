"""What a service on one port remembers between its starts: its process, and the bento that was last found good."""

import contextlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from fashion.storage.folder import write_atomically


@dataclass(frozen=True)
class State:
    """What the file holds."""

    good: str | None = None
    """Tag of the bento that was last in service."""
    failed: str | None = None
    """Tag of the bento that last failed its check; None after one that passed."""
    pid: int | None = None
    """Process of the supervisor."""
    started: float | None = None
    """When that process started, in seconds since 1970: another one may get the same number later."""


class StateFile:
    """The state of the service on one port, in a folder that also holds what its processes share."""

    def __init__(self, root: Path, port: int) -> None:
        """
        Args:
            root: the folder of all state.
            port: that the service listens on.
        """
        self.folder = root / "serving" / str(port)
        self._path = self.folder / "state.json"
        self.output_path = self.folder / "failed.log"
        """What the workers of the bento that last failed its check had printed."""

    def read(self) -> State:
        """Read the state; an empty one where there is none, or the file is damaged: it only saves time."""
        try:
            return State(**json.loads(self._path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return State()

    def update(self, **changes: str | int | float | None) -> State:
        """Change fields of the state, on the disk, and return it.

        Raises:
            OSError: the file cannot be written.
        """
        state = replace(self.read(), **changes)  # type: ignore[arg-type]  # fields by their names
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, json.dumps(asdict(state)).encode())
        return state

    def keep_output(self, output: str) -> None:
        """Store what the workers of a bento that failed its check printed; an empty text removes what was stored."""
        with contextlib.suppress(OSError):
            if output:
                self.output_path.write_text(output)
            else:
                self.output_path.unlink(missing_ok=True)


def is_alive(state: State) -> bool:
    """True if the supervisor that wrote a state is still running."""
    if state.pid is None:
        return False
    try:
        process = psutil.Process(state.pid)
        return bool(process.create_time() == state.started and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
