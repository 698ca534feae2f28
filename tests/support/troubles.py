"""Servers in trouble, each on a port of the loopback: dead, hanging, slow, refusing, or none of the kind that is meant.

Knows HTTP, PostgreSQL's first messages and gRPC's status codes, and nothing of what is asked.
"""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from support.served import free_port
from support.web import QuietHandler, serving

SLOW_SECONDS = 4.0
"""How long each answer of a slow server takes."""
PAGE = b"<html><head><title>Sign in</title></head><body><p>Who are you?</p></body></html>"
DATABASE_ERRORS = {
    "401": ("28P01", 'password authentication failed for user "me"'),
    "403": ("42501", 'permission denied for database "team"'),
    "429": ("53300", 'too many connections for role "me"'),
    "500": ("XX000", "could not open relation mapping file"),
}
"""What PostgreSQL says in the place of a status of HTTP: its code and its words."""
ENCRYPTION = 80877103
"""Asks PostgreSQL whether it speaks TLS."""
RPC_ERRORS = {"401": "UNAUTHENTICATED", "403": "PERMISSION_DENIED", "429": "RESOURCE_EXHAUSTED", "500": "INTERNAL"}
"""The same for gRPC."""
ALL = ("dead", "hanging", "slow", "500", "429", "401", "403", "HTML", "empty", "cut", "TLS")
"""`HTML` and `empty` have status 200; `cut` closes a connection within an answer; `TLS` is spoken by clients alone."""


@contextlib.contextmanager
def http(trouble: str) -> Iterator[int]:
    """Serve one trouble over HTTP, and yield its port."""
    if trouble in ("dead", "hanging"):
        with _silent(trouble) as port:
            yield port
        return

    class Handler(QuietHandler):
        def answer(self) -> None:
            if trouble == "slow":
                time.sleep(SLOW_SECONDS)
            self.read_body()
            if trouble == "cut":
                self.send_response(200)
                self.send_header("content-length", "1000")
                self.end_headers()
                self.wfile.write(b'{"half": ')
                self.close_connection = True
                return
            content = b"" if trouble == "empty" else b"{}" if trouble == "slow" else PAGE
            self.respond(int(trouble) if trouble.isdecimal() else 200, content, content_type="text/html")

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # of a client that has given up
                super().handle()

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = do_HEAD = answer

    with serving(Handler) as url:
        yield int(url.rpartition(":")[2])


@contextlib.contextmanager
def postgresql(trouble: str) -> Iterator[int]:
    """Serve one trouble in PostgreSQL's protocol where it knows it, else in that of HTTP; yield the port."""
    if trouble in ("dead", "hanging"):
        with _silent(trouble) as port:
            yield port
        return

    def answer(client: socket.socket) -> None:
        code = _startup_code(client)
        if trouble == "slow":
            time.sleep(SLOW_SECONDS)
        elif trouble == "HTML":
            client.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/html\r\n\r\n" + PAGE)
        elif code == ENCRYPTION and trouble != "empty":
            client.sendall(b"N")
            if trouble != "TLS":
                answer(client)
        elif trouble == "cut":
            client.sendall(b"R\0\0")
        elif trouble in DATABASE_ERRORS:
            state, words = DATABASE_ERRORS[trouble]
            fields = b"".join(f"{kind}{text}\0".encode() for kind, text in (("S", "FATAL"), ("C", state), ("M", words)))
            client.sendall(b"E" + struct.pack("!I", len(fields) + 5) + fields + b"\0")

    with _accepting(answer) as port:
        yield port


def _startup_code(client: socket.socket) -> int:
    """Read a client's first message, and return its number: that of the protocol, or ENCRYPTION."""
    size, code = struct.unpack("!II", client.recv(8, socket.MSG_WAITALL))
    client.recv(size - 8, socket.MSG_WAITALL)
    return int(code)


@contextlib.contextmanager
def grpc(trouble: str) -> Iterator[int]:
    """Serve one trouble over gRPC where it knows it, else in HTTP/1; yield the port."""
    if trouble not in RPC_ERRORS and trouble != "slow":
        with http(trouble) as port:
            yield port
        return
    from concurrent.futures import ThreadPoolExecutor

    import grpc as library

    class Handler(library.GenericRpcHandler):
        def service(self, _: Any) -> Any:
            def answer(_: Any, context: Any) -> Any:
                if trouble == "slow":
                    time.sleep(SLOW_SECONDS)
                context.abort(library.StatusCode[RPC_ERRORS.get(trouble, "UNAVAILABLE")], "as the server says")

            return library.unary_stream_rpc_method_handler(answer)

    server = library.server(ThreadPoolExecutor(4), handlers=[Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None)


@contextlib.contextmanager
def _silent(trouble: str) -> Iterator[int]:
    """A port that nobody listens on, or one where connections are accepted and nothing is answered."""
    if trouble == "dead":
        yield free_port()
        return
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def _accepting(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Call `answer` with each connection, in a thread of its own, and close it then."""

    def serve(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, struct.error):
            answer(client)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`
    thread.join()
