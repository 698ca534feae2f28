"""Uploads as clients send them to the served bento: any size and number under way, any encoding, and none of it costs
the service more memory than is configured."""

import base64
import concurrent.futures
import gzip
import http.client
import itertools
import json
import socket
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support import bentos
from support.forms import form
from support.mutations import large_pictures, mutated_uploads
from support.pictures import garment, saved
from support.served import Served

from fashion.config.compose import compose, load_as
from fashion.config.serve import ServeConfig

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(built_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The bento, as `bentoml serve` starts it."""
    folder = tmp_path_factory.mktemp("served")
    environment = bentos.environment(built_home, FASHION_HOME=str(folder / "var"))
    served = Served("fashion-classifier:v1", environment, folder / "service.log")
    yield served
    assert served.stop() == 0


class TestMemory:
    @pytest.mark.fault("uploads of any size and number are under way")
    def test_uploads_of_any_size_and_number_stay_within_the_memory(self, served: Served) -> None:
        limits = load_as(ServeConfig, compose(root=ServeConfig.root)).serve.limits
        # Two of these at once would take more than is left: libwebp and Pillow hold 16 bytes a pixel.
        webp = saved(garment(size=(3600, 3600)), "WEBP", method=0)
        large = {**large_pictures(20), "webp": webp}
        (worker,) = served.workers()

        def send(content: bytes) -> tuple[int, bool]:
            status, headers, _ = served.request("POST", "/predict", content, {"content-type": "image/png"}, timeout=90)
            return status, "retry-after" in headers

        uploads = [*itertools.islice(mutated_uploads(0, large), 400), *large.values(), *[webp] * 8]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = Counter(pool.map(send, uploads))
        statuses = {status for status, _ in answers}
        assert statuses <= {200, 400, 413, 415, 503}, answers
        assert (503, False) not in answers
        assert answers[200, False] > 20
        assert served.workers() == [worker]
        assert psutil.Process(worker).memory_full_info().uss < 200e6  # given back
        assert peak_bytes(worker) < limits.memory_bytes

    @pytest.mark.fault("many clients send compressed bodies that are far larger than they look")
    def test_compressed_bodies_count_by_what_they_become(self, served: Served) -> None:
        (worker,) = served.workers()
        bomb = gzip.compress(bytes(10_000_000))
        headers = {"content-type": "image/png", "content-encoding": "gzip"}
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            answers = pool.map(lambda _: served.request("POST", "/predict", bomb, headers, timeout=90), range(80))
            assert {status for status, _, _ in answers} <= {415, 503}
        assert peak_bytes(worker) < 512 * 2**20

    def test_a_picture_that_needs_more_memory_than_there_is_says_so(self, served: Served) -> None:
        picture = saved(garment(size=(4400, 4400)), "WEBP", method=0)
        status, _, content = served.request("POST", "/predict", picture, {"content-type": "image/webp"})
        error = json.loads(content)["error"]
        assert (status, error["code"]) == (413, "too_large")
        assert "needs about 335 MB while it is decoded, more than the 235 MB allowed" in error["message"]
        assert error["remedy"].startswith("send a smaller picture")


def peak_bytes(process_id: int) -> int:
    """The most memory that a process has used, shared libraries included."""
    (line,) = [line for line in Path(f"/proc/{process_id}/status").read_text().splitlines() if "VmHWM" in line]
    return 1024 * int(line.split()[1])


class TestEncodings:
    @pytest.mark.parametrize("encoding", ["gzip", "deflate"])
    def test_a_compressed_body_is_read(self, served: Served, pngs: list[bytes], encoding: str) -> None:
        compress = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding]
        headers = {"content-type": "image/png", "content-encoding": encoding}
        status, _, content = served.request("POST", "/predict", compress(pngs[0]), headers)
        assert status == 200
        assert json.loads(content)["probabilities"] == served.predict(pngs[0])["probabilities"]

    @pytest.mark.parametrize(
        ("encoding", "body", "status", "code"),
        [
            ("br", b"x", 415, "unsupported_content_encoding"),
            ("gzip", b"x", 400, "bad_content_encoding"),
            ("gzip", gzip.compress(b"x" * 1000)[:-9], 400, "bad_content_encoding"),
            ("gzip", gzip.compress(bytes(50_000_000)), 413, "too_large"),
        ],
        ids=["another", "not gzip", "cut off", "bomb"],
    )
    def test_another_one_or_a_bomb_is_rejected_with_its_cause(
        self, served: Served, encoding: str, body: bytes, status: int, code: str
    ) -> None:
        headers = {"content-type": "image/png", "content-encoding": encoding}
        found, _, content = served.request("POST", "/predict", body, headers)
        assert (found, json.loads(content)["error"]["code"]) == (status, code)

    def test_base64_may_have_line_breaks(self, served: Served, pngs: list[bytes]) -> None:
        for text in (base64.encodebytes(pngs[0]).decode(), base64.b64encode(pngs[0]).decode() + "\r\n"):
            answer = served.json("POST", "/predict", {"image": text})
            assert answer["probabilities"] == served.predict(pngs[0])["probabilities"]

    def test_feedback_comes_with_semicolons_and_as_a_file_of_a_form(self, served: Served, pngs: list[bytes]) -> None:
        ids = [served.predict(png)["prediction_id"] for png in pngs[:2]]
        table = "\n".join(["prediction_id;true_label", *(f"{each};Coat" for each in ids)]).encode()
        for body, headers in ((table, {"content-type": "text/csv"}), form(("file", "feedback.csv", table))):
            status, _, content = served.request("POST", "/feedback", body, headers)
            assert status == 200
            assert json.loads(content)["accepted"] == 2

    def test_a_table_with_other_columns_says_which(self, served: Served) -> None:
        status, _, content = served.request("POST", "/feedback", b"id|label\n1|2\n", {"content-type": "text/csv"})
        assert status == 422
        assert json.loads(content)["error"]["message"].endswith("prediction_id and true_label, got id|label")


class TestProtocol:
    """What `test_protocol.py` says of uvicorn's connections holds for BentoML's server."""

    def test_an_offer_to_upgrade_keeps_its_body(self, served: Served, pngs: list[bytes]) -> None:
        headers = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "content-type": "image/png"}
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
        connection.request("POST", "/predict", pngs[0], headers)
        assert connection.getresponse().status == 200
        connection.close()

    @pytest.mark.fault("a client sends headers without an end")
    def test_headers_that_are_too_long_cost_no_memory(self, served: Served) -> None:
        (worker,) = served.workers()
        before = psutil.Process(worker).memory_info().rss
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as client:
            client.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\nx-a: ")
            for _ in range(100):
                client.sendall(b"a" * 1_000_000)
            assert client.recv(100).startswith(b"HTTP/1.1 431")
        assert served.request("GET", "/livez")[0] == 200
        assert psutil.Process(worker).memory_info().rss - before < 10e6

    def test_a_client_that_waits_for_a_word_sends_no_body_that_would_be_rejected(self, served: Served) -> None:
        lines = ["POST /predict HTTP/1.1", "host: x", "content-length: 20000000", "expect: 100-continue", "", ""]
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as client:
            client.sendall("\r\n".join(lines).encode())
            head = client.recv(10_000)
        assert head.startswith(b"HTTP/1.1 413")
        assert b"connection: close" in head
