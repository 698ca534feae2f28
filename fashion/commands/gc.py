"""`fashion gc`: what this machine no longer needs, and its removal."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from fashion.commands.arguments import AsJson, Overrides
from fashion.commands.errors import CommandError, failing_on

if TYPE_CHECKING:
    from fashion.cleaning.candidates import Candidate

NAME_WIDTH = 60


def gc(
    overrides: Overrides = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is listed otherwise.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what this machine no longer needs, with sizes.

    Checkpoints, studies, failed runs, bentos and flow runs have ages (configs/gc.yaml); checkpoints and archives of
    bentos have them in buckets too, and studies in a database. Whatever its age, nothing goes
    that the champion, an earlier champion, a challenger, a served bento or a running flow needs.
    """
    from fashion.commands.registry import connected
    from fashion.config.compose import compose, load_as
    from fashion.config.gc import GcConfig
    from fashion.config.schema import ConfigError

    with failing_on(ConfigError):
        settings = load_as(GcConfig, compose(overrides or [], root=GcConfig.root))

    with connected() as home, failing_on(OSError):
        from fashion.cleaning import plan

        found = plan.find(home, settings)
        if as_json:
            print(json.dumps([_as_dict(each) for each in found], indent=1))
        else:
            print(_listed(found, deleted=delete))
        if not delete:
            return
        failures = []
        for each in found:
            try:
                plan.remove(home, each)
            except OSError as error:
                failures.append(f"{each.kind} {each.name}: {error.strerror or error}")
        if failures:
            print("\n".join(failures), file=sys.stderr)
            raise CommandError(f"{len(failures)} of {len(found)} could not be removed, the others are")


def _listed(found: "Sequence[Candidate]", *, deleted: bool) -> str:
    from fashion.commands.status import format_bytes

    if not found:
        return "nothing is old enough to go; `fashion gc bentos_days=7` and the like lower the ages"
    lines = [
        f"{each.kind:14} {format_bytes(each.num_bytes):>8} {each.age_days:6.0f} days  {_shortened(each.name)}"
        for each in found
    ]
    total = format_bytes(sum(each.num_bytes for each in found))
    end = f"{len(found)} removed, {total}" if deleted else f"{len(found)} may go, {total}: `fashion gc --delete`"
    return "\n".join([*lines, end])


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 1]}…"


def _as_dict(found: "Candidate") -> dict[str, object]:
    return {**dataclasses.asdict(found), "paths": [str(path) for path in found.paths]}
