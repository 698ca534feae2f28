"""Versions and the history of champions as `fashion registry` prints them. Knows no registry's address."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from fashion.registry.history import Change
from fashion.registry.versions import LINEAGE, NOTES, Version


def version_as_dict(version: Version, changes: Sequence[Change]) -> dict[str, Any]:
    """A version as `--json` prints it.

    Args:
        version: of the registry.
        changes: the history of champions.
    """
    return {
        "number": version.number,
        "aliases": list(version.aliases),
        "created": version.created.isoformat(timespec="seconds"),
        "source": version.source,
        "mlflow_run_id": version.mlflow_run_id,
        "tags": dict(version.tags),
        "champion": [dataclasses.asdict(each) for each in changes if each.version == version.number],
    }


def headline(version: Version) -> str:
    """Number, aliases and time of a version."""
    aliases = ", ".join(version.aliases) or "-"
    return f"version {version.number}  {aliases}  {version.created:%Y-%m-%d %H:%M} UTC"


def summarize(version: Version) -> str:
    """A version in a few lines."""
    tags = version.tags
    lineage = ", ".join(f"{key} {_shorten(tags[key])}" for key in LINEAGE if key in tags)
    lines = [headline(version), f"    {tags.get('summary', '')}", f"    {lineage}"]
    return "\n".join([*lines, *(f"    {key}: {tags[key]}" for key in NOTES if key in tags)])


def describe_change(change: Change) -> str:
    """A change of the champion in one line."""
    who = "" if change.who == "unknown" else f" by {change.who}"
    what = "no champion" if change.version is None else f"version {change.version}"
    replaced = f" from version {change.replaced}" if change.event == "rolled back" else ""
    return f"    {change.time[:16].replace('T', ' ')} UTC  {what}: {change.event}{replaced}{who}: {change.reason}"


def _shorten(value: str) -> str:
    """A hash by its first twelve digits, anything else whole."""
    digits, dirty = value.removesuffix("-dirty"), value.endswith("-dirty")
    is_hash = len(digits) > 12 and all(digit in "0123456789abcdef" for digit in digits)
    return digits[:12] + "-dirty" * dirty if is_hash else value
