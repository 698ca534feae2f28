"""The command `fashion`: finds the noun and hands it the rest of the line."""

import importlib
import sys

NOUNS = ("data", "registry", "log", "traffic", "ui", "serve", "schedule", "demo")


def main() -> int:
    """Run `fashion NOUN ...`; returns the exit code."""
    noun, *words = sys.argv[1:] or [""]
    if noun not in NOUNS:
        print(f"usage: fashion {{{', '.join(NOUNS)}}} ...", file=sys.stderr)
        return 2
    if noun == "registry" and {"compare", "replay"} & set(words):
        noun = "compare"
    module = "bentos.serving" if noun == "serve" else f"fashion.commands.{noun}"
    return int(importlib.import_module(module).main(words) or 0)
