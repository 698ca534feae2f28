"""Blobs as objects of an S3 bucket or an Azure container. The only file that imports obstore, on first use.

obstore reads the environment. For S3, and for servers that speak its protocol, such as MinIO:

- `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, if temporary, `AWS_SESSION_TOKEN`; or the role of the EC2 instance,
  ECS task or EKS pod. Profiles are not read: `eval "$(aws configure export-credentials --format env)"` exports one.
- `AWS_REGION`, by default us-east-1.
- `AWS_ENDPOINT_URL`: URL of a server that is not Amazon's. It must honour `If-None-Match: *` when an object is written,
  as S3, MinIO, Ceph and R2 do: one that ignores the header overwrites what must be kept.

For Azure Blob Storage:

- `AZURE_STORAGE_ACCOUNT_NAME`, always.
- `AZURE_STORAGE_ACCOUNT_KEY`, or `AZURE_STORAGE_SAS_TOKEN`, or `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET` and
  `AZURE_TENANT_ID`, or `AZURE_USE_AZURE_CLI=true` after `az login`; or the identity of the machine or the AKS pod.
- `AZURE_STORAGE_ENDPOINT`: URL, with the account as its path, of a server that is not Azure's, such as Azurite.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from fashion.storage.blobs import Blob, BlobNotFound, StoreUnavailable, checked_name
from fashion.storage.object_services import AZURE, Service, detail, is_missing_container

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import AzureStore, ClientConfig, RetryConfig, S3Store

CONNECT_SECONDS = 3.0
"""How long a connection may take."""

MIN_UPLOAD_SPEED = 250_000
"""Bytes per second of the slowest connection that an upload's timeout allows for."""

NOBODYS = "019a0c3e-nobodys"
"""Ends a name that no blob has."""

PIECE_BYTES = 2**20
"""Bytes that a download reports at once."""


