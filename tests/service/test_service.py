"""The served bento, over HTTP as clients use it: answers, errors, log, feedback, metrics, pages."""

import base64
import concurrent.futures
import http.client
import io
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.forms import form
from support.machine import Machine
from support.pictures import bad_pictures, good_pictures, stored_digests
from support.served import Served

from fashion.data.dataset import Dataset
from fashion.images import image_store
from fashion.model.predictor import Predictor
from fashion.predictions.log import PredictionLog
from fashion.storage.address import open_store

ENDPOINTS = {
    *("/", "/predict", "/predict/batch", "/feedback", "/predictions/{prediction_id}", "/model", "/gallery"),
    *("/gallery/{name}", "/page/{name}", "/favicon.ico", "/monitoring", "/monitoring/reports", "/openapi.json"),
    "/monitoring/traffic",
    *("/monitoring/reports/{report_id}", "/docs", "/readyz", "/livez", "/healthz", "/metrics", "/schema.json"),
}


def post(service: Served, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    status, _, content = service.request("POST", path, body, headers)
    return status, json.loads(content)


@pytest.fixture(scope="session")
def predictor(challenged: Machine, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """The served version, in this process."""
    from fashion.registry import versions

    challenged.connect()
    return Predictor(versions.fetch(versions.get("champion"), tmp_path_factory.mktemp("champion")))


class TestPredict:
    def test_answers_are_those_of_the_registered_version(
        self, service: Served, predictor: Predictor, small_dataset: Dataset, pngs: list[bytes]
    ) -> None:
        expected = predictor.predict(small_dataset.test.images[:50])
        for row, png in enumerate(pngs[:50]):
            answer = service.predict(png)
            names = predictor.package.class_names
            assert answer["label"] == names[expected.labels[row]]
            assert answer["confidence"] == pytest.approx(expected.confidences[row], abs=1e-5)
            assert list(answer["probabilities"]) == list(names)
            assert list(answer["probabilities"].values()) == pytest.approx(
                expected.probabilities[row].tolist(), abs=1e-5
            )
            assert (answer["model"]["name"], answer["model"]["version"]) == ("fashion-classifier", "1")
            assert len(answer["model"]["digest"]) == 64
            assert answer["preprocessing"][-1] == "used as it is"

    def test_a_form_a_raw_body_and_json_are_equal(self, service: Served, pngs: list[bytes]) -> None:
        as_form, headers = form(("image", "a.png", pngs[0]))
        as_predecessor, _ = form(("bmp_data", "a.bmp", pngs[0]))
        encoded = base64.b64encode(pngs[0]).decode()
        answer = [
            service.predict(pngs[0]),
            service.predict(pngs[0], kind="application/octet-stream"),
            post(service, "/predict", as_form, headers)[1],
            post(service, "/predict", as_predecessor, headers)[1],
            service.json("POST", "/predict", {"image": encoded}),
            service.json("POST", "/predict", {"image": f"data:image/png;base64,{encoded}"}),
        ]
        assert len({each["prediction_id"] for each in answer}) == 6
        assert len({json.dumps(each["probabilities"]) for each in answer}) == 1

    @pytest.mark.parametrize("name", sorted(good_pictures()))
    def test_reads_every_kind_of_picture(self, service: Served, name: str) -> None:
        answer = service.predict(good_pictures()[name])
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)

    def test_a_blank_picture_is_answered(self, service: Served) -> None:
        for shade in (0, 255):
            buffer = io.BytesIO()
            Image.new("L", (400, 300), shade).save(buffer, "PNG")
            answer = service.predict(buffer.getvalue())
            assert 0 < answer["confidence"] <= 1

    @pytest.mark.parametrize("how", ["query", "form", "json"])
    def test_explain_adds_a_heat_map(self, service: Served, pngs: list[bytes], how: str) -> None:
        if how == "query":
            answer = service.predict(pngs[0], "?explain=true")
        elif how == "form":
            answer = post(service, "/predict", *form(("image", "a.png", pngs[0]), ("explain", None, b"true")))[1]
        else:
            answer = service.json("POST", "/predict", {"image": base64.b64encode(pngs[0]).decode(), "explain": True})
        heat = Image.open(io.BytesIO(base64.b64decode(answer["heat_map"].partition(",")[2])))
        assert heat.format == "PNG"
        assert len(np.unique(np.asarray(heat.convert("RGB")).reshape(-1, 3), axis=0)) > 50
        seen = Image.open(io.BytesIO(base64.b64decode(answer["picture"].partition(",")[2])))
        assert image_store.to_png(np.asarray(seen)) == pngs[0]

    def test_concurrent_requests_get_their_own_answers(self, service: Served, pngs: list[bytes]) -> None:
        alone = [service.predict(png)["probabilities"] for png in pngs[:40]]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            together = list(pool.map(service.predict, pngs[:40] * 3))
        for row, answer in enumerate(together):
            assert list(answer["probabilities"].values()) == pytest.approx(list(alone[row % 40].values()), abs=1e-5)
        assert len({answer["prediction_id"] for answer in together}) == 120


class TestBatch:
    def test_gives_each_file_its_result_or_its_error(self, service: Served, pngs: list[bytes]) -> None:
        body, headers = form(
            ("images", "a.png", pngs[0]), ("images", "b.txt", b"no picture"), ("images", "c.png", pngs[1])
        )
        status, answer = post(service, "/predict/batch", body, headers)
        assert status == 200
        assert (answer["predicted"], answer["refused"]) == (2, 1)
        first, second, third = answer["results"]
        assert first["probabilities"] == service.predict(pngs[0])["probabilities"]
        assert third["filename"] == "c.png"
        assert second["error"]["code"] == "not_an_image"

    def test_too_many_files_are_rejected(self, service: Served) -> None:
        body, headers = form(*[("images", f"{n}.png", b"x") for n in range(65)])
        status, answer = post(service, "/predict/batch", body, headers)
        assert status == 413
        assert answer["error"]["code"] == "too_many_files"


def assert_error(status: int, answer: Any, expected: int) -> None:
    assert status == expected, answer
    assert set(answer["error"]) == {"code", "message", "remedy"}
    assert all(isinstance(part, str) and part for part in answer["error"].values())


class TestRejects:
    @pytest.mark.parametrize("name", sorted(bad_pictures()))
    def test_bad_pictures(self, service: Served, name: str) -> None:
        content, code = bad_pictures()[name]
        status, answer = post(service, "/predict", content, {"content-type": "image/png"})
        assert_error(status, answer, {"empty": 400, "undecodable": 400, "not_an_image": 415, "too_large": 413}[code])

    @pytest.mark.parametrize(
        ("body", "kind", "status"),
        [
            (b"{", "application/json", 400),
            (b"[" * 100_000, "application/json", 400),
            (b"\xff\xfe", "application/json", 400),
            (b"[]", "application/json", 422),
            (b"{}", "application/json", 422),
            (b'{"image": 3}', "application/json", 422),
            (b'{"image": "AA==", "explain": "yes"}', "application/json", 422),
            (b'{"image": "AA==", "other": 1}', "application/json", 422),
            (b'{"image": "***"}', "application/json", 400),
            (b'{"image": "\\ud800"}', "application/json", 400),
            (b'{"image": ""}', "application/json", 400),
            (b"x", "text/plain", 415),
            (b"x", "", 415),
            (b"x", "multipart/form-data", 400),
            (b"x", "multipart/form-data; boundary=a", 400),
            (b"", "multipart/form-data; boundary=a", 400),
            (b"--a\r\n\r\nx\r\n--a--\r\n", "multipart/form-data; boundary=a", 400),
            (b'--a\r\ncontent-disposition: form-data; name="image"\r\n\r\nx', "multipart/form-data; boundary=a", 400),
            (
                b'--a\r\ncontent-disposition: form-data; name="file"\r\n\r\nx\r\n--a--\r\n',
                "multipart/form-data; boundary=a",
                422,
            ),
            (b"--a--\r\n", "multipart/form-data; boundary=a", 422),
        ],
    )
    def test_bad_bodies(self, service: Served, body: bytes, kind: str, status: int) -> None:
        assert_error(*post(service, "/predict", body, {"content-type": kind}), status)

    def test_two_pictures_at_once(self, service: Served, pngs: list[bytes]) -> None:
        body, headers = form(("image", "a", pngs[0]), ("image", "b", pngs[1]))
        assert_error(*post(service, "/predict", body, headers), 422)

    def test_a_body_that_is_too_large_before_it_is_read(self, service: Served) -> None:
        assert_error(*post(service, "/predict", bytes(10_485_761), {"content-type": "image/png"}), 413)

    @pytest.mark.parametrize("query", ["?explain=perhaps", "?explain=2"])
    def test_a_switch_that_is_neither_true_nor_false(self, service: Served, pngs: list[bytes], query: str) -> None:
        assert_error(*post(service, f"/predict{query}", pngs[0], {"content-type": "image/png"}), 422)

    def test_a_client_tag_that_is_too_long(self, service: Served, pngs: list[bytes]) -> None:
        headers = {"content-type": "image/png", "x-client": "x" * 201}
        assert_error(*post(service, "/predict", pngs[0], headers), 422)

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/predict", 405),
            ("DELETE", "/model", 405),
            ("GET", "/nothing", 404),
            ("GET", "/predict/", 404),
            ("GET", "/page/..%2Fservice.py", 404),
            ("GET", "/page/%2e%2e", 404),
            ("GET", "/gallery/gallery.json%00", 404),
            ("GET", "/monitoring/reports/none", 404),
            ("GET", "/monitoring/reports/..%2F..%2Fetc", 404),
            ("GET", "/docs.json", 404),
            ("GET", f"/page/{'x' * 300}", 404),
            ("GET", f"/gallery/{'x' * 300}", 404),
        ],
    )
    def test_unknown_paths_and_methods(self, service: Served, method: str, path: str, status: int) -> None:
        got, _, content = service.request(method, path)
        assert_error(got, json.loads(content), status)

    def test_a_request_about_the_server_itself_is_answered(self, service: Served) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
        connection.request("OPTIONS", "*")
        answer = connection.getresponse()
        assert_error(answer.status, json.loads(answer.read()), 404)
        connection.close()


