"""Whether something happened too recently to do it again."""

EARLY = 0.1
"""Share of a cooldown by which a run may come early: the runs of a daily timer are never exactly a day apart."""


def is_within(hours: float, last: float, now: float) -> bool:
    """True if `last` is less than a cooldown ago. A time in the future, before a clock was set back, is not.

    Args:
        hours: the cooldown; its last tenth does not count.
        last: seconds since 1970.
        now: seconds since 1970.
    """
    return 0 <= now - last < (1 - EARLY) * 3600 * hours
