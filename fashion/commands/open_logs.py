"""Opens the logs that a command is about; whatever goes wrong with them is one sentence."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fashion.commands.errors import CommandError, failing_on

if TYPE_CHECKING:
    from fashion.home import Home
    from fashion.predictions.log import PredictionLog
    from fashion.predictions.shared_log import SharedLog


@contextlib.contextmanager
def open_log(home: "Home | None" = None) -> Iterator["PredictionLog"]:
    """Open the log of a home; whatever goes wrong with it is one sentence. Creates none."""
    from fashion.home import current_home
    from fashion.predictions.log import PredictionLog
    from fashion.predictions.record import LogUnavailable

    path = (home or current_home()).predictions
    if not path.exists():
        raise CommandError(f"there is no prediction log {path}: `make serve` begins one")
    with failing_on(LogUnavailable, OSError, UnicodeDecodeError), PredictionLog(path) as log:
        yield log


def open_shared() -> "SharedLog":
    """Return the log that machines share, as the environment names it."""
    from fashion.home import current_home
    from fashion.predictions.address import FORMS, open_shared_log

    named = current_home().shared_log
    if named is None:
        raise CommandError(f"FASHION_LOG names no shared log: set it to {FORMS}")
    return open_shared_log(named)


@contextlib.contextmanager
def open_logs() -> Iterator[tuple["PredictionLog | None", "SharedLog | None"]]:
    """Open this machine's log, where there is one, and the shared log, where the environment names one.

    One of them there must be.
    """
    from fashion.home import current_home

    home = current_home()
    with failing_on(OSError), contextlib.ExitStack() as stack:
        shared = stack.enter_context(contextlib.closing(open_shared())) if home.shared_log else None
        log = stack.enter_context(open_log(home)) if shared is None or home.predictions.exists() else None
        yield log, shared
