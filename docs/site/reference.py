"""The reference, made of the code: commands, configuration, and a page for each room of the library."""

import ast
import dataclasses
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import types
import typing
from collections.abc import Iterator
from typing import Any

import typer
from typer.testing import CliRunner

import fashion
from fashion.commands.main import app
from fashion.config.compose import compose
from fashion.config.drift import DriftConfig
from fashion.config.gc import GcConfig
from fashion.config.serve import ServeConfig
from fashion.config.train import TrainConfig
from fashion.home import REPOSITORY

ROOTS: dict[str, tuple[Any, str]] = {
    "TrainFlow": (TrainConfig, "flows/train_flow.py run"),
    "DeployFlow and the service": (ServeConfig, "flows/deploy_flow.py run"),
    "DriftFlow": (DriftConfig, "flows/drift_flow.py run"),
    "fashion gc": (GcConfig, "fashion gc"),
}
"""Heading -> configuration, and the command that takes its overrides."""

LONGEST = 60
"""Characters of a default that are shown."""


def pages() -> dict[str, str]:
    """Name of the file -> page, of commands and configuration."""
    return {"commands.md": commands(), "configuration.md": configuration()}


def commands() -> str:
    """Every command of `fashion` and every target of `make`, as their own help says."""
    targets = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    parts = [
        "# Commands\nMade of the program's own help. `fashion` is `.venv/bin/fashion`.",
        f"## make\n```text\n{targets.rstrip()}\n```",
    ]
    runner = CliRunner()
    for words in command_paths(typer.main.get_command(app)):
        result = runner.invoke(app, [*words, "--help"], prog_name="fashion")
        parts.append(
            f"{'#' * min(2 + bool(words[1:]), 3)} {' '.join(['fashion', *words])}\n"
            f"```text\n{result.output.strip()}\n```"
        )
    return "\n\n".join(parts) + "\n"


def command_paths(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command below one, itself included."""
    yield words
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from command_paths(child, (*words, name))


def configuration() -> str:
    """Every key of configs/, with its default and its meaning."""
    about = (
        "Made of [configs](../source/configs/index.html) and of the dataclasses that check it. A key is overridden on "
        "the command line, as in `training.num_epochs=3`."
    )
    parts = [f"# Configuration\n{about}"]
    for heading, (kind, command) in ROOTS.items():
        values = compose(root=kind.root)
        parts.append(f"## {heading}\n`{command} key=value ...`")
        parts += list(_groups(kind, values, ""))
    return "\n\n".join(parts) + "\n"


def library() -> dict[str, str]:
    """Name of the file -> page, one for each room of the library; mkdocstrings fills them from docstrings."""
    found: dict[str, list[str]] = {}
    for module in pkgutil.walk_packages(fashion.__path__, "fashion."):
        room = module.name.split(".")[1]
        if not module.ispkg and not room.startswith("_"):
            found.setdefault(room, []).append(module.name)
    return {
        f"library/{room}.md": "\n\n".join([f"# fashion.{room}", *(f"::: {name}" for name in names)]) + "\n"
        for room, names in sorted(found.items())
    }


def _groups(kind: type[Any], values: Any, prefix: str) -> Iterator[str]:
    """A table for the keys of a dataclass, and one for each dataclass in it."""
    hints = typing.get_type_hints(kind)
    meanings = _meanings(kind)
    rows, groups = [], []
    for field in dataclasses.fields(kind):
        hint, key = hints[field.name], f"{prefix}{field.name}"
        default = values.get(field.name) if isinstance(values, dict) else None
        inner = _dataclass_of(hint)
        if inner is not None and isinstance(default, dict):
            groups.append((inner, default, key))
        else:
            shown = "" if isinstance(default, dict) else _code(_short(json.dumps(default, ensure_ascii=False)))
            rows.append(
                f"| `{field.name}` | {_code(_type_name(hint))} | {shown} | {_cell(meanings.get(field.name, ''))} |"
            )
    if rows:
        title = f"### {prefix.rstrip('.')}\n" if prefix else ""
        about = " ".join((inspect.getdoc(kind) or "").split())
        table = "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows])
        yield f"{title}{about}\n\n{table}"
    for inner, default, key in groups:
        yield from _groups(inner, default, f"{key}.")


def _dataclass_of(hint: Any) -> type[Any] | None:
    """The dataclass that a type is, or is optionally."""
    for each in typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,):
        if isinstance(each, type) and dataclasses.is_dataclass(each):
            return each
    return None


def _meanings(kind: type[Any]) -> dict[str, str]:
    """Field -> the docstring under it, of a dataclass and its bases."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        module = ast.parse(inspect.getsource(importlib.import_module(base.__module__)))
        node = next(each for each in module.body if isinstance(each, ast.ClassDef) and each.name == base.__name__)
        for field, text in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def _type_name(hint: Any) -> str:
    name = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    name = re.sub(r"typing\.|fashion\.\w+\.\w+\.", "", name)
    return re.sub(r"Literal\[(.*?)\]", lambda match: match[1].replace("'", "").replace(", ", " or "), name)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _code(text: str) -> str:
    return f"`{_cell(text)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
