"""A home in one file: made while it is in use, verified before it replaces another. Knows files and SQLite only."""

import datetime
import glob
import gzip
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from fashion.state import record, relocation
from fashion.state.record import StateError
from fashion.storage import sqlite

MANIFEST = "backup.json"
"""The last file of a backup: all others, with their sizes and checksums."""
FOLDER = "home"
"""The folder in a backup that holds the home's files."""
SUFFIXES = (".tar.gz", ".tgz")
LEFT_OUT = (".part", "-wal", "-shm", "-journal")
"""Endings of files that mean something to running processes only; a copied database needs none of them."""
LOCK = ".lock"
"""Ending of the home's own locks. Deeper in it, Metaflow's `DONE.lock` says that a task has succeeded."""
COMPRESSION = 1  # models and pictures hardly shrink: 9 took 5 times as long for 1 % less
REPLACED = ".replaced-"
"""What follows a home's name where another one has taken its place."""


@dataclass(frozen=True)
class Summary:
    """What a backup holds."""

    home: record.Record
    made: str
    """ISO time, UTC."""
    files: dict[str, tuple[str, int]]
    """Path in the home -> sha256 and bytes."""

    @property
    def num_bytes(self) -> int:
        """Of all files, uncompressed."""
        return sum(size for _, size in self.files.values())


