"""A service with keys, limits, several workers and Firestore; and what happens while Firestore is unreachable."""

import concurrent.futures
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import browser, proxy
from support.forms import form
from support.machine import Machine
from support.page import Page
from support.served import Served

from fashion.predictions.firestore import FirestoreLog
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import new_prediction_id

PER_MINUTE = 600
KEYS = {"FASHION_PREDICT_KEYS": "p1,p2", "FASHION_FEEDBACK_KEYS": "f1", "FASHION_MONITORING_KEYS": "m1"}


@pytest.fixture(scope="module")
def strict_bento(challenged: Machine) -> str:
    """A bento with narrow limits, whose answers wait for Firestore."""
    challenged.flow(
        "run",
        "serve.workers=2",
        "serve.gallery=0",
        f"serve.limits.requests_per_minute={PER_MINUTE}",
        "serve.limits.body_bytes=100000",
        "serve.limits.body_seconds=1",
        "serve.log.acknowledge=remote",
        "serve.log.remote_seconds=4",
        name="deploy_flow",
    )
    tag: str = challenged.runs("DeployFlow")[-1].data.bento
    return tag


@pytest.fixture(scope="module")
def wire(emulator: str) -> Iterator[proxy.Proxy]:
    """A proxy between the service and Firestore."""
    with proxy.between(emulator) as between:
        yield between


