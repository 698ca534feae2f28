"""What Firestore, or a server in its place, answers instead of documents: one sentence with a remedy."""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from support.log_rows import record
from support.web import QuietHandler, serving

from fashion.predictions.firestore import FirestoreLog
from fashion.predictions.outbox import Outgoing
from fashion.predictions.shared_log import SharedLogUnavailable

ID = "01a210f9-adec-7a93-8180-2b2d71881f13"
CALLS: dict[str, Callable[[FirestoreLog], object]] = {
    "send": lambda log: log.send([Outgoing(1, 1, record())]),
    "get": lambda log: log.get(ID),
    "labelled": lambda log: list(log.labelled()),
    "decisions": lambda log: log.decisions(),
    "forget": lambda log: log.forget(ID),
}
ANSWERS = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: "429 said the server; try again later, or raise the project's quota",
    grpc.StatusCode.UNAUTHENTICATED: "401 said the server; log in again: `gcloud auth application-default login`",
    grpc.StatusCode.PERMISSION_DENIED: "403 said the server; give this account the role roles/datastore.user in the ",
    grpc.StatusCode.NOT_FOUND: "404 said the server; create the database, or correct FASHION_LOG",
    grpc.StatusCode.INTERNAL: "500 said the server; check FASHION_LOG and the network, and try again",
}


class Aborting(grpc.GenericRpcHandler):
    """Answers every call with one status."""

    def __init__(self, status: grpc.StatusCode) -> None:
        self.status = status

    def service(self, details: Any) -> Any:
        return grpc.unary_stream_rpc_method_handler(
            lambda _request, context: context.abort(self.status, "said the server")
        )


@contextlib.contextmanager
def answering(status: grpc.StatusCode) -> Iterator[str]:
    """The address of a gRPC server that answers every call with one status."""
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, handlers=[Aborting(status)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


def check(address: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Call the methods of a log whose server is at an address."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", address)
    for name, call in CALLS.items():
        started = time.monotonic()
        with (
            contextlib.closing(FirestoreLog("team", timeout_s=2)) as log,
            pytest.raises(SharedLogUnavailable) as caught,
        ):
            call(log)
        sentence = str(caught.value)
        assert sentence.startswith("firestore://team/(default)/predictions cannot be used: "), name
        assert said in sentence, name
        assert "\n" not in sentence
        assert time.monotonic() - started < 5, name


@pytest.mark.fault("Firestore answers 429, 401, 403, 404 or 500")
@pytest.mark.parametrize("status", ANSWERS, ids=lambda status: status.name)
def test_an_error_of_firestore_is_one_sentence_with_a_remedy(
    status: grpc.StatusCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(status) as address:
        check(address, ANSWERS[status], monkeypatch)


@pytest.mark.fault("a proxy's sign-in page with status 200 in place of Firestore")
def test_a_web_page_is_not_taken_for_an_answer_of_firestore(monkeypatch: pytest.MonkeyPatch) -> None:
    class Handler(QuietHandler):
        def do_POST(self) -> None:
            self.respond(200, b"<html><title>Sign in</title></html>", content_type="text/html")

        do_PRI = do_GET = do_POST

    with serving(Handler) as url:
        check(url.removeprefix("http://"), "; check FASHION_LOG and the network, and try again", monkeypatch)
