"""List the files of one data version with their sizes and checksums. Independent of where the files come from.

A manifest is committed to git. Its checksums are of the uncompressed content, because the same files are published
with different gzip compression.
"""

import dataclasses
import gzip
import hashlib
import io
import itertools
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from fashion.config.schema import DataConfig
from fashion.home import REPOSITORY
from fashion.storage.folder import write_atomically

SplitName = Literal["train", "val", "test"]
REQUIRED: tuple[SplitName, ...] = ("train", "test")
"""Splits that each version has; one without `val` has its validation rows held out of `train`."""
Role = Literal["images", "labels"]


class DataError(Exception):
    """The data cannot be used. The message is for the person who runs the command and says what to do."""


@dataclass(frozen=True)
class FileEntry:
    """One file of a data version."""

    path: str
    """Name of the file: in the cache as it stands, at a source with or without `.gz`."""
    split: SplitName
    role: Role
    sha256: str
    """Checksum of the uncompressed content, 64 hexadecimal digits."""
    size: int
    """Size of the uncompressed content in bytes."""

    @property
    def blob(self) -> str:
        """Name of the file in a bucket: equal for equal content."""
        return f"sha256/{self.sha256[:2]}/{self.sha256}"


@dataclass(frozen=True)
class Manifest:
    """One version of a data set."""

    name: str
    num_classes: int
    files: tuple[FileEntry, ...]

    @property
    def digest(self) -> str:
        """Version of the data: sha256 of this manifest as canonical JSON, 64 hexadecimal digits."""
        return hashlib.sha256(_canonical(self).encode()).hexdigest()

    @property
    def blob(self) -> str:
        """Name of the manifest in a bucket."""
        return f"manifests/{self.digest}.json"

    @property
    def splits(self) -> tuple[SplitName, ...]:
        """The splits that have files."""
        return tuple(split for split in get_args(SplitName) if any(entry.split == split for entry in self.files))

    def entry(self, split: SplitName, role: Role) -> FileEntry:
        """Return the file with the images or the labels of a split."""
        return next(entry for entry in self.files if (entry.split, entry.role) == (split, role))


def locate(data: DataConfig) -> Path:
    """Return the path of a data config's manifest."""
    return REPOSITORY / data.manifest


def read(data: DataConfig) -> Manifest:
    """Read the manifest that a data config names.

    Raises:
        DataError: the file is missing, is not a manifest, or describes another data set.
    """
    path = locate(data)
    try:
        manifest = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        remedy = "`fashion data add FOLDER` makes one from images"
        if data.published is not None:
            remedy = f"`fashion data fetch data={path.name.partition('.')[0]}` writes it"
        raise DataError(f"there is no manifest {path}; {remedy}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is not a manifest ({error}); `git checkout` brings it back") from error
    if (manifest.name, manifest.num_classes) != (data.name, len(data.class_names)):
        raise DataError(
            f"{path} describes {manifest.name!r} with {manifest.num_classes} classes, "
            f"but the data config describes {data.name!r} with {len(data.class_names)}: choose another with data=NAME"
        )
    return manifest


def parse(text: str) -> Manifest:
    """Parse a manifest's JSON.

    Raises:
        ValueError, TypeError, KeyError: the text is not a manifest.
    """
    content = json.loads(text)
    files = tuple(FileEntry(**entry) for entry in content["files"])
    manifest = Manifest(str(content["name"]), int(content["num_classes"]), files)
    parts = sorted((entry.split, entry.role) for entry in files)
    expected = sorted((split, role) for split in {*manifest.splits, *REQUIRED} for role in get_args(Role))
    if parts != expected:
        raise ValueError("it must name one file of images and one of labels for train and for test, and maybe for val")
    if any(Path(entry.path).name != entry.path or entry.path.startswith(".") for entry in files):
        raise ValueError("its files must be names without folders")
    return manifest


