"""Bytes under names, in a folder or a Google Cloud Storage bucket. Knows nothing of what the bytes mean.

A blob appears whole or not at all, whatever is killed meanwhile. No account is touched, nor is Google's
library imported, before a `gs://` address is read or written.
"""

from collections.abc import Callable, Iterator
from typing import Protocol


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


def checked_name(name: str) -> str:
    parts = name.split("/")
    if any(part == "" or part.startswith(".") for part in parts):
        raise ValueError(f"{name!r} cannot name a blob: its parts must not be empty or start with a dot")
    return name
