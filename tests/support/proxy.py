"""A TCP proxy on the loopback that can hang, swallow answers and break connections. Knows nothing of the protocol."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class Proxy:
    """Forwards connections to a server; clients connect to `address`."""

    def __init__(self, target: str) -> None:
        host, _, port = target.partition(":")
        self._target = (host, int(port))
        self._requests, self._answers = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._port = 0
        self.resume()
        self.address = f"127.0.0.1:{self._port}"

    def stall(self) -> None:
        """Accept requests, and forward nothing until resumed."""
        self._requests.clear()
        self._answers.clear()

    def swallow_answers(self) -> None:
        """Forward requests, and hold the responses."""
        self._answers.clear()

    def cut(self) -> None:
        """Break all connections, lose what is held, and reject new ones until resumed."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`
            listener.close()
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def release(self) -> None:
        """Forward what is held, and everything after it."""
        self._requests.set()
        self._answers.set()

    def resume(self) -> None:
        """Forward everything again, on the same port."""
        self.release()
        if self._listener is None:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self._port))
            listener.listen(64)
            self._port = listener.getsockname()[1]
            self._listener = listener
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._sockets |= {client, server}
            if self._listener is not listener:  # cut meanwhile
                client.close()
                server.close()
                return
            for source, sink, flowing in ((client, server, self._requests), (server, client, self._answers)):
                threading.Thread(target=self._pump, args=(source, sink, flowing), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, flowing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                flowing.wait()
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
            with self._lock:
                self._sockets.discard(each)


@contextlib.contextmanager
def between(target: str) -> Iterator[Proxy]:
    """A proxy in front of a server."""
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.cut()
        proxy.release()  # threads that hold something find their connection gone, and end
