"""How data files get here: from a folder, Debian's package, a download or a bucket. Not what they hold.

What a source gives is checked against the manifest before it gets its name in the cache, and gets it whole.
"""

import contextlib
import http.client
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fashion.data.manifest import DataError, FileEntry
from fashion.data.progress import Reporter, progress_line
from fashion.storage.address import open_store
from fashion.storage.blobs import BlobNotFound, Store, StoreUnavailable

SILENCE_SECONDS = 20.0
"""How long a download may stand still."""
PIECE_BYTES = 1 << 16


class SourceFailed(Exception):
    """A source as a whole cannot give anything."""


class FileFailed(Exception):
    """A source cannot give this file."""


ReadFile = Callable[[FileEntry], bytes]


def open_bucket(address: str) -> Store:
    """The store at a bucket's address.

    Raises:
        DataError: it is no such address.
    """
    try:
        return open_store(address)
    except ValueError as error:
        raise DataError(str(error)) from None


@contextlib.contextmanager
def _folder(address: str, reporter: Reporter) -> Iterator[ReadFile]:
    folder = Path(address).expanduser()
    if not folder.is_dir():
        raise SourceFailed("no such folder")

    def read(entry: FileEntry) -> bytes:
        for path in (folder / f"{entry.path}.gz", folder / entry.path):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise FileFailed(str(error)) from None
        raise FileFailed(f"there is no {entry.path}.gz or {entry.path}")

    yield read


@contextlib.contextmanager
def _debian(package: str, reporter: Reporter) -> Iterator[ReadFile]:
    """The package's files: where it is installed, or unpacked from a download that needs no root."""
    installed = _installed_folder(package)
    if installed is not None:
        with _folder(str(installed), reporter) as read:
            yield read
        return
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise SourceFailed(f"there is no {tool} on this machine")
    with tempfile.TemporaryDirectory(prefix="fashion-debian-") as temporary:
        archive = _download_package(package, Path(temporary), reporter)
        unpacked = Path(temporary) / "unpacked"
        _run(["dpkg-deb", "-x", str(archive), str(unpacked)], Path(temporary))
        folders = {path.parent for path in unpacked.rglob("*-ubyte*")} or {unpacked}
        with _folder(str(min(folders)), reporter) as read:
            yield read


def _installed_folder(package: str) -> Path | None:
    if shutil.which("dpkg-query") is None:
        return None
    listed = subprocess.run(["dpkg-query", "-L", package], capture_output=True, text=True, check=False)
    folders = {Path(line).parent for line in listed.stdout.splitlines() if "-ubyte" in line}
    return next((folder for folder in sorted(folders) if folder.is_dir()), None)


def _download_package(package: str, folder: Path, reporter: Reporter) -> Path:
    try:
        return _apt_download(package, folder, reporter, [])
    except SourceFailed as known:
        if "locate package" not in str(known):
            raise
        # Slim images carry no package lists; apt can keep its own in a folder that needs no root.
        reporter.say(f"apt-get knows no package {package} yet: reading the package lists")
        options = [f"-oDir::State={folder}/state", f"-oDir::Cache={folder}/cache"]
        options += ["-oDir::State::status=/var/lib/dpkg/status", "-oAPT::Sandbox::User=root"]
        for name in ("state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        try:
            _run(["apt-get", "-q", *_APT_PATIENCE, *options, "update"], folder)
            return _apt_download(package, folder, reporter, options)
        except SourceFailed as updated:
            raise SourceFailed(f"{known}; with fresh package lists: {updated}") from None


_APT_PATIENCE = ["-oAcquire::Retries=1", "-oAcquire::http::Timeout=20", "-oAcquire::https::Timeout=20"]


def _apt_download(package: str, folder: Path, reporter: Reporter, options: Sequence[str]) -> Path:
    command = ["apt-get", "-q", *_APT_PATIENCE, *options, "download", package]
    uri = _run([*command, "--print-uris"], folder).split()  # 'address' name size checksum
    size = int(uri[2]) if len(uri) > 2 and uri[2].isdigit() else 0

    def show() -> None:
        done = sum(path.stat().st_size for path in folder.glob("*.deb*"))
        reporter.progress(progress_line(package, done, size))

    _run(command, folder, while_waiting=show)
    archives = sorted(folder.glob("*.deb"))
    if not archives:
        raise SourceFailed("apt-get downloaded nothing")
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
            raise SourceFailed(f"{command[0]} failed: {'; '.join(reasons) or f'exit code {process.returncode}'}")
        return output.read()


@contextlib.contextmanager
def _https(address: str, reporter: Reporter) -> Iterator[ReadFile]:
    """Files below an address; `http://` is allowed too, for a mirror nearby: checksums protect the content."""
    if urllib.parse.urlsplit(address).scheme not in ("https", "http"):
        raise SourceFailed("not an https:// address")

    def read(entry: FileEntry) -> bytes:
        for name in (f"{entry.path}.gz", entry.path):
            for is_last in (False, True):  # a connection that broke is tried once more
                try:
                    return _download(f"{address.rstrip('/')}/{name}", name, entry.size, reporter)
                except urllib.error.HTTPError as error:
                    if error.code == http.client.NOT_FOUND:
                        break
                    raise FileFailed(f"{name}: HTTP {error.code} {error.reason}") from None
                except urllib.error.URLError as error:
                    raise SourceFailed(str(error.reason)) from None
                except (OSError, http.client.HTTPException) as error:
                    if is_last:
                        raise FileFailed(f"{name}: {error or type(error).__name__}") from None
                    reporter.say(f"{name}: {error or type(error).__name__}; trying again")
        raise FileFailed(f"{entry.path}.gz and {entry.path}: HTTP 404 Not Found")

    yield read


def _download(url: str, name: str, content_size: int, reporter: Reporter) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "fashion"})
    with urllib.request.urlopen(request, timeout=SILENCE_SECONDS) as response:
        size = int(response.headers.get("Content-Length") or 0)
        data = bytearray()
        while piece := response.read(PIECE_BYTES):
            data += piece
            reporter.progress(progress_line(name, len(data), size))
            if len(data) > content_size + PIECE_BYTES:  # no gzip envelope is larger: this is another file
                raise ConnectionError(f"more than the {content_size:,} bytes expected")
    if len(data) < size:
        raise ConnectionError(f"the connection ended after {len(data):,} of {size:,} bytes")
    return bytes(data)


@contextlib.contextmanager
def _bucket(address: str, reporter: Reporter) -> Iterator[ReadFile]:
    if not address:
        raise SourceFailed("no address; set FASHION_DATA_BUCKET=gs://bucket/prefix")
    try:
        store = open_bucket(address)
    except DataError as error:
        raise SourceFailed(str(error)) from None

    def read(entry: FileEntry) -> bytes:
        done = 0

        def show(num_bytes: int) -> None:
            nonlocal done
            done += num_bytes
            reporter.progress(progress_line(entry.path, done, entry.size))

        try:
            return store.get(entry.blob, on_bytes=show)
        except BlobNotFound:
            raise FileFailed(f"there is no {entry.path} ({entry.blob})") from None
        except StoreUnavailable as error:
            raise SourceFailed(str(error)) from None

    yield read


READERS: dict[str, Callable[[str, Reporter], contextlib.AbstractContextManager[ReadFile]]] = {
    "folder": _folder,
    "debian": _debian,
    "https": _https,
    "bucket": _bucket,
}
