"""Opens the store that an address names. Knows the kinds of addresses, not how blobs are stored."""

import urllib.parse
from pathlib import Path

from fashion.storage.blobs import Store
from fashion.storage.folder import FolderStore
from fashion.storage.gcs import BucketStore


def open_store(address: str) -> Store:
    """Return the store at a folder's path, a `file://` URL or `gs://bucket/prefix`. Reads and connects to nothing yet.

    Raises:
        ValueError: the address is of another kind, or empty.
    """
    parts = urllib.parse.urlsplit(address)
    if parts.scheme == "gs" and parts.netloc:
        return BucketStore(parts.netloc, parts.path.strip("/"))
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return FolderStore(Path(urllib.parse.unquote(parts.path)))
    if address and "://" not in address and parts.scheme != "gs":
        return FolderStore(Path(address).expanduser())
    raise ValueError(f"{address!r} is not the address of a store: give a folder, file:///folder or gs://bucket/prefix")
