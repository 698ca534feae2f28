"""Read data files from a folder, a Debian package, a download or a bucket. Knows names, not what the files hold.

Each reader is a context manager that yields a function from a manifest's entry to the file's bytes, gzip or not.
`fetch` verifies those bytes before it writes them.
"""

import contextlib
import http.client
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from fashion.data.debian import PackageUnavailable, open_package
from fashion.data.manifest import DataError, FileEntry
from fashion.data.progress import Reporter, progress_line
from fashion.storage.address import open_store
from fashion.storage.blobs import BlobNotFound, Store, StoreUnavailable

SILENCE_SECONDS = 20.0
"""How long a download may go without a byte, in seconds."""
PIECE_BYTES = 1 << 16
"""Bytes that a download reads at once."""


class SourceFailed(Exception):
    """A source cannot be reached or used at all."""


class FileFailed(Exception):
    """A source does not have one file, or cannot deliver it."""


ReadFile = Callable[[FileEntry], bytes]
"""Returns a file's bytes, gzip or not. Raises FileFailed, or SourceFailed if no other file can be read either."""


def open_bucket(address: str) -> Store:
    """Open the store at a bucket's address.

    Raises:
        DataError: the address is not one of a store.
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
    try:
        with open_package(package, reporter) as folder, _folder(str(folder), reporter) as read:
            yield read
    except PackageUnavailable as error:
        raise SourceFailed(str(error)) from None


@contextlib.contextmanager
def _https(address: str, reporter: Reporter) -> Iterator[ReadFile]:
    """Read files below an address. `http://` is allowed for a mirror nearby: checksums protect the content."""
    if urllib.parse.urlsplit(address).scheme not in ("https", "http"):
        raise SourceFailed("not an https:// address")

    def read(entry: FileEntry) -> bytes:
        for name in (f"{entry.path}.gz", entry.path):
            for is_last in (False, True):  # a broken connection is retried once
                try:
                    content = bytearray()
                    url = f"{address.rstrip('/')}/{name}"
                    download(url, name, most=entry.size, reporter=reporter, write=content.extend)
                    return bytes(content)
                except urllib.error.HTTPError as error:
                    if error.code == http.client.NOT_FOUND:
                        break
                    raise FileFailed(f"{name}: HTTP {error.code} {error.reason}") from None
                except urllib.error.URLError as error:
                    raise SourceFailed(str(error.reason)) from None
                except (OSError, http.client.HTTPException) as error:
                    if is_last:
                        raise FileFailed(f"{name}: {error or type(error).__name__}") from None
                    reporter.say(f"{name}: {error or type(error).__name__}; retrying")
        raise FileFailed(f"{entry.path}.gz and {entry.path}: HTTP 404 Not Found")

    yield read


def download(url: str, name: str, *, most: int, reporter: Reporter, write: Callable[[bytes], object]) -> None:
    """Read a file from its address, piece by piece.

    Args:
        url: of the file.
        name: of the file, for the progress.
        most: bytes that it may have; gzip may add a few.
        reporter: is shown how far it is.
        write: takes each piece.

    Raises:
        OSError, http.client.HTTPException: there is no such file, it is longer, or the connection broke.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "fashion"})
    with urllib.request.urlopen(request, timeout=SILENCE_SECONDS) as response:
        size = int(response.headers.get("Content-Length") or 0)
        done = 0
        while piece := response.read(PIECE_BYTES):
            done += len(piece)
            write(piece)
            reporter.progress(progress_line(name, done, size))
            if done > most + PIECE_BYTES:  # gzip adds less than a piece: this is another file
                raise ConnectionError(f"more than the {most:,} bytes expected")
    if done < size:
        raise ConnectionError(f"the connection ended after {done:,} of {size:,} bytes")


@contextlib.contextmanager
def _bucket(address: str, reporter: Reporter) -> Iterator[ReadFile]:
    if not address:
        raise SourceFailed("no address; set FASHION_DATA_BUCKET to gs://, s3:// or az://bucket/prefix")
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
"""Kind of a source in the data config -> its reader, which takes the source's address."""