class TestFeedback:
    def test_is_stored_with_its_history_and_the_last_one_counts(self, service: Served, pngs: list[bytes]) -> None:
        prediction_id = service.predict(pngs[0])["prediction_id"]
        for label in ("Coat", "Bag"):
            content = {"prediction_id": prediction_id, "true_label": label, "source": "me"}
            assert service.json("POST", "/feedback", content)["true_label"] == label
        service.json("POST", "/feedback", {"prediction_id": prediction_id, "true_label": 9})
        found = service.json("GET", f"/predictions/{prediction_id}")
        assert [each["true_label"] for each in found["feedback"]] == ["Coat", "Bag", "Ankle boot"]
        assert found["feedback"][0]["source"] == "me"

    @pytest.mark.parametrize(
        ("content", "status"),
        [
            ({"prediction_id": "none", "true_label": "Coat"}, 404),
            ({"prediction_id": "019a0c3e-5f2b-7c1d-8e4f-0123456789ab", "true_label": "Coat"}, 404),
            ({"prediction_id": "", "true_label": "Coat"}, 404),
            ({"prediction_id": "x", "true_label": "Hat"}, 422),
            ({"prediction_id": "x", "true_label": 10}, 422),
            ({"prediction_id": "x", "true_label": -1}, 422),
            ({"prediction_id": "x", "true_label": True}, 422),
            ({"prediction_id": "x", "true_label": 1.5}, 422),
            ({"prediction_id": "x", "true_label": None}, 422),
            ({"prediction_id": "x"}, 422),
            ({"prediction_id": 3, "true_label": "Coat"}, 422),
            ({"prediction_id": "x", "true_label": "Coat", "source": ""}, 422),
            ({"prediction_id": "x", "true_label": "Coat", "source": "x" * 300}, 422),
            ({"prediction_id": "x", "true_label": "Coat", "more": 1}, 422),
        ],
    )
    def test_that_is_invalid_is_rejected(self, service: Served, content: Any, status: int) -> None:
        body = json.dumps(content).encode()
        assert_error(*post(service, "/feedback", body, {"content-type": "application/json"}), status)

    def test_comes_as_a_table_too(self, service: Served, pngs: list[bytes]) -> None:
        ids = [service.predict(png)["prediction_id"] for png in pngs[:3]]
        lines = [
            "prediction_id,true_label,source",
            f"{ids[0]},Coat,shop",
            f"{ids[1]},4,",
            "none,Coat,",
            f"{ids[2]},Hat,",
        ]
        status, answer = post(service, "/feedback", "\n".join(lines).encode(), {"content-type": "text/csv"})
        assert status == 200
        assert (answer["accepted"], answer["refused"]) == (2, 2)
        assert [error["line"] for error in answer["errors"]] == [4, 5]
        assert service.json("GET", f"/predictions/{ids[1]}")["feedback"][0]["true_label"] == "Coat"


