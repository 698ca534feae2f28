"""HTTP/1.1 as clients speak it, on uvicorn's protocol: limits of a request's head, offers to upgrade, orderly ends.

What is checked here comes before any of the service's code: nobody has named a key yet.
"""

import asyncio
import json
from typing import Any, ClassVar

import httptools
import uvicorn
import uvicorn.config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HEAD_BYTES = 65_536
"""Most bytes of a request's first line and headers; browsers and proxies stay below 16,384."""
HEAD_SECONDS = 10.0
"""How long a client may take to send them."""
LINGER_SECONDS = 2.0
"""How long what a rejected client still sends is read and dropped: it would see a broken connection, no answer."""
DRAIN_SECONDS = 2.0
"""How long an open connection may rest once the server ends: a request within this time is still answered."""
SPARE_FILES = 128
"""Open files that connections leave to the rest of the worker."""

_HOP_BY_HOP = frozenset({b"connection", b"upgrade", b"http2-settings"})


def install() -> None:
    """Make uvicorn use `Protocol` and `Server` in this process; BentoML has no setting for either."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{Protocol.__name__}"
    uvicorn.Server = Server  # type: ignore[misc]
    Protocol.most_connections = _raise_file_limit() - SPARE_FILES


class Server(uvicorn.Server):
    """A server whose open connections end with an answer, not between two requests."""

    async def shutdown(self, sockets: Any = None) -> None:
        """Tell connections that the next answer is the last one, wait for that, and end."""
        self.server_state.is_draining = True  # type: ignore[attr-defined]
        await super().shutdown(sockets)


class Protocol(HttpToolsProtocol):
    """One connection."""

    most_connections: ClassVar[int] = 1024 - SPARE_FILES
    """Connections of this process; for more, the one that has waited longest without a whole head is closed."""
    _without_head: ClassVar[dict["Protocol", None]] = {}
    """Connections that send no request at the moment, in the order in which they began to."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._head_bytes = self._partial_bytes = self._begun = 0
        self._is_in_head = True
        self._is_offer = False
        self._is_rejected = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request; make room first if there are too many connections."""
        super().connection_made(transport)
        self._without_head[self] = None
        self._start_timer(HEAD_SECONDS)
        if len(self.connections) > self.most_connections:
            next(iter(self._without_head)).transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        self._without_head.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._is_rejected:
            return
        self._unset_keepalive_if_required()
        begun = self._begun
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            if self._is_offer:
                self._decline(data[error.args[0] :])
            elif self._should_upgrade():
                self.handle_websocket_upgrade()
            else:
                self.send_400_response("the request asks for another protocol")
        except httptools.HttpParserError:
            if not self._is_rejected:
                self.send_400_response("the request is not valid HTTP/1.1")
        if self._is_in_head and not self._is_rejected:
            if self._begun <= max(begun, 1):  # all of the data is of this head, which may be one endless header
                self._partial_bytes += len(data)
            if self._partial_bytes > HEAD_BYTES:
                self._reject_head()
            elif self._timer is None:
                self._start_timer(HEAD_SECONDS)

    def on_message_begin(self) -> None:
        """Begin with a request."""
        super().on_message_begin()
        self._begun += 1
        self._head_bytes = self._partial_bytes = 0
        self._is_in_head, self._is_offer = True, False

    def on_url(self, url: bytes) -> None:
        """Count the path."""
        self._head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        self._head_bytes += len(name) + len(value) + 4
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start to answer, unless the head was too long or is parsed again without an offer to upgrade."""
        if self._is_rejected:
            return
        self._is_in_head = False
        self._stop_timer()
        self._without_head.pop(self, None)
        if self._head_bytes > HEAD_BYTES:
            self._reject_head()
        elif self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT" and not self._should_upgrade():
            self._is_offer = True
        else:
            super().on_headers_complete()
            if getattr(self.server_state, "is_draining", False):
                self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Pass the body on."""
        if not (self._is_rejected or self._is_offer):
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request's body; what comes next is another head."""
        if not (self._is_rejected or self._is_offer):
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        if not self.transport.is_closing():
            self._without_head[self] = None
        super().on_response_complete()

    def shutdown(self) -> None:
        """End after the next answer, or when no request comes for a while."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        elif not self._is_rejected:
            self._start_timer(DRAIN_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be parsed."""
        self._reject(400, "bad_request", msg, "let an HTTP library make the request")

    def _decline(self, rest: bytes) -> None:
        """Answer a request that offers to go on in another protocol, such as h2c, as if it did not.

        httptools takes what follows such a head for the other protocol, body included.

        Args:
            rest: what followed the head.
        """
        first = self.parser.get_method() + b" " + self.url + b" HTTP/1.1"
        headers = [name + b": " + value for name, value in self.headers if name not in _HOP_BY_HOP]
        self.parser = httptools.HttpRequestParser(self)
        self._is_offer = False
        self.data_received(b"\r\n".join([first, *headers, b"", b""]) + rest)

    def _reject_head(self) -> None:
        self._reject(
            431,
            "headers_too_large",
            f"the first line and the headers are longer than {HEAD_BYTES:,} bytes",
            "send fewer or shorter headers; pictures go into the body",
        )

    def _reject(self, status: int, code: str, message: str, remedy: str) -> None:
        """Answer without the application, and end the connection once the client has had time to read it."""
        self._is_rejected = True
        self._stop_timer()
        body = json.dumps({"error": {"code": code, "message": message, "remedy": remedy}}).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        lines = [f"{name}: {value}\r\n".encode() for name, value in headers.items()]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))
        self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        """End a connection whose request does not come."""
        self._timer = None
        if self._is_in_head and self._partial_bytes:
            message = f"the headers did not arrive within {HEAD_SECONDS:g} s"
            self._reject(408, "too_slow", message, "send the request at once")
        else:
            self.transport.close()


def _raise_file_limit() -> int:
    """Allow this process as many open files as it may have, and return the number."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 1024
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return soft
        return wanted
    return soft
