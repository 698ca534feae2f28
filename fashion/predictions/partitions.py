"""The layout of a partitioned export: which rows are in which file. Knows no Parquet.

A file is `date=2026-11-25/part-093000.parquet`: rows of that day, UTC, from 09:30:00 until the next file of the day
begins. The first file of a day is `part-000000.parquet`. So a row's time says which file it belongs to, and a day that
is exported again, or by two machines at once, replaces its files instead of doubling its rows.
"""

import datetime
import re
from collections.abc import Iterable
from dataclasses import dataclass

DAY_US = 86_400_000_000

_NAME = re.compile(r"date=(\d{4}-\d\d-\d\d)/part-([01]\d|2[0-3])([0-5]\d)([0-5]\d)\.parquet", re.ASCII)


@dataclass(frozen=True, order=True)
class Part:
    """One file of an export, and the span of time whose rows belong to it."""

    since_us: int
    """Microseconds since 1970, UTC; a whole second."""
    until_us: int
    """Rows are before it."""

    @property
    def name(self) -> str:
        """The name of its blob."""
        moment = _moment(self.since_us)
        return f"date={moment:%Y-%m-%d}/part-{moment:%H%M%S}.parquet"


def parts_of(names: Iterable[str]) -> list[Part]:
    """The parts among the blobs of an export, in the order of time. Other names are not the export's.

    Args:
        names: of blobs.
    """
    starts = sorted(start for start in map(_start, names) if start is not None)
    ends = [*starts[1:], starts[-1] + DAY_US] if starts else []
    return [Part(start, min(end, (day_of(start) + 1) * DAY_US)) for start, end in zip(starts, ends, strict=True)]


def day_of(time_us: int) -> int:
    """The day of a moment: days since 1970, UTC.

    Args:
        time_us: microseconds since 1970, UTC.
    """
    return time_us // DAY_US


def date_of(day: int) -> str:
    """A day as `2026-11-25`.

    Args:
        day: days since 1970.
    """
    return f"{_moment(day * DAY_US):%Y-%m-%d}"


def _moment(time_us: int) -> datetime.datetime:
    return datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=time_us)


def _start(name: str) -> int | None:
    if (found := _NAME.fullmatch(name)) is None:
        return None
    try:
        day = datetime.date.fromisoformat(found[1])
    except ValueError:
        return None
    hours, minutes, seconds = (int(found[group]) for group in (2, 3, 4))
    return (day - datetime.date(1970, 1, 1)).days * DAY_US + (3600 * hours + 60 * minutes + seconds) * 1_000_000
