"""How data files get here: from a folder, Debian's package, a download or a bucket. Not what they hold.

What a source gives is checked against the manifest before it gets its name in the cache, and gets it whole.
"""

import contextlib
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TextIO

from fashion import blobs, manifest
from fashion.config import DataConfig, SourceConfig
from fashion.manifest import DataError, FileEntry, Manifest

SILENCE_SECONDS = 20.0
"""How long a download may stand still."""
PIECE_BYTES = 1 << 16
ABANDONED_SECONDS = 3600.0
"""Age of a temporary file whose writer must have been killed."""


class DataUnavailable(DataError):
    """No source had all the files. The message lists what was tried and what to do."""


class Report(Protocol):
    """Who hears what happens."""

    def say(self, message: str) -> None:
        """Something happened."""

    def progress(self, message: str) -> None:
        """How far a download is; each message replaces the one before."""


class Terminal:
    """A Report on standard error: progress in place on a terminal, a line now and then anywhere else."""

    def __init__(self, stream: TextIO | None = None, *, seconds_between_lines: float = 10.0) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._seconds = 0.1 if self._live else seconds_between_lines
        self._last = time.monotonic()

    def say(self, message: str) -> None:
        """See Report.say."""
        print(f"\r\x1b[2K{message}" if self._live else message, file=self._stream, flush=True)

    def progress(self, message: str) -> None:
        """See Report.progress."""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return
        self._last = now
        print(
            f"\r\x1b[2K{message}" if self._live else message,
            end="" if self._live else "\n",
            file=self._stream,
        )
        self._stream.flush()


class _SourceFailedError(Exception):
    """A source as a whole cannot give anything."""


class _FileFailedError(Exception):
    """A source cannot give this file."""


_Read = Callable[[FileEntry], bytes]


def fetch(data: DataConfig, cache: Path, *, report: Report | None = None) -> Manifest:
    """Bring every file of the data config's manifest into the cache, verified.

    What is there and right is kept; what is there and wrong is named, removed and fetched again. Fetches at
    the same time do not disturb each other: each writes under a name of its own before it renames.

    Raises:
        DataUnavailable: some file could be had from no source.
        DataError: the manifest cannot be read, or the cache not written.
    """
    report = report or Terminal()
    version = manifest.read(data)
    folder = manifest.folder_of(version, cache)
    try:
        missing = [entry for entry in version.files if not _is_cached(entry, folder, report)]
        if not missing:
            return version
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        failures: list[str] = []
        for source in data.sources:
            missing, reasons = _fetch_from(source, missing, folder, report)
            failures += [f"{source.kind} {source.address}".rstrip() + f": {reason}" for reason in reasons]
            if not missing:
                return version
    except OSError as error:
        raise DataError(f"the cache {folder} cannot be used ({error}); FASHION_HOME moves it") from error
    raise DataUnavailable(_unavailable(data, missing, failures))


def push(data: DataConfig, cache: Path, *, report: Report | None = None) -> str:
    """Upload the cached files and their manifest to the data config's bucket; return its address.

    Objects are named after their content, so nothing that is there is ever replaced.

    Raises:
        DataError: no bucket is configured, or a file is not as the manifest says.
        StoreUnavailable: the bucket cannot be written.
    """
    report = report or Terminal()
    version = manifest.read(data)
    folder = manifest.folder_of(version, cache)
    address = find_bucket(data)
    if address is None:
        raise DataError(
            f"the data config of {data.name} names no bucket: set FASHION_DATA_BUCKET=gs://bucket/prefix, "
            "or add {kind: bucket, address: gs://bucket/prefix} to its sources"
        )
    store = open_bucket(address)
    for entry in version.files:
        try:
            content = manifest.read_verified(entry, folder)
        except (FileNotFoundError, DataError) as error:
            reason = f"{entry.path} is not in {folder}" if isinstance(error, FileNotFoundError) else error
            raise DataError(f"{reason}; run `python -m fashion.dataset fetch`, then push") from None
        if store.exists(entry.blob):
            report.say(f"{entry.path}: already in {store.address}")
            continue
        report.progress(f"{entry.path}: uploading {_megabytes(entry.size)} to {store.address}")
        store.put_if_absent(entry.blob, content)
        report.say(f"{entry.path}: {_megabytes(entry.size)} uploaded to {store.address}")
    # The manifest goes last: whoever sees it can fetch all it names.
    store.put_if_absent(version.blob, manifest.locate(data).read_bytes())
    return store.address


def find_bucket(data: DataConfig) -> str | None:
    """The address that a version is pushed to: the first bucket among the sources that has one."""
    return next((source.address for source in data.sources if source.kind == "bucket" and source.address), None)


