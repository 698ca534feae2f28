"""Bytes under names, in a folder or a Google Cloud Storage bucket. Knows nothing of what the bytes mean.

A blob appears whole or not at all, whatever is killed meanwhile. No account is touched, nor is Google's
library imported, before a `gs://` address is read or written.
"""

import contextlib
import functools
import os
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

RETRY_SECONDS = 5.0
"""How long a failing request to a bucket is repeated."""
RESPONSE_SECONDS = 5.0
"""How long a bucket may stay silent."""
SLOWEST_LINE = 250_000
"""Bytes per second: an upload gets as long as this line would need."""
CHUNK_BYTES = 8 * 2**20
"""Bytes sent at once: what is repeated when a connection breaks."""


class BlobNotFound(FileNotFoundError):
    """No blob has this name."""


class StoreUnavailable(OSError):
    """A store cannot be read or written. The message is one sentence that names its address."""


class BlobUnreadable(StoreUnavailable):
    """This one blob cannot be read, as its owner's permissions say; others may be. The message names it."""


class Store(Protocol):
    """Blobs under one address. Names are relative to it, with `/` between parts.

    Every method raises StoreUnavailable when the store cannot be reached or refuses, and ValueError for a
    name that would leave the address.
    """

    address: str

    def put(self, name: str, data: bytes) -> None:
        """Write a blob, replacing one of that name. Readers see the old bytes or the new ones."""

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Write a blob unless the name is taken: of many writers at once one wins. Tell whether it was this one.

        False may also mean that this very call wrote the blob, lost the answer and asked again: give names
        that belong to one content or one writer.
        """

    def get(self, name: str, *, on_bytes: Callable[[int], None] | None = None) -> bytes:
        """Read a blob; `on_bytes` hears of the bytes as they arrive, where they arrive in pieces.

        Raises:
            BlobNotFound: no blob has this name.
            BlobUnreadable: it is there, but this blob cannot be read.
        """

    def exists(self, name: str) -> bool:
        """Tell whether a blob has this name."""

    def list(self, prefix: str = "") -> Iterator[str]:
        """Names that start with the prefix, in no promised order."""


def store(address: str) -> Store:
    """The store at a folder's path, a `file://` URL or `gs://bucket/prefix`. Touches nothing yet.

    Raises:
        ValueError: the address is of another kind.
    """
    parts = urllib.parse.urlsplit(address)
    if parts.scheme == "gs" and parts.netloc:
        return BucketStore(parts.netloc, parts.path.strip("/"))
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return FolderStore(Path(urllib.parse.unquote(parts.path)))
    if address and "://" not in address and parts.scheme != "gs":
        return FolderStore(Path(address).expanduser())
    raise ValueError(f"{address!r} is not an address of blobs: give a folder, file:///folder or gs://bucket/prefix")


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that its name shows the old content or the new one, never a part of it."""
    temporary = _write_beside(path, data)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


