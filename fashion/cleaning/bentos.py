"""Bentos and models in BentoML's store that no served or earlier champion needs. Knows its folders, not BentoML."""

from collections.abc import Collection, Iterator
from pathlib import Path

from fashion.cleaning.candidates import Candidate, candidate, is_due
from fashion.config.gc import GcConfig

DAMAGED = "damaged"
"""The folder that damaged ones are put aside in."""


def find(store: Path, settings: GcConfig, *, versions: Collection[int], running: str) -> Iterator[Candidate]:
    """Yield bentos, then models that none of the bentos that stay names.

    Args:
        store: BentoML's home.
        settings: the ages, and how many bentos stay.
        versions: numbers of registered versions of which the newest bento stays.
        running: command lines of processes, some of which may serve a bento.
    """
    bentos = sorted((store / "bentos").glob("*/*/bento.yaml"), key=lambda path: path.stat().st_mtime, reverse=True)
    going: list[Path] = []
    covered: set[int | None] = set()
    for place, description in enumerate(bentos):
        folder = description.parent
        number = _version(folder)
        is_needed = number in versions and number not in covered
        covered.add(number)
        is_served = f"{folder.parent.name}:{folder.name}" in running or str(folder) in running
        found = candidate("bento", f"{folder.parent.name}:{folder.name}", [folder])
        if is_due(found, settings.bentos_days) and place >= settings.bentos_kept and not (is_needed or is_served):
            going.append(folder)
            yield found
    staying = "\n".join(each.read_text(encoding="utf-8") for each in bentos if each.parent not in going)
    for folder in sorted(path for path in (store / "models").glob("*/*") if path.is_dir()):
        tag = f"{folder.parent.name}:{folder.name}"
        found = candidate("model copy", tag, [folder])
        if is_due(found, settings.bentos_days) and tag not in staying and _version(folder) not in versions:
            yield found
    for path in sorted((store / DAMAGED).glob("*")):
        found = candidate("damaged bento", path.name, [path])
        if is_due(found, settings.damaged_days):
            yield found


def point_to_newest(store: Path) -> None:
    """Let `latest` of each bento and model name one that is there, after some were removed."""
    for latest in store.glob("*/*/latest"):
        left = sorted(
            (path for path in latest.parent.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime
        )
        if not left:
            latest.unlink()
            latest.parent.rmdir()
        elif latest.read_bytes() not in {path.name.encode() for path in left}:
            latest.write_text(left[-1].name)


def _version(folder: Path) -> int | None:
    """Number of the registered version that a bento or model is of: their names begin `v7-`."""
    digits = folder.name.partition("-")[0].removeprefix("v")
    return int(digits) if digits.isdecimal() else None