def open_bucket(address: str) -> blobs.Store:
    """The store at a bucket's address.

    Raises:
        DataError: it is no such address.
    """
    try:
        return blobs.store(address)
    except ValueError as error:
        raise DataError(str(error)) from None


def _is_cached(entry: FileEntry, folder: Path, report: Report) -> bool:
    path = folder / entry.path
    try:
        checked = path.stat().st_ino
        manifest.read_verified(entry, folder)
    except FileNotFoundError:
        return False
    except DataError as error:
        report.say(f"removed {path}: {error}")
        # Another fetch may have put the right file there meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == checked:
                path.unlink()
        return False
    return True


def _fetch_from(
    source: SourceConfig, entries: Sequence[FileEntry], folder: Path, report: Report
) -> tuple[list[FileEntry], list[str]]:
    """Take what one source has; return what is still missing, and why."""
    missing, reasons = list(entries), []
    try:
        with _READERS[source.kind](source.address, report) as read:
            for entry in entries:
                start = time.monotonic()
                try:
                    content = manifest.unpack(entry, read(entry))
                except (_FileFailedError, DataError) as error:
                    reasons.append(str(error))
                    continue
                blobs.write_atomically(folder / entry.path, content)
                missing.remove(entry)
                seconds = time.monotonic() - start
                report.say(
                    f"{entry.path}: {_megabytes(entry.size)} from {source.kind} {source.address}, "
                    f"verified ({seconds:.1f} s)"
                )
    except _SourceFailedError as error:
        reasons.append(str(error))
    return missing, reasons


def _unavailable(data: DataConfig, missing: Sequence[FileEntry], failures: Sequence[str]) -> str:
    tried = "\n".join(f"  - {failure}" for failure in failures) or "  - the data config names no source"
    names = ", ".join(entry.path for entry in missing)
    return (
        f"{data.name}: {names} could not be had. Tried:\n{tried}\n"
        "What to do: connect this machine to one of these, or put the files (gzip or not) into a folder and "
        "name it: data.sources=[{kind: folder, address: /the/folder}]"
    )


@contextlib.contextmanager
def _folder(address: str, report: Report) -> Iterator[_Read]:
    folder = Path(address).expanduser()
    if not folder.is_dir():
        raise _SourceFailedError("no such folder")

    def read(entry: FileEntry) -> bytes:
        for path in (folder / f"{entry.path}.gz", folder / entry.path):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _FileFailedError(str(error)) from None
        raise _FileFailedError(f"there is no {entry.path}.gz or {entry.path}")

    yield read


@contextlib.contextmanager
def _debian(package: str, report: Report) -> Iterator[_Read]:
    """The package's files: where it is installed, or unpacked from a download that needs no root."""
    installed = _installed_folder(package)
    if installed is not None:
        with _folder(str(installed), report) as read:
            yield read
        return
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise _SourceFailedError(f"there is no {tool} on this machine")
    with tempfile.TemporaryDirectory(prefix="fashion-debian-") as temporary:
        archive = _download_package(package, Path(temporary), report)
        unpacked = Path(temporary) / "unpacked"
        _run(["dpkg-deb", "-x", str(archive), str(unpacked)], Path(temporary))
        folders = {path.parent for path in unpacked.rglob("*-ubyte*")} or {unpacked}
        with _folder(str(min(folders)), report) as read:
            yield read


def _installed_folder(package: str) -> Path | None:
    if shutil.which("dpkg-query") is None:
        return None
    listed = subprocess.run(["dpkg-query", "-L", package], capture_output=True, text=True, check=False)
    folders = {Path(line).parent for line in listed.stdout.splitlines() if "-ubyte" in line}
    return next((folder for folder in sorted(folders) if folder.is_dir()), None)