class FolderStore:
    """Blobs as files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = str(folder)

    def put(self, name: str, data: bytes) -> None:
        """See Store.put."""
        path = self._path(name)
        try:
            write_atomically(path, data)
        except OSError as error:
            raise self._unavailable(error) from error

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """See Store.put_if_absent."""
        path = self._path(name)
        try:
            if path.exists():
                return False
            temporary = _write_beside(path, data)
            try:
                os.link(temporary, path)  # unlike a rename, fails when the name is taken
            except FileExistsError:
                return False
            finally:
                temporary.unlink()
            _sync_folder(path.parent)
        except OSError as error:
            raise self._unavailable(error) from error
        return True

    def get(self, name: str, *, on_bytes: Callable[[int], None] | None = None) -> bytes:
        """See Store.get."""
        try:
            data = self._path(name).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise BlobNotFound(f"{self.address} holds no {name}") from None
        except OSError as error:
            reason = f"{name} cannot be read: {error.strerror or error}"
            raise BlobUnreadable(f"{self.address} cannot be used: {reason}") from error
        if on_bytes is not None:
            on_bytes(len(data))
        return data

    def exists(self, name: str) -> bool:
        """See Store.exists."""
        try:
            return self._path(name).is_file()
        except OSError as error:
            raise self._unavailable(error) from error

    def list(self, prefix: str = "") -> Iterator[str]:
        """See Store.list."""
        start = self.folder / prefix.rpartition("/")[0]  # a prefix may end within a part
        for folder, _, files in os.walk(start, onerror=self._refuse):
            for file in files:
                name = Path(folder, file).relative_to(self.folder).as_posix()
                if name.startswith(prefix) and not file.startswith("."):
                    yield name

    def _path(self, name: str) -> Path:
        return self.folder / _checked(name)

    def _refuse(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # a folder that nothing was written to is an empty store
            raise self._unavailable(error) from error

    def _unavailable(self, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(f"{self.address} cannot be used: {error.strerror or error}")


class BucketStore:
    """Blobs as objects of a Google Cloud Storage bucket, or of an emulator at `STORAGE_EMULATOR_HOST`."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self.address = f"gs://{bucket}/{prefix}".rstrip("/")

    def put(self, name: str, data: bytes) -> None:
        """See Store.put."""
        with self._one_error():
            self._upload(name, data, generation=None)

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """See Store.put_if_absent."""
        with self._one_error():
            from google.api_core.exceptions import PreconditionFailed

            try:
                self._upload(name, data, generation=0)
            except PreconditionFailed:
                return False
            return True

    def get(self, name: str, *, on_bytes: Callable[[int], None] | None = None) -> bytes:
        """See Store.get."""
        sink = _Sink(on_bytes)
        with self._one_error():
            from google.api_core.exceptions import NotFound

            try:
                self._blob(name).download_to_file(sink, timeout=RESPONSE_SECONDS, retry=_retry())
            except NotFound:
                raise BlobNotFound(f"{self.address} holds no {name}") from None
        return bytes(sink.data)

    def exists(self, name: str) -> bool:
        """See Store.exists."""
        with self._one_error():
            return bool(self._blob(name).exists(timeout=RESPONSE_SECONDS, retry=_retry()))

    def list(self, prefix: str = "") -> Iterator[str]:
        """See Store.list."""
        with self._one_error():
            for blob in self._client.list_blobs(
                self.bucket, prefix=self.prefix + prefix, timeout=RESPONSE_SECONDS, retry=_retry()
            ):
                yield blob.name.removeprefix(self.prefix)

    def _upload(self, name: str, data: bytes, *, generation: int | None) -> None:
        blob = self._blob(name)
        blob.chunk_size = CHUNK_BYTES
        blob.upload_from_string(
            data,
            content_type="application/octet-stream",
            if_generation_match=generation,
            # Python counts a socket's timeout over the whole of what is sent at once.
            timeout=RESPONSE_SECONDS + min(len(data), CHUNK_BYTES) / SLOWEST_LINE,
            retry=_retry(),
        )

    def _blob(self, name: str) -> Any:
        return self._client.bucket(self.bucket).blob(self.prefix + _checked(name))

    @functools.cached_property
    def _client(self) -> Any:
        from google.cloud import storage

        # The project matters only when buckets are made, and finding it may ask a metadata server.
        return storage.Client(project="unused")

    @contextlib.contextmanager
    def _one_error(self) -> Iterator[None]:
        """Make one error of those of Google's client, google.auth, requests and urllib3."""
        try:
            import requests
            import urllib3
            from google.api_core.exceptions import GoogleAPIError
            from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
            from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
        except ImportError:
            raise StoreUnavailable(
                f"{self.address} needs the package google-cloud-storage: install the extra `fashion[gcp]`"
            ) from None
        try:
            yield
        except BlobNotFound:
            raise
        except DefaultCredentialsError as error:
            raise StoreUnavailable(
                f"{self.address} cannot be used without Google credentials: "
                "run `gcloud auth application-default login`, or give the machine a service account"
            ) from error
        except (
            GoogleAPIError,
            GoogleAuthError,
            InvalidResponse,
            DataCorruption,
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
        ) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise StoreUnavailable(f"{self.address} cannot be used: {reason}") from error


class _Sink:
    """What a download writes to: bytes in memory, counted."""

    def __init__(self, on_bytes: Callable[[int], None] | None) -> None:
        self.data = bytearray()
        self._on_bytes = on_bytes

    def write(self, piece: bytes) -> int:
        self.data += piece
        if self._on_bytes is not None:
            self._on_bytes(len(piece))
        return len(piece)

    def seek(self, position: int) -> int:
        del self.data[position:]  # a repeated download starts where it is told to
        return position


def _retry() -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(RETRY_SECONDS)


def _checked(name: str) -> str:
    parts = name.split("/")
    if any(part == "" or part.startswith(".") for part in parts):
        raise ValueError(f"{name!r} cannot name a blob: its parts must not be empty or start with a dot")
    return name


def _write_beside(path: Path, data: bytes) -> Path:
    """Write a hidden temporary file on the disk that `path` is on, down to the platter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
