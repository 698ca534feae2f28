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

BUCKETS: Mapping[str, Callable[[str, str], Store]] = {
    "gs": BucketStore,
    "s3": functools.partial(ObjectStore, S3),
    "az": functools.partial(ObjectStore, AZURE),
}
"""Scheme of an address -> what opens the store, given the name of a bucket and a prefix."""


def open_store(address: str) -> Store:
    """Return the store at an address. Reads and connects to nothing yet.

    Args:
        address: a folder's path, a `file://` URL, `gs://bucket/prefix`, `s3://bucket/prefix` or
            `az://container/prefix`.

    Raises:
        ValueError: the address is of another kind, or empty.
    """
    parts = urllib.parse.urlsplit(address)
    if bucket := re.fullmatch(r"(gs|s3|az)://([\w.$-]+)(?:/(.*))?", address, re.ASCII | re.DOTALL):
        return BUCKETS[bucket[1]](bucket[2], (bucket[3] or "").strip("/"))
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return FolderStore(Path(urllib.parse.unquote(parts.path)))
    if address and "://" not in address and parts.scheme not in BUCKETS:
        return FolderStore(Path(address).expanduser())
    raise ValueError(
        f"{address!r} is not the address of a store: give a folder, file:///folder, gs://bucket/prefix, "
        "s3://bucket/prefix or az://container/prefix"
    )
