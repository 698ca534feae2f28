"""The review page: what it shows, its keys, undo; and that what is said there counts as a review."""

import contextlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient
from support import axe, bentos, browser, firestore, shared_logs
from support.log_rows import until
from support.page import Page
from support.reviewing import KEY, client_of, label, open_worker, predict, queue
from support.served import Served

from bentos.classifier.schemas import ReviewQueue
from bentos.classifier.worker import Worker
from fashion.data.dataset import Dataset
from fashion.images import image_store
from fashion.images.corruptions import corrupt
from fashion.model.package import Package
from fashion.predictions import random_share, withdrawal
from fashion.predictions.record import FOREVER_US, REVIEW, SAMPLES, new_prediction_id
from fashion.predictions.withdrawal import Decision

PICTURES = 60


@pytest.fixture
def worker(tiny_package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path / "var"))
    worker = open_worker(tiny_package, tmp_path, ["serve.log.images=true"], FASHION_REVIEW_KEYS="secret")
    yield worker
    worker.close()


@pytest.fixture
def client(worker: Worker) -> TestClient:
    return client_of(worker)


@pytest.fixture
def truth(worker: Worker, small_dataset: Dataset) -> dict[str, str]:
    """Prediction -> true class, of usual pictures and some negatives, which are unusual."""
    images = small_dataset.test.images[:PICTURES].copy()
    images[:5] = corrupt(images[:5], "inversion", 1.0)
    found = {}
    for image, each in zip(images, small_dataset.test.labels, strict=False):
        found[predict(worker, image)] = small_dataset.class_names[each]
    until = time.monotonic() + 60
    while len(list(image_store.stored(worker._images))) < PICTURES:
        assert time.monotonic() < until, "the pictures are not stored"
        time.sleep(0.05)
    return found


def test_the_queue_holds_pictures_worth_a_label_and_half_of_them_are_drawn_at_random(
    client: TestClient, truth: dict[str, str]
) -> None:
    found = queue(client)
    why = [each["why"] for each in found["items"]]
    assert why[::2] == ["drawn at random"] * 10
    assert {"the model was unsure", "unlike what the model has learnt"} <= set(why)
    ids = [each["prediction_id"] for each in found["items"]]
    assert len(set(ids)) == 20
    assert set(ids) <= set(truth)
    assert all(each["picture"].startswith("data:image/png;base64,") for each in found["items"])
    assert (found["judged"], found["predictions"], found["accuracy"]) == (0, PICTURES, None)
    assert "label" not in found["items"][0]  # what the model said would lead who judges
    drawn = [each for each, reason in zip(ids, why, strict=True) if reason == "drawn at random"]
    assert [random_share.draw_order(each) for each in drawn] == sorted(map(random_share.draw_order, drawn))
    more = queue(client, shown=",".join(ids))
    assert not {each["prediction_id"] for each in more["items"]} & set(ids)


def test_sample_pictures_are_not_shown(client: TestClient, worker: Worker, truth: dict[str, str]) -> None:
    predict(worker, image_store.get(worker._images, next(image_store.stored(worker._images))), client=SAMPLES)
    assert queue(client)["predictions"] == PICTURES


def test_what_is_said_counts_as_a_review_and_can_be_undone(
    client: TestClient, worker: Worker, truth: dict[str, str]
) -> None:
    first = queue(client)["items"][0]["prediction_id"]
    predicted = label(client, first, "Coat")
    logged = worker.log.get(first)
    assert predicted == worker.package.class_names[logged.record.label]
    assert [(each.source, each.true_label) for each in logged.feedback] == [(REVIEW, 4)]
    assert queue(client)["judged"] == 1
    assert first not in {each["prediction_id"] for each in queue(client)["items"]}
    undone = client.post("/review/undo", headers=KEY, json={"prediction_id": first})
    assert undone.status_code == 204
    assert worker.log.get(first).feedback == ()
    assert queue(client)["items"][0]["prediction_id"] == first
    label(client, first, "Bag")
    assert worker.log.get(first).true_label == 8
    assert next(iter(worker.log.latest(1, with_feedback=True, withdrawn=True))).feedback[0].true_label == 4


