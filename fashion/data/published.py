"""Make a version of a public data set from the files that its authors publish. Knows their forms and checksums.

A manifest has checksums of the content that is trained on; authors publish archives. So the archive is verified against
the checksum in the data config, and the first fetch writes the manifest.
"""

import hashlib
import http.client
import re
import tarfile
import urllib.error
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.config.schema import DataConfig, PublishedConfig, PublishedFile
from fashion.data import dataset, manifest
from fashion.data.idx import read_idx, write_idx
from fashion.data.idx_folder import read_idx_folder
from fashion.data.manifest import DataError, Manifest, Role, SplitName
from fashion.data.progress import Reporter, TerminalReporter, megabytes
from fashion.data.sources import download
from fashion.storage.folder import write_atomically

FOLDER = "published"
"""Below a data set's folder in the cache: where files that were downloaded by hand are found."""
CIFAR_ROW = 1 + 3 * 32 * 32
"""Bytes of a row of CIFAR-10's binary form: a label, then the planes of red, green and blue."""

Arrays = dict[tuple[SplitName, Role], NDArray[Any]]


def read_or_make(data: DataConfig, cache: Path, *, reporter: Reporter | None = None) -> Manifest:
    """The manifest that a data config names; made of the published files where there is none yet.

    Args:
        data: of which the manifest is.
        cache: folder that holds the files of all versions.
        reporter: receives the messages; standard error by default.

    Raises:
        DataError: there is no manifest, and the published files cannot be fetched or read.
    """
    if data.published is None or manifest.locate(data).exists():
        return manifest.read(data)
    reporter = reporter or TerminalReporter()
    contents = _contents(data, data.published, cache, reporter)
    entries = tuple(
        manifest.describe(path, split, role, content) for (split, role), (path, content) in contents.items()
    )
    version = Manifest(data.name, len(data.class_names), entries)
    try:
        for path, content in contents.values():
            write_atomically(manifest.folder_of(version, cache) / path, content)
        manifest.write(version, manifest.locate(data))
    except OSError as error:
        raise DataError(f"{data.name} cannot be stored ({error})") from None
    reporter.say(f"{data.name}: wrote {manifest.locate(data)}; commit it, so that each machine has this very version")
    return version


def restore(data: DataConfig, version: Manifest, cache: Path, reporter: Reporter) -> None:
    """Make the files of a version whose manifest is known, and compare each with it.

    Raises:
        DataError: the published files cannot be fetched or read, or differ from the manifest.
    """
    assert data.published is not None
    for part, (_, content) in _contents(data, data.published, cache, reporter).items():
        entry = version.entry(*part)
        write_atomically(manifest.folder_of(version, cache) / entry.path, manifest.unpack(entry, content))


def folder_of(data: DataConfig, cache: Path) -> Path:
    """Where files that were downloaded by hand belong."""
    return cache / data.name / FOLDER


def _contents(
    data: DataConfig, published: PublishedConfig, cache: Path, reporter: Reporter
) -> dict[tuple[SplitName, Role], tuple[str, bytes]]:
    """Split and role -> name and content of the IDX file."""
    folder = folder_of(data, cache)
    downloaded = []
    try:
        for file in published.files:
            if not (folder / file.name).exists():
                _download(data, published, file, folder, reporter)
                downloaded.append(folder / file.name)
            _verify(folder / file.name, file)
        arrays = _READERS[published.form](folder, published)
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{folder} cannot be read ({error})") from None
    finally:
        for path in downloaded:  # what somebody put there stays
            path.unlink(missing_ok=True)
    for split in manifest.REQUIRED:
        dataset.convert(split, arrays[split, "images"], arrays[split, "labels"], data)
    return {
        (split, role): (f"{'train' if split == 'train' else 't10k'}-{role}-idx{values.ndim}-ubyte", write_idx(values))
        for (split, role), values in arrays.items()
    }


def _download(
    data: DataConfig, published: PublishedConfig, file: PublishedFile, folder: Path, reporter: Reporter
) -> None:
    """Fetch a file from the first address that has it."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{file.name}.part"
    problems = []
    for address in published.addresses:
        url = f"{address.rstrip('/')}/{file.name}"
        try:
            with part.open("wb") as out:
                download(url, file.name, most=file.size, reporter=reporter, write=out.write)
            part.replace(folder / file.name)
            reporter.say(f"{file.name}: {megabytes(file.size)} from {address}")
            return
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            problems.append(f"{url}: {getattr(error, 'reason', None) or error}")
        finally:
            part.unlink(missing_ok=True)
    names = ", ".join(each.name for each in published.files)
    raise DataError(
        f"{data.name} cannot be fetched ({'; '.join(problems)}): where there is a network, download {names} from "
        f"{published.addresses[0]}, and put {'it' if len(published.files) == 1 else 'them'} into {folder} here"
    )


def _verify(path: Path, file: PublishedFile) -> None:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != file.sha256:
        raise DataError(
            f"{path} is not the file that was published: its sha256 is {digest[:12]}..., not {file.sha256[:12]}...; "
            "remove it, and fetch it again"
        )


def _read_idx(folder: Path, published: PublishedConfig) -> Arrays:
    arrays = read_idx_folder(folder)
    if arrays is None:
        raise DataError(f"{folder} holds no IDX files")
    return arrays


def _read_cifar10(folder: Path, published: PublishedConfig) -> Arrays:
    """Rows of the binary batches in the one archive, in their order."""
    batches: dict[str, bytes] = {}
    path = folder / published.files[0].name
    with tarfile.open(path) as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            if re.fullmatch(r"(data_batch_\d|test_batch)\.bin", name) and (file := archive.extractfile(member)):
                batches[name] = file.read()
    joined: dict[SplitName, bytes] = {
        "train": b"".join(batches[name] for name in sorted(batches) if name != "test_batch.bin"),
        "test": batches.get("test_batch.bin", b""),
    }
    arrays: Arrays = {}
    for split, content in joined.items():
        if not content or len(content) % CIFAR_ROW:
            raise DataError(f"{path} has no whole {split} batches of {CIFAR_ROW:,} bytes a row")
        rows = np.frombuffer(content, np.uint8).reshape(-1, CIFAR_ROW)
        arrays[split, "images"] = np.ascontiguousarray(np.moveaxis(rows[:, 1:].reshape(-1, 3, 32, 32), 1, -1))
        arrays[split, "labels"] = np.ascontiguousarray(rows[:, 0])
    return arrays


def _read_emnist_balanced(folder: Path, published: PublishedConfig) -> Arrays:
    """The IDX files of the balanced subset in the one archive; their images are published transposed."""
    path = folder / published.files[0].name
    arrays: Arrays = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            match = re.fullmatch(r"(?:.*/)?emnist-balanced-(train|test)-(images|labels)-idx\d-ubyte\.gz", name)
            if match:
                values = read_idx(manifest.decompress(name, archive.read(name)), name)
                part: tuple[SplitName, Role] = match[1], match[2]  # type: ignore[assignment]
                arrays[part] = np.ascontiguousarray(values.swapaxes(1, 2)) if values.ndim == 3 else values
    if len(arrays) < 4:
        raise DataError(f"{path} does not hold images and labels of emnist-balanced for train and for test")
    return arrays


_READERS: dict[str, Callable[[Path, PublishedConfig], Arrays]] = {
    "idx": _read_idx,
    "cifar10": _read_cifar10,
    "emnist_balanced": _read_emnist_balanced,
}
