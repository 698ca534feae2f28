"""A limit of requests a minute for each client, over all workers of the service: they share a small table in a file.

The `limits` package would need a server for that; its in-memory storage starts a thread every 10 ms that visits every
client, and counts for one worker.
"""

import contextlib
import hashlib
import logging
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bentos.web.responses import ApiError

SLOTS = 65_536
"""Clients in the table; where it is full, those that have been silent longest are forgotten first."""
PROBES = 8
"""Slots that a client may be in: so many are read for a request."""
LONGEST_MINUTES = 60
"""For how long a client may have used its limit in advance, by one request that counts as many."""

_SLOT = struct.Struct("<Qdd")
"""Digest of the client, requests left, and when that was counted. The client itself may be a key: it is not stored."""
_logger = logging.getLogger(__name__)


class RateLimit:
    """A token bucket for each client: it holds a minute's requests and refills evenly.

    A request that counts as more than a minute's needs a full bucket and empties it for as long as it counts.
    """

    def __init__(
        self,
        per_minute: int | None,
        path: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        of: str = "requests",
    ) -> None:
        """
        Args:
            per_minute: requests of one client; None does not limit.
            path: of the table, which other processes share; None for a table of this one.
            clock: seconds, the same in all processes of this machine.
            of: what is counted, for a person.
        """
        self._per_minute, self._clock, self._of = per_minute, clock, of
        self._file: int | None = None
        size = (SLOTS + PROBES) * _SLOT.size
        if per_minute is not None and path is not None:
            try:
                self._file = _open(path, size)
            except OSError as error:
                _logger.warning("each worker limits requests for itself: %s: %s", path, error.strerror)
        self._table = mmap.mmap(-1 if self._file is None else self._file, size)

    def take(self, client: str, cost: int = 1, *, counted: int = 0) -> None:
        """Count requests of a client.

        Args:
            client: its key or address.
            cost: how many requests this is; at most those of `LONGEST_MINUTES` are counted.
            counted: how many of them were counted before its content was read.

        Raises:
            ApiError: 429, with the seconds until they would be accepted.
        """
        if self._per_minute is None:
            return
        rate, needed = self._per_minute / 60, min(cost, self._per_minute) - counted
        cost = min(cost, LONGEST_MINUTES * self._per_minute) - counted
        digest = int.from_bytes(hashlib.blake2b(client.encode(), digest_size=8).digest(), "little") or 1
        with self._locked():
            now = self._clock()
            offset, left, since = self._find(digest, now)
            left = min(float(self._per_minute), left + (now - since) * rate)
            is_accepted = left >= needed
            _SLOT.pack_into(self._table, offset, digest, left - cost if is_accepted else left, now)
        if is_accepted:
            return
        seconds = max(1, round((needed - left) / rate + 0.5))
        raise ApiError(
            429,
            "too_many_requests",
            f"more than {self._per_minute} {self._of} a minute",
            f"try again in {seconds} s",
            {"retry-after": str(seconds)},
        )

    def _find(self, digest: int, now: float) -> tuple[int, float, float]:
        """Return a client's place in the table, its requests left, and when that was counted; a full bucket if new."""
        assert self._per_minute is not None
        first = digest % SLOTS * _SLOT.size
        oldest, place = now, first
        slots = self._table[first : first + PROBES * _SLOT.size]
        for index, (owner, left, counted) in enumerate(_SLOT.iter_unpack(slots)):
            at = first + index * _SLOT.size
            if owner == digest:
                # Times of before a restart of the machine are later than now; a damaged file may hold anything.
                if -LONGEST_MINUTES * self._per_minute <= left <= self._per_minute and 0 <= counted <= now:
                    return at, left, counted
                return at, float(self._per_minute), now
            if owner == 0 or not 0 <= counted <= now:
                counted = -1.0
            if counted < oldest:
                oldest, place = counted, at
        return place, float(self._per_minute), now

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self._file is None:
            yield
            return
        import fcntl  # not on Windows, where the file is not opened

        fcntl.flock(self._file, fcntl.LOCK_EX)  # the kernel unlocks for a process that is killed
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)


def _open(path: Path, size: int) -> int:
    """Open the table, and make it if there is none.

    Raises:
        OSError: it cannot be written, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(file).st_size < size:
            # Not a file with holes: writing to it while the disk is full would kill this process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file, 0, size)
            else:
                os.truncate(file, size)
    except OSError:
        os.close(file)
        raise
    return file
