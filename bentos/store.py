"""BentoML's store on this machine: bentos and models in it that cannot be read are put aside.

BentoML 1.4 reads every bento of a name to find the latest: one that is damaged would stop all builds.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from fashion.home import current_home

DAMAGED = "damaged"
"""The folder in the store that they are moved to."""
UNFINISHED_SECONDS = 3600.0
"""After this time a folder without a description is no longer one that is being written."""


def put_aside_damaged(*, own: str = "") -> None:
    """Move bentos and models that cannot be read out of BentoML's way, and say so.

    Args:
        own: tag of a model that this process is about to write: an unfinished one of this tag is another's remains.
    """
    folder = current_home().bentos
    for kind, path in _entries(folder):
        if (problem := _problem(kind, path, own)) is not None:
            target = folder / DAMAGED / f"{kind}-{path.parent.name}-{path.name}-{time.time_ns()}"
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
            print(f"{path.parent.name}:{path.name} is damaged ({problem}) and was moved to {target}", file=sys.stderr)


def _entries(folder: Path) -> Iterator[tuple[str, Path]]:
    for kind in ("bentos", "models"):
        for path in sorted((folder / kind).glob("*/*")):
            if path.is_dir():
                yield kind, path


def _problem(kind: str, path: Path, own: str) -> str | None:
    """Why BentoML cannot read a folder; None where it can, or where another process may be writing it."""
    from bentoml import Bento, Model

    description = path / ("bento.yaml" if kind == "bentos" else "model.yaml")
    if not description.exists():
        is_old = time.time() - path.stat().st_mtime > UNFINISHED_SECONDS
        return f"it has no {description.name}" if is_old or f"{path.parent.name}:{path.name}" == own else None
    try:
        (Bento if kind == "bentos" else Model).from_path(str(path))
    except Exception as error:  # of yaml, cattrs or BentoML, by what is wrong
        return f"{description.name}: {str(error).strip().splitlines()[0][:100] if str(error) else type(error).__name__}"
    return None