class TestLog:
    def test_holds_every_answer_as_it_was_given(self, service: Served, challenged: Machine, pngs: list[bytes]) -> None:
        headers = {"content-type": "image/png", "x-client": "shop 7"}
        answer = post(service, "/predict", pngs[3], headers)[1]
        with PredictionLog(challenged.root / "predictions.db") as log:
            record = log.get(answer["prediction_id"]).record
        assert record.probabilities == pytest.approx(list(answer["probabilities"].values()), abs=1e-6)
        assert record.client == "shop 7"
        assert record.model_version == "1"
        assert 0 < record.latency_ms < 5000
        assert abs(record.time_us / 1e6 - time.time()) < 60
        assert service.json("GET", f"/predictions/{answer['prediction_id']}")["client"] == "shop 7"

    def test_shadow_scores_the_same_pictures(self, service: Served, challenged: Machine, pngs: list[bytes]) -> None:
        prediction_id = service.predict(pngs[4])["prediction_id"]
        with PredictionLog(challenged.root / "predictions.db") as log:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and not log.count(role="shadow"):
                time.sleep(0.05)
            time.sleep(0.5)
            shadow = log.get(prediction_id, "shadow").record
            answered = log.get(prediction_id).record
        assert shadow.model_version == "2"
        assert shadow.probabilities != answered.probabilities
        assert shadow.image_sha256 == answered.image_sha256

    def test_what_the_network_saw_is_stored(
        self, service: Served, challenged: Machine, small_dataset: Dataset, pngs: list[bytes]
    ) -> None:
        prediction_id = service.predict(pngs[5])["prediction_id"]
        sha256 = service.json("GET", f"/predictions/{prediction_id}")["image_sha256"]
        store = open_store(str(challenged.root / "images"))
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and sha256 not in stored_digests(store):
            time.sleep(0.05)
        assert (image_store.get(store, sha256) == small_dataset.test.images[5]).all()


