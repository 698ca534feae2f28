"""The few connections to PostgreSQL that a process shares, and what its errors mean. Knows no tables."""

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import psycopg
from psycopg import conninfo
from psycopg.pq import PGconn, PollingStatus

from fashion.predictions.record import LogUnavailable
from fashion.predictions.shared_log import SharedLogUnavailable
from fashion.storage import postgres, servers

MOST = 4
"""Connections of one process at once."""

_REFUSALS = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)
"""What a value is at fault for, and not the server."""

T = TypeVar("T")


class RowRefused(ValueError):
    """A value that PostgreSQL does not take, now or later."""


class AccessDenied(SharedLogUnavailable):
    """The role may not do this. The message names the remedy."""


InsufficientPrivilege = psycopg.errors.InsufficientPrivilege
"""What `work` sees where the role may not do this."""


class Connection(postgres.Connection):
    """A connection that is prepared once."""

    prepared = False


class Connections:
    """At most MOST connections to one database, opened when they are needed. Safe to call from threads."""

    def __init__(
        self, address: str, *, timeout_s: float, prepare: Callable[[Connection], None], grant: str = ""
    ) -> None:
        """Read the address. Connects to nothing.

        Args:
            address: what libpq calls a connection URI.
            timeout_s: how long one request may take, opening a connection included; in seconds.
            prepare: called with each new connection.
            grant: statements that give `{role}` access, for the message where it is denied.

        Raises:
            LogUnavailable: libpq does not take the address.
        """
        try:
            parts = conninfo.conninfo_to_dict(address)
            self._conninfo = conninfo.make_conninfo(address, fallback_application_name="fashion")
        except psycopg.Error:  # its message quotes the address, password included
            raise LogUnavailable(
                "FASHION_LOG is not an address that PostgreSQL's client takes: compare it with "
                "postgresql://user:password@host[:port]/database?sslmode=require; it is not shown, for it may hold a "
                "password"
            ) from None
        self.address = _public_address(parts)
        self.timeout_s, self._prepare = timeout_s, prepare
        self._grant = grant.format(role=parts.get("user", "role"))
        self._lock, self._free = threading.Lock(), threading.BoundedSemaphore(MOST)
        self._idle: list[Connection] = []
        self._used: set[Connection] = set()
        self._closed = 0

    def run(self, work: Callable[[Connection], T], *, timeout_s: float | None = None) -> T:
        """Call `work` with a connection, and return what it returns.

        A connection that was lost while nothing used it is replaced, and `work` is called again.

        Args:
            work: what to do; it may be done twice. Each statement is a transaction of its own.
            timeout_s: how long it may take, if less than the limit of all.

        Raises:
            RowRefused: the server rejects a value.
            SharedLogUnavailable: it cannot be reached in time, or denies access.
        """
        deadline = time.monotonic() + min(timeout_s or self.timeout_s, self.timeout_s)
        if not self._free.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise SharedLogUnavailable(
                f"{self.address} cannot be used: all {MOST} connections wait for answers; try again"
            )
        try:
            with self._translate_errors():
                with self._lock:
                    closed = self._closed
                    idle = self._idle.pop() if self._idle else None
                if idle is not None:
                    try:
                        return self._use(idle, work, deadline, closed)
                    except psycopg.OperationalError:  # perhaps the server was restarted since
                        if closed != self._closed or time.monotonic() >= deadline:
                            raise
                return self._use(self._open(deadline, closed), work, deadline, closed)
        finally:
            self._free.release()

    def close(self) -> None:
        """Close all connections, which fails requests under way. The next request opens a new one."""
        with self._lock:
            self._closed += 1
            idle, self._idle = self._idle, []
            for each in self._used:
                _hang_up(each)
        for each in idle:
            each.close()

    def _use(self, connection: Connection, work: Callable[[Connection], T], deadline: float, closed: int) -> T:
        with self._lock:
            self._used.add(connection)
        whole = False
        try:
            connection.deadline = deadline
            if not connection.prepared:
                self._prepare(connection)
                connection.prepared = True
            result = work(connection)
            whole = True
            return result
        except (*_REFUSALS, RowRefused):
            whole = True
            raise
        finally:
            self._put_back(connection, whole, closed)

    def _put_back(self, connection: Connection, whole: bool, closed: int) -> None:
        with self._lock:
            self._used.discard(connection)
            whole = whole and closed == self._closed
            if whole:
                self._idle.append(connection)
        if not whole:
            connection.close()

    def _open(self, deadline: float, closed: int) -> Connection:
        def check() -> None:
            if closed != self._closed:
                raise psycopg.OperationalError("the connection was closed")
            if time.monotonic() >= deadline:
                raise psycopg.errors.ConnectionTimeout("it does not answer in time")

        pgconn = PGconn.connect_start(self._conninfo.encode())
        while (status := pgconn.connect_poll()) != PollingStatus.OK:
            if status == PollingStatus.FAILED:
                raise psycopg.OperationalError(pgconn.get_error_message())
            events = select.POLLIN if status == PollingStatus.READING else select.POLLOUT
            check()
            while not _is_ready(pgconn.socket, events, min(postgres.STEP_S, deadline - time.monotonic())):
                check()
        pgconn.nonblocking = 1
        connection = Connection(pgconn)
        connection.autocommit = True
        connection.prepare_threshold = None  # a pooler between, such as PgBouncer, may mix up prepared statements
        return connection

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except psycopg.errors.InsufficientPrivilege as error:
            raise AccessDenied(
                f"{self.address} denies access: {_sentence(error)}; let the owner of the tables run `{self._grant}`"
            ) from error
        except _REFUSALS as error:
            raise RowRefused(_sentence(error)) from error
        except psycopg.Error as error:
            raise SharedLogUnavailable(f"{self.address} cannot be used: {_explain(error)}") from error


def _public_address(parts: Mapping[str, Any]) -> str:
    """Name hosts, ports and database of an address, and neither user, password nor options."""
    hosts, ports = str(parts.get("host", "")).split(","), str(parts.get("port", "")).split(",")
    hosts = [f"[{host}]" if ":" in host else host for host in hosts]
    ports = ports if len(ports) == len(hosts) else ports * len(hosts)
    named = ",".join(f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=True))
    return f"postgresql://{named}/{parts.get('dbname', '')}"


def _is_ready(descriptor: int, events: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, events)
    return bool(poll.poll(1000 * max(0.0, seconds)))


def _hang_up(connection: Connection) -> None:
    """End the request of another thread."""
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.pgconn.socket)) as ours:
        ours.shutdown(socket.SHUT_RDWR)


def _explain(error: psycopg.Error) -> str:
    """The reason and the remedy of an error that no row is at fault for, in half a sentence."""
    reason = _sentence(error).rstrip(".")
    if "database" in reason and "does not exist" in reason:
        return f"{reason}; create the database, or correct FASHION_LOG"
    return f"{reason}; {servers.remedy_of(reason, 'FASHION_LOG')}"


def _sentence(error: psycopg.Error) -> str:
    return " ".join((error.diag.message_primary or servers.reason_of(error)).split()) or type(error).__name__