def serialize(manifest: Manifest) -> str:
    """A manifest as JSON, indented for reading; `parse` reads it."""
    return json.dumps(dataclasses.asdict(manifest), indent=2, ensure_ascii=False) + "\n"


def write(manifest: Manifest, path: Path) -> None:
    """Write a manifest, atomically."""
    write_atomically(path, serialize(manifest).encode())


def read_folder(name: str, num_classes: int, digest: str, cache: Path) -> Manifest | None:
    """The manifest of a version by its files alone; None where they are not all there, or not those of the version.

    Args:
        name: of the data set.
        num_classes: of the version.
        digest: of the version; what is found has it.
        cache: folder that holds the files of all versions.
    """
    files: dict[tuple[str, str], FileEntry] = {}
    for path in sorted((cache / name / digest[:12]).glob("*-idx*-ubyte")):
        split, role, *_ = path.name.split("-")
        split = "test" if split == "t10k" else split
        if split in get_args(SplitName) and role in get_args(Role):
            files[split, role] = describe(path.name, split, role, path.read_bytes())  # type: ignore[arg-type]
    for splits in itertools.permutations({split for split, _ in files}):  # the order is part of the digest
        parts = [files[part] for part in itertools.product(splits, get_args(Role)) if part in files]
        found = Manifest(name, num_classes, tuple(parts))
        if found.digest == digest:
            return found
    return None


def folder_of(manifest: Manifest, cache: Path) -> Path:
    """Return the folder of a version in the cache; each version has its own."""
    return cache / manifest.name / manifest.digest[:12]


def describe(path: str, split: SplitName, role: Role, content: bytes) -> FileEntry:
    """Make the entry of a new file.

    Args:
        path: name of the file, without folders.
        split: which files the network trains on or is tested on.
        role: whether the file holds images or labels.
        content: the uncompressed bytes.
    """
    return FileEntry(path, split, role, hashlib.sha256(content).hexdigest(), len(content))


def unpack(entry: FileEntry, data: bytes) -> bytes:
    """Return the content of a file that came from a source, gzip or not, if it is the one in the manifest.

    Raises:
        DataError: the gzip envelope is damaged, or the size or the checksum differs.
    """
    content = decompress(f"{entry.path}.gz", data, limit=entry.size + 1)  # one byte more shows that it is too long
    _verify(entry, content)
    return content


def decompress(name: str, data: bytes, *, limit: int = -1) -> bytes:
    """Decompress gzip data; return anything else as it is.

    Args:
        name: the file's name, for the error message.
        data: the file's bytes.
        limit: most bytes to decompress; -1 for no limit.

    Raises:
        DataError: the gzip data is damaged or cut off.
    """
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.GzipFile(fileobj=io.BytesIO(data)).read(limit)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{name} is damaged or cut off ({error})") from None


def read_verified(entry: FileEntry, folder: Path) -> bytes:
    """Read a file of the cache and compare it with the manifest.

    Raises:
        FileNotFoundError: the file is not in the folder.
        DataError: its size or its checksum differs from the manifest's.
    """
    content = (folder / entry.path).read_bytes()
    _verify(entry, content)
    return content


def state(entry: FileEntry, folder: Path) -> str:
    """Describe a file of the cache: `verified`, `missing`, or `changed: ` and the reason."""
    try:
        read_verified(entry, folder)
    except FileNotFoundError:
        return "missing"
    except (DataError, OSError) as error:
        return f"changed: {error}"
    return "verified"


def _verify(entry: FileEntry, content: bytes) -> None:
    if len(content) < entry.size:
        raise DataError(f"{entry.path} is cut off: it has {len(content):,} of {entry.size:,} bytes")
    if len(content) > entry.size:
        raise DataError(f"{entry.path} is longer than the {entry.size:,} bytes of the manifest")
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise DataError(f"{entry.path} differs from the manifest's sha256")


def _canonical(manifest: Manifest) -> str:
    return json.dumps(dataclasses.asdict(manifest), sort_keys=True, separators=(",", ":"))