def test_accuracy_comes_with_the_pictures_that_were_drawn(client: TestClient, truth: dict[str, str]) -> None:
    for _ in range(2):
        for each in queue(client)["items"]:
            label(client, each["prediction_id"], truth[each["prediction_id"]])
    found = queue(client)
    assert found["judged"] == 40
    accuracy = found["accuracy"]
    assert accuracy["drawn"] >= 20
    assert accuracy["predictions"] <= PICTURES
    assert accuracy["low"] <= accuracy["accuracy"] <= accuracy["high"]
    assert accuracy["high"] - accuracy["low"] < 0.4


def test_pictures_that_are_not_stored_are_left_out_and_said(
    client: TestClient, worker: Worker, truth: dict[str, str]
) -> None:
    for digest in list(image_store.stored(worker._images)):
        image_store.delete(worker._images, digest)
    found = queue(client)
    assert (found["items"], found["predictions"], found["without_picture"]) == ([], 0, PICTURES)


def test_a_service_that_stores_no_pictures_says_so(
    tiny_package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path / "var"))
    worker = open_worker(tiny_package, tmp_path, ["serve.review=open", "serve.log.images=false"])
    try:
        answer = client_of(worker).get("/review/queue")
        assert answer.status_code == 404
        assert answer.json()["error"]["remedy"] == "build it with serve.log.images=true"
    finally:
        worker.close()


