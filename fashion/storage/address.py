"""Opens the store that an address names. Knows the kinds of addresses, not how blobs are stored."""

import functools
import re
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path

from fashion.storage.blobs import Store
from fashion.storage.folder import FolderStore
from fashion.storage.gcs import BucketStore
from fashion.storage.object_services import AZURE, S3
from fashion.storage.object_store import ObjectStore
from fashion.storage.servers import server_seconds

BUCKETS: Mapping[str, Callable[[str, str, float], Store]] = {
    "gs": BucketStore,
    "s3": functools.partial(ObjectStore, S3),
    "az": functools.partial(ObjectStore, AZURE),
}
"""Scheme of an address -> what opens the store, given a bucket, a prefix, and the seconds that a request may take."""


def open_store(address: str, *, timeout_s: float | None = None) -> Store:
    """Return the store at an address. Reads and connects to nothing yet.

    Args:
        address: a folder's path, a `file://` URL, `gs://bucket/prefix`, `s3://bucket/prefix` or
            `az://container/prefix`.
        timeout_s: how long a bucket may take to answer one request, all attempts together, in seconds; an upload may
            take longer as far as its size needs it. By default FASHION_SERVER_SECONDS.

    Raises:
        ValueError: the address is of another kind, or empty, or FASHION_SERVER_SECONDS is no number of seconds.
    """
    parts = urllib.parse.urlsplit(address)
    if bucket := re.fullmatch(r"(gs|s3|az)://([\w.$-]+)(?:/(.*))?", address, re.ASCII | re.DOTALL):
        return BUCKETS[bucket[1]](bucket[2], (bucket[3] or "").strip("/"), timeout_s or server_seconds())
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return FolderStore(Path(urllib.parse.unquote(parts.path)))
    if address and "://" not in address and parts.scheme not in BUCKETS:
        return FolderStore(Path(address).expanduser())
    raise ValueError(
        f"{address!r} is not the address of a store: give a folder, file:///folder, gs://bucket/prefix, "
        "s3://bucket/prefix or az://container/prefix"
    )
