"""Bentos and models in BentoML's store that no served or earlier champion needs. Knows its folders, not BentoML."""

from collections.abc import Collection, Iterator
from pathlib import Path

from fashion.cleaning.candidates import Candidate, candidate, is_due
from fashion.config.gc import GcConfig
from fashion.config.serve import bento_name

DAMAGED = "damaged"
"""The folder that damaged ones are put aside in."""


def find(
    store: Path, settings: GcConfig, *, versions: Collection[tuple[str, int]], running: str
) -> Iterator[Candidate]:
    """Yield bentos, then models that none of the bentos that stay names.

    Args:
        store: BentoML's home.
        settings: the ages, and how many bentos stay.
        versions: registered models and numbers of their versions of which the newest bento stays.
        running: command lines of processes, some of which may serve a bento.
    """
    bentos = sorted((store / "bentos").glob("*/*/bento.yaml"), key=lambda path: path.stat().st_mtime, reverse=True)
    going: list[Path] = []
    needed = {(bento_name(model), number) for model, number in versions}
    covered: set[tuple[str, int | None]] = set()
    for place, description in enumerate(bentos):
        folder = description.parent
        version = _version(folder)
        is_needed = version in needed and version not in covered
        covered.add(version)
        is_served = f"{folder.parent.name}:{folder.name}" in running or str(folder) in running
        found = candidate("bento", f"{folder.parent.name}:{folder.name}", [folder])
        if is_due(found, settings.bentos_days) and place >= settings.bentos_kept and not (is_needed or is_served):
            going.append(folder)
            yield found
    staying = "\n".join(each.read_text(encoding="utf-8") for each in bentos if each.parent not in going)
    for folder in sorted(path for path in (store / "models").glob("*/*") if path.is_dir()):
        tag = f"{folder.parent.name}:{folder.name}"
        found = candidate("model copy", tag, [folder])
        if is_due(found, settings.bentos_days) and tag not in staying and _version(folder) not in needed:
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


def _version(folder: Path) -> tuple[str, int | None]:
    """Name of a bento or model, and number of the registered version that it is of: their tags begin `name:v7-`."""
    digits = folder.name.partition("-")[0].removeprefix("v")
    return folder.parent.name, int(digits) if digits.isdecimal() else None