@pytest.fixture(scope="module")
def strict(
    challenged: Machine, strict_bento: str, wire: proxy.Proxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("strict")
    environment = challenged.serving(
        FASHION_HOME=str(folder / "var"), FASHION_FIRESTORE="strict", FIRESTORE_EMULATOR_HOST=wire.address, **KEYS
    )
    served = Served(strict_bento, environment, folder / "service.log")
    yield served
    assert served.stop() == 0


@pytest.fixture
def remote(emulator: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FirestoreLog]:
    """Firestore, without the proxy."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", emulator)
    log = FirestoreLog("strict")
    yield log
    log.close()


def predict(served: Served, png: bytes, key: str = "p1", **headers: str) -> tuple[int, Any]:
    given = {"content-type": "image/png", "authorization": f"Bearer {key}", **headers}
    status, _, content = served.request("POST", "/predict", png, given)
    return status, json.loads(content)


class TestKeys:
    @pytest.mark.parametrize(
        ("method", "path", "right", "wrong"),
        [
            ("POST", "/predict", "p2", "f1"),
            ("POST", "/predict/batch", "p1", "m1"),
            ("GET", "/predictions/x", "p1", "m1"),
            ("POST", "/feedback", "f1", "p1"),
            ("GET", "/monitoring", "m1", "p1"),
            ("GET", "/monitoring/reports", "m1", "f1"),
            ("GET", "/metrics", "m1", "p1"),
        ],
    )
    def test_each_scope_has_its_own_keys(self, strict: Served, method: str, path: str, right: str, wrong: str) -> None:
        for key in ("", wrong):
            status, _, content = strict.request(method, path, b"" if method == "POST" else None, {"x-api-key": key})
            assert status == 401
            assert json.loads(content)["error"]["code"] == "unauthorized"
        body = b"" if method == "POST" else None
        assert strict.request(method, path, body, {"x-api-key": right})[0] != 401

    def test_the_page_asks_for_the_key_and_goes_on(self, strict: Served, pngs: list[bytes], tmp_path: Path) -> None:
        picture = tmp_path / "boot.png"
        picture.write_bytes(pngs[0])
        with browser.start(tmp_path / "profile") as driver:
            page = Page(driver, strict.url, tmp_path)
            page.open()
            page.upload(picture)
            page.until(lambda: page.focused() == "key")
            page.press("wrong", "\ue007")
            page.until(lambda: "is wrong" in page.text("#key-form"))
            page.press("p1", "\ue007")
            assert page.answered()
            assert not page.one("#key-form").is_displayed()

    def test_pages_probes_and_the_model_stay_open(self, strict: Served) -> None:
        for path in ("/", "/livez", "/readyz", "/model", "/docs", "/openapi.json", "/gallery"):
            assert strict.request("GET", path)[0] == 200


class TestLimits:
    def test_a_body_that_is_too_large_is_rejected_with_and_without_its_length(self, strict: Served) -> None:
        import http.client

        assert predict(strict, bytes(100_001))[0] == 413
        connection = http.client.HTTPConnection("127.0.0.1", strict.port, timeout=20)
        pieces = iter([bytes(60_000), bytes(60_000)])
        headers = {"content-type": "image/png", "x-api-key": "p1"}
        connection.request("POST", "/predict", pieces, headers, encode_chunked=True)
        assert connection.getresponse().status == 413
        connection.close()

    def test_a_body_that_does_not_arrive_times_out(self, strict: Served) -> None:
        import socket

        with socket.create_connection(("127.0.0.1", strict.port), timeout=20) as client:
            head = "POST /predict HTTP/1.1\r\nhost: x\r\nx-api-key: p1\r\ncontent-type: image/png\r\n"
            client.sendall(f"{head}content-length: 1000\r\n\r\nabc".encode())
            assert b"408" in client.recv(1000).split(b"\r\n")[0]

    def test_a_client_with_too_many_requests_gets_a_retry_after(self, strict: Served) -> None:
        statuses = Counter[int]()
        headers = {"content-type": "image/png", "x-api-key": "p2"}
        for _ in range(3 * PER_MINUTE):
            status, answer, _ = strict.request("POST", "/predict", b"x", headers)
            statuses[status] += 1
            if statuses[429] > 5:
                break
        assert statuses[429] > 5
        assert int(answer["retry-after"]) >= 1
        assert PER_MINUTE <= statuses[415] < 1.5 * PER_MINUTE  # the workers count together
        assert strict.request("POST", "/predict", b"x", headers | {"x-api-key": "p1"})[0] == 415


class TestFirestore:
    def test_acknowledged_predictions_are_in_firestore(
        self, strict: Served, remote: FirestoreLog, pngs: list[bytes]
    ) -> None:
        deadline = time.monotonic() + 60
        while predict(strict, pngs[0])[1]["stored_in"] != "firestore":  # the first connection takes longest
            assert time.monotonic() < deadline
        for png in pngs[:20]:
            status, answer = predict(strict, png)
            assert status == 200
            assert answer["stored_in"] == "firestore"
            found = remote.get(answer["prediction_id"]).record
            assert list(found.probabilities) == pytest.approx(list(answer["probabilities"].values()), abs=1e-6)

    def test_batches_and_feedback_wait_for_firestore(
        self, strict: Served, remote: FirestoreLog, pngs: list[bytes]
    ) -> None:
        body, headers = form(*[("images", f"{row}.png", png) for row, png in enumerate(pngs[:5])])
        answer = json.loads(strict.request("POST", "/predict/batch", body, headers | {"x-api-key": "p1"})[2])
        assert answer["stored_in"] == "firestore"
        ids = [each["prediction_id"] for each in answer["results"]]
        assert all(remote.get(each) for each in ids)
        given = {"prediction_id": ids[0], "true_label": "Coat"}
        assert strict.json("POST", "/feedback", given, {"x-api-key": "f1"})["stored_in"] == "firestore"
        assert remote.get(ids[0]).true_label == 4

    def test_a_prediction_of_another_machine_is_found_and_gets_feedback(
        self,
        strict: Served,
        remote: FirestoreLog,
        challenged: Machine,
        strict_bento: str,
        wire: proxy.Proxy,
        pngs: list[bytes],
        tmp_path: Path,
    ) -> None:
        prediction_id = predict(strict, pngs[0])[1]["prediction_id"]
        environment = challenged.serving(
            FASHION_HOME=str(tmp_path / "var"), FASHION_FIRESTORE="strict", FIRESTORE_EMULATOR_HOST=wire.address
        )
        elsewhere = Served(strict_bento, environment, tmp_path / "service.log")
        try:
            assert elsewhere.json("GET", f"/predictions/{prediction_id}")["label"]
            given = {"prediction_id": prediction_id, "true_label": "Coat"}
            assert elsewhere.json("POST", "/feedback", given)["true_label"] == "Coat"
        finally:
            assert elsewhere.stop() == 0  # what waits is shipped on the way out
        assert [each.source for each in remote.get(prediction_id).feedback] == ["api"]

    @pytest.mark.fault("Firestore that hangs")
    def test_while_firestore_hangs_predictions_are_on_disk_and_shipped_later(
        self, strict: Served, remote: FirestoreLog, wire: proxy.Proxy, pngs: list[bytes]
    ) -> None:
        wire.stall()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda png: predict(strict, png), pngs[:24]))
        assert {status for status, _ in answers} == {200}
        assert {answer["stored_in"] for _, answer in answers} == {"disk"}
        log = strict.json("GET", "/readyz")["log"]
        assert log["backlog_rows"] >= 24
        assert log["backlog_seconds"] > 0
        assert log["ships_to"] == "firestore://strict/(default)/predictions"
        status, _, content = strict.request("GET", "/metrics", headers={"x-api-key": "m1"})
        metrics = content.decode()
        assert status == 200, metrics
        for name, least in (("rows", 24), ("seconds", 0.001)):
            (line,) = [each for each in metrics.splitlines() if each.startswith(f"fashion_log_backlog_{name}")]
            assert float(line.split()[-1]) >= least
        wire.release()
        deadline = time.monotonic() + 60
        while strict.json("GET", "/readyz")["log"]["backlog_rows"] and time.monotonic() < deadline:
            time.sleep(0.2)
        for _, answer in answers:
            assert remote.get(answer["prediction_id"])

    def test_while_firestore_hangs_predictions_of_other_machines_are_unavailable(
        self, strict: Served, wire: proxy.Proxy, pngs: list[bytes]
    ) -> None:
        known, others = predict(strict, pngs[0])[1]["prediction_id"], [new_prediction_id() for _ in range(3)]
        table = "\n".join(["prediction_id,true_label", *(f"{each},Coat" for each in (known, *others))])
        headers = {"x-api-key": "f1", "content-type": "text/csv"}
        wire.stall()
        try:
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                found = pool.submit(
                    strict.request, "GET", f"/predictions/{others[0]}", headers={"x-api-key": "p1"}, timeout=90
                )
                kept = pool.submit(strict.request, "POST", "/feedback", table.encode(), headers, timeout=90)
            status, answer, content = found.result()
            assert (status, json.loads(content)["error"]["code"]) == (503, "unavailable")
            assert int(answer["retry-after"]) > 0
            answer = json.loads(kept.result()[2])
            assert (answer["accepted"], answer["refused"], answer["stored_in"]) == (1, 3, "disk")
            (error,) = answer["errors"]
            assert error["line"] == 3
            assert "send this line and those below it again" in error["message"]
        finally:
            wire.release()


def test_remote_acknowledgement_needs_an_address(challenged: Machine, strict_bento: str, tmp_path: Path) -> None:
    environment = challenged.serving(FASHION_HOME=str(tmp_path / "var"))
    with pytest.raises(AssertionError, match="needs FASHION_LOG to be set: firestore://project"):
        Served(strict_bento, environment, tmp_path / "service.log", patience=12)


def test_workers_share_one_log(challenged: Machine, strict: Served, pngs: list[bytes]) -> None:
    assert len(strict.workers()) == 2
    home = Path(strict.output.parent / "var")
    with PredictionLog(home / "predictions.db") as log:
        before = log.count()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda png: predict(strict, png), pngs[:60]))
        assert all(status == 200 for status, _ in answers)
        assert log.count() - before == 60
