"""Parse durations, times and cron lines of a configuration."""

import datetime
import re
from collections.abc import Collection

from fashion.config.schema import require

CRON_FIELDS = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 7),
)
"""Name, smallest and largest number."""
UNITS = {"m": 60, "h": 3_600, "d": 86_400}
"""Seconds."""


def seconds(window: str, name: str = "window") -> int:
    """Parse a duration such as `90m`, `24h` or `7d`.

    Args:
        window: the duration.
        name: of the setting, for the error.

    Raises:
        ValueError: it is not a number of minutes, hours or days.
    """
    match = re.fullmatch(r"([1-9]\d{0,5})([mhd])", window)
    require(
        match is not None, f"{name} must be a number of minutes, hours or days such as 90m, 24h or 7d, got {window}"
    )
    assert match is not None
    return int(match[1]) * UNITS[match[2]]


def cron_times(line: str) -> tuple[tuple[int, ...], ...]:
    """Parse a line of cron.

    Returns:
        Its minutes, hours, days of the month, months, and days of the week (0 is Sunday).

    Raises:
        ValueError: the line has not five fields, or one of them is wrong.
    """
    fields = line.split()
    require(len(fields) == len(CRON_FIELDS), f"cron must have five fields, got {line!r}")
    times = [_times(field, *limits) for field, limits in zip(fields, CRON_FIELDS, strict=True)]
    times[-1] = {day % 7 for day in times[-1]}
    return tuple(tuple(sorted(each)) for each in times)


def runs_per_year(line: str) -> int:
    """How often a line of cron starts something in a year of 365 days.

    Raises:
        ValueError: as `cron_times`.
    """
    minutes, hours, days, months, weekdays = cron_times(line)
    year = [datetime.date(2027, 1, 1) + datetime.timedelta(number) for number in range(365)]
    return len(minutes) * len(hours) * sum(day.month in months and _is_day(day, days, weekdays) for day in year)


def next_time(cron_line: str, now: datetime.datetime) -> datetime.datetime:
    """The first time after `now` at which a cron line runs, both in UTC.

    Raises:
        ValueError: the line is malformed, or names a day that no month has.
    """
    minutes, hours, days, months, weekdays = cron_times(cron_line)
    start = now.astimezone(datetime.UTC).replace(second=0, microsecond=0) + datetime.timedelta(minutes=1)
    for offset in range(4 * 366 + 1):
        day = (start + datetime.timedelta(days=offset)).date()
        if day.month not in months or not _is_day(day, days, weekdays):
            continue
        for hour in hours:
            for minute in minutes:
                moment = datetime.datetime.combine(day, datetime.time(hour, minute), datetime.UTC)
                if moment >= start:
                    return moment
    raise ValueError(f"cron {cron_line!r} never runs")


def _is_day(day: datetime.date, days: Collection[int], weekdays: Collection[int]) -> bool:
    """cron's own rule: where days of the month and of the week are both named, either of them will do."""
    fits = day.day in days, day.isoweekday() % 7 in weekdays
    return any(fits) if len(days) < 31 and len(weekdays) < 7 else all(fits)


def _times(field: str, name: str, low: int, high: int) -> set[int]:
    numbers: set[int] = set()
    for part in field.split(","):
        match = re.fullmatch(r"(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/(\d{1,3}))?", part)
        first, last, step = (None if text is None else int(text) for text in (match.groups() if match else (None,) * 3))
        is_span = first is None or last is not None
        begin, end = (low, high) if first is None else (first, first if last is None else last)
        is_valid = match is not None and low <= begin <= end <= high and (step is None or (step >= 1 and is_span))
        require(
            is_valid,
            f"cron: {part!r} is no {name}: numbers are {low} to {high}, as in 5, 1-5, 1,3, */2 or 1-5/2",
        )
        numbers |= set(range(begin, end + 1, step or 1))
    return numbers


def moment(text: str, name: str = "since") -> datetime.datetime:
    """Parse a day or a time, in UTC unless it names another zone.

    Args:
        text: in ISO 8601.
        name: of the setting, for the error.

    Raises:
        ValueError: it is not in ISO 8601.
    """
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name} must be a time such as 2026-11-25 or 2026-11-25T08:00, got {text}") from None
    return time if time.tzinfo else time.replace(tzinfo=datetime.UTC)
