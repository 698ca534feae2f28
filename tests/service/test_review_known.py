"""Pictures of a known class on the review page: nobody can tell them, and who is wrong about them judges nothing."""

import base64
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support import axe, bentos, browser
from support.page import Page
from support.reviewing import KEY, client_of, label, open_worker, predict, queue
from support.served import Served

from bentos.classifier import checks
from bentos.classifier.known_pictures import KnownPictures
from bentos.classifier.review import KEEP_SECONDS
from bentos.classifier.schemas import data_url
from bentos.classifier.worker import Worker
from fashion.data.dataset import Dataset
from fashion.drift import belief
from fashion.images import image_store
from fashion.model.package import Package
from fashion.predictions import random_share, removal, review_checks, sources
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import FOREVER_US, REVIEW
from fashion.predictions.sources import Trust
from fashion.predictions.windows import LocalRows
from fashion.predictions.withdrawal import Decision

PICTURES = 60
OVERRIDES = ["serve.log.images=true", "serve.review_checks=0.25"]
"""As many known pictures as others among the random ones."""


@pytest.fixture(scope="module")
def known(small_dataset: Dataset) -> KnownPictures:
    rows = slice(PICTURES, PICTURES + 40)
    return KnownPictures(small_dataset.test.images[rows], small_dataset.test.labels[rows], os.urandom(32))


@pytest.fixture
def worker(
    tiny_package: Package, known: KnownPictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Worker]:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path / "var"))
    worker = open_worker(tiny_package, tmp_path, OVERRIDES, known=known.to_npz(), FASHION_REVIEW_KEYS="secret")
    yield worker
    worker.close()


@pytest.fixture
def client(worker: Worker) -> TestClient:
    return client_of(worker)


@pytest.fixture
def truth(worker: Worker, small_dataset: Dataset) -> dict[str, str]:
    """Prediction -> true class."""
    found = {
        predict(worker, image): small_dataset.class_names[each]
        for image, each in zip(small_dataset.test.images[:PICTURES], small_dataset.test.labels, strict=False)
    }
    until = time.monotonic() + 60
    while len(list(image_store.stored(worker._images))) < PICTURES:
        assert time.monotonic() < until, "the pictures are not stored"
        time.sleep(0.05)
    return found


def everything(client: TestClient) -> list[dict[str, str]]:
    """All that the page would show, if nothing was labelled."""
    items: list[dict[str, str]] = []
    while found := queue(client, shown=",".join(each["prediction_id"] for each in items))["items"]:
        items += found
    return items


def shown_known(client: TestClient, known: KnownPictures) -> dict[str, str]:
    """Id -> true class, of all known pictures that are shown."""
    names = queue(client)["class_names"]
    found = {each["prediction_id"]: known.picture_of(each["prediction_id"]) for each in everything(client)}
    return {each: names[known.labels[picture]] for each, picture in found.items() if picture is not None}


def wrong(name: str) -> str:
    return "Bag" if name != "Bag" else "Coat"


def assess(log: PredictionLog) -> Trust:
    rows = log.latest(1000, role="champion", with_feedback=True, withdrawn=True)
    return sources.assess(rows, lambda model: None, decisions=log.decisions())


def test_known_pictures_cannot_be_told_from_random_ones(
    client: TestClient, worker: Worker, known: KnownPictures, truth: dict[str, str]
) -> None:
    items = everything(client)
    ids = [each["prediction_id"] for each in items]
    tokens = [each for each in ids if known.picture_of(each) is not None]
    assert set(ids) - set(tokens) == set(truth)
    assert len(tokens) > 20
    assert {each["why"] for each in items if each["prediction_id"] in tokens} == {"drawn at random"}
    assert len({tuple(each) for each in items}) == 1  # the same fields, in the same order
    drawn = [each["prediction_id"] for each in items if each["why"] == "drawn at random"]
    assert [random_share.draw_order(each) for each in drawn] == sorted(map(random_share.draw_order, drawn))
    seconds = [int(each[:8] + each[9:13], 16) / 1000 for each in truth]
    for each in items:
        picture = base64.b64decode(each["picture"].removeprefix("data:image/png;base64,"))
        index = known.picture_of(each["prediction_id"])
        if index is None:
            assert picture == image_store.to_png(
                image_store.get(worker._images, worker.log.get(each["prediction_id"]).record.image_sha256)
            )
        else:
            assert picture == image_store.to_png(known.images[index])
            made = int(each["prediction_id"][:8] + each["prediction_id"][9:13], 16) / 1000
            assert min(seconds) - 10 <= made <= max(seconds)
    pictures = [each["picture"] for each in items]
    assert len(set(pictures)) == len(pictures)
    found = queue(client)
    assert (found["judged"], found["predictions"], found["known"]) == (0, PICTURES, None)
    assert client.get(f"/predictions/{tokens[0]}").status_code == 404  # a limit, which docs/how-to/watch.md states
    for path in ("/page/known_pictures.npz", "/gallery/known_pictures.npz", "/gallery/..%2fknown_pictures.npz"):
        assert client.get(path).status_code == 404