def test_few_pictures_are_looked_for_where_none_is_stored(
    client: TestClient, worker: Worker, truth: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bentos.classifier.review.MISSES", 10)
    for digest in list(image_store.stored(worker._images)):
        image_store.delete(worker._images, digest)
    assert queue(client)["without_picture"] == 10
    assert queue(client)["without_picture"] == 20  # the next request goes on from there


def test_what_nobody_can_tell_is_not_shown_again_and_does_not_end_the_random_sample(
    client: TestClient, worker: Worker, truth: dict[str, str], small_dataset: Dataset
) -> None:
    if min(truth, key=random_share.draw_order) == [*truth][-1]:  # then no review is of a later one: it is not due yet
        truth[predict(worker, small_dataset.test.images[PICTURES])] = small_dataset.class_names[0]
    drawn, newest = sorted(truth, key=random_share.draw_order), [*truth][-1]
    for each in {*drawn[1:11], newest}:
        label(client, each, truth[each])
    judged = 10 + (newest == drawn[11])
    assert queue(client)["accuracy"] is None
    assert client.post("/review/skip", headers=KEY, json={"prediction_id": drawn[0]}).status_code == 204
    assert client.post("/review/skip", headers=KEY, json={"prediction_id": new_prediction_id()}).status_code == 404
    for _ in range(2):
        found = queue(client)
        assert drawn[0] not in {each["prediction_id"] for each in found["items"]}
        assert found["accuracy"]["drawn"] == judged
        worker.review._skipped.clear()
        worker.review._until = 0.0  # what another worker reads
    label(client, drawn[0], truth[drawn[0]])  # who can tell after all counts
    assert queue(client)["accuracy"]["drawn"] == judged + 1


def test_undo_takes_back_the_last_review_alone(client: TestClient, worker: Worker, truth: dict[str, str]) -> None:
    first = queue(client)["items"][0]["prediction_id"]
    label(client, first, "Coat")
    label(client, first, "Bag")
    undo = {"headers": KEY, "json": {"prediction_id": first}}
    assert client.post("/review/undo", **undo).status_code == 204  # type: ignore[arg-type]
    assert [each.true_label for each in worker.log.get(first).feedback] == [4]
    assert queue(client)["judged"] == 1
    assert client.post("/review/undo", **undo).status_code == 204  # type: ignore[arg-type]
    assert client.post("/review/undo", **undo).status_code == 204  # type: ignore[arg-type]
    assert worker.log.get(first).feedback == ()
    assert queue(client)["judged"] == 0


def test_a_workers_own_labels_do_not_outlive_an_undo_elsewhere(
    client: TestClient, worker: Worker, truth: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = next(iter(truth))
    label(client, first, "Coat")
    assert queue(client)["judged"] == 1
    worker.log.decide([Decision("discard", REVIEW, first, 0, FOREVER_US, 1, "ann", "a slip")])  # by another worker
    monkeypatch.setattr("bentos.classifier.review.OWN_SECONDS", 0.0)
    worker.review._until = 0.0
    assert queue(client)["judged"] == 0
    assert worker.review._own == {}


@pytest.mark.slow
def test_decisions_of_a_shared_log_are_read_once(
    emulator: str,
    tiny_package: Package,
    small_dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each document of Firestore that is read is paid for."""
    backend = shared_logs.make("firestore", emulator)
    for name, value in {"FASHION_HOME": str(tmp_path / "var"), **backend.environment()}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("fashion.predictions.firestore_decisions.OVERLAP_NS", 0)
    elsewhere = backend.connect()
    many = [withdrawal.skip(new_prediction_id(), who="ann", now_us=number) for number in range(150)]
    elsewhere.decide(many)
    worker = open_worker(tiny_package, tmp_path, ["serve.log.images=true"], FASHION_REVIEW_KEYS="secret")
    with contextlib.closing(elsewhere), contextlib.closing(worker):
        ids = [predict(worker, image) for image in small_dataset.test.images[:3]]
        worker.records.store_review(ids[0], small_dataset.class_names[0])
        until(lambda: len(list(elsewhere.labelled())) == 1 and len(list(elsewhere.latest(5))) == 3)

        def read() -> tuple[ReviewQueue, int]:
            worker.review._until = 0.0  # as when KEEP_SECONDS have passed
            with firestore.counted() as reads:
                return worker.review.queue(), reads.documents

        first, documents = read()
        assert (first.judged, documents) == (1, 3 + 150)
        again, documents = read()
        assert (again.judged, documents) == (1, 3)
        elsewhere.decide([Decision("discard", REVIEW, ids[0], 0, FOREVER_US, 1, "ann", "a slip")])
        undone, documents = read()
        assert (undone.judged, documents) == (0, 3 + 1)


@pytest.mark.parametrize("path", ["/review", "/review/queue"])
def test_the_page_has_keys_of_its_own(path: str, client: TestClient) -> None:
    refused = client.get(path)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Basic")
    found = client.get(path, headers=KEY)
    assert found.status_code == 200
    assert "{{" not in found.text
    assert client.post("/review/label", json={"prediction_id": "x", "true_label": "Coat"}).status_code == 401


def test_a_form_of_another_site_stores_no_review(client: TestClient, truth: dict[str, str]) -> None:
    content = f'{{"prediction_id": "{next(iter(truth))}", "true_label": "Coat"}}'
    answer = client.post("/review/label", headers={**KEY, "content-type": "text/plain"}, content=content)
    assert answer.status_code == 415
    assert queue(client)["judged"] == 0


def test_feedback_cannot_call_itself_a_review(client: TestClient, truth: dict[str, str]) -> None:
    said = {"prediction_id": next(iter(truth)), "true_label": "Coat", "source": "review"}
    answer = client.post("/feedback", json=said)
    assert answer.status_code == 422
    assert "reserved for the review page" in answer.json()["error"]["message"]
    table = f"prediction_id,true_label,source\n{next(iter(truth))},Coat,review\n"
    answer = client.post("/feedback", content=table, headers={"content-type": "text/csv"})
    assert (answer.json()["accepted"], answer.json()["refused"]) == (0, 1)


@pytest.mark.parametrize(
    ("host", "setting", "keys", "expected"),
    [
        ("127.0.0.1", "loopback", "", 404),
        ("::1", "loopback", "", 404),
        ("0.0.0.0", "loopback", "", 403),
        ("10.1.2.3", "loopback", "", 403),
        ("0.0.0.0", "open", "", 404),
        ("0.0.0.0", "loopback", "f", 401),
    ],
)
def test_feedback_without_a_key_is_for_this_machine(
    host: str,
    setting: str,
    keys: str,
    expected: int,
    tiny_package: Package,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path / "var"))
    environment = {"BENTOML_HOST": host, **({"FASHION_FEEDBACK_KEYS": keys} if keys else {})}
    worker = open_worker(tiny_package, tmp_path, [f"serve.feedback={setting}"], **environment)
    try:
        client = client_of(worker)
        answer = client.post("/feedback", json={"prediction_id": "x", "true_label": "Coat"})
        assert answer.status_code == expected
        if expected == 403:
            remedy = "start the service with FASHION_FEEDBACK_KEYS, or build it with serve.feedback=open"
            assert answer.json()["error"]["remedy"] == remedy
        assert client.get("/review").status_code == 403  # without keys there is no review
    finally:
        worker.close()


@pytest.mark.parametrize(
    ("server", "client", "header", "expected"),
    [
        ("127.0.0.1", "127.0.0.1", None, 404),
        ("::1", "::1", None, 404),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", None, 404),
        ("10.1.2.3", "127.0.0.1", None, 403),
        ("127.0.0.1", "10.1.2.3", None, 403),
        ("127.0.0.1", "127.0.0.1", "Forwarded", 403),
        ("127.0.0.1", "127.0.0.1", "X-Forwarded-For", 403),
        ("127.0.0.1", "127.0.0.1", "Via", 403),
        ("10.1.2.3", "10.1.2.3", "X-Forwarded-For", 403),
    ],
)
def test_feedback_without_a_key_comes_from_this_machine_wherever_the_service_listens(
    server: str, client: str, header: str | None, expected: int, worker: Worker
) -> None:
    said = {"prediction_id": "x", "true_label": "Coat"}
    found = client_of(worker, server=server, client=client)
    answer = found.post("/feedback", json=said, headers={header: "127.0.0.1"} if header else {})
    assert answer.status_code == expected
    assert found.get("/review", headers={**KEY, "Via": "x"}).status_code == 200  # a key is enough


@pytest.mark.slow
def test_a_person_reviews_by_keyboard_alone(tiny_package: Package, small_dataset: Dataset, tmp_path: Path) -> None:
    assert tiny_package.folder is not None
    tag = bentos.build(tiny_package.folder, tmp_path / "home", overrides=["serve.log.images=true"])
    environment = bentos.environment(tmp_path / "home", FASHION_REVIEW_KEYS="secret")
    served = Served(tag, environment, tmp_path / "service.log")
    try:
        for image in small_dataset.test.images[:40]:
            served.predict(image_store.to_png(image))
        with browser.start(tmp_path / "profile") as driver:
            page = Page(driver, served.url, tmp_path)
            driver.get(served.url.replace("http://", "http://anyone:secret@") + "/review")
            page.until(lambda: len(page.all("#classes li")) == 10)
            page.until(lambda: page.one("#picture").get_property("naturalWidth") == 28)
            page.screenshot("review")
            for number, key in enumerate(itertools.islice(itertools.cycle("1234567890"), 12), 1):
                page.press(key)
                page.until(lambda number=number: page.text("#session") == str(number))
            page.until(lambda: "Trouser" in page.text("#last"))
            shown = page.one("#picture").get_attribute("src")
            page.press("\ue003")
            page.until(lambda: page.text("#last") == "Undone: Trouser.")
            page.press("2")
            page.until(lambda: page.one("#picture").get_attribute("src") == shown)
            page.press(" ")
            page.until(lambda: page.text("#last") == "Left out.")
            page.until(lambda: "drawn at random" in page.text("#accuracy"))
            for scheme in ("light", "dark"):
                page.media(prefers_color_scheme=scheme)
                page.screenshot(f"review-{scheme}")
                assert [text for text, contrast in page.text_contrasts() if contrast < 4.5] == []
                assert axe.violations(driver) == []
            page.screen(390, 844, touch=True)
            page.screenshot("review-phone")
            assert page.js("return document.documentElement.scrollWidth") == 390
            assert page.complaints() == []
    finally:
        assert served.stop() == 0


def test_the_share_is_unbiased_whatever_else_people_judge() -> None:
    """Who judges wrong answers first, and rows drawn at random, leads no estimate astray; its interval holds."""
    rng, covered, errors, naive = np.random.default_rng(1), 0, [], []
    rows, runs = 2000, 200
    for _ in range(runs):
        order = rng.permutation(rows).astype(np.uint64)
        confidences = rng.beta(5, 1, rows)
        right = rng.random(rows) < confidences
        judged = order < 80
        judged[np.argsort(confidences)[:60]] = True  # the least sure
        judged[rng.choice(np.flatnonzero(~right), 100, replace=False)] = True  # and wrong ones that people reported
        labels = [bool(each) if known else None for each, known in zip(right, judged, strict=True)]
        found = random_share.estimate(order, np.arange(rows), confidences, labels)
        assert found is not None
        assert found.drawn >= 80
        errors.append(found.accuracy - right.mean())
        covered += found.low <= right.mean() <= found.high
        naive.append(right[judged].mean() - right.mean())
    assert abs(np.mean(errors)) < 0.01
    assert np.mean(naive) < -0.2
    assert covered / runs > 0.9
