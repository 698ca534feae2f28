"""HTTP/1.1 as clients speak it: limits of a request's head, offers to upgrade, slow clients, orderly ends."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from bentos.web import protocol
from bentos.web.protocol import Protocol, Server


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the path, the headers and the body; `/slow` takes half a second."""
    request = Request(scope, receive)
    body = await request.body()
    if scope["path"] == "/slow":
        await asyncio.sleep(0.5)
    content = {"path": scope["path"], "headers": dict(request.headers), "body": body.decode()}
    response: Response = JSONResponse(content)
    await response(scope, receive, send)


class Running:
    """A server in a thread."""

    def __init__(self) -> None:
        config = uvicorn.Config(echo, http=Protocol, lifespan="off", log_config=None, timeout_keep_alive=5)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.server = Server(config)
        self.thread = threading.Thread(target=self.server.run, args=[[self.listener]])
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def end(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def running() -> Iterator[Running]:
    server = Running()
    yield server
    server.end()


def read(client: socket.socket) -> tuple[int, dict[str, str], str]:
    """Read one answer: its status, headers and body."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += (more := client.recv(65_536))
        if not more:
            return 0, {}, received.decode()
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    while len(body) < int(headers.get("content-length", 0)):
        body += client.recv(65_536)
    return int(lines[0].split()[1]), headers, body.decode()


def post(body: bytes, *headers: str, path: str = "/x") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")


class TestHead:
    @pytest.mark.fault("a client sends headers without an end")
    def test_headers_that_are_too_long_are_rejected_while_others_are_answered(self, running: Running) -> None:
        with running.connect() as flood, running.connect() as other:
            flood.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nX-A: ")
            with contextlib.suppress(OSError):
                for _ in range(20):
                    flood.sendall(b"a" * 1_000_000)
            status, headers, body = read(flood)
            assert (status, headers["connection"]) == (431, "close")
            assert json.loads(body)["error"]["code"] == "headers_too_large"
            other.sendall(post(b"hello"))
            assert read(other)[0] == 200

    @pytest.mark.parametrize("piece", [100, 1_000_000])
    @pytest.mark.parametrize(("size", "status"), [(50_000, 200), (70_000, 431)])
    def test_the_limit_holds_for_many_headers_however_they_arrive(
        self, running: Running, piece: int, size: int, status: int
    ) -> None:
        headers = [f"x-{number}: {'v' * 90}" for number in range(size // 100)]
        request = post(b"hello", *headers)
        with running.connect() as client:
            for start in range(0, len(request), piece):
                client.sendall(request[start : start + piece])
            assert read(client)[0] == status

    def test_what_is_not_http_gets_an_error_that_says_so(self, running: Running) -> None:
        with running.connect() as client:
            client.sendall(b"\x16\x03\x01 hello\r\n\r\n")
            status, _, body = read(client)
        assert status == 400
        assert json.loads(body)["error"]["message"] == "the request is not valid HTTP/1.1"


class TestBody:
    @pytest.mark.parametrize("cut", [10, 60, 140, 200, 210])
    def test_an_offer_to_upgrade_keeps_its_body(self, running: Running, cut: int) -> None:
        request = post(b"hello", *H2C)
        with running.connect() as client:
            client.sendall(request[:cut])
            time.sleep(0.05)
            client.sendall(request[cut:])
            status, headers, body = read(client)
            assert (status, json.loads(body)["body"]) == (200, "hello")
            assert "upgrade" not in json.loads(body)["headers"]
            assert headers.get("connection") != "close"
            client.sendall(post(b"again", *H2C))  # and the connection goes on
            assert json.loads(read(client)[2])["body"] == "again"

    def test_chunks_and_an_expectation_arrive_whole(self, running: Running) -> None:
        with running.connect() as client:
            head = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
            client.sendall(head)
            assert client.recv(100).startswith(b"HTTP/1.1 100 Continue")
            client.sendall(b"3\r\nhel\r\n")
            time.sleep(0.05)
            client.sendall(b"2\r\nlo\r\n0\r\n\r\n")
            assert json.loads(read(client)[2])["body"] == "hello"

    def test_a_chunked_offer_to_upgrade_keeps_its_body(self, running: Running) -> None:
        lines = ["POST /x HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", *H2C, "", ""]
        with running.connect() as client:
            client.sendall("\r\n".join(lines).encode() + b"5\r\nhel")
            time.sleep(0.05)
            client.sendall(b"lo\r\n0\r\n\r\n")
            assert json.loads(read(client)[2])["body"] == "hello"

    def test_requests_that_are_sent_at_once_are_answered_in_order(self, running: Running) -> None:
        large = b"b" * 200_000
        with running.connect() as client:
            client.sendall(post(large, path="/a") + post(b"", path="/b")[:20])
            assert json.loads(read(client)[2])["body"] == large.decode()
            client.sendall(post(b"", path="/b")[20:])
            assert json.loads(read(client)[2])["path"] == "/b"


class TestSlowClients:
    @pytest.mark.fault("a client sends its headers slowly, or none at all")
    def test_a_slow_client_gives_its_place_up(self, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)
        with running.connect() as slow, running.connect() as silent:
            slow.sendall(b"POST / HTTP/1.1\r\nHost:")
            status, _, body = read(slow)
            assert status == 408
            assert json.loads(body)["error"]["code"] == "too_slow"
            assert silent.recv(10) == b""

    @pytest.mark.fault("a client opens connections without an end")
    def test_too_many_silent_connections_make_room_for_those_that_ask(
        self, running: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Protocol, "most_connections", 20)
        silent = [running.connect() for _ in range(60)]
        try:
            with running.connect() as client:
                client.sendall(post(b"hello"))
                assert read(client)[0] == 200
            assert silent[0].recv(10) == b""
        finally:
            for each in silent:
                each.close()


class TestEnd:
    def test_an_open_connection_gets_its_next_answer_and_a_word_that_it_was_the_last(self) -> None:
        running = Running()
        with running.connect() as resting, running.connect() as busy, running.connect() as unused:
            resting.sendall(post(b"one"))
            assert read(resting)[1].get("connection") != "close"
            busy.sendall(post(b"slow", path="/slow"))
            time.sleep(0.1)
            running.server.should_exit = True
            time.sleep(0.4)
            resting.sendall(post(b"two"))
            status, headers, _ = read(resting)
            assert (status, headers["connection"]) == (200, "close")
            assert read(busy)[0] == 200
            assert unused.recv(10) == b""
        running.end()
        with pytest.raises(ConnectionRefusedError):
            running.connect()