def test_a_picture_that_somebody_sent_is_shown_as_a_prediction_alone(
    client: TestClient, worker: Worker, known: KnownPictures, truth: dict[str, str]
) -> None:
    sent = known.picture_of(next(iter(shown_known(client, known))))
    assert sent is not None
    prediction_id = predict(worker, known.images[sent])
    while not image_store.is_stored(worker._images, known.sha256[sent]):
        time.sleep(0.05)
    worker.review._until = 0.0
    ids = [each["prediction_id"] for each in everything(client)]
    assert prediction_id in ids
    assert sent not in [known.picture_of(each) for each in ids]


def test_where_no_picture_is_stored_no_known_one_is_shown(
    client: TestClient, worker: Worker, truth: dict[str, str]
) -> None:
    for digest in list(image_store.stored(worker._images)):
        image_store.delete(worker._images, digest)
    assert queue(client)["items"] == []


@pytest.mark.fault("a reviewer who labels pictures wrong")
def test_who_is_wrong_about_known_pictures_judges_nothing(
    client: TestClient, worker: Worker, known: KnownPictures, truth: dict[str, str]
) -> None:
    tokens = shown_known(client, known)
    for each, name in itertools.islice(truth.items(), 10):
        label(client, each, name)
    judged = next(iter(worker.log.latest(1, role="champion", with_feedback=True)))
    before = queue(client)
    assert before["known"] is None
    for number, (each, name) in enumerate(tokens.items(), 1):
        assert label(client, each, wrong(name) if number > 12 else name) == name
        if number == 12:
            assert queue(client)["known"] == {"right": 10, "pictures": 10}
            assert assess(worker.log).use(judged).judge
        if number == 21:
            break
    assert queue(client)["known"] == {"right": 12, "pictures": 20}
    trust = assess(worker.log)
    assert not trust.use(judged).judge
    assert trust.quarantined() == {REVIEW: "10 labels: 9 of 21 contradict known pictures"}
    assert belief.describe_agreement(trust)[-1] == "reviews of known pictures: 12 of 21 agree with the known class"
    worker.review._until = 0.0
    after = queue(client)
    assert not after["quarantined"]
    assert (after["judged"], after["predictions"]) == (10, PICTURES)
    assert after["accuracy"] == before["accuracy"]
    assert worker.log.count(role="champion") == PICTURES
    remaining = set(shown_known(client, known))
    assert not remaining & set(itertools.islice(tokens, 21))
    labelled = {known.picture_of(each) for each in itertools.islice(tokens, 21)}
    assert not {known.picture_of(each) for each in remaining} & labelled
    belief.quarantine(LocalRows(worker.log), trust, may_release=False)
    worker.review._until = 0.0
    assert queue(client)["quarantined"]
    worker.log.decide([Decision("restore", REVIEW, None, 0, FOREVER_US, time.time_ns() // 1000, "ann", "a trainee")])
    worker.review._until = 0.0
    assert not queue(client)["quarantined"]


def test_who_is_right_about_known_pictures_is_trusted(
    client: TestClient, worker: Worker, known: KnownPictures, truth: dict[str, str]
) -> None:
    tokens = shown_known(client, known)
    label(client, *next(iter(truth.items())))
    for each, name in tokens.items():
        label(client, each, name)
    trust = assess(worker.log)
    assert trust.quarantined() == {}
    assert trust.use(next(iter(worker.log.latest(1, role="champion", with_feedback=True)))).judge
    unclear = client.post("/review/label", headers=KEY, json={"prediction_id": next(iter(tokens)), "true_label": "Hat"})
    assert unclear.status_code == 422


def test_an_undo_and_a_skip_are_those_of_any_picture(
    client: TestClient, worker: Worker, known: KnownPictures, truth: dict[str, str]
) -> None:
    first, second, *_ = tokens = shown_known(client, known)

    def post(action: str, shown_id: str) -> int:
        return client.post(f"/review/{action}", headers=KEY, json={"prediction_id": shown_id}).status_code

    def said() -> list[tuple[str, int]]:
        found = review_checks.read(worker.log.decisions())
        return [(each.review.prediction_id, each.review.true_label) for each in found]

    assert post("undo", first) == 204  # of nothing
    label(client, first, wrong(tokens[first]))
    assert first not in shown_known(client, known)
    label(client, first, tokens[first])
    index = worker.package.class_names.index
    assert said() == [(first, index(tokens[first]))]
    assert post("undo", first) == 204
    assert said() == [(first, index(wrong(tokens[first])))]
    assert post("undo", first) == 204
    assert said() == []
    worker.review._until = 0.0  # what another worker reads
    assert first in shown_known(client, known)
    assert post("skip", second) == 204
    for _ in range(2):
        assert known.picture_of(second) not in map(known.picture_of, shown_known(client, known))
        worker.review._until = 0.0
    assert said() == []


def test_the_least_labelled_pictures_are_shown_first_and_then_again(
    client: TestClient, worker: Worker, known: KnownPictures, truth: dict[str, str]
) -> None:
    seen: set[int | None] = set()
    while tokens := shown_known(client, known):
        for each, name in tokens.items():
            seen.add(known.picture_of(each))
            label(client, each, name)
        counted = [known.picture_of(each.review.prediction_id) for each in review_checks.read(worker.log.decisions())]
        assert max(map(counted.count, seen)) - min(map(counted.count, range(len(known.labels)))) <= 1
    assert len(counted) > len(known.labels)


def test_another_worker_knows_what_one_has_shown(
    client: TestClient,
    worker: Worker,
    known: KnownPictures,
    truth: dict[str, str],
    tiny_package: Package,
    tmp_path: Path,
) -> None:
    other = open_worker(tiny_package, tmp_path / "2", OVERRIDES, known=known.to_npz(), FASHION_REVIEW_KEYS="secret")
    try:
        tokens = shown_known(client, known)
        assert shown_known(client_of(other), known) == tokens
        first = next(iter(tokens))
        label(client_of(other), first, tokens[first])
        worker.review._until = 0.0
        assert first not in shown_known(client, known)
        assert client.post("/review/undo", headers=KEY, json={"prediction_id": first}).status_code == 204
        assert review_checks.read(other.log.decisions()) == []
    finally:
        other.close()


@pytest.mark.parametrize("reason", ["an older bento", "switched off"])
def test_without_known_pictures_the_page_is_as_before(
    reason: str,
    client: TestClient,
    known: KnownPictures,
    truth: dict[str, str],
    tiny_package: Package,
    tmp_path: Path,
) -> None:
    token = next(iter(shown_known(client, known)))
    without = (
        open_worker(tiny_package, tmp_path / "2", OVERRIDES, FASHION_REVIEW_KEYS="secret")
        if reason == "an older bento"
        else open_worker(
            tiny_package,
            tmp_path / "2",
            ["serve.log.images=true", "serve.review_checks=0"],
            known=known.to_npz(),
            FASHION_REVIEW_KEYS="secret",
        )
    )
    try:
        assert {each["prediction_id"] for each in everything(client_of(without))} == set(truth)
        said = {"prediction_id": token, "true_label": "Bag"}
        expected = 404 if reason == "an older bento" else 201  # a page that was open before may still hold it
        assert client_of(without).post("/review/label", headers=KEY, json=said).status_code == expected
    finally:
        without.close()


@pytest.mark.fault("the shared log is away while a known picture is reviewed")
def test_a_label_is_taken_while_the_shared_log_is_away(
    tiny_package: Package, known: KnownPictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("FASHION_LOG", "postgresql://127.0.0.1:1/nothing")
    worker = open_worker(tiny_package, tmp_path, OVERRIDES, known=known.to_npz(), FASHION_REVIEW_KEYS="secret")
    try:
        (token,) = known.showings({"0" * 64: time.time_ns() // 1000}, 1.0, used=set(), may_show=lambda picture: True)
        label(client_of(worker), token.picture_id, "Bag")
        (found,) = review_checks.read(worker.log.decisions())
        assert found.review.prediction_id == token.picture_id
    finally:
        worker.close()


def test_agreement_is_told_in_steps_of_ten(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "log.db")
    told = checks.Checks(tmp_path, 0.1)
    found = []
    for number in range(25):
        shown_id = f"0192{number:04x}-0000-7000-8000-000000000000"
        log.decide([review_checks.decision(shown_id, known=1, said=1 + number % 2, who="ann", now_us=number + 1)])
        told.read(log.decisions())
        found.append(told.agreement)
    assert found[:9] == [None] * 9
    assert [(each.right, each.pictures) for each in found[9:] if each] == [(5, 10)] * 10 + [(10, 20)] * 6


@pytest.fixture
def serve(tiny_package: Package, known: KnownPictures, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serve a bento with known pictures."""
    running = []

    def start(*overrides: str) -> Served:
        tag = bentos.build(
            tiny_package.folder, tmp_path / "home", overrides=[*OVERRIDES, *overrides], known=known.to_npz()
        )
        environment = bentos.environment(tmp_path / "home", FASHION_REVIEW_KEYS="secret")
        running.append(Served(tag, environment, tmp_path / "service.log"))
        return running[-1]

    yield start
    for each in running:
        assert each.stop() == 0


def ask(service: Served, method: str, path: str, content: Any = None) -> Any:
    body = None if content is None else json.dumps(content).encode()
    status, _, answer = service.request(method, path, body, {**KEY, "content-type": "application/json"})
    assert status in (200, 201, 204), answer
    return json.loads(answer) if answer else None


def review(service: Served, known: KnownPictures, say: Callable[[str], str], *, enough: int = 1000) -> int:
    """Label what a served bento shows, until that were enough known pictures; return how many it were."""
    counted = set[str]()
    while items := ask(service, "GET", "/review/queue")["items"]:
        for each in items:
            picture = known.picture_of(each["prediction_id"])
            counted |= set() if picture is None else {each["prediction_id"]}
            name = (
                "Bag" if picture is None else say(ask(service, "GET", "/model")["class_names"][known.labels[picture]])
            )
            said = {"prediction_id": each["prediction_id"], "true_label": name}
            ask(service, "POST", "/review/label", said)
            if len(counted) == enough:
                return enough
    return len(counted)


@pytest.mark.slow
def test_two_workers_of_a_served_bento_check_a_liar(
    serve: Callable[..., Served], known: KnownPictures, small_dataset: Dataset, tmp_path: Path
) -> None:
    service = serve("serve.workers=2")
    for image in small_dataset.test.images[:PICTURES]:
        service.predict(image_store.to_png(image))
    assert review(service, known, wrong) >= 5
    log = PredictionLog(tmp_path / "home" / "predictions.db")
    trust = assess(log)
    assert set(trust.quarantined()) == {REVIEW}
    assert not any(trust.use(row).judge for row in log.latest(100, role="champion", with_feedback=True))


@pytest.mark.slow
def test_the_page_tells_how_well_known_pictures_are_labelled_and_goes_on_where_one_is_gone(
    serve: Callable[..., Served], known: KnownPictures, small_dataset: Dataset, tmp_path: Path
) -> None:
    service = serve()
    for image in small_dataset.test.images[:PICTURES]:
        service.predict(image_store.to_png(image))
    assert review(service, known, str, enough=10) == 10
    with browser.start(tmp_path / "profile") as driver:
        page = Page(driver, service.url, tmp_path)
        driver.get(service.url.replace("http://", "http://anyone:secret@") + "/review")
        page.until(lambda: "right" in page.text("#known-right"))
        assert page.text("#known-right") == "10 of 10 right"
        page.until(lambda: page.one("#picture").get_property("naturalWidth") == 28)
        page.screenshot("review-known")
        assert not page.one("#quarantined").is_displayed()
        assert axe.violations(driver) == []
        shown_as = {data_url(image_store.to_png(image)) for image in known.images}
        while (first := page.one("#picture").get_attribute("src")) in shown_as:
            page.press(" ")
            page.until(lambda first=first: page.one("#picture").get_attribute("src") != first)
        log = PredictionLog(tmp_path / "home" / "predictions.db")
        for row in list(log.latest(100, role="champion")):
            removal.forget(log, row.record.prediction_id)
        page.press("1")
        page.until(lambda: "there is no prediction" in page.text("#problem").lower())
        assert page.one("#picture").get_attribute("src") != first
        assert page.text("#session") == "0"
        log.decide([Decision("quarantine", REVIEW, None, 0, FOREVER_US, time.time_ns() // 1000, "the flow", "lies")])
        time.sleep(KEEP_SECONDS)
        driver.refresh()
        page.until(lambda: page.one("#quarantined").is_displayed())
        page.screenshot("review-quarantined")
        assert axe.violations(driver) == []
