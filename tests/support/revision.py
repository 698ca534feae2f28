"""A program that stands for a revision: answers as the classifier does, slows down or fails on command."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class RevisionServer:
    """What the program does next.

    Attributes:
        version: of the model that it says it is.
        label: what it takes each picture for.
        seconds: that a prediction takes.
        status: of predictions; 200 answers them.
        cut: True to close connections without an answer.
        is_ready: what /readyz says.
        predictions: how many were requested.
        headers: of the last request.
        on_prediction: called with their number, before each is answered.
    """

    version: str = "2"
    label: str = "Coat"
    seconds: float = 0.0
    status: int = 200
    cut: bool = False
    is_ready: bool = True
    predictions: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    on_prediction: Callable[[int], None] = lambda _: None
    url: str = ""


@contextlib.contextmanager
def serve(server: RevisionServer) -> Iterator[RevisionServer]:
    """Serve it on loopback, and set its `url`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._respond(200 if server.is_ready else 503, {})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            server.headers = {name.lower(): value for name, value in self.headers.items()}
            server.predictions += 1
            server.on_prediction(server.predictions)
            time.sleep(server.seconds)
            if server.cut:
                self.close_connection = True
                return
            model = {"name": "fashion-classifier", "version": server.version}
            self._respond(server.status, {"label": server.label, "model": model})

        def _respond(self, status: int, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
