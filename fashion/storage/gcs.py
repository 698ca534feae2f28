"""Blobs as objects of a Google Cloud Storage bucket. The only file that imports google.cloud.storage, on first use."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from fashion.storage import http_errors
from fashion.storage.blobs import Blob, BlobNotFound, StoreUnavailable, checked_name

MIN_UPLOAD_SPEED = 250_000
"""Bytes per second of the slowest connection that an upload's timeout allows for."""

FOREIGN = "what answers is not Google Cloud Storage, but perhaps a proxy's sign-in page: check the network"

REMEDIES = {
    401: "log in again: `gcloud auth application-default login`",
    403: "give this account a role that may read, write and list the bucket",
    404: "create the bucket, or correct the address",
    429: "try again later, or raise the project's quota",
}
"""Status of HTTP -> what to do."""

OTHERS = "check the network, and the status of Google Cloud Storage; then try again"

CHUNK_BYTES = 8 * 2**20
"""Bytes sent at once, which are sent again when a connection breaks."""


class BucketStore:
    """Blobs as objects of a Google Cloud Storage bucket, or of an emulator at `STORAGE_EMULATOR_HOST`."""

    def __init__(self, bucket: str, prefix: str, timeout_s: float) -> None:
        self._seconds = timeout_s / 2  # a failing request is repeated for so long, and the last may take as long
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self.address = f"gs://{bucket}/{prefix}".rstrip("/")

    def put(self, name: str, data: bytes) -> None:
        """See Store.put."""
        with self._translate_errors():
            self._upload(name, data, generation=None)

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """See Store.put_if_absent."""
        with self._translate_errors():
            from google.api_core.exceptions import PreconditionFailed

            try:
                self._upload(name, data, generation=0)
            except PreconditionFailed:
                return False
            return True

    def get(self, name: str, *, on_bytes: Callable[[int], None] | None = None) -> bytes:
        """See Store.get."""
        sink = _Sink(on_bytes)
        with self._translate_errors():
            from google.api_core.exceptions import NotFound

            try:
                blob = self._blob(name)
                blob.download_to_file(sink, timeout=self._seconds, retry=self._retry())
            except NotFound:
                raise BlobNotFound(f"{self.address} holds no {name}") from None
            if blob.generation is None and blob.crc32c is None and blob.md5_hash is None:  # headers of each object
                raise StoreUnavailable(f"{self.address} cannot be used: {FOREIGN}")
        return bytes(sink.data)

    def exists(self, name: str) -> bool:
        """See Store.exists."""
        with self._translate_errors():
            return bool(self._blob(name).exists(timeout=self._seconds, retry=self._retry()))

    def delete(self, name: str) -> None:
        """See Store.delete."""
        with self._translate_errors():
            from google.api_core.exceptions import NotFound

            with contextlib.suppress(NotFound):
                self._blob(name).delete(timeout=self._seconds, retry=self._retry())

    def list(self, prefix: str = "") -> Iterator[str]:
        """See Store.list."""
        for blob in self.entries(prefix):
            yield blob.name

    def entries(self, prefix: str = "") -> Iterator[Blob]:
        """See Store.entries."""
        with self._translate_errors():
            for blob in self._client.list_blobs(
                self.bucket, prefix=self.prefix + prefix, timeout=self._seconds, retry=self._retry()
            ):
                yield Blob(blob.name.removeprefix(self.prefix), blob.size, blob.updated.timestamp())

    def _upload(self, name: str, data: bytes, *, generation: int | None) -> None:
        blob = self._blob(name)
        blob.chunk_size = CHUNK_BYTES
        blob.upload_from_string(
            data,
            content_type="application/octet-stream",
            if_generation_match=generation,
            # Python counts a socket's timeout over all that is sent at once.
            timeout=self._seconds + min(len(data), CHUNK_BYTES) / MIN_UPLOAD_SPEED,
            retry=self._retry(),
        )

    def _blob(self, name: str) -> Any:
        return self._client.bucket(self.bucket).blob(self.prefix + checked_name(name))

    def _retry(self) -> Any:
        from google.cloud.storage.retry import DEFAULT_RETRY

        return DEFAULT_RETRY.with_timeout(self._seconds)

    @functools.cached_property
    def _client(self) -> Any:
        from google.cloud import storage

        # The project matters only when buckets are made, and finding it may ask a metadata server.
        client = storage.Client(project="unused")
        client._http.hooks["response"].append(self._require_content)
        return client

    def _require_content(self, response: Any, **_: Any) -> None:
        """Raise StoreUnavailable for a success without content, which Google's client takes for whatever was asked.

        The service says 204 where it has nothing to say. The start of an upload has a `Location`; a download may be of
        an empty object, and `get` looks at it.
        """
        is_bare = response.status_code == 200 and response.headers.get("content-length") == "0"
        if is_bare and "location" not in response.headers and "alt=media" not in response.url:
            raise StoreUnavailable(f"{self.address} cannot be used: {FOREIGN}")

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise StoreUnavailable for errors of Google's client, google.auth, requests and urllib3."""
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
        except (BlobNotFound, StoreUnavailable):
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
            raise StoreUnavailable(f"{self.address} cannot be used: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    """The reason and the remedy of an error of Google's client, in half a sentence."""
    import requests

    cause = getattr(error, "cause", None) or error  # of a RetryError: the last failure
    if isinstance(cause, requests.JSONDecodeError):
        return FOREIGN
    status = getattr(cause, "code", None) or getattr(getattr(cause, "response", None), "status_code", None)
    if status is None:
        return f"{http_errors.reason_of(cause)}; {OTHERS}"
    sent = " ".join(str(each.get("message", "")) for each in getattr(cause, "errors", ()) if isinstance(each, dict))
    return f"it answers {int(status)}{f' ({sent[:200]})' if sent else ''}; {REMEDIES.get(int(status), OTHERS)}"


class _Sink:
    """A file in memory that a download writes to; it reports the bytes it gets."""

    def __init__(self, on_bytes: Callable[[int], None] | None) -> None:
        self.data = bytearray()
        self._on_bytes = on_bytes

    def write(self, piece: bytes) -> int:
        self.data += piece
        if self._on_bytes is not None:
            self._on_bytes(len(piece))
        return len(piece)

    def seek(self, position: int) -> int:
        del self.data[position:]  # a repeated download continues from here
        return position
