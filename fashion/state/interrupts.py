"""How a process ends that is interrupted before it handles that itself. Knows nothing of what it does."""

import functools
import sys
from types import TracebackType


@functools.cache
def end_in_one_word() -> None:
    """Let Ctrl-C end this process with one word: imports take a second, in which Python would print a traceback."""
    original = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print("\nAborted!", file=sys.stderr, flush=True)
        else:
            original(kind, error, traceback)

    sys.excepthook = show
