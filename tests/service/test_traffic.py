"""Traffic over time: the page, the same as JSON, and what they say where little is known."""

import datetime
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema_rs
import numpy as np
import pytest
import uvicorn
from starlette.testclient import TestClient
from support import axe, browser, long_logs
from support.log_rows import record
from support.page import Page

from bentos.classifier.app import App
from bentos.classifier.deployment import Deployment
from bentos.classifier.worker import Worker
from bentos.web.request_metrics import Identity
from fashion.config.compose import compose, load_as
from fashion.config.serve import ServeConfig
from fashion.drift import reports
from fashion.home import REPOSITORY, current_home
from fashion.model.package import Package
from fashion.model.reference import Reference
from fashion.model.typicality import features
from fashion.predictions.record import ModelId
from fashion.storage.address import open_store

ROWS = 2000
NAME = "fashion-classifier"
TITLES = (
    *("Versions and drift", "Predictions", "Requests with errors", "Latency", "Mean confidence"),
    *("Unlike anything learnt", "Accuracy by labels"),
)


def open_worker(package: Package, root: Path, *overrides: str, **environment: str) -> Worker:
    settings = load_as(ServeConfig, compose(list(overrides), root=ServeConfig.root)).serve
    deployment = Deployment(settings, {"name": NAME, "version": "3"}, None)
    assert package.folder is not None
    folder = root / "bento"
    shutil.copytree(REPOSITORY / "bentos" / "classifier" / "page", folder / "page", dirs_exist_ok=True)
    identity = Identity(NAME, "1", "Classifier", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASHION_HOME", str(root / "var"))
        home = current_home()
    return Worker(deployment, home, environment, model=package.folder, shadow=None, folder=folder, identity=identity)


def client_of(worker: Worker) -> TestClient:
    app = App(None, lambda: worker)  # type: ignore[arg-type]
    return TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 50000))


