"""Feedback as a CSV table of prediction_id, true_label and source. Knows no log, no service and no classes."""

import csv
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

COLUMNS = ("prediction_id", "true_label")
"""Columns that a table must have; `source` is optional."""
DEFAULT_SOURCE = "csv"
DELIMITERS = (",", ";", "\t")
"""The header tells which one a table has: spreadsheets write semicolons where the comma is the decimal sign."""


class InvalidTable(ValueError):
    """Not a table of feedback: it cannot be parsed, or lacks a column."""


@dataclass(frozen=True)
class FeedbackRow:
    """One row of the table."""

    line: int
    """Line of the table where the row ends, from 1; the header is the first."""
    prediction_id: str
    true_label: str
    """The class as it was written, without space around it; `labels.to_class` says which it is."""
    source: str
    """Who gave the label."""


@dataclass(frozen=True)
class RowError:
    """A row that cannot be used."""

    line: int
    prediction_id: str
    message: str
    """One sentence that names the value."""


def parse_feedback(lines: Iterable[str]) -> Iterator[FeedbackRow | RowError]:
    """Parse a table row by row, so that one bad row does not cost the others.

    Args:
        lines: of the table, with the header first.

    Raises:
        InvalidTable: at the first row: a column is missing; or later: the table cannot be parsed.
    """
    remaining = iter(lines)
    header = next(remaining, "")
    table = csv.DictReader(itertools.chain([header], remaining), delimiter=max(DELIMITERS, key=header.count))
    try:
        if not set(COLUMNS) <= set(table.fieldnames or ()):
            found = ", ".join(name or "''" for name in table.fieldnames or ()) or "none"
            raise InvalidTable(f"the table must have the columns {' and '.join(COLUMNS)}, got {found[:100]}")
        for row in table:
            prediction_id, text = ((row[column] or "").strip() for column in COLUMNS)
            if not text:
                yield RowError(table.line_num, prediction_id, "true_label is empty")
                continue
            source = (row.get("source") or DEFAULT_SOURCE).strip()
            yield FeedbackRow(table.line_num, prediction_id, text, source)
    except csv.Error as error:
        raise InvalidTable(f"the table cannot be read: {error}") from None
