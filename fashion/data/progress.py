"""Progress of a download in a terminal. Knows names and byte counts."""

import sys
import time
from typing import Protocol, TextIO


class Reporter(Protocol):
    """Who hears what happens."""

    def say(self, message: str) -> None:
        """Something happened."""

    def progress(self, message: str) -> None:
        """How far a download is; each message replaces the one before."""


class TerminalReporter:
    """A Reporter on standard error: progress in place on a terminal, a line now and then anywhere else."""

    def __init__(self, stream: TextIO | None = None, *, seconds_between_lines: float = 10.0) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._seconds = 0.1 if self._live else seconds_between_lines
        self._last = time.monotonic()

    def say(self, message: str) -> None:
        """See Reporter.say."""
        print(f"\r\x1b[2K{message}" if self._live else message, file=self._stream, flush=True)

    def progress(self, message: str) -> None:
        """See Reporter.progress."""
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
    share = f" of {megabytes(size)}, {done / size:.0%}" if size else ""
    return f"{name}: {megabytes(done)}{share}"


def megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB"