@pytest.fixture(scope="module")
def busy_home(tiny_package: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of a month in three versions, with labels, and four drift reports."""
    root, now_us = tmp_path_factory.mktemp("busy"), time.time_ns() // 1000
    (root / "var").mkdir()
    long_logs.fill(
        root / "var" / "predictions.db",
        ROWS,
        now_us=now_us,
        model=ModelId.of(NAME, 3, tiny_package.digest),
        features=features(Reference.of(tiny_package).predictions),
        days=29,
    )
    store = open_store(str(root / "var" / "reports"))
    for days, decision, conditions in (
        (20, "no_drift", []),
        (8, "drift", ["drift", "harmful"]),
        (3, "insufficient_data", []),
        (0.1, "drift", ["drift"]),
    ):
        report_id = reports.make_id(now_us - int(days * long_logs.DAY_US), NAME, "3")
        result = {"decision": decision, "conditions": conditions, "model_version": "3", "model_name": NAME}
        reports.publish(store, report_id, "<h1>report</h1>", result)
    return root


@pytest.fixture(scope="module")
def busy(busy_home: Path, tiny_package: Package) -> Iterator[TestClient]:
    worker = open_worker(tiny_package, busy_home)
    client = client_of(worker)
    until = time.monotonic() + 60
    while not client.get("/monitoring/traffic").json()["complete"]:
        assert time.monotonic() < until, "the log is not counted"
        time.sleep(0.05)
    client.post("/predict", content=b"no picture", headers={"content-type": "image/png"})
    yield client
    worker.close()


@pytest.fixture
def idle(tiny_package: Package, tmp_path: Path) -> Iterator[Worker]:
    """A worker that nobody has asked anything."""
    worker = open_worker(tiny_package, tmp_path)
    yield worker
    worker.close()


def traffic(client: TestClient, span: str = "month") -> Any:
    answer = client.get("/monitoring/traffic", params={"span": span})
    assert answer.status_code == 200, answer.text
    return answer.json()


def page_of(client: TestClient, span: str = "month") -> str:
    answer = client.get("/monitoring", params={"span": span})
    assert answer.status_code == 200, answer.text
    return answer.text


def figures(page: str) -> dict[str, ElementTree.Element]:
    """Title -> figure, each parsed as XML: the charts are well-formed."""
    found = [ElementTree.fromstring(each) for each in re.findall(r"<figure.*?</figure>", page, re.DOTALL)]
    return {str(each.findtext(".//h3")): each for each in found}


def test_the_answer_for_programs_counts_the_log(busy: TestClient) -> None:
    answer = traffic(busy)
    periods = answer["periods"]
    assert (len(periods), answer["step_seconds"], answer["complete"]) == (30, 86_400, True)
    assert sum(each["predictions"] for each in periods) == ROWS
    assert {each["version"] for period in periods for each in period["versions"]} == {"1", "2", "3"}
    labels = [each["labels"] for each in periods if each["labels"]["labelled"]]
    assert 0.002 * ROWS < sum(each["labelled"] for each in labels) < 0.04 * ROWS
    assert all(each["low"] <= each["accuracy"] <= each["high"] for each in labels)
    day = max(periods, key=lambda each: each["predictions"])
    assert 0 < day["latency_ms"]["p50"] < day["latency_ms"]["p95"] < day["latency_ms"]["p99"]
    assert 0.8 < day["mean_confidence"] < 1
    served = sum(each["predictions"] for period in periods for each in period["versions"] if each["version"] == "3")
    assert sum(each["compared"] for each in periods) == served  # of the others nobody knows what they have learnt
    assert [each["decision"] for each in answer["reports"]] == ["drift", "insufficient_data", "drift", "no_drift"]
    assert periods[-1]["requests"] == {"415": 1}


def test_the_answer_fits_the_document(busy: TestClient) -> None:
    document = busy.get("/openapi.json").json()
    described = document["paths"]["/monitoring/traffic"]["get"]["responses"]["200"]["content"]["application/json"]
    whole = {**described["schema"], "components": document["components"]}
    validator = jsonschema_rs.Draft202012Validator(whole)
    for span in ("day", "month"):
        assert [error.message for error in validator.iter_errors(traffic(busy, span))] == []


@pytest.mark.parametrize(("span", "steps", "seconds"), [("day", 24, 3600), ("week", 28, 21_600), ("month", 30, 86_400)])
def test_a_span_is_steps_up_to_now(span: str, steps: int, seconds: int, busy: TestClient) -> None:
    periods = traffic(busy, span)["periods"]
    assert len(periods) == steps
    starts = [datetime.datetime.fromisoformat(each["since"]).timestamp() for each in periods]
    assert np.diff(starts).tolist() == [seconds] * (steps - 1)
    assert starts[-1] <= time.time() < starts[-1] + seconds


@pytest.mark.parametrize("path", ["/monitoring", "/monitoring/traffic"])
def test_a_span_that_there_is_not_is_one_sentence(path: str, busy: TestClient) -> None:
    answer = busy.get(path, params={"span": "year"})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["code"], error["message"]) == ("bad_field", "span must be one of day, week, month, got 'year'")


def test_each_figure_has_a_chart_and_a_table_of_all_its_steps(busy: TestClient) -> None:
    found = figures(page_of(busy))
    assert tuple(found) == TITLES
    for title, figure in found.items():
        charts = [each for each in figure.iter("svg") if each.get("role") == "group"]
        assert len(charts) == 1, title
        assert charts[0].get("aria-label")
        lines = figure.findall(".//details//tbody/tr")
        assert len(lines) == 7 if title == "Versions and drift" else 30, title
    shown = [int(cell.replace(",", "")) for cell in cells(found["Predictions"])]
    assert shown == [each["predictions"] for each in reversed(traffic(busy)["periods"])]


def cells(figure: ElementTree.Element) -> list[str]:
    return [str(each.text) for each in figure.findall(".//details//tbody/tr/td[1]")]


def test_the_page_has_no_style_or_script_that_its_policy_forbids(busy: TestClient) -> None:
    page = page_of(busy)
    assert "<style" not in page
    assert not re.search(r"\sstyle\s*=|\son\w+\s*=", page)
    assert not re.search(r"<script(?![^>]*src=)", page)
    assert "'unsafe-inline'" not in busy.get("/monitoring").headers["content-security-policy"]
    assert busy.get("/page/charts.css").status_code == 200


def test_versions_are_bands_and_reports_are_marks_that_link_to_them(busy: TestClient) -> None:
    timeline = figures(page_of(busy))["Versions and drift"]
    bands = [each.findtext("title") for each in timeline.iter("rect") if "version" in str(each.get("class"))]
    assert bands == ["version 1", "version 2", "version 3"]
    marks = [each.get("class") for each in timeline.findall(".//a/path")]
    assert sorted(marks) == ["mark bad", "mark good", "mark none", "mark warn"]
    urls = [each.get("href") for each in timeline.findall(".//svg/a")]
    assert all(busy.get(url).text == "<h1>report</h1>" for url in urls)
    assert len(figures(page_of(busy, "day"))["Versions and drift"].findall(".//svg/a")) == 1


def test_the_span_that_is_shown_is_told(busy: TestClient) -> None:
    assert re.findall(r"span=(\w+)' aria-current='page'", page_of(busy, "week")) == ["week"]
    assert re.findall(r"span=(\w+)' aria-current='page'", busy.get("/monitoring").text) == ["day"]


def test_an_empty_log_says_so_once(idle: Worker) -> None:
    client = client_of(idle)
    page = page_of(client)
    assert page.count("in this time") == 1
    assert figures(page) == {}
    answer = traffic(client)
    assert {each["predictions"] for each in answer["periods"]} == {0}
    assert (answer["requests_since"], answer["complete"]) == (None, True)


def test_each_figure_says_what_it_lacks(idle: Worker) -> None:
    client = client_of(idle)
    client.post("/predict", content=b"no picture", headers={"content-type": "image/png"})
    found = figures(page_of(client))
    assert tuple(found) == TITLES
    with_chart = [title for title, figure in found.items() if figure.find(".//svg") is not None]
    assert with_chart == ["Requests with errors"]
    assert "No prediction in this time." in "".join(found["Predictions"].itertext())
    assert "send some to /feedback" in "".join(found["Accuracy by labels"].itertext())


def test_one_prediction_and_one_label_are_shown(idle: Worker, pngs: list[bytes]) -> None:
    client = client_of(idle)
    answer = client.post("/predict", content=pngs[0], headers={"content-type": "image/png"})
    said = {"prediction_id": answer.json()["prediction_id"], "true_label": answer.json()["label"]}
    assert client.post("/feedback", json=said).status_code == 201
    found = figures(page_of(client, "day"))
    assert [float(each) for each in cells(found["Predictions"])] == [1] + [0] * 23
    assert "95 % interval 20.7% to 100.0%: 1 of 1 with a label" in "".join(found["Accuracy by labels"].itertext())
    (dot,) = [each for each in found["Mean confidence"].iter("circle") if each.get("class") == "a"]
    assert "mean confidence" in str(dot.findtext("title"))
    assert traffic(client, "day")["periods"][-1]["requests"] == {"200": 1}


def test_predictions_of_other_models_are_told_and_not_mixed_in(idle: Worker) -> None:
    idle.log.append([record(model_name="bags"), record(model_name=NAME), record(model_name=NAME, role="shadow")])
    client = client_of(idle)
    assert "1 predictions of other models are not counted here" in page_of(client)
    last = traffic(client)["periods"][-1]
    assert last["predictions"] == 1
    assert sorted(each["role"] for each in last["versions"]) == ["champion", "shadow"]


def test_requests_outlive_the_worker(tiny_package: Package, tmp_path: Path) -> None:
    for expected in ({"415": 1}, {"415": 2}):
        worker = open_worker(tiny_package, tmp_path)
        client = client_of(worker)
        client.post("/predict", content=b"no picture", headers={"content-type": "image/png"})
        client.get("/gallery")  # which is no request for a prediction
        worker.close()
        worker = open_worker(tiny_package, tmp_path)
        assert traffic(client_of(worker), "day")["periods"][-1]["requests"] == expected
        page = figures(page_of(client_of(worker), "day"))["Requests with errors"]
        assert f"415: {expected['415']}" in "".join(page.itertext())
        worker.close()


def test_a_page_is_there_while_the_log_is_being_counted(
    busy_home: Path, tiny_package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "var").mkdir()
    shutil.copy(busy_home / "var" / "predictions.db", tmp_path / "var")
    monkeypatch.setattr("bentos.classifier.traffic.WAIT_SECONDS", 0.0)
    worker = open_worker(tiny_package, tmp_path)
    try:
        client = client_of(worker)
        assert "The log is being counted, the newest rows first" in page_of(client)
        until = time.monotonic() + 60
        while not traffic(client)["complete"]:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert sum(each["predictions"] for each in traffic(client)["periods"]) == ROWS
    finally:
        worker.close()


def test_counts_that_cannot_be_read_cost_the_charts_and_not_the_page(idle: Worker) -> None:
    idle.log.append([record(model_name=NAME, probabilities=(0.1,) * 10)])
    client = client_of(idle)
    page_of(client)
    idle.traffic._over_time.close()
    path = idle.traffic._over_time.path
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()
    path.mkdir()  # what is there is no file
    page = page_of(client)
    assert "The counts of the log cannot be read now" in page
    assert "<dt>Predictions</dt><dd>1<" in page
    assert traffic(client)["complete"] is False
    path.rmdir()
    assert figures(page_of(client))


def test_review_is_linked_and_described_where_it_can_be_opened(
    busy: TestClient, tiny_package: Package, tmp_path: Path
) -> None:
    worker = open_worker(tiny_package, tmp_path, "serve.log.images=true", FASHION_REVIEW_KEYS="secret")
    try:
        client = client_of(worker)
        for path in ("/", "/monitoring", "/docs"):
            assert '<a href="/review">Review</a>' in client.get(path).text, path
            assert 'href="/review"' not in busy.get(path).text, path
        paths = {path for path in client.get("/openapi.json").json()["paths"] if path.startswith("/review")}
        assert paths == {"/review", *(f"/review/{name}" for name in ("queue", "label", "undo", "skip"))}
        assert not [path for path in busy.get("/openapi.json").json()["paths"] if path.startswith("/review")]
        assert "</nav>" in client.get("/review", headers={"x-api-key": "secret"}).text
    finally:
        worker.close()


def test_a_shared_log_is_told_not_to_be_counted(idle: Worker) -> None:
    idle.log.outbox.ship_to("firestore://project")
    client = client_of(idle)
    told = "what other machines ship to firestore://project is not counted here"
    assert told in page_of(client)
    assert told in traffic(client)["source"]


@pytest.fixture(scope="module")
def address(busy: TestClient) -> Iterator[str]:
    """The busy service on a port of this machine, for a browser."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(busy.app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser.start(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_charts_are_readable(width: int, scheme: str, chromium: Any, address: str, tmp_path: Path) -> None:
    page = Page(chromium, address, tmp_path)
    page.screen(width, 800, touch=width < 500)
    page.media(prefers_color_scheme=scheme)
    chromium.get(f"{address}/monitoring?span=month")
    assert page.js("return document.documentElement.scrollWidth") <= width
    sizes = page.js("return [...document.querySelectorAll('.chart text')].map((each) => each.getBoundingClientRect())")
    assert min(each["height"] for each in sizes if each["height"]) >= 12  # text is not scaled with its chart
    assert all(each["left"] >= -1 and each["right"] <= width + 1 for each in sizes)
    plots = page.js("return [...document.querySelectorAll('.plot')].map((each) => each.getBoundingClientRect().width)")
    assert min(plots) > 250
    page.js("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.js("return document.documentElement.scrollWidth") <= width
    assert [found for found in page.text_contrasts() if found[1] < 4.5] == []
    assert axe.violations(chromium) == []
    shapes = page.js("return [...document.querySelectorAll('.plot rect.a')].map((each) => getComputedStyle(each).fill)")
    assert set(shapes) == {"rgb(11, 107, 79)" if scheme == "light" else "rgb(98, 214, 171)"}
    assert page.complaints() == []
    page.screenshot(f"traffic-{width}-{scheme}")
