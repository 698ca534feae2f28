"""A page of docs/ that is made of measurements in the JSON file beside it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion.home import REPOSITORY
from tests.benchmarks.measurement import Cell, Spread, Table


@dataclass(frozen=True)
class Page:
    """What a page says beside its tables."""

    name: str
    """Of the files in docs/, without ending."""
    introduction: str
    parts: Mapping[str, str]
    """Part -> what is said before its tables, in the page's order. One that was not measured is left out."""
    closing: str = ""

    @property
    def file(self) -> Path:
        """The page."""
        return REPOSITORY / "docs" / f"{self.name}.md"

    def measurements(self) -> dict[str, Any]:
        """The content of the JSON file, by part."""
        file = self.file.with_suffix(".json")
        return dict(json.loads(file.read_text())) if file.is_file() else {}

    def store(self, measurements: Mapping[str, Any]) -> None:
        """Write the JSON file, and the page."""
        self.file.with_suffix(".json").write_text(json.dumps(measurements, indent=1) + "\n")
        self.file.write_text(self.text(measurements))

    def text(self, measurements: Mapping[str, Any]) -> str:
        """The page in Markdown.

        Args:
            measurements: part -> what `python -m tests.benchmarks NAME --json FILE` writes.
        """
        pieces = [self.introduction]
        for name, said in self.parts.items():
            if (part := measurements.get(name)) is None:
                continue
            where = "; ".join(f"{key} {value}" for key, value in part["circumstances"].items())
            pieces += [said, *(f"{_table(each).markdown()}" for each in part["tables"]), f"Measured with: {where}.\n"]
        return "\n".join([*pieces, *filter(None, [self.closing])])


def _table(plain: dict[str, Any]) -> Table:
    """Undo `Table.plain`."""
    rows = [{name: _cell(value) for name, value in row.items()} for row in plain["rows"]]
    return Table(plain["title"], rows, plain["note"], plain["formats"])


def _cell(value: Any) -> Cell:
    return Spread(tuple(value["values"])) if isinstance(value, dict) else value
