"""The interface of a store of blobs, and its errors. Knows no kind of store and no meaning of the bytes.

A blob appears whole or not at all, even if the writer is killed.
"""

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""No space left, a quota that is used up, a file system that is read-only."""


class BlobNotFound(FileNotFoundError):
    """The store has no blob of this name."""


class StoreUnavailable(OSError):
    """The store cannot be read or written. The message is one sentence with its address."""


def disk_error(error: BaseException) -> StoreUnavailable | None:
    """What to say of an error that means that a disk is full or cannot be written; None for other errors.

    Args:
        error: of any library; SQLite's name no file.
    """
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause)
        is_sqlite = "database or disk is full" in text or "attempt to write a readonly database" in text
        if is_sqlite or (isinstance(cause, OSError) and cause.errno in DISK_ERRORS):
            where = getattr(cause, "filename", None) or "a file of the home or a temporary file"
            reason = cause.strerror if isinstance(cause, OSError) else text.strip().splitlines()[0]
            return StoreUnavailable(
                f"{where} cannot be written ({reason}): make room or correct its permissions; then `resume`"
            )
        cause = cause.__cause__ or cause.__context__
    return None


class BlobUnreadable(StoreUnavailable):
    """One blob cannot be read, for instance because of its permissions; others may be readable."""


@dataclass(frozen=True)
class Blob:
    """What a store knows of a blob without reading it."""

    name: str
    num_bytes: int
    changed_s: float
    """When it was last written, seconds since 1970, by the store's clock."""


class Store(Protocol):
    """Blobs under one address. Names are relative to it, with `/` between parts.

    Every method raises StoreUnavailable where the store cannot be reached or denies access, and ValueError for an
    invalid name, such as one with `..`.
    """

    address: str

    def put(self, name: str, data: bytes) -> None:
        """Write a blob, replacing one of the same name. Readers see the old bytes or the new ones."""

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Write a blob unless the name is taken; return True if this call wrote it. Of concurrent writers one wins.

        False may also mean that this call wrote the blob, lost the response and retried: use names that belong to
        one content or one writer.
        """

    def get(self, name: str, *, on_bytes: Callable[[int], None] | None = None) -> bytes:
        """Return a blob's bytes.

        Args:
            name: the blob.
            on_bytes: called with the number of bytes of each piece that arrives.

        Raises:
            BlobNotFound: the store has no blob of this name.
            BlobUnreadable: the blob exists but cannot be read.
        """

    def exists(self, name: str) -> bool:
        """Return True if the store has a blob of this name."""

    def delete(self, name: str) -> None:
        """Delete a blob; one that is not there changes nothing."""

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the names that start with the prefix, in any order."""

    def entries(self, prefix: str = "") -> Iterator[Blob]:
        """Yield the blobs whose names start with the prefix, in any order."""


def checked_name(name: str) -> str:
    """Return the name of a blob.

    Raises:
        ValueError: a part of it is empty or starts with a dot.
    """
    parts = name.split("/")
    if any(part == "" or part.startswith(".") for part in parts):
        raise ValueError(f"{name!r} cannot name a blob: its parts must not be empty or start with a dot")
    return name
