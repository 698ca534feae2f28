"""Show the progress of downloads. Knows names and byte counts, not where the bytes come from."""

import sys
import time
from typing import Protocol, TextIO


class Reporter(Protocol):
    """Receives the messages of a fetch or a push."""

    def say(self, message: str) -> None:
        """Report an event, in one line."""

    def progress(self, message: str) -> None:
        """Report how far a transfer is; each message replaces the one before."""


class TerminalReporter:
    """Writes to standard error: progress in place on a terminal, otherwise a line every few seconds.

    Args:
        stream: standard error if None.
        seconds_between_lines: least time between two lines of progress where the stream is not a terminal.
    """

    def __init__(self, stream: TextIO | None = None, *, seconds_between_lines: float = 10.0) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._seconds = 0.1 if self._live else seconds_between_lines
        self._last = time.monotonic()

    def say(self, message: str) -> None:
        """Print a line."""
        print(f"\r\x1b[2K{message}" if self._live else message, file=self._stream, flush=True)

    def progress(self, message: str) -> None:
        """Print how far a transfer is, unless the last message is too recent."""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return
        self._last = now
        print(
            f"\r\x1b[2K{message}" if self._live else message,
            end="" if self._live else "\n",
            file=self._stream,
        )
        self._stream.flush()


def progress_line(name: str, done: int, size: int) -> str:
    """Describe how far a transfer is.

    Args:
        name: what is transferred.
        done: bytes so far.
        size: bytes in all; 0 if unknown.
    """
    share = f" of {megabytes(size)}, {done / size:.0%}" if size else ""
    return f"{name}: {megabytes(done)}{share}"


def megabytes(num_bytes: int) -> str:
    """Format a number of bytes in megabytes (10^6)."""
    return f"{num_bytes / 1e6:.1f} MB"
