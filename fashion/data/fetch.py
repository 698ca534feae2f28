"""Fetch a data version into the cache from the first source that has it, and push it to a bucket.

Verifies every file against the manifest. Knows no source: `sources` reads them.
"""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from fashion.config.schema import DataConfig, SourceConfig
from fashion.data import manifest, published
from fashion.data.manifest import DataError, FileEntry, Manifest
from fashion.data.progress import Reporter, TerminalReporter, megabytes
from fashion.data.sources import READERS, FileFailed, SourceFailed, open_bucket
from fashion.storage.folder import write_atomically

ABANDONED_SECONDS = 3600.0
"""Age in seconds at which a temporary file's writer is taken to have been killed."""


class DataUnavailable(DataError):
    """No source has all the files. The message lists what was tried and what to do."""


def fetch_data(
    data: DataConfig, cache: Path, *, version: Manifest | None = None, reporter: Reporter | None = None
) -> Manifest:
    """Bring every file of the data config's manifest into the cache, verified.

    A cached file that differs from the manifest is reported, removed and fetched again. Several fetches can run at
    once: each writes to temporary names and renames.

    Args:
        data: the version to fetch and its sources, in the order in which they are tried.
        cache: folder that holds the files of all versions.
        version: which version, where it is not to be read from the data config's manifest.
        reporter: receives the messages; standard error by default.

    Returns:
        The manifest of the version.

    Raises:
        DataUnavailable: no source has one of the files.
        DataError: the manifest cannot be read, or the cache cannot be written.
    """
    reporter = reporter or TerminalReporter()
    version = published.read_or_make(data, cache, reporter=reporter) if version is None else version
    folder = manifest.folder_of(version, cache)
    try:
        missing = [entry for entry in version.files if not _is_cached(entry, folder, reporter)]
        if not missing:
            return version
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        failures: list[str] = []
        for source in data.sources:
            missing, reasons = _fetch_from(source, missing, folder, reporter)
            failures += [f"{source.kind} {source.address}".rstrip() + f": {reason}" for reason in reasons]
            if not missing:
                return version
        if data.published is not None:
            published.restore(data, version, cache, reporter)
            return version
    except OSError as error:
        raise DataError(f"the cache {folder} cannot be used ({error}); set FASHION_HOME to another folder") from error
    raise DataUnavailable(_unavailable(data, missing, failures))


def push_data(data: DataConfig, cache: Path, *, reporter: Reporter | None = None) -> str:
    """Upload the cached files and their manifest to the data config's bucket.

    Objects are named after their content, so nothing in the bucket is ever replaced.

    Args:
        data: the version to push; its first bucket with an address is the target.
        cache: folder that holds the files of all versions.
        reporter: receives the messages; standard error by default.

    Returns:
        The address of the bucket.

    Raises:
        DataError: no bucket is configured, or a cached file is missing or differs from the manifest.
        fashion.storage.blobs.StoreUnavailable: the bucket cannot be written.
    """
    reporter = reporter or TerminalReporter()
    version = manifest.read(data)
    folder = manifest.folder_of(version, cache)
    address = find_bucket(data)
    if address is None:
        raise DataError(
            f"the data config of {data.name} names no bucket: set FASHION_DATA_BUCKET to gs://, s3:// or "
            "az://bucket/prefix, or add {kind: bucket, address: gs://bucket/prefix} to its sources"
        )
    store = open_bucket(address)
    for entry in version.files:
        try:
            content = manifest.read_verified(entry, folder)
        except (FileNotFoundError, DataError) as error:
            reason = f"{entry.path} is not in {folder}" if isinstance(error, FileNotFoundError) else error
            raise DataError(f"{reason}; run `fashion data fetch`, then push") from None
        if store.exists(entry.blob):
            reporter.say(f"{entry.path}: already in {store.address}")
            continue
        reporter.progress(f"{entry.path}: uploading {megabytes(entry.size)} to {store.address}")
        store.put_if_absent(entry.blob, content)
        reporter.say(f"{entry.path}: {megabytes(entry.size)} uploaded to {store.address}")
    # The manifest goes last: once it can be seen, all its files are there.
    store.put_if_absent(version.blob, manifest.locate(data).read_bytes())
    return store.address


def find_bucket(data: DataConfig) -> str | None:
    """Return the address that a version is pushed to: the first bucket among the sources; None if there is none."""
    return next((source.address for source in data.sources if source.kind == "bucket" and source.address), None)


def _is_cached(entry: FileEntry, folder: Path, reporter: Reporter) -> bool:
    path = folder / entry.path
    try:
        inode = path.stat().st_ino
        manifest.read_verified(entry, folder)
    except FileNotFoundError:
        return False
    except DataError as error:
        reporter.say(f"removed {path}: {error}")
        # Another fetch may have replaced the file meanwhile: remove only the one that was read.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == inode:
                path.unlink()
        return False
    return True


def _fetch_from(
    source: SourceConfig, entries: Sequence[FileEntry], folder: Path, reporter: Reporter
) -> tuple[list[FileEntry], list[str]]:
    """Write the files that one source has; return those still missing, and the reasons."""
    missing, reasons = list(entries), []
    try:
        with READERS[source.kind](source.address, reporter) as read:
            for entry in entries:
                start = time.monotonic()
                try:
                    content = manifest.unpack(entry, read(entry))
                except (FileFailed, DataError) as error:
                    reasons.append(str(error))
                    continue
                write_atomically(folder / entry.path, content)
                missing.remove(entry)
                seconds = time.monotonic() - start
                reporter.say(
                    f"{entry.path}: {megabytes(entry.size)} from {source.kind} {source.address}, "
                    f"verified ({seconds:.1f} s)"
                )
    except SourceFailed as error:
        reasons.append(str(error))
    return missing, reasons


def _unavailable(data: DataConfig, missing: Sequence[FileEntry], failures: Sequence[str]) -> str:
    tried = "\n".join(f"  - {failure}" for failure in failures) or "  - the data config names no source"
    names = ", ".join(entry.path for entry in missing)
    return (
        f"{data.name}: no source has {names}. Tried:\n{tried}\n"
        "What to do: connect this machine to one of these, or put the files (gzip or not) into a folder and "
        "set data.sources=[{kind: folder, address: /the/folder}]"
    )


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of fetches that were killed."""
    for path in folder.glob(".*.part"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                path.unlink()
