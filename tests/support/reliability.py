"""The table of docs/reliability.md, made of the tests that inject faults: `python -m tests.support.reliability`.

A test, or a set of its parameters, says its fault in `pytest.mark.fault("...")`; the test's name is the promise.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "reliability.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
PARTS = {
    "training": "Training",
    "flows": "Flows",
    "evaluation": "Gate",
    "registry": "Registry and MLflow",
    "data": "Data",
    "model": "Model packages",
    "predictions": "Prediction log",
    "storage": "Buckets and servers",
    "images": "Pictures",
    "drift": "Drift",
    "service": "Service",
    "deployment": "Rollout",
    "state": "The folder of all state",
    "cleaning": "The folder of all state",
    "commands": "Commands",
}
"""Folder of tests -> heading, in the order of the page; other folders come last, under `Elsewhere`."""
SPELLING = {"mlflow": "MLflow", "sigterm": "SIGTERM", "metaflow": "Metaflow", "firestore": "Firestore", "csv": "CSV"}
"""Names that a test's name cannot spell."""


@dataclass(frozen=True)
class Promise:
    """A test that injects a fault."""

    part: str
    """Heading."""
    fault: str
    sentence: str
    """What holds, of the test's name."""
    path: str
    """Of the test's file, from the repository's root."""
    line: int


def promises() -> list[Promise]:
    """Every marked test, by part and file."""
    paths = sorted((REPOSITORY / "tests").rglob("test_*.py"))
    found = [promise for path in paths for promise in _of_file(path)]
    headings = [*dict.fromkeys(PARTS.values()), "Elsewhere"]
    return sorted(found, key=lambda each: headings.index(each.part))


def table() -> str:
    """The promises as Markdown, a table for each part."""
    lines: list[str] = []
    part = ""
    for each in promises():
        if each.part != part:
            part = each.part
            lines += ["", f"### {part}", "| Fault | What holds | Test |", "|---|---|---|"]
        lines.append(f"| {each.fault} | {each.sentence} | [{Path(each.path).name}](../{each.path}) |")
    return "\n".join(lines).lstrip("\n") + "\n"


def page() -> str:
    """The page with a new table."""
    before, rest = PAGE.read_text().split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


def _of_file(path: Path) -> Iterator[Promise]:
    name = path.relative_to(REPOSITORY).as_posix()
    part = PARTS.get(path.parent.name, "Elsewhere")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            for fault in _faults(node):
                words = node.name.removeprefix("test_").split("_")
                sentence = " ".join(SPELLING.get(word, word) for word in words)
                yield Promise(part, fault, sentence[0].upper() + sentence[1:], name, node.lineno)


def _faults(test: ast.FunctionDef) -> Iterator[str]:
    """The faults of a test's marks, also of those inside `pytest.param(marks=...)`, in their order."""
    for decorator in test.decorator_list:
        marks = [
            call
            for call in ast.walk(decorator)
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.fault"
        ]
        for mark in sorted(marks, key=lambda each: each.lineno):
            yield ast.literal_eval(mark.args[0]).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page())
