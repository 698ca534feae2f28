"""A connection to PostgreSQL whose every request ends in time. Knows no tables.

Neither libpq nor psycopg bounds a request in time: one to a server that hangs, or behind a line that is half open,
would wait for ever.
"""

import contextlib
import math
import time
from typing import Any

import psycopg

CANCEL_S = 0.2
"""How long a server is asked to end a statement that took too long."""
STEP_S = 0.1
"""How often a request that waits looks whether it is still wanted."""


class Connection(psycopg.Connection[Any]):
    """A connection whose requests end at `deadline`, and take `seconds` each at most; one that did not is closed."""

    deadline = math.inf
    """Of time.monotonic."""
    seconds = math.inf

    def wait(self, gen: Any, interval: float = STEP_S, timeout: float | None = None) -> Any:
        """Wait for an answer as psycopg does, until the deadline at most."""
        left = min(self.seconds, max(0.0, self.deadline - time.monotonic()))
        if left == math.inf:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, left if timeout is None else min(timeout, left))
        except psycopg.errors._WaitTimeout:  # the public classes do not tell it from other errors
            with contextlib.suppress(psycopg.Error):  # a statement that waits for a lock would keep a server process
                self.cancel_safe(timeout=CANCEL_S)
            self.close()  # nobody knows what it would answer next
            raise psycopg.errors.ConnectionTimeout("it does not answer in time") from None


def connect(address: str = "", *, seconds: float, **options: Any) -> Connection:
    """Open a connection whose every request takes so many seconds at most.

    Args:
        address: `postgresql://user:password@host:port/database`, where `options` do not say it.
        seconds: for connecting too, unless `options` say otherwise; there, libpq counts in whole seconds, from two.
        options: of libpq.

    Raises:
        psycopg.OperationalError: the server cannot be reached, or refuses.
    """
    connection = Connection.connect(address, **{"connect_timeout": max(2, int(seconds)), **options})
    connection.seconds = seconds
    return connection
