"""Read tables that name pictures and their labels: CSV, TSV, JSON lines, Parquet. Knows columns, not layouts."""

import csv
import io
import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion.data.manifest import DataError

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
FILE_COLUMNS = ("file_name", "filename", "file", "image_path", "filepath", "path", "image", "img", "picture", "id")
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target", "true_label")
SPLIT_COLUMNS = ("split", "set", "subset", "partition")
GROUP_COLUMNS = ("group", "group_id")


@dataclass(frozen=True)
class Row:
    """A picture as a table names it."""

    file: str
    label: str
    split: str | None
    """As it is written; None where there is no such column, or it is empty."""
    group: str | None
    """Pictures of one group stay in one split; None for a picture of no group."""


def read_table(path: Path) -> list[Row] | None:
    """Read a table; None if it has no column of files or none of labels.

    Raises:
        DataError: the file cannot be parsed.
    """
    try:
        names, records = _READERS[path.suffix.casefold()](path)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table ({' '.join(str(error).split())[:200]})") from None
    known = {_plain(name): name for name in names}
    columns = [_first(known, wanted) for wanted in (FILE_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS, GROUP_COLUMNS)]
    file, label, split, group = columns
    if file is None or label is None:
        return None
    rows = []
    for record in records:
        name, value = _text(record.get(file)), _text(record.get(label))
        if name is not None and value is not None:
            chosen = [None if column is None else _text(record.get(column)) for column in (split, group)]
            rows.append(Row(name.replace("\\", "/"), value, *chosen))
    return rows


def _csv(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")  # what Excel writes on Windows
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    return list(reader.fieldnames or []), list(reader)


def _json_lines(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    records = [json.loads(line) for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not all(isinstance(record, dict) for record in records):
        raise ValueError("each line must be an object")
    return list(dict.fromkeys(key for record in records for key in record)), records


def _parquet(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    wanted = {*FILE_COLUMNS, *LABEL_COLUMNS, *SPLIT_COLUMNS, *GROUP_COLUMNS}
    names = [name for name in table.column_names if _plain(name) in wanted]
    return names, table.select(names).to_pylist()


_READERS = {".csv": _csv, ".tsv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}


def _first(known: dict[str, str], wanted: tuple[str, ...]) -> str | None:
    return next((known[name] for name in wanted if name in known), None)


def _plain(name: str | None) -> str:
    return (name or "").strip().casefold().replace(" ", "_").replace("-", "_")


def _text(value: Any) -> str | None:
    """A cell as text in composed Unicode; None where it is empty. 3.0, as of a column with gaps, is 3."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return unicodedata.normalize("NFC", str(value)).strip() or None
