"""Buckets in whose place a proxy answers, or that answer with an error: one sentence with a remedy, never a result."""

import time
from collections.abc import Callable

import pytest
from support.web import QuietHandler, serving

from fashion.storage.address import open_store
from fashion.storage.blobs import Store, StoreUnavailable

CALLS: dict[str, Callable[[Store], object]] = {
    "put": lambda store: store.put("name", b"x"),
    "put_if_absent": lambda store: store.put_if_absent("name", b"x"),
    "get": lambda store: store.get("name"),
    "exists": lambda store: store.exists("name"),
    "delete": lambda store: store.delete("name"),
    "list": lambda store: list(store.list()),
}
FOREIGN = "what answers is not {service}, but perhaps a proxy's sign-in page: check "
SERVICES = {"gs": "Google Cloud Storage", "s3": "S3", "az": "Azure Blob Storage"}
WELL_FORMED = b"<html><head><title>Sign in</title></head><body><p>Who are you?</p></body></html>"
PAGES = {"well-formed": WELL_FORMED, "not": b"<!DOCTYPE html><form><input name=user></form>", "empty": b""}
ERRORS = {
    (429, "gs"): "it answers 429; try again later, or raise the project's quota",
    (429, "s3"): "429 Too Many Requests; try again later",
    (429, "az"): "429 Too Many Requests; try again later",
    (401, "gs"): "without Google credentials: run `gcloud auth application-default login`",
    (401, "s3"): "access is denied (401 Unauthorized): check the credentials, and that they may read, write and list ",
    (401, "az"): "access is denied (401 Unauthorized): check the credentials, and that they may read, write and list ",
    (500, "gs"): "it answers 500; check the network, and the status of Google Cloud Storage; then try again",
    (500, "s3"): "500 Internal Server Error; try again later",
    (500, "az"): "500 Internal Server Error; try again later",
}


def check(kind: str, status: int, page: bytes, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Call each method of a store that a server of one answer stands for."""

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            self.read_body()
            self.respond(status, page, content_type="text/html")

        do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

    with serving(Handler) as url:
        for name, value in {
            "FASHION_SERVER_SECONDS": "1",
            "STORAGE_EMULATOR_HOST": url,
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "asks",
            "AZURE_STORAGE_ACCOUNT_NAME": "account",
            "AZURE_STORAGE_ACCOUNT_KEY": "team",
            "AZURE_STORAGE_ENDPOINT": f"{url}/account",
        }.items():
            monkeypatch.setenv(name, value)
        store = open_store(f"{kind}://photos/x")
        for name, call in CALLS.items():
            started = time.monotonic()
            try:
                pytest.fail(f"{name} believed the answer: {call(store)!r}")
            except StoreUnavailable as error:
                sentence = str(error)
            assert sentence.startswith(f"{kind}://photos/x cannot be used"), name
            assert said in sentence, name
            assert "\n" not in sentence
            assert time.monotonic() - started < 5, name


@pytest.mark.fault("a proxy's sign-in page with status 200 in place of a bucket")
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("kind", SERVICES)
def test_a_web_page_is_not_taken_for_an_answer_of_a_bucket(
    kind: str, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(kind, 200, PAGES[page], FOREIGN.format(service=SERVICES[kind]), monkeypatch)


@pytest.mark.fault("a bucket answers 429, 401 or 500")
@pytest.mark.parametrize(("status", "kind"), ERRORS)
def test_an_error_of_a_bucket_is_one_sentence_with_a_remedy(
    status: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(kind, status, WELL_FORMED, ERRORS[status, kind], monkeypatch)
