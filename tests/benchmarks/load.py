"""Requests over connections that stay open, from one process that costs far less than what it loads.

Each connection asks anew once it is answered (a closed loop). Knows HTTP/1.1 as far as servers speak it that name the
length of their answers; independent of what is requested.
"""

import contextlib
import gc
import itertools
import re
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

HOST = "127.0.0.1"
LOST = 0
"""Status of a request whose connection was closed before its answer, or that was not answered in time."""
PATIENCE_SECONDS = 10.0
"""How long to wait for answers after the last request."""

_BOUNDARY = "fashion-benchmark-boundary"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


class Answer(NamedTuple):
    """What came back."""

    request: Any
    """The caller's name of the request."""
    status: int
    seconds: float
    """From before the request was sent to when the kernel said that there is something to read."""
    body: bytes
    may_retry: bool = False
    """It has a Retry-After; looked for from status 500 on."""


@dataclass(frozen=True)
class Load:
    """One load and what came of it."""

    first: list[Answer]
    """Of each connection, while they were opened one after the other; in none of the times."""
    answers: list[Answer]
    seconds: float
    """From when all connections were open to the last answer."""
    cpu_seconds: float
    """Of the generator, in that time."""


class Unreadable(ValueError):
    """An answer of a form that is not read here."""


def post(path: str, body: bytes, content_type: str) -> bytes:
    """A POST request as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def get(path: str) -> bytes:
    """A GET request as it goes over the wire."""
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def upload(path: str, files: Sequence[bytes], *, field: str = "image") -> bytes:
    """A form with files, as browsers send them."""
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="picture.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    )
    body = b"".join(head.encode() + data + b"\r\n" for data in files) + f"--{_BOUNDARY}--\r\n".encode()
    return post(path, body, f"multipart/form-data; boundary={_BOUNDARY}")


def drive(
    port: int, requests: Iterable[tuple[Any, bytes]], *, connections: int, seconds: float, pause: float = 0.0
) -> Load:
    """Ask for `seconds`, then wait for what is still to come.

    Args:
        requests: what to ask next, as (name, bytes), without an end; each at most 64 kB, since it is sent as a whole
            before anything is read.
        pause: seconds that a connection rests after an answer.

    Raises:
        ConnectionError: the server takes no connections.
        Unreadable: the server speaks another HTTP.
    """
    gc.collect()
    gc.disable()  # answers pile up: a collection would look at all of them, in the middle of a measurement
    try:
        return _Loop(port, iter(requests), pause).run(connections, seconds)
    finally:
        gc.enable()


def in_turn(port: int, requests: Sequence[tuple[Any, bytes]], *, connections: int, seconds: float) -> Load:
    """Ask the same requests over and over; can be called in another process."""
    return drive(port, itertools.cycle(requests), connections=connections, seconds=seconds)


class _Connection:
    __slots__ = ("buffer", "request", "sent", "socket", "waits")

    def __init__(self) -> None:
        self.socket: Any = None
        self.request: Any = None
        self.sent = 0.0
        self.buffer = b""
        self.waits = False


class _Loop:
    # `selectors` and blocking sockets, not asyncio: nothing stands between the kernel and the clock, and it is faster.

    def __init__(self, port: int, requests: Iterator[tuple[Any, bytes]], pause: float) -> None:
        self._port, self._requests, self._pause = port, requests, pause
        self._selector = selectors.DefaultSelector()
        self._resting: deque[tuple[float, _Connection]] = deque()
        self._answers: list[Answer] = []
        self._waiting = 0

    def run(self, connections: int, seconds: float) -> Load:
        try:
            ready = [self._introduced() for _ in range(connections)]
            first, self._answers = self._answers, []
            cpu, started = time.process_time(), time.perf_counter()
            last, deadline = started, started + seconds
            for connection in ready:
                self._ask(connection)
            while self._waiting or self._resting:
                events = self._selector.select(self._timeout(deadline))
                now = time.perf_counter()
                for key, _ in events:
                    if self._is_done(key.data, now):
                        last = now
                        if self._pause:
                            self._resting.append((now + self._pause, key.data))
                        elif now < deadline:
                            self._ask(key.data)
                if now >= deadline:
                    self._resting.clear()
                while self._resting and self._resting[0][0] <= now:
                    self._ask(self._resting.popleft()[1])
                if now > deadline + PATIENCE_SECONDS:
                    break
            self._answers += [
                Answer(each.request, LOST, now - each.sent, b"") for each in self._open_ones() if each.waits
            ]
        finally:
            for connection in self._open_ones():
                connection.socket.close()
            self._selector.close()
        return Load(first, self._answers, last - started, time.process_time() - cpu)

    def _introduced(self) -> _Connection:
        """A new connection, after its first answer.

        libuv accepts one connection a turn of its loop, and answers all open ones in each: of 64 that come at once,
        the last waits for 2000 requests of the others. That is measured neither as latency nor as anything else.
        """
        connection = _Connection()
        self._open(connection)
        self._ask(connection)
        while connection.waits:
            events = self._selector.select(PATIENCE_SECONDS)
            now = time.perf_counter()
            for key, _ in events:
                self._is_done(key.data, now)
            if not events:
                self._keep(connection, LOST, now, b"")
                self._open(connection)
        return connection

    def _timeout(self, deadline: float) -> float:
        now = time.perf_counter()
        if now >= deadline:
            return max(deadline + PATIENCE_SECONDS - now, 0.0) + 0.001
        return max(min(self._resting[0][0] if self._resting else deadline, deadline) - now, 0.0)

    def _ask(self, connection: _Connection) -> None:
        connection.request, data = next(self._requests)
        connection.waits = True
        self._waiting += 1
        connection.sent = time.perf_counter()
        with contextlib.suppress(ConnectionError):  # reading tells of it too, and is where it is counted
            connection.socket.sendall(data)

    def _is_done(self, connection: _Connection, now: float) -> bool:
        """Read what is there; whether the request is over, answered or lost."""
        try:
            data = connection.socket.recv(262_144)
        except ConnectionError:
            data = b""
        if not data:
            return self._is_lost(connection, now)
        if connection.buffer:
            data = connection.buffer + data
        head, blank, body = data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if blank and length is None:
            raise Unreadable(f"an answer does not name its length: {head[:300]!r}")
        if not blank or length is None or len(body) < int(length[1]):
            connection.buffer = data
            return False
        status = int(head[9:12])
        self._keep(connection, status, now, body, may_retry=status >= 500 and b"\r\nretry-after:" in head.lower())
        if _CLOSE.search(head):
            self._open(connection)
        return True

    def _is_lost(self, connection: _Connection, now: float) -> bool:
        waited = connection.waits  # a server may close a connection that rests
        if waited:
            self._keep(connection, LOST, now, connection.buffer)
        self._open(connection)
        return waited

    def _keep(self, connection: _Connection, status: int, now: float, body: bytes, *, may_retry: bool = False) -> None:
        self._answers.append(Answer(connection.request, status, now - connection.sent, body, may_retry))
        connection.buffer, connection.waits = b"", False
        self._waiting -= 1

    def _open(self, connection: _Connection) -> None:
        if connection.socket is not None:
            self._selector.unregister(connection.socket)
            connection.socket.close()
        connection.socket = socket.create_connection((HOST, self._port), timeout=PATIENCE_SECONDS)
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.socket.settimeout(None)  # with a timeout, Python asks the kernel twice for everything
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def _open_ones(self) -> list[_Connection]:
        return [key.data for key in self._selector.get_map().values()]
