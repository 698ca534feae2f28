"""A program that stands for a revision: answers as the classifier does, slows down or fails on command."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from support.web import QuietHandler, serving


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

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self.respond(200 if server.is_ready else 503, b"{}")

        def do_POST(self) -> None:
            self.read_body()
            server.headers = {name.lower(): value for name, value in self.headers.items()}
            server.predictions += 1
            server.on_prediction(server.predictions)
            time.sleep(server.seconds)
            if server.cut:
                self.close_connection = True
                return
            model = {"name": "fashion-classifier", "version": server.version}
            self.respond(server.status, json.dumps({"label": server.label, "model": model}).encode())

    with serving(Handler) as server.url:
        yield server
