"""S3 and Azure: what their servers answer becomes one sentence with a remedy, and a slow upload is not a dead one."""

import contextlib
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator

import obstore
import obstore.store
import pytest
from support.stores import Clouds
from support.web import QuietHandler, serving

from fashion.storage.address import open_store
from fashion.storage.blobs import Store, StoreUnavailable

Answer = tuple[int, str, str]
"""Status, code and message."""

USES: list[Callable[[Store], object]] = [
    lambda store: store.put("name", b"x"),
    lambda store: store.put_if_absent("name", b"x"),
    lambda store: store.get("name"),
    lambda store: list(store.list()),
]
"""What answers with a reason; `exists` asks by HEAD, whose response has no content."""


@contextlib.contextmanager
def answering(answer: Answer, *, pieces_per_second: float = 1e9) -> Iterator[str]:
    """A server that gives one answer to each request, whose body it reads in pieces of 100 kB; yields its URL."""

    class Handler(QuietHandler):
        def do_PUT(self) -> None:
            left = int(self.headers.get("Content-Length", 0))
            while left > 0:
                left -= len(self.rfile.read(min(left, 100_000)))
                time.sleep(1 / pieces_per_second)
            status, code, message = answer
            content = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode() if code else b""
            self.respond(status, content, etag='"x"')

        do_GET = do_HEAD = do_PUT

    with serving(Handler) as url:
        yield url


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the variables of both services, which lead to a server."""

    def name(url: str) -> None:
        key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
        for variable, value in {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "asks",
            "AZURE_STORAGE_ACCOUNT_NAME": "account",
            "AZURE_STORAGE_ACCOUNT_KEY": key,
            "AZURE_STORAGE_ENDPOINT": f"{url}/account",
        }.items():
            monkeypatch.setenv(variable, value)

    monkeypatch.setenv("FASHION_SERVER_SECONDS", "1")
    return name


@pytest.mark.parametrize(
    ("address", "answer", "sentence"),
    [
        (
            "s3://photos/x",
            (403, "AccessDenied", "Access Denied."),
            "access is denied (AccessDenied: Access Denied): check the credentials, and that they may read, write and "
            "list the bucket",
        ),
        (
            "az://photos",
            (403, "AuthorizationPermissionMismatch", "Not authorized."),
            "access is denied (AuthorizationPermissionMismatch: Not authorized): check the credentials, and that they "
            "may read, write and list the container",
        ),
        (
            "s3://photos",
            (400, "ExpiredToken", "The token has expired."),
            "access is denied (ExpiredToken: The token has expired): check the credentials, and that they may read, "
            "write and list the bucket",
        ),
        ("s3://photos", (301, "PermanentRedirect", ""), "the bucket is in another region: set AWS_REGION to its own"),
        ("s3://photos", (404, "NoSuchBucket", "x"), "there is no such bucket: create it, or correct the address"),
        (
            "az://photos",
            (404, "ContainerNotFound", "x"),
            "there is no such container: create it, or correct the address",
        ),
        (
            "s3://photos",
            (503, "SlowDown", "Please reduce your request rate."),
            "SlowDown: Please reduce your request rate; try again later",
        ),
    ],
)
def test_what_a_server_rejects_is_one_sentence(
    address: str, answer: Answer, sentence: str, named: Callable[[str], None]
) -> None:
    with answering(answer) as url:
        named(url)
        for use in USES:
            with pytest.raises(StoreUnavailable) as caught:
                use(open_store(address))
            assert str(caught.value) == f"{address} cannot be used: {sentence}"


@pytest.mark.parametrize("scheme", ["s3", "az"])
def test_a_denied_look_is_told_from_a_missing_blob(scheme: str, named: Callable[[str], None]) -> None:
    with answering((403, "", "")) as url:
        named(url)
        with pytest.raises(StoreUnavailable, match=f"{scheme}://photos cannot be used: access is denied .403 Forbid"):
            open_store(f"{scheme}://photos").exists("name")


@pytest.mark.parametrize(
    ("address", "code"), [("s3://photos", "ConditionalRequestConflict"), ("az://photos", "ContainerBeingDeleted")]
)
def test_a_conflict_that_is_no_blob_of_this_name_is_not_taken_for_one(
    address: str, code: str, named: Callable[[str], None]
) -> None:
    with answering((409, code, "Once more.")) as url:
        named(url)
        with pytest.raises(StoreUnavailable, match=f"{address} cannot be used: {code}: Once more; try again"):
            open_store(address).put_if_absent("name", b"x")


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("AWS_ENDPOINT_URL", "", "AWS_ENDPOINT_URL must be a URL such as https://storage.example.org, got ''"),
        ("AWS_ENDPOINT_URL_S3", "localhost:9000", "AWS_ENDPOINT_URL_S3 must be a URL .* got 'localhost:9000'"),
        ("AWS_SECRET_ACCESS_KEY", "secret\n", "AWS_SECRET_ACCESS_KEY holds a line break"),
        ("AWS_REGION", "eu west\n", "AWS_REGION holds a line break"),
        ("AZURE_STORAGE_ENDPOINT", "azure", "AZURE_STORAGE_ENDPOINT must be a URL .* got 'azure'"),
        ("AZURE_STORAGE_ACCOUNT_NAME", "account\n", "AZURE_STORAGE_ACCOUNT_NAME holds a line break"),
        ("AZURE_STORAGE_ACCOUNT_KEY", "my key", "AZURE_STORAGE_ACCOUNT_KEY is not the key of an account"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(
    variable: str, value: str, sentence: str, named: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    named("http://127.0.0.1:9")
    monkeypatch.setenv(variable, value)
    scheme = "s3" if variable.startswith("AWS") else "az"
    for use in USES:
        with pytest.raises(StoreUnavailable, match=f"^{scheme}://photos cannot be used: {sentence}"):
            use(open_store(f"{scheme}://photos"))


@pytest.mark.parametrize(("scheme", "status"), [("s3", 200), ("az", 201)])
def test_a_large_upload_may_take_longer_than_an_answer(scheme: str, status: int, named: Callable[[str], None]) -> None:
    with answering((status, "", ""), pieces_per_second=10) as url:  # four times the slowest speed, and 3 s
        named(url)
        assert open_store(f"{scheme}://photos").put_if_absent("large", bytes(3_000_000))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_forked_process_is_rejected_and_does_not_hang(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"""
        import os
        from fashion.storage.address import open_store
        store = open_store("{clouds.bucket("s3", monkeypatch)}")
        store.put("name", b"x")
        if os.fork() == 0:
            store.get("name")
        os.wait()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert re.search(r"StoreUnavailable: s3://.* cannot be used in a process that was forked", done.stderr)


@pytest.mark.slow
def test_a_large_blob_is_written_in_one_request(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = clouds.bucket("s3", monkeypatch)
    open_store(bucket).put("large", bytes(20_000_000))
    client = obstore.store.S3Store(bucket.removeprefix("s3://"), client_options={"allow_http": True})
    found = obstore.head(client, "large")
    assert "-" not in str(found["e_tag"])  # of a multipart upload it ends with the number of parts