class TestPages:
    def test_model_shows_version_lineage_and_metrics(self, service: Served) -> None:
        answer = service.json("GET", "/model")
        assert answer["version"] == "1"
        assert answer["shadow"] == "2"
        assert answer["lineage"]["metaflow_run_id"].startswith("TrainFlow/")
        assert answer["metrics"]["test/accuracy"]["low"] < answer["metrics"]["test/accuracy"]["value"]

    def test_gallery_holds_test_pictures_of_all_classes(self, service: Served) -> None:
        listed = service.json("GET", "/gallery")["images"]
        assert len(listed) == 20
        assert len({each["label"] for each in listed}) == 10
        status, headers, content = service.request("GET", listed[0]["url"])
        assert (status, headers["content-type"]) == (200, "image/png")
        assert Image.open(io.BytesIO(content)).size == (28, 28)

    def test_probes_and_readiness(self, service: Served) -> None:
        assert service.request("GET", "/livez")[0] == 200
        assert service.json("GET", "/readyz")["log"]["backlog_rows"] == 0

    def test_listens_on_loopback_by_default(self, service: Served) -> None:
        assert service.addresses() == {"127.0.0.1"}

    def test_metrics_have_no_label_that_a_client_can_choose(self, service: Served, pngs: list[bytes]) -> None:
        service.predict(pngs[0])
        service.request("GET", "/chosen/by/a/client")
        text = service.request("GET", "/metrics")[2].decode()
        counted = set(re.findall(r'bentoml_service_request_total{endpoint="([^"]*)"', text))
        assert {"/predict", "other"} <= counted <= {*ENDPOINTS, "other"}
        assert 'fashion_background_pictures_total{outcome="done",work="shadow"}' in text

    def test_every_answer_has_security_headers(self, service: Served) -> None:
        for path in ("/", "/model", "/livez", "/nothing", "/docs", "/monitoring", "/metrics"):
            headers = service.request("GET", path)[1]
            assert headers["x-content-type-options"] == "nosniff", path
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert (headers["x-frame-options"], headers["referrer-policy"]) == ("DENY", "no-referrer")
            assert "geolocation=()" in headers["permissions-policy"]
            for about in ("cross-origin-opener-policy", "cross-origin-resource-policy"):
                assert headers[about] == "same-origin"

    def test_monitoring_summarizes_the_traffic(self, service: Served, pngs: list[bytes]) -> None:
        prediction_id = service.predict(pngs[0])["prediction_id"]
        service.json("POST", "/feedback", {"prediction_id": prediction_id, "true_label": "Coat"})
        page = service.request("GET", "/monitoring")[2].decode()
        assert "Mean confidence" in page
        assert "with feedback" in page
        assert "There is no report yet" in page
        assert service.json("GET", "/monitoring/reports") == {"reports": []}

    def test_reports_are_listed_and_shown_in_a_sandbox(self, service: Served, challenged: Machine) -> None:
        store = open_store(str(challenged.root / "reports"))
        store.put("20260101T000000Z/report.html", b"<h1>drift</h1>")
        store.put("20260101T000000Z/result.json", b'{"decision": "drift", "rows": 200, "model_version": "1"}')
        store.put("20260102T000000Z/result.json", b'{"decis')
        try:
            listed = service.json("GET", "/monitoring/reports")["reports"]
            assert [each["decision"] for each in listed] == ["unreadable", "drift"]
            status, headers, content = service.request("GET", listed[1]["url"])
            assert (status, content) == (200, b"<h1>drift</h1>")
            assert headers["content-security-policy"].startswith("sandbox")
            assert "20260101T000000Z" in service.request("GET", "/monitoring")[2].decode()
        finally:
            import shutil

            shutil.rmtree(challenged.root / "reports")

    def test_openapi_lists_every_endpoint_and_docs_show_it(self, service: Served) -> None:
        document = service.json("GET", "/openapi.json")
        pages = {"/", "/gallery", "/monitoring", "/monitoring/reports", "/model", "/livez", "/readyz", "/metrics"}
        pages.add("/monitoring/traffic")
        endpoints = {"/predict", "/predict/batch", "/feedback", "/predictions/{prediction_id}"}
        assert set(document["paths"]) == pages | endpoints
        page = service.request("GET", "/docs")[2].decode()
        assert all(path in page for path in document["paths"])


def test_bentomls_python_client_works(service: Served, pngs: list[bytes], tmp_path: Path) -> None:
    import bentoml

    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(pngs[number])
    with bentoml.SyncHTTPClient(service.url) as client:
        answer = client.predict(image=tmp_path / "0.png", explain=True)
        assert answer["heat_map"].startswith("data:image/png")
        many = client.predict_batch(images=[tmp_path / "0.png", tmp_path / "1.png"])
        assert many["predicted"] == 2
        feedback = client.feedback(prediction_id=answer["prediction_id"], true_label="Coat")
        assert feedback["true_label"] == "Coat"