def _download_package(package: str, folder: Path, report: Report) -> Path:
    try:
        return _apt_download(package, folder, report, [])
    except _SourceFailedError as known:
        if "locate package" not in str(known):
            raise
        # Slim images carry no package lists; apt can keep its own in a folder that needs no root.
        report.say(f"apt-get knows no package {package} yet: reading the package lists")
        options = [f"-oDir::State={folder}/state", f"-oDir::Cache={folder}/cache"]
        options += ["-oDir::State::status=/var/lib/dpkg/status", "-oAPT::Sandbox::User=root"]
        for name in ("state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        try:
            _run(["apt-get", "-q", *_APT_PATIENCE, *options, "update"], folder)
            return _apt_download(package, folder, report, options)
        except _SourceFailedError as updated:
            raise _SourceFailedError(f"{known}; with fresh package lists: {updated}") from None


_APT_PATIENCE = ["-oAcquire::Retries=1", "-oAcquire::http::Timeout=20", "-oAcquire::https::Timeout=20"]


def _apt_download(package: str, folder: Path, report: Report, options: Sequence[str]) -> Path:
    command = ["apt-get", "-q", *_APT_PATIENCE, *options, "download", package]
    uri = _run([*command, "--print-uris"], folder).split()  # 'address' name size checksum
    size = int(uri[2]) if len(uri) > 2 and uri[2].isdigit() else 0

    def show() -> None:
        done = sum(path.stat().st_size for path in folder.glob("*.deb*"))
        report.progress(_progress(package, done, size))

    _run(command, folder, while_waiting=show)
    archives = sorted(folder.glob("*.deb"))
    if not archives:
        raise _SourceFailedError("apt-get downloaded nothing")
    return archives[0]


def _run(command: Sequence[str], folder: Path, *, while_waiting: Callable[[], None] | None = None) -> str:
    """Run a tool to its end and return what it printed; its own error lines are the reason when it fails."""
    environment = {**os.environ, "LC_ALL": "C"}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=errors
        )
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
                    break
                if while_waiting is not None:
                    while_waiting()
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        errors.seek(0)
        said = errors.read().splitlines()
        if process.returncode != 0:
            reasons = [line.removeprefix("E: ") for line in said if line.startswith("E: ")] or said[-1:]
            raise _SourceFailedError(f"{command[0]} failed: {'; '.join(reasons) or f'exit code {process.returncode}'}")
        return output.read()


@contextlib.contextmanager
def _https(address: str, report: Report) -> Iterator[_Read]:
    """Files below an address; `http://` is allowed too, for a mirror nearby: checksums protect the content."""
    if urllib.parse.urlsplit(address).scheme not in ("https", "http"):
        raise _SourceFailedError("not an https:// address")

    def read(entry: FileEntry) -> bytes:
        for name in (f"{entry.path}.gz", entry.path):
            for is_last in (False, True):  # a connection that broke is tried once more
                try:
                    return _download(f"{address.rstrip('/')}/{name}", name, entry.size, report)
                except urllib.error.HTTPError as error:
                    if error.code == http.client.NOT_FOUND:
                        break
                    raise _FileFailedError(f"{name}: HTTP {error.code} {error.reason}") from None
                except urllib.error.URLError as error:
                    raise _SourceFailedError(str(error.reason)) from None
                except (OSError, http.client.HTTPException) as error:
                    if is_last:
                        raise _FileFailedError(f"{name}: {error or type(error).__name__}") from None
                    report.say(f"{name}: {error or type(error).__name__}; trying again")
        raise _FileFailedError(f"{entry.path}.gz and {entry.path}: HTTP 404 Not Found")

    yield read


def _download(url: str, name: str, content_size: int, report: Report) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "fashion"})
    with urllib.request.urlopen(request, timeout=SILENCE_SECONDS) as response:
        size = int(response.headers.get("Content-Length") or 0)
        data = bytearray()
        while piece := response.read(PIECE_BYTES):
            data += piece
            report.progress(_progress(name, len(data), size))
            if len(data) > content_size + PIECE_BYTES:  # no gzip envelope is larger: this is another file
                raise ConnectionError(f"more than the {content_size:,} bytes expected")
    if len(data) < size:
        raise ConnectionError(f"the connection ended after {len(data):,} of {size:,} bytes")
    return bytes(data)


@contextlib.contextmanager
def _bucket(address: str, report: Report) -> Iterator[_Read]:
    if not address:
        raise _SourceFailedError("no address; set FASHION_DATA_BUCKET=gs://bucket/prefix")
    try:
        store = open_bucket(address)
    except DataError as error:
        raise _SourceFailedError(str(error)) from None

    def read(entry: FileEntry) -> bytes:
        done = 0

        def show(num_bytes: int) -> None:
            nonlocal done
            done += num_bytes
            report.progress(_progress(entry.path, done, entry.size))

        try:
            return store.get(entry.blob, on_bytes=show)
        except blobs.BlobNotFound:
            raise _FileFailedError(f"there is no {entry.path} ({entry.blob})") from None
        except blobs.StoreUnavailable as error:
            raise _SourceFailedError(str(error)) from None

    yield read


_READERS: dict[str, Callable[[str, Report], contextlib.AbstractContextManager[_Read]]] = {
    "folder": _folder,
    "debian": _debian,
    "https": _https,
    "bucket": _bucket,
}


def _remove_abandoned(folder: Path) -> None:
    """Remove what fetches that were killed left behind."""
    for path in folder.glob(".*.part"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                path.unlink()


def _progress(name: str, done: int, size: int) -> str:
    share = f" of {_megabytes(size)}, {done / size:.0%}" if size else ""
    return f"{name}: {_megabytes(done)}{share}"


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB"
