"""Find out how a folder of pictures is laid out, from the names of its files and its tables. Decodes no picture."""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fashion.data.counting import counted
from fashion.data.junk import is_junk
from fashion.data.manifest import DataError, SplitName
from fashion.data.tables import ENDINGS, FILE_COLUMNS, LABEL_COLUMNS, Row, read_table

SPLITS: dict[str, SplitName] = {
    **dict.fromkeys(("train", "training", "train_set"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "test_set"), "test"),
}
"""Name of a folder, or a word in a table's column -> the split that it means; in lower case."""
PICTURES = frozenset(
    {
        *(".bmp", ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".webp", ".tif", ".tiff"),
        *(".heic", ".heif", ".avif", ".jp2", ".ico", ".pgm", ".ppm", ".pnm", ".tga", ".psd", ".raw", ".svg", ""),
    }
)
"""Endings of files that count as pictures when the layout is looked for; of some it is found later that they cannot be
read."""
KNOWN = (
    "class folders (CLASS/picture.png), folders of splits (train/CLASS/picture.png, test/CLASS/picture.png), or a CSV, "
    "JSON lines or Parquet file with the columns file_name and label"
)


@dataclass(frozen=True)
class Entry:
    """A file that should be a picture."""

    path: str
    """Below the root, with `/` between its parts."""
    label: str
    """Name of the class, in composed Unicode (NFC)."""
    split: SplitName | None
    """None where none is given."""
    group: str | None
    """None for a picture of no group."""