def back_up(root: Path, target: Path) -> Summary:
    """Write a home into one file, whole or not at all. Services and flows may go on meanwhile.

    Databases are copied first, each as it is at one moment: whatever they name was stored before, and is copied after.

    Args:
        root: the home.
        target: the file, whose name ends in `.tar.gz`; one of this name is replaced.

    Raises:
        StateError: there is no home, a database in it is damaged, or the file cannot be written.
    """
    if not target.name.endswith(SUFFIXES):
        raise StateError(f"{target} is no name for a backup: end it in .tar.gz")
    if not root.is_dir() or not any(root.iterdir()):
        raise StateError(f"{root} holds nothing to back up: set FASHION_HOME to the folder that does")
    relocation.settle(root)
    home = record.read(root)
    assert home is not None, "settle has written it"
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_remains(target)
        with _temporary(target, target.parent) as copies, unfinished.open("xb") as file:
            summary = Summary(home, _now(), {})
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=COMPRESSION) as archive:
                for name, path in _contents(root, Path(copies), leave_out=target):
                    _add(archive, name, path, summary)
                content = json.dumps(asdict(summary), indent=1).encode()
                entry = tarfile.TarInfo(MANIFEST)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except sqlite3.DatabaseError as error:
        raise StateError(
            f"no backup was written: {getattr(error, 'filename', root)} cannot be copied ({error}); repair it, or move "
            "it away"
        ) from error
    except OSError as error:
        raise StateError(f"{target} was not written: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return summary


def restore(source: Path, root: Path, *, force: bool = False) -> tuple[Summary, Path | None]:
    """Put a backup in the place of a home, once all of it has been read and verified.

    Args:
        source: what `back_up` wrote.
        root: the home.
        force: a home that is there already is put aside; otherwise it is an error.

    Returns:
        What was restored, and where the home is now that was there before.

    Raises:
        StateError: the file is no intact backup, the home is not empty, or it cannot be written.
    """
    occupied = root.exists() and (not root.is_dir() or any(root.iterdir()))
    if occupied and not force:
        raise StateError(f"{root} is not empty: name another folder in FASHION_HOME, or give --force to replace it")
    try:
        # A mounted folder cannot be renamed: its files are moved instead.
        beside = root if os.path.ismount(root) else root.parent
        beside.mkdir(parents=True, exist_ok=True)
        _remove_remains(beside / root.name)
        with _temporary(root, beside) as folder:
            stage = Path(folder, FOLDER)
            stage.mkdir()
            summary = _extract(source, stage)
            os.sync()
            replaced = _put_aside(root, stage) if occupied else None
            _fill(stage, root)
    except OSError as error:
        raise StateError(f"{source} was not restored: {error.strerror or error}; nothing was changed") from error
    relocation.settle(root)
    return summary, replaced


def read(source: Path) -> Summary:
    """Verify a backup, and return what it holds.

    Raises:
        StateError: it is no intact backup.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _extract(source, Path(folder))


def _contents(root: Path, copies: Path, *, leave_out: Path) -> Iterator[tuple[str, Path]]:
    """Names in the home, and the files to read them from; copies of the databases come first."""
    databases: list[tuple[str, Path]] = []
    files: list[tuple[str, Path]] = []
    for name, path in _files(root, leave_out):
        (databases if path.suffix == ".db" and sqlite.is_database(path) else files).append((name, path))
    for number, (name, path) in enumerate(databases):
        copied = copies / str(number)
        sqlite.copy(path, copied)
        yield name, copied
        copied.unlink()
    yield from files
    known = {name for name, _ in files}
    for name, path in _files(root, leave_out):  # made while the databases were copied, which may name them
        if name not in known and path.suffix != ".db":
            yield name, path


def _files(root: Path, leave_out: Path) -> Iterator[tuple[str, Path]]:
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):  # data may be on another disk
        if os.path.realpath(folder) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(folder))
        folders[:] = sorted(each for each in folders if not each.startswith(REPLACED))
        for each in sorted(names):
            path = Path(folder, each)
            left_out = (*LEFT_OUT, LOCK) if path.parent == root else LEFT_OUT
            if path.is_file() and not each.endswith(left_out) and path.resolve() != leave_out.resolve():
                yield path.relative_to(root).as_posix(), path


def _add(archive: tarfile.TarFile, name: str, path: Path, summary: Summary) -> None:
    """Add a file, unless it has gone meanwhile; of one that grows, what it held when it was opened."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        status = os.fstat(file.fileno())
        entry = tarfile.TarInfo(f"{FOLDER}/{name}")
        entry.size, entry.mtime, entry.mode = status.st_size, int(status.st_mtime), status.st_mode & 0o777
        hashed = _Hashed(file)
        archive.addfile(entry, hashed)
    summary.files[name] = (hashed.digest.hexdigest(), entry.size)


class _Hashed:
    """A file whose content is hashed as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.digest = hashlib.sha256()
        self._file = file

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.digest.update(content)
        return content


def _extract(source: Path, stage: Path) -> Summary:
    """Unpack a backup into an empty folder, and compare every file with the manifest."""
    damaged = f"{source} is no intact backup"
    manifest, found = None, {}
    try:
        with tarfile.open(source, mode="r|gz") as archive:
            for entry in archive:
                content = archive.extractfile(entry)
                if content is None or manifest is not None:
                    raise StateError(f"{damaged}: it holds {entry.name}, which no backup does")
                if entry.name == MANIFEST:
                    manifest = json.load(content)
                    continue
                name = entry.name.removeprefix(f"{FOLDER}/")
                path = (stage / name).resolve()
                if not path.is_relative_to(stage.resolve()) or name in found:
                    raise StateError(f"{damaged}: it holds {entry.name}, which no backup does")
                found[name] = _write(path, content, mode=entry.mode)
        if manifest is None:
            raise StateError(f"{damaged}: its end is missing")
        files = {name: (str(digest), int(size)) for name, (digest, size) in manifest["files"].items()}
        home = record.Record(**manifest["home"])
        summary = Summary(home, str(manifest["made"]), files)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, KeyError, TypeError) as error:
        raise error if isinstance(error, StateError) else StateError(f"{damaged}: {error}") from error
    except FileNotFoundError:
        raise StateError(f"there is no backup {source}") from None
    if home.format > record.FORMAT:
        raise StateError(
            f"{source} is of a newer version of this program (format {home.format}, this one reads up to "
            f"{record.FORMAT}): install that version"
        )
    if wrong := sorted(name for name in {*found, *files} if found.get(name) != files.get(name)):
        raise StateError(f"{damaged}: {wrong[0]} is missing or not what was backed up")
    # The path it was made at, so that what it stores is adapted to where it is now.
    (stage / record.FILE).write_text(json.dumps(asdict(home)), encoding="utf-8")
    return summary


def _write(path: Path, content: IO[bytes], *, mode: int) -> tuple[str, int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    hashed = _Hashed(content)
    with path.open("xb") as file:
        shutil.copyfileobj(hashed, file, 1 << 20)
        file.flush()
        size = file.tell()
    path.chmod(mode | 0o600)
    return hashed.digest.hexdigest(), size


def _temporary(path: Path, folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder for what is not finished; `_remove_remains` knows its name."""
    return tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".part", dir=folder)


def _remove_remains(path: Path) -> None:
    """Remove what a backup or restore of this name left that was killed."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def replaced_homes(root: Path) -> list[Path]:
    """Return the folders beside a home that it was renamed to when a restored backup took its place.

    Args:
        root: of the home.
    """
    return sorted(root.parent.glob(f"{glob.escape(root.name)}{REPLACED}*"))


def _put_aside(root: Path, stage: Path) -> Path:
    """Move a home out of the way of the folder that replaces it, and return where it is now."""
    moment = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    if root not in stage.parents:
        return root.rename(root.with_name(f"{root.name}{REPLACED}{moment}"))
    replaced = root / f"{REPLACED}{moment}"
    replaced.mkdir()
    for path in [each for each in root.iterdir() if each not in (stage.parent, replaced)]:
        path.rename(replaced / path.name)
    return replaced


def _fill(stage: Path, root: Path) -> None:
    """Let a folder take the place of an empty or missing home."""
    if root not in stage.parents:
        stage.rename(root)
        return
    for path in list(stage.iterdir()):
        path.rename(root / path.name)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
