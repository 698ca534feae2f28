"""Which files make one version of a data set: names, sizes, checksums. Knows not where they come from.

A manifest is kept in git. Its checksums are of the uncompressed content, for the same files are published
in differing gzip envelopes.
"""

import dataclasses
import gzip
import hashlib
import io
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from fashion.config.schema import DataConfig
from fashion.home import REPOSITORY
from fashion.storage.folder import write_atomically

SplitName = Literal["train", "test"]
Role = Literal["images", "labels"]


class DataError(Exception):
    """The data cannot be used. The message is for the person who runs the command, and says what to do."""


@dataclass(frozen=True)
class FileEntry:
    """One file of a data version."""

    path: str
    """Its name: in the cache, and with or without `.gz` at a source."""
    split: SplitName
    role: Role
    sha256: str
    """Of the uncompressed content, in hexadecimal."""
    size: int
    """Bytes of the uncompressed content."""

    @property
    def blob(self) -> str:
        """Its name in a bucket, which is the same for the same content."""
        return f"sha256/{self.sha256[:2]}/{self.sha256}"


@dataclass(frozen=True)
class Manifest:
    """One version of a data set."""

    name: str
    num_classes: int
    files: tuple[FileEntry, ...]

    @property
    def digest(self) -> str:
        """The version: sha256 of this manifest as canonical JSON, in hexadecimal."""
        return hashlib.sha256(_canonical(self).encode()).hexdigest()

    @property
    def blob(self) -> str:
        """The manifest's own name in a bucket."""
        return f"manifests/{self.digest}.json"

    def entry(self, split: SplitName, role: Role) -> FileEntry:
        """The file that plays a role."""
        return next(entry for entry in self.files if (entry.split, entry.role) == (split, role))


def locate(data: DataConfig) -> Path:
    """Path of the manifest of a data config."""
    return REPOSITORY / data.manifest


def read(data: DataConfig) -> Manifest:
    """Read the manifest that a data config names.

    Raises:
        DataError: there is none, it is not a manifest, or it describes another data set.
    """
    path = locate(data)
    try:
        manifest = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"there is no manifest {path}; `fashion data add FOLDER` makes one from images") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is not a manifest ({error}); `git checkout` brings it back") from error
    if (manifest.name, manifest.num_classes) != (data.name, len(data.class_names)):
        raise DataError(
            f"{path} is of {manifest.name!r} with {manifest.num_classes} classes, "
            f"but the data config is of {data.name!r} with {len(data.class_names)}"
        )
    return manifest


def parse(text: str) -> Manifest:
    """Parse a manifest's JSON.

    Raises:
        ValueError, TypeError, KeyError: it is not one.
    """
    content = json.loads(text)
    files = tuple(FileEntry(**entry) for entry in content["files"])
    manifest = Manifest(str(content["name"]), int(content["num_classes"]), files)
    parts = sorted((entry.split, entry.role) for entry in files)
    if parts != sorted((split, role) for split in get_args(SplitName) for role in get_args(Role)):
        raise ValueError("it must name one file of images and one of labels for train and for test")
    if any(Path(entry.path).name != entry.path or entry.path.startswith(".") for entry in files):
        raise ValueError("its files must be names without folders")
    return manifest


def write(manifest: Manifest, path: Path) -> None:
    """Write a manifest for git: indented, atomic."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode())


def folder_of(manifest: Manifest, cache: Path) -> Path:
    """Where the files of a version lie in the cache; versions lie side by side."""
    return cache / manifest.name / manifest.digest[:12]


def describe(path: str, split: SplitName, role: Role, content: bytes) -> FileEntry:
    """The entry of a new file."""
    return FileEntry(path, split, role, hashlib.sha256(content).hexdigest(), len(content))


def unpack(entry: FileEntry, data: bytes) -> bytes:
    """Take what a source gave, gzip or not, and return the content that the manifest promises.

    Raises:
        DataError: it is something else.
    """
    content = decompress(f"{entry.path}.gz", data, limit=entry.size + 1)  # one more shows what is too long
    problem = damage(entry, content)
    if problem:
        raise DataError(problem)
    return content


def decompress(name: str, data: bytes, *, limit: int = -1) -> bytes:
    """Return up to `limit` bytes of what is in a gzip envelope; without an envelope, the bytes themselves.

    Raises:
        DataError: the envelope is damaged.
    """
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.GzipFile(fileobj=io.BytesIO(data)).read(limit)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{name} is damaged or half a file ({error})") from None


def damage(entry: FileEntry, content: bytes) -> str | None:
    """Say what is wrong with a file's content, or None."""
    if len(content) < entry.size:
        return f"{entry.path} is half a file: {len(content):,} of {entry.size:,} bytes"
    if len(content) > entry.size:
        return f"{entry.path} is longer than the {entry.size:,} bytes of the manifest"
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        return f"{entry.path} differs from the manifest's sha256"
    return None


def read_verified(entry: FileEntry, folder: Path) -> bytes:
    """Read a file of the cache.

    Raises:
        FileNotFoundError: it is not there.
        DataError: it is not what the manifest promises.
    """
    content = (folder / entry.path).read_bytes()
    problem = damage(entry, content)
    if problem:
        raise DataError(problem)
    return content


def state(entry: FileEntry, folder: Path) -> str:
    """Say `verified`, `missing`, or what is wrong with a file of the cache."""
    try:
        read_verified(entry, folder)
    except FileNotFoundError:
        return "missing"
    except (DataError, OSError) as error:
        return f"changed: {error}"
    return "verified"


def _canonical(manifest: Manifest) -> str:
    return json.dumps(dataclasses.asdict(manifest), sort_keys=True, separators=(",", ":"))
