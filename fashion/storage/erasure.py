"""Overwriting given bytes in files, compressed ones too. Knows no meaning of the bytes."""

import gzip
import mmap
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from fashion.storage import sqlite
from fashion.storage.folder import write_atomically

GZIP = b"\x1f\x8b"

Change = Callable[[bytes], bytes]
"""Takes the content of a file, and returns it without what is to be erased."""


def overwrite(*pairs: tuple[bytes, bytes]) -> Change:
    """A change that replaces bytes by as many others, so that formats with lengths stay readable.

    Args:
        pairs: what to replace, and by what.
    """

    def change(content: bytes) -> bytes:
        for before, after in pairs:
            assert len(before) == len(after)
            content = content.replace(before, after)
        return content

    return change


def erase(root: Path, change: Change, *, passed_over: Collection[Path] = (), dry_run: bool = False) -> Iterator[Path]:
    """Change the files of a folder, and yield those that were changed; each is replaced as a whole.

    Databases of SQLite are passed over, for they may be in use.

    Args:
        root: the folder.
        change: what to do with the content of a file; that of a gzip file is decompressed before.
        passed_over: files and folders to leave alone.
        dry_run: change nothing.

    Raises:
        OSError: a file cannot be read or written.
    """
    for path in files(root, passed_over):
        try:
            content = path.read_bytes()
        except FileNotFoundError:  # deleted since it was listed
            continue
        if content.startswith(sqlite.HEADER) or (changed := _changed(content, change)) == content:
            continue
        if not dry_run:
            write_atomically(path, changed)
        yield path


def contains(path: Path, traces: Sequence[bytes]) -> bool:
    """True if any of the traces stands in a file, as it is on the disk.

    Raises:
        OSError: the file cannot be read.
    """
    if not traces or path.stat().st_size == 0:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(trace) >= 0 for trace in traces)


def files(root: Path, passed_over: Collection[Path] = ()) -> Iterator[Path]:
    """Yield the files of a folder and of its folders, in the order of their names; links are left out.

    Args:
        root: the folder.
        passed_over: files and folders to leave out.

    Raises:
        OSError: a folder cannot be read.
    """
    for path in sorted(root.iterdir()):
        if path in passed_over or path.is_symlink():
            continue
        if path.is_dir():
            yield from files(path, passed_over)
        elif path.is_file():
            yield path


def _changed(content: bytes, change: Change) -> bytes:
    if content.startswith(GZIP):
        try:
            inner = gzip.decompress(content)
        except (OSError, EOFError):
            return change(content)
        changed = change(inner)
        return content if changed == inner else gzip.compress(changed, mtime=0)
    return change(content)