class ObjectStore:
    """Blobs as objects of one bucket or container.

    Raises:
        ValueError: a part of the prefix is `.` or `..`.
    """

    def __init__(self, service: Service, bucket: str, prefix: str, timeout_s: float) -> None:
        self._seconds = timeout_s / 2  # a failing request is repeated for so long, and the last may take as long
        parts = [part for part in prefix.split("/") if part]  # obstore knows no empty part
        self.service = service
        self.bucket = bucket
        self.prefix = "".join(f"{part}/" for part in parts)
        self.address = "/".join((f"{service.scheme}://{bucket}", *parts))
        if {".", ".."} & set(parts):
            raise ValueError(f"{self.address!r} is not the address of a store: no part of it may be . or ..")
        self._clients: dict[int, S3Store | AzureStore] = {}

    def put(self, name: str, data: bytes) -> None:
        """See Store.put."""
        path = self._path(name)
        with self._translate_errors():
            import obstore

            # In one request: the parts of a multipart upload whose writer is killed stay, unseen and paid for.
            obstore.put(self._client(len(data)), path, data, use_multipart=False)

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """See Store.put_if_absent."""
        path = self._path(name)
        with self._translate_errors():
            import obstore
            from obstore.exceptions import AlreadyExistsError

            try:
                obstore.put(self._client(len(data)), path, data, mode="create", use_multipart=False)
            except AlreadyExistsError as error:
                # 409 has other causes too, such as a container that is being deleted: nothing is stored then.
                if "409 Conflict" in str(error) and "BlobAlreadyExists" not in str(error):
                    raise StoreUnavailable(f"{self.address} cannot be used: {detail(error)}; try again") from error
                return False
            return True

    def get(self, name: str, *, on_bytes: Callable[[int], None] | None = None) -> bytes:
        """See Store.get."""
        path, data = self._path(name), bytearray()
        with self._translate_errors(name):
            import obstore

            found = obstore.get(self._client(), path)
            self._require_own(found.meta)
            for piece in found.stream(min_chunk_size=PIECE_BYTES):
                data += piece
                if on_bytes is not None:
                    on_bytes(len(piece))
        return bytes(data)

    def exists(self, name: str) -> bool:
        """See Store.exists."""
        path = self._path(name)
        with contextlib.suppress(BlobNotFound), self._translate_errors(name):
            import obstore

            try:
                found = obstore.head(self._client(), path)
            except FileNotFoundError:  # of the blob or of the bucket: a response to HEAD does not say
                found = obstore.get(self._client(), path).meta
            self._require_own(found)
            return True
        return False

    def delete(self, name: str) -> None:
        """See Store.delete."""
        path = self._path(name)
        with contextlib.suppress(BlobNotFound), self._translate_errors(name):
            import obstore

            obstore.delete(self._client(), path)

    def list(self, prefix: str = "") -> Iterator[str]:
        """See Store.list."""
        for blob in self.entries(prefix):
            yield blob.name

    def entries(self, prefix: str = "") -> Iterator[Blob]:
        """See Store.entries."""
        start, is_empty = self.prefix + prefix, True
        with self._translate_errors():
            import obstore

            # obstore lists whole parts of a name; a prefix may end within one.
            for page in obstore.list(self._client(), start.rpartition("/")[0] or None):
                for found in page:
                    is_empty = False
                    if found["path"].startswith(start):  # not the marker of the folder itself
                        name = found["path"].removeprefix(self.prefix)
                        yield Blob(name, found["size"], found["last_modified"].timestamp())

            if is_empty:  # of a page that is no list, obstore makes an empty one
                with contextlib.suppress(FileNotFoundError):
                    self._require_own(obstore.head(self._client(), f"{start}{NOBODYS}"))

    def _require_own(self, found: "ObjectMeta") -> None:
        """Raise StoreUnavailable for what is no object of the service: these have an ETag, and a web page has none."""
        if found["e_tag"] is None:
            raise StoreUnavailable(f"{self.address} cannot be used: {self.service.foreign()}")

    def _path(self, name: str) -> str:
        return self.prefix + checked_name(name)

    def _client(self, num_bytes: int = 0) -> "S3Store | AzureStore":
        """A client whose requests may take as long as so many bytes need.

        obstore counts a timeout from the start of a request, the upload included, and for all requests of a client.
        """
        if os.getpid() != _first_process():
            raise StoreUnavailable(
                f"{self.address} cannot be used in a process that was forked after obstore was used: spawn it instead"
            )
        needed = int(num_bytes / MIN_UPLOAD_SPEED)
        seconds = 2 ** needed.bit_length() if needed else 0  # powers of two: few clients
        if seconds not in self._clients:
            self._clients[seconds] = self._open(self._seconds + seconds)
        return self._clients[seconds]

    def _open(self, timeout: float) -> "S3Store | AzureStore":
        from obstore.store import AzureStore, S3Store

        try:
            endpoint = self.service.endpoint()
        except ValueError as error:
            raise StoreUnavailable(f"{self.address} cannot be used: {error}") from None
        options: ClientConfig = {
            "allow_http": endpoint is not None and endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=min(CONNECT_SECONDS, self._seconds)),
            "read_timeout": timedelta(seconds=timeout),
            "timeout": timedelta(days=1),  # of a whole download: only silence ends one
        }
        retry: RetryConfig = {
            "retry_timeout": timedelta(seconds=self._seconds),
            "backoff": {"max_backoff": timedelta(seconds=1)},
        }
        if self.service is AZURE:
            return AzureStore(self.bucket, client_options=options, retry_config=retry)
        # Without conditional writes, which a variable can turn off, nothing can be created safely.
        return S3Store(self.bucket, config={"conditional_put": "etag"}, client_options=options, retry_config=retry)

    @contextlib.contextmanager
    def _translate_errors(self, name: str = "") -> Iterator[None]:
        """Raise StoreUnavailable for obstore's errors, and BlobNotFound where the blob `name` is missing."""
        try:
            from obstore.exceptions import BaseError
        except ImportError:
            raise StoreUnavailable(
                f"{self.address} needs the package obstore: install the extra `fashion[s3-azure]`"
            ) from None
        try:
            yield
        except StoreUnavailable:
            raise
        except (BaseError, OSError) as error:
            if name and isinstance(error, FileNotFoundError) and not is_missing_container(error):
                raise BlobNotFound(f"{self.address} holds no {name}") from None
            raise StoreUnavailable(f"{self.address} cannot be used: {self.service.explain(error)}") from error


@functools.cache
def _first_process() -> int:
    """Id of the process that used obstore first; a fork of it waits for ever for threads that it does not have."""
    return os.getpid()
