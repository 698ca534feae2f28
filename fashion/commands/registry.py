"""`fashion registry`: registered versions, and which one is champion."""

import argparse
import sys
from collections.abc import Sequence

from fashion.home import prepare_environment
from fashion.registry import tracking
from fashion.registry.versions import (
    ERRORS,
    LINEAGE,
    MODEL_NAME,
    NOTES,
    Version,
    get,
    list_versions,
    promote,
    rollback,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="fashion registry", description=__doc__.split("\n")[0])
    parser.add_argument("--name", default=MODEL_NAME, help=f"registered model, {MODEL_NAME} if not said")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="all versions with aliases, accuracy, lineage and verdicts")
    verb = verbs.add_parser("promote", help="make a version the champion by hand")
    verb.add_argument("version", help="number or alias")
    verb.add_argument("--reason", required=True, help="kept with the version")
    verb = verbs.add_parser("rollback", help="make the champion's predecessor the champion again")
    verb.add_argument("--reason", default="rolled back by hand", help="kept with the version")
    options = parser.parse_args(arguments)
    try:
        tracking.connect(prepare_environment())
        if options.verb == "list":
            print(_table(list_versions(options.name)))
        elif options.verb == "promote":
            chosen = get(options.version, options.name)
            print(f"champion: version {promote(chosen, reason=options.reason, name=options.name).number}")
        else:
            print(f"champion: version {rollback(reason=options.reason, name=options.name).number}")
    except ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _table(listed: Sequence[Version]) -> str:
    if not listed:
        return "no version is registered yet: run `make train`"
    lines = []
    for version in listed:
        tags = version.tags
        head = f"version {version.number}  {', '.join(version.aliases) or '-'}  {version.created:%Y-%m-%d %H:%M} UTC"
        lineage = ", ".join(f"{key} {_short(tags[key])}" for key in LINEAGE if key in tags)
        lines += [head, f"    {tags.get('summary', '')}", f"    {lineage}"]
        lines += [f"    {key}: {tags[key]}" for key in NOTES if key in tags]
    return "\n".join(lines)


def _short(value: str) -> str:
    """A hash by its first twelve digits, anything else whole."""
    digits, dirty = value.removesuffix("-dirty"), value.endswith("-dirty")
    is_hash = len(digits) > 12 and all(digit in "0123456789abcdef" for digit in digits)
    return digits[:12] + "-dirty" * dirty if is_hash else value
