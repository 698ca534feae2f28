"""The file in a home that says which format the home has, and where it was when it was last used."""

import datetime
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "home.json"
FORMAT = 1
"""Of the homes that this program makes, and the newest that it reads."""


class StateError(ValueError):
    """A home cannot be used as it is. The message is one sentence with the remedy."""


@dataclass(frozen=True)
class Record:
    """What a home says about itself."""

    format: int
    path: str
    """Where it was when it was last used: files in it may hold this path."""
    created: str
    """ISO time, UTC."""


def read(root: Path) -> Record | None:
    """Return the record of a home; None where there is none, as in homes of older versions, or where it is damaged.

    Raises:
        StateError: the home is no folder, or of a newer format.
    """
    if root.exists() and not root.is_dir():
        raise StateError(f"FASHION_HOME={root} is a file: name a folder, which is made where it is missing")
    try:
        content = json.loads((root / FILE).read_bytes())
        found = Record(int(content["format"]), str(content["path"]), str(content["created"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if found.format > FORMAT:
        raise StateError(
            f"{root} was written by a newer version of this program (format {found.format}, this one reads up to "
            f"{FORMAT}): install that version, or set FASHION_HOME to another folder"
        )
    return found


def write(root: Path, *, before: Record | None = None) -> None:
    """Record that a home is at this path.

    Args:
        root: the home.
        before: its record until now.

    Raises:
        OSError: the folder cannot be written.
    """
    created = before.created if before else datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    temporary = root / f".{FILE}.{os.getpid()}.part"
    temporary.write_text(json.dumps(asdict(Record(FORMAT, str(root), created)), indent=1) + "\n", encoding="utf-8")
    temporary.replace(root / FILE)
