"""Errors that end a command with one sentence and an exit code instead of a traceback."""

import contextlib
from collections.abc import Iterator

from fashion.home import root
from fashion.state import faults

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: all done; something is missing or wrong; mistyped; stopped by Ctrl-C."""


class CommandError(Exception):
    """A command cannot go on. The message names the value at fault and the remedy."""


def first_line(error: Exception) -> str:
    """The part of an exception's message that a person can use: its first line, without the HTTP client's details."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(" with exception HTTPConnectionPool")[0][:300].rstrip(".")


@contextlib.contextmanager
def failing_on(*expected: type[Exception], remedy: str = "") -> Iterator[None]:
    """Turn expected exceptions into a CommandError; what is wrong with the machine is said in the words of `faults`.

    Args:
        expected: what the block may raise.
        remedy: appended to the message, where the exception itself cannot know it.
    """
    try:
        yield
    except expected as error:
        is_own = type(error).__module__.startswith("fashion.")
        fault = None if is_own else faults.find(error, root())
        if fault is not None:
            raise CommandError(fault.sentence) from None
        message = str(error).strip() or type(error).__name__
        raise CommandError(f"{message}{f'; {remedy}' if remedy else ''}") from None
