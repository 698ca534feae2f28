"""Feedback that does not count: discarded by a person, or quarantined by a flow. Nothing of it is destroyed.

A withdrawal names feedback by its source, its time or its prediction, and so does what restores it. Of all that name a
piece of feedback a person's last one holds, or else a flow's last one. They are rows of their own, in the log and in
the shared one; reading either leaves out feedback that does not count: it is neither learnt from, nor judged by, nor
counted in accuracy.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from fashion.predictions.record import FOREVER_US, REVIEW, Feedback

Action = Literal["discard", "quarantine", "restore", "release"]
WITHDRAWING = ("discard", "quarantine")
BY_PERSONS = ("discard", "restore")
"""Actions that rank above all others, whenever those came."""
CANNOT_TELL = "nobody can tell what the picture shows"
"""Reason of a decision that a picture is not to be asked for again."""
FIELDS = ("action", "source", "prediction_id", "since_us", "until_us", "time_us", "who", "reason")
"""Columns, in the order of `Decision`'s fields."""


@dataclass(frozen=True)
class Decision:
    """That some feedback counts no more, or counts again."""

    action: Action
    """discard and restore are a person's, quarantine and release a flow's; a person overrules a flow."""
    source: str | None
    """Of the feedback; None for any."""
    prediction_id: str | None
    """That the feedback is on; None for any."""
    since_us: int
    """The feedback is of since <= time < until; microseconds since 1970, UTC."""
    until_us: int
    time_us: int
    """When this was decided, microseconds since 1970, UTC."""
    who: str
    reason: str
    """One sentence, for a person."""

    def __post_init__(self) -> None:
        if self.action not in get_args(Action):
            raise ValueError(f"action must be one of {', '.join(get_args(Action))}, got {self.action!r}")
        if self.source is None and self.prediction_id is None and (self.since_us, self.until_us) == (0, FOREVER_US):
            raise ValueError("name feedback by source, prediction or time: this would be all of it")
        if not self.since_us < self.until_us:
            raise ValueError(f"the time must end after it begins, got {self.since_us} to {self.until_us}")

    def is_about(self, feedback: Feedback) -> bool:
        """Return True if this names a piece of feedback."""
        return (
            self.source in (None, feedback.source)
            and self.prediction_id in (None, feedback.prediction_id)
            and self.since_us <= feedback.time_us < self.until_us
        )

    def as_row(self) -> tuple[Any, ...]:
        """The values of FIELDS."""
        return tuple(getattr(self, name) for name in FIELDS)


def skip(prediction_id: str, *, who: str, now_us: int) -> Decision:
    """The decision that a prediction waits for no review, for nobody can tell what its picture shows.

    A review of before or after it counts, and `fashion log restore --id` lets the prediction wait again.

    Args:
        prediction_id: of an answer.
        who: says so.
        now_us: microseconds since 1970, UTC.
    """
    return Decision("discard", REVIEW, prediction_id, now_us, now_us + 1, now_us, who, CANNOT_TELL)


class Decisions:
    """All decisions of one log, the oldest first."""

    def __init__(self, decisions: Iterable[Decision] = ()) -> None:
        self._all: Sequence[Decision] = tuple(decisions)
        self._by: dict[tuple[str | None, str | None], list[tuple[int, Decision]]] = {}
        """By prediction and source: there may be one for each name that a liar made up."""
        for rank, each in enumerate(self._all):
            key = (each.prediction_id, each.source if each.prediction_id is None else None)
            self._by.setdefault(key, []).append((rank, each))

    def __iter__(self) -> Iterator[Decision]:
        return iter(self._all)

    def last(self, feedback: Feedback) -> Decision | None:
        """The decision that holds for a piece of feedback; None where none is about it."""
        keys = ((None, None), (None, feedback.source), (feedback.prediction_id, None))
        found = [pair for key in keys for pair in self._by.get(key, ()) if pair[1].is_about(feedback)]
        return max(found, key=lambda pair: (pair[1].action in BY_PERSONS, pair[0]))[1] if found else None

    def count(self, feedback: Feedback) -> bool:
        """Return True if a piece of feedback counts."""
        last = self.last(feedback)
        return last is None or last.action not in WITHDRAWING

    def skipped(self) -> list[str]:
        """Ids of predictions of which somebody could not tell what they show, the latest last."""
        found: dict[str, None] = {}
        for each in self._all:
            if each.prediction_id is None:
                continue
            if each.reason == CANNOT_TELL:
                found[each.prediction_id] = None
            elif each.action == "restore":
                found.pop(each.prediction_id, None)
        return list(found)

    def counted(self, feedback: Iterable[Feedback]) -> tuple[Feedback, ...]:
        """Those pieces of feedback that count."""
        return tuple(each for each in feedback if self.count(each))


def counts_sql(table: str, time_us: str, prediction_id: str) -> str:
    """The condition that feedback `f` counts, as SQL that SQLite and PostgreSQL know.

    Args:
        table: of decisions.
        time_us: expression for the time of `f`, in microseconds.
        prediction_id: expression for the prediction of `f`, as a text.
    """
    in_time = f"{time_us} >= d.since_us AND {time_us} < d.until_us"
    # Branches, so that an index finds each: there may be thousands of decisions.
    branches = " UNION ALL ".join(
        f"SELECT d.sequence, d.action FROM {table} d WHERE {which} AND {in_time}"
        for which in (
            f"d.prediction_id = {prediction_id} AND (d.source IS NULL OR d.source = f.source)",
            "d.prediction_id IS NULL AND d.source = f.source",
            "d.prediction_id IS NULL AND d.source IS NULL",
        )
    )
    return (
        f"COALESCE((SELECT found.action FROM ({branches}) found "
        f"ORDER BY found.action IN {BY_PERSONS} DESC, found.sequence DESC LIMIT 1), 'restore') NOT IN {WITHDRAWING}"
    )