@dataclass(frozen=True)
class Layout:
    """What a folder of pictures holds."""

    kind: str
    """In a few words."""
    entries: tuple[Entry, ...]
    junk: tuple[str, ...] = ()
    """Paths that are nobody's pictures by their name."""
    notes: tuple[str, ...] = ()
    """Sentences on what was passed over besides."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """In natural order: 2 before 10."""
        return tuple(sorted({entry.label for entry in self.entries}, key=natural_key))


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """What names are sorted by: digits as numbers, letters without their case, then as they are."""
    parts = re.findall(r"\d+|\D+", unicodedata.normalize("NFKC", name).casefold())
    return (*((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts), (-1, 0, name))


def plain(name: str) -> str:
    """Reduce a name to letters and digits in one Unicode form: `t_shirt_top` and T-shirt/top are the same."""
    # By category, not by \w: marks, which vowels are in many scripts, are no letters to a regular expression.
    kept = [char for char in unicodedata.normalize("NFC", name) if unicodedata.category(char)[0] in "LMN"]
    return unicodedata.normalize("NFC", "".join(kept).casefold())


def find_layout(root: Path) -> Layout:
    """Look at the names in a folder, or at a table of files and labels.

    Args:
        root: a folder, or a table beside the pictures that it names.

    Raises:
        DataError: it is laid out in none of the known ways.
    """
    folder = root if root.is_dir() else root.parent
    names = sorted(_walk(folder), key=natural_key)
    junk = tuple(name for name in names if is_junk(name))
    names = [name for name in names if not is_junk(name)]
    tables = [root.name] if root.is_file() else [name for name in names if _is_table(name)]
    by_table = _from_tables(folder, tables, names)
    if by_table is not None:
        return Layout(by_table.kind, by_table.entries, junk, by_table.notes)
    if root.is_file():
        raise DataError(
            f"{root} needs a column of files ({', '.join(FILE_COLUMNS[:4])}, ...) and one of labels "
            f"({', '.join(LABEL_COLUMNS[:3])}, ...), and the files must be beside it"
        )
    found = _from_folders(folder, [name for name in names if not _is_table(name)])
    return Layout(found.kind, found.entries, junk, found.notes)


def _walk(folder: Path) -> Iterator[str]:
    """Paths of all files, through links, each folder once."""
    seen = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in files:
            yield (Path(where) / name).relative_to(folder).as_posix()


def _is_table(name: str) -> bool:
    path = PurePosixPath(name)
    is_of_split = len(path.parts) == 2 and path.parts[0].casefold() in SPLITS and path.stem.casefold() == "metadata"
    return path.suffix.casefold() in ENDINGS and (len(path.parts) == 1 or is_of_split)


def _from_tables(folder: Path, tables: Sequence[str], names: Sequence[str]) -> Layout | None:
    """Entries of the tables that name files; None if none does."""
    entries, notes, used = [], [], []
    lookup = _Lookup(names)
    for table in tables:
        rows = read_table(folder / table)
        if rows is None:
            notes.append(f"{table} has no column of files and labels: passed over")
            continue
        split = SPLITS.get(PurePosixPath(table).stem.casefold()) or SPLITS.get(PurePosixPath(table).parts[0].casefold())
        found = [entry for row in rows if (entry := _entry(row, table, split, lookup)) is not None]
        if not found:
            notes.append(f"{table} names no file that is here: passed over")
            continue
        if missing := len(rows) - len(found):
            notes.append(f"{missing:,} of {len(rows):,} files that {table} names are not here")
        used.append(table)
        entries += found
    if not entries:
        return None
    repeated = len(entries) - len({entry.path for entry in entries})
    if repeated:
        notes.append(f"{counted(repeated, 'file')} named more than once: the last row counts")
        entries = list({entry.path: entry for entry in entries}.values())
    unnamed = sum(_is_picture(name) for name in names) - len(entries)
    if unnamed > 0:
        notes.append(f"{counted(unnamed, 'picture')} in no table: passed over")
    return Layout(f"files and labels of {', '.join(used)}", tuple(entries), notes=tuple(notes))


class _Lookup:
    """Finds the file that a table names: by its path, or by its name or the name without its ending if one has it."""

    def __init__(self, names: Sequence[str]) -> None:
        self._paths = {unicodedata.normalize("NFC", name): name for name in names}
        self._others: dict[str, list[str]] = defaultdict(list)
        for name in names:
            path = PurePosixPath(unicodedata.normalize("NFC", name))
            for key in {path.name, path.stem}:
                self._others[key].append(name)

    def find(self, file: str, folder: PurePosixPath) -> str | None:
        """Path of the file.

        Args:
            file: as the table has it, relative to the table's folder or to the root.
            folder: of the table.
        """
        for path in (str(folder / file), file.removeprefix("./")):
            if path in self._paths:
                return self._paths[path]
        same = self._others.get(PurePosixPath(file).name, [])
        return same[0] if len(same) == 1 else None


def _entry(row: Row, table: str, split: SplitName | None, lookup: _Lookup) -> Entry | None:
    path = lookup.find(row.file, PurePosixPath(table).parent)
    if path is None:
        return None
    named = None if row.split is None else SPLITS.get(row.split.casefold())
    return Entry(path, row.label, named or split, row.group)


def _from_folders(folder: Path, names: Sequence[str]) -> Layout:
    wrapped = PurePosixPath()
    tops = _by_top(names)
    while len(tops) == 1 and not _is_split(*tops.popitem()) and (inner := _inner(names)):
        wrapped, names = wrapped / inner, [name.partition("/")[2] for name in names if name.startswith(f"{inner}/")]
        tops = _by_top(names)
    tops = _by_top(names)
    beside = sum("/" not in name for name in names)
    notes = [f"{counted(beside, 'file')} beside the classes: passed over"] if beside else []
    splits = {top: SPLITS[top.casefold()] for top in tops if top.casefold() in SPLITS}
    has_classes = {top for top in splits if _is_split(top, tops[top])}
    if has_classes and (set(tops) == set(splits) or "train" in {splits[top] for top in has_classes}):
        for top in sorted(set(tops) - has_classes, key=natural_key):
            notes.append(f"{top}/ holds no class folders of a split: passed over")
        entries = [
            Entry(str(wrapped / top / rest), _label(rest), splits[top], None)
            for top in sorted(has_classes, key=natural_key)
            for rest in tops[top]
            if "/" in rest
        ]
        kind = f"folders of splits ({', '.join(sorted(has_classes, key=natural_key))}), in each one folder a class"
    else:
        entries = [Entry(str(wrapped / top / rest), _label(top), None, None) for top in tops for rest in tops[top]]
        kind = "one folder a class"
    if len({entry.label for entry in entries}) < 2:
        pictures = sum(_is_picture(name) for name in names)
        raise DataError(
            f"{folder} holds {pictures:,} pictures in {len({entry.label for entry in entries})} class folders, and at "
            f"least 2 classes are needed; what is understood: {KNOWN}"
        )
    return Layout(kind, tuple(entries), notes=tuple(notes))


def _by_top(names: Sequence[str]) -> dict[str, list[str]]:
    """First folder -> what follows in the paths of its files; only folders that hold pictures."""
    tops: dict[str, list[str]] = defaultdict(list)
    for name in names:
        top, slash, rest = name.partition("/")
        if slash:
            tops[top].append(rest)
    return {top: rest for top, rest in tops.items() if any(_is_picture(name) for name in rest)}


def _inner(names: Sequence[str]) -> str | None:
    """The one folder that all pictures are in, if none is directly in it; as archives often have."""
    counts = Counter(name.partition("/")[0] for name in names if "/" in name and _is_picture(name))
    loose = any(_is_picture(name) for name in names if name.count("/") < 2)
    return None if loose or len(counts) != 1 else next(iter(counts))


def _is_split(top: str, rest: Sequence[str]) -> bool:
    """True for a folder named after a split whose pictures are in folders of classes."""
    pictures = [name for name in rest if _is_picture(name)]
    return top.casefold() in SPLITS and any("/" in name for name in pictures)


def _is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.casefold() in PICTURES


def _label(path: str) -> str:
    """Name of the class that a path begins with, in composed Unicode; bytes that are no UTF-8 are read as Latin-1."""
    name = path.partition("/")[0]
    try:
        name.encode()
    except UnicodeEncodeError:
        name = os.fsencode(name).decode("latin-1")
    return unicodedata.normalize("NFC", name).strip()
