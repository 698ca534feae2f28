"""What a log that several machines share can do, whichever database holds it. Knows no database.

`firestore` and `postgres` are the two that there are; `address` opens the one that an address names.
"""

import enum
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from fashion.predictions.canary_ending import CanaryEnding
from fashion.predictions.outbox import Outgoing
from fashion.predictions.record import KnownModel, LoggedPrediction, LogUnavailable
from fashion.predictions.withdrawal import Decision, Decisions

T = TypeVar("T")

BATCH_ROWS = 200
"""Rows of one request, at most."""
BATCH_BYTES = 3 * 2**20
"""Estimated size of one request, at most; Firestore takes 10 MiB."""
READ_ATTEMPTS = 3
"""How often a page is tried before reading fails, if there is time."""
FIRST_SHARE = 2 / 3
"""Of the time that is left, how much an attempt may take that is not the last: a connection may be lost unnoticed."""
PAGE_ROWS = 500
"""Rows held in memory at once."""


class SharedLogUnavailable(LogUnavailable):
    """The shared log cannot be reached or denies access. The message is one sentence with its address."""


class Outcome(enum.Enum):
    """How sending a row ended."""

    SHIPPED = "shipped"
    """The row is stored, perhaps by an earlier attempt."""
    ORPHAN = "orphan"
    """The row is feedback, and its prediction is not stored yet."""
    RETRY = "retry"
    """A temporary failure."""
    REFUSED = "refused"
    """A permanent failure."""


@dataclass(frozen=True)
class Delivery:
    """A row that was sent, and the outcome."""

    row: Outgoing
    outcome: Outcome
    reason: str = ""
    """What the database said, where the row is not shipped."""


class SharedLog(Protocol):
    """The predictions of all machines. Safe to call from threads; connects when it is first used.

    Every method but `close` raises SharedLogUnavailable where the database cannot be reached in time or denies
    access. Those that read raise DamagedLog where something stored is not a prediction.
    """

    @property
    def kind(self) -> str:
        """`firestore` or `postgresql`."""

    @property
    def address(self) -> str:
        """Names the log in messages and in the outbox. Holds no password."""

    def send(self, rows: Sequence[Outgoing], *, timeout_s: float | None = None) -> list[Delivery]:
        """Write rows in one request. A row that is there already changes nothing.

        Args:
            rows: rows of the outbox. Where several belong to one prediction, all of these must be feedback.
            timeout_s: how long the request may take, if less than the client's own limit.

        Raises:
            SharedLogUnavailable: the request as a whole failed; some rows may have been written.
        """

    def read_window(self, since_us: int, until_us: int, *, page_rows: int = PAGE_ROWS) -> Iterator[LoggedPrediction]:
        """Yield predictions of since <= time < until, oldest first, equal times by id; shadows too.

        Args:
            since_us: microseconds since 1970, UTC.
            until_us: microseconds since 1970, UTC.
            page_rows: rows held in memory at once.
        """

    def latest(
        self, rows: int, *, page_rows: int = PAGE_ROWS, timeout_s: float | None = None
    ) -> Iterator[LoggedPrediction]:
        """Yield at most `rows` predictions of the role champion, newest first.

        Args:
            rows: the most to yield.
            page_rows: rows held in memory at once.
            timeout_s: how long a page may take, which is then tried once; by default as long as the client allows,
                in READ_ATTEMPTS attempts.
        """

    def labelled(self, *, withdrawn: bool = False, page_rows: int = PAGE_ROWS) -> Iterator[LoggedPrediction]:
        """Yield predictions with feedback, newest first. Reads no other rows.

        Args:
            withdrawn: with feedback that does not count, too; every other method leaves it out.
            page_rows: rows held in memory at once.
        """

    def decide(self, decisions: Sequence[Decision]) -> None:
        """Store that feedback counts no more, or again.

        Args:
            decisions: any number. PostgreSQL stores all of them or none, Firestore all or none of each 400: where this
                fails, the first ones may be stored. Storing them again changes nothing of what counts.
        """

    def decisions(self, *, timeout_s: float | None = None) -> Decisions:
        """Return all decisions on feedback, the oldest first.

        Args:
            timeout_s: how long this may take, which is then tried once; by default as long as the client allows.
        """

    def end_canary(self, ending: CanaryEnding) -> None:
        """Store how the comparison of a canary ended, in place of an earlier one of the same versions."""

    def canary_ending(self, name: str, *, timeout_s: float | None = None) -> CanaryEnding | None:
        """Return how the comparison of a canary ended; None where it has not. Reads one row.

        Args:
            name: `CanaryEnding.name`.
            timeout_s: how long this may take, if less than the client's own limit.
        """

    def get(self, prediction_id: str, *, timeout_s: float | None = None) -> LoggedPrediction:
        """Return one champion's prediction, of whichever machine.

        Args:
            prediction_id: of any form; a malformed one is unknown.
            timeout_s: how long this may take, if less than the client's own limit.

        Raises:
            UnknownPrediction: it is not there (yet).
        """

    def count_after(self, until_us: int, *, most: int) -> int:
        """Return how many predictions of the role champion are dated `until_us` or later, looking at `most` rows.

        Args:
            until_us: microseconds since 1970, UTC.
            most: each row that is counted is read, and perhaps paid for.
        """

    def forget(self, prediction_id: str) -> int:
        """Delete a prediction with its feedback, a shadow's too, and return how many rows or documents there were.

        Args:
            prediction_id: a uuid7 in lower case.
        """

    def name_rows(self, known: Sequence[KnownModel]) -> int:
        """Give rows that do not name their model the name of the version that they can only be of; see `naming`.

        Args:
            known: versions of one registered model.

        Returns:
            The number of rows that were given a name.
        """

    def has_picture(self, image_sha256: str, *, besides: str | None = None) -> bool:
        """Return True if a prediction is on this picture.

        Args:
            image_sha256: of its pixels.
            besides: a prediction that does not count.
        """

    def close(self) -> None:
        """Close the connections, which fails requests under way. The next request opens a new one."""


def retrying(read: Callable[[float], T], timeout_s: float) -> T:
    """Call `read` until it succeeds, READ_ATTEMPTS times at most.

    Args:
        read: takes how many seconds it may take.
        timeout_s: how long all attempts may take together, in seconds.

    Raises:
        SharedLogUnavailable: the last attempt failed too.
    """
    deadline = time.monotonic() + timeout_s
    for attempt in range(READ_ATTEMPTS - 1):
        try:
            return read(FIRST_SHARE * (deadline - time.monotonic()))
        except SharedLogUnavailable:
            pause = 0.2 * 2**attempt
            if time.monotonic() + pause >= deadline:
                raise
        time.sleep(pause)
    return read(deadline - time.monotonic())
