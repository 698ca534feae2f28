"""A service with a canary: which version answers whom, what answer, row and page say, and what a broken one costs."""

import asyncio
import contextlib
import dataclasses
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import bentos, proxy, shared_logs
from support.networks import swapped_classes
from support.served import Served

from bentos.classifier import canary_watch, monitoring
from bentos.classifier.deployment import Deployment
from bentos.classifier.worker import Worker
from bentos.web.request_metrics import Identity
from bentos.web.uploads import Part
from fashion.config.compose import compose, load_as
from fashion.config.serve import ServeConfig
from fashion.data.dataset import Dataset
from fashion.home import REPOSITORY, current_home
from fashion.images import image_store
from fashion.model import package
from fashion.model.package import MODEL, REFERENCE, TYPICALITY, WEIGHTS, Package
from fashion.model.predictor import Predictor
from fashion.model.reference import Reference
from fashion.model.typicality import Typicality
from fashion.predictions.canary import Experiment
from fashion.predictions.canary_ending import CanaryEnding, Kind
from fashion.predictions.firestore import FirestoreLog
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import CHECK, Feedback, ModelId
from fashion.predictions.slots import SPANS

Open = Callable[..., Worker]
"""(settings of `Deployment.canary`) -> a worker."""


@pytest.fixture(scope="module")
def other_package(tiny_package: Package, tiny_network: bytes, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A package whose network takes trousers for boots, and boots for trousers."""
    assert tiny_package.folder is not None
    files = {each: (tiny_package.folder / each).read_bytes() for each in (WEIGHTS, REFERENCE)}
    files[MODEL] = swapped_classes(tiny_network, 1, 9)
    return package.write(dataclasses.replace(tiny_package, folder=None), tmp_path_factory.mktemp("other"), files)


def experiment(champion: Package, canary: Package, *, name: str = "m") -> Experiment:
    models = (ModelId.of(name, number, each.digest) for number, each in ((1, champion), (2, canary)))
    return Experiment(*models, share=0.5, since_us=0, margin=0.05, confidence=0.95)


@pytest.fixture
def opened(
    tiny_package: Package, other_package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Open]:
    workers: list[Worker] = []
    monkeypatch.setenv("FASHION_HOME", str(tmp_path / "var"))

    def open_worker(canary: Package | None = other_package, **described: Any) -> Worker:
        assert tiny_package.folder is not None
        content = None
        if canary is not None:
            fields = dataclasses.asdict(experiment(tiny_package, other_package))
            content = {
                "name": "m",
                "version": "2",
                "digest": canary.digest,
                "experiment": fields,
                "sure_wrong": [0, 0],
            } | described
        settings = load_as(ServeConfig, compose(root=ServeConfig.root)).serve
        worker = Worker(
            Deployment(settings, {"name": "m", "version": "1", "digest": tiny_package.digest}, None, content),
            current_home(),
            {},
            model=tiny_package.folder,
            shadow=None,
            canary=None if canary is None else canary.folder,
            folder=tmp_path,
            identity=Identity("fashion-classifier", "1", "Classifier", None),
        )
        workers.append(worker)
        return worker

    yield open_worker
    for worker in workers:
        worker.close()


def ask(worker: Worker, png: bytes, client: str | None = None, *, explain: bool = False) -> Any:
    return asyncio.run(worker.predict(png, explain=explain, client=client, started=time.perf_counter()))


def test_each_client_is_answered_by_one_version_as_that_version_answers(
    opened: Open, tiny_package: Package, other_package: Package, small_dataset: Dataset, pngs: list[bytes]
) -> None:
    worker, asked = opened(), experiment(tiny_package, other_package)
    images = small_dataset.test.images[:40]
    expected = {"1": Predictor(tiny_package).predict(images), "2": Predictor(other_package).predict(images)}
    assert (expected["1"].labels != expected["2"].labels).any()
    versions = set()
    for row, png in enumerate(pngs[:40]):
        client = f"client-{row // 2}"
        answer = ask(worker, png, client)
        version = "2" if asked.goes_to_canary(client, "") else "1"
        versions.add(version)
        assert answer.model.version == version
        assert answer.label == tiny_package.class_names[expected[version].labels[row]]
        assert answer.confidence == pytest.approx(float(expected[version].confidences[row]), abs=1e-5)
        record = worker.log.get(answer.prediction_id).record
        assert (record.model_version, record.role) == (version, "champion")
        assert record.model_digest == answer.model.digest[:16]
    assert versions == {"1", "2"}


def test_one_request_without_a_client_may_be_answered_by_both(
    opened: Open, tiny_package: Package, other_package: Package, small_dataset: Dataset, pngs: list[bytes]
) -> None:
    worker, asked = opened(), experiment(tiny_package, other_package)
    files = [Part("images", f"{row}.png", png) for row, png in enumerate(pngs[:20])]
    answer = asyncio.run(worker.predict_batch(files, client=None, started=time.perf_counter()))
    found = [each.model.version for each in answer.results]  # type: ignore[union-attr]
    digests = [image_store.digest(image) for image in small_dataset.test.images[:20]]
    assert found == ["2" if asked.goes_to_canary(None, each) else "1" for each in digests]
    assert set(found) == {"1", "2"}
    again = asyncio.run(worker.predict_batch(files, client=None, started=time.perf_counter()))
    assert [each.model.version for each in again.results] == found  # type: ignore[union-attr]


def of_canary(worker: Worker, *, number: int = 0) -> str:
    """The name of a client that the canary answers."""
    assert worker.canary is not None
    names = (f"c{each}" for each in range(1000))
    return [each for each in names if worker.canary.experiment.goes_to_canary(each, "")][number]


def test_the_heat_map_is_of_the_version_that_answered(opened: Open, small_dataset: Dataset, pngs: list[bytes]) -> None:
    worker = opened()
    boot = int(np.flatnonzero(small_dataset.test.labels[:200] == 9)[0])
    mine, alone = ask(worker, pngs[boot], of_canary(worker), explain=True), ask(worker, pngs[boot], CHECK, explain=True)
    assert (mine.model.version, alone.model.version) == ("2", "1")
    assert mine.label != alone.label
    # The networks differ in the classes' order alone: of the other's network, this class would have another map.
    assert mine.heat_map == alone.heat_map


def test_a_logged_prediction_is_judged_by_the_version_that_answered(
    opened: Open, other_package: Package, tmp_path: Path, pngs: list[bytes]
) -> None:
    assert other_package.folder is not None
    files = {each: (other_package.folder / each).read_bytes() for each in (WEIGHTS, REFERENCE, MODEL)}
    reference, few_rows = Reference.from_parquet(files[REFERENCE]), np.arange(100)
    few = Reference(reference.labels[few_rows], reference.predictions[few_rows])
    files[TYPICALITY] = Typicality.fit(few).to_bytes()
    worker = opened(package.write(dataclasses.replace(other_package, folder=None), tmp_path / "judging", files))
    for png in pngs[:5]:
        answers = ask(worker, png, of_canary(worker)), ask(worker, png, CHECK)
        said = [each.typicality for each in answers]
        assert said[0] != said[1]
        assert [asyncio.run(worker.records.read(each.prediction_id)).typicality for each in answers] == said


def test_the_service_says_who_answers_how_much(opened: Open) -> None:
    info = opened().model_info()
    assert (info.version, info.canary, info.canary_share) == ("1", "2", 0.5)


def test_without_a_canary_nothing_changes(opened: Open, pngs: list[bytes]) -> None:
    worker = opened(canary=None)
    assert {ask(worker, png, f"c{row}").model.version for row, png in enumerate(pngs[:10])} == {"1"}
    assert (worker.model_info().canary, worker.model_info().canary_share) == (None, None)
    assert "Canary" not in monitoring.page(worker, SPANS["day"])


def test_the_monitoring_page_tells_the_state(opened: Open, tiny_package: Package, pngs: list[bytes]) -> None:
    worker = opened()
    for number in range(3):
        for client, right in ((of_canary(worker, number=number), number < 2), (f"{CHECK}-{number}", True)):
            answer = ask(worker, pngs[number], client)
            label = tiny_package.class_names.index(answer.label)
            said = Feedback(
                answer.prediction_id, label if right else (label + 1) % 10, "review", time.time_ns() // 1000
            )
            worker.log.append_feedback([said])
    page = monitoring.page(worker, SPANS["day"])
    assert "Version 2 answers 50% of the clients" in page
    assert "<th scope='row'>2, canary</th>" in page
    state = worker.canary_state
    assert state is not None
    counts = state.read().counts
    assert counts.champion.labels + counts.canary.labels == 6
    assert (counts.canary.wrong, counts.champion.wrong) == (1, 0)
    assert f"{counts.canary.right} of {counts.canary.right + 1} right" in page
    assert "The labels do not suffice yet." in page
    assert sum(state.read().answers.values()) == 6


def test_the_state_is_read_without_what_the_image_lacks() -> None:
    lacking = "import sys; sys.modules.update(dict.fromkeys(['scipy', 'pyarrow', 'pandas', 'torch', 'mlflow']))\n"
    needed = "import bentos.classifier.canary_state, fashion.predictions.sources, fashion.predictions.labelled\n"
    test = "assert fashion.predictions.sources._is_beyond_chance(9, 10, 0.1)"
    done = subprocess.run(
        [sys.executable, "-c", lacking + needed + test], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.fault("a canary cannot be loaded")
@pytest.mark.parametrize("broken", ["exchanged", "damaged", "other classes", "rules"])
def test_a_canary_that_cannot_be_loaded_costs_no_answer(
    opened: Open,
    other_package: Package,
    tmp_path: Path,
    pngs: list[bytes],
    caplog: pytest.LogCaptureFixture,
    broken: str,
) -> None:
    canary, described = other_package, {}
    if broken == "exchanged":
        described["digest"] = "0" * 64
    elif broken == "rules":
        described["experiment"] = {"share": 0.5}
    else:
        assert other_package.folder is not None
        files = {each: (other_package.folder / each).read_bytes() for each in (WEIGHTS, REFERENCE, MODEL)}
        names = tuple(f"class {number}" for number in range(10))
        fields = dataclasses.replace(other_package, folder=None)
        if broken == "other classes":
            fields = dataclasses.replace(fields, class_names=names)
        canary = package.write(fields, tmp_path / "broken", files)
        if broken == "damaged":
            (tmp_path / "broken" / MODEL).write_bytes(b"damaged")
    with caplog.at_level(logging.ERROR):
        worker = opened(canary, **described)
    assert "the canary, version 2, answers nobody, and the champion everybody: " in caplog.text
    assert {ask(worker, png, f"c{row}").model.version for row, png in enumerate(pngs[:10])} == {"1"}
    assert worker.model_info().canary is None


@pytest.mark.fault("a canary fails on a picture")
def test_a_canary_that_fails_while_it_answers_costs_no_answer(
    opened: Open, pngs: list[bytes], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = opened()
    assert worker.canary is not None

    def fail(images: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(worker.canary.served.predictor, "predict", fail)
    client = of_canary(worker)
    with caplog.at_level(logging.ERROR):
        answer = ask(worker, pngs[0], client)
    assert answer.model.version == "1"
    assert worker.log.get(answer.prediction_id).record.model_version == "1"
    assert "the canary, version 2, failed: the champion answers" in caplog.text
    label = Feedback(answer.prediction_id, 0, "review", time.time_ns() // 1000)
    worker.log.append_feedback([label])
    assert worker.canary_state is not None
    assert worker.canary_state.read().counts.elsewhere == 1


@pytest.mark.slow
@pytest.mark.ci
def test_a_bento_with_a_canary_is_built_and_served(
    tiny_package: Package, other_package: Package, pngs: list[bytes], tmp_path: Path
) -> None:
    assert tiny_package.folder is not None
    assert other_package.folder is not None
    asked, home = experiment(tiny_package, other_package, name=bentos.NAME), tmp_path / "var"
    tag = bentos.build(tiny_package.folder, home, canary=(other_package.folder, dataclasses.asdict(asked)))
    served = Served(tag, bentos.environment(home), tmp_path / "service.log")
    try:
        for row, png in enumerate(pngs[:12]):
            client = f"client-{row}"
            headers = {"content-type": "image/png", "x-client": client}
            status, _, body = served.request("POST", "/predict", png, headers)
            version = "2" if asked.goes_to_canary(client, "") else "1"
            assert (status, f'"version":"{version}"' in body.decode().replace(" ", "")) == (200, True)
        with PredictionLog(home / "predictions.db") as log:
            ids = [row.record.prediction_id for row in log.latest(12, role="champion")]
            log.append_feedback(Feedback(each, 0, "review", time.time_ns() // 1000) for each in ids)
        page = served.request("GET", "/monitoring")[2].decode()
        assert "<section id='canary'>" in page
        assert "nothing can be said yet" not in page
        assert 'role="canary",version="2"' in served.request("GET", "/metrics")[2].decode()
        with PredictionLog(home / "predictions.db") as log:
            log.end_canary(ending(asked, "stepped back"))
        until(lambda: served.json("GET", "/model")["canary"] is None, 60)
        assert "Version 2 was refused at " in served.request("GET", "/monitoring")[2].decode()
        assert (
            'fashion_canary_state{state="stepped back",version="2"} 1.0'
            in served.request("GET", "/metrics")[2].decode()
        )
    finally:
        served.stop()


# The end of a comparison


def ending(of: Experiment, kind: Kind) -> CanaryEnding:
    return CanaryEnding(of.champion, of.canary, time.time_ns() // 1000, kind, "8 of 10 right", "make bento")


def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services look often for the end of a comparison."""
    monkeypatch.setattr(canary_watch, "LOOK_SECONDS", 0.05)


def states(worker: Worker) -> dict[str, float]:
    """What the metrics say of the canary."""
    worker.update_gauges()
    names = ("answers", "promoted", "stepped back")
    found = {
        each: worker.metrics.registry.get_sample_value("fashion_canary_state", {"version": "2", "state": each})
        for each in names
    }
    assert None not in found.values()
    return {name: value for name, value in found.items() if value}


def test_a_service_looks_twice_a_minute_at_least() -> None:
    assert canary_watch.LOOK_SECONDS + FirestoreLog("p").timeout_s <= 30


@pytest.mark.fault("a canary is stepped back from while services run")
def test_a_canary_that_is_stepped_back_from_answers_nobody_any_more_after_a_restart_too(
    opened: Open, tiny_package: Package, other_package: Package, pngs: list[bytes], often: None
) -> None:
    worker, asked = opened(), experiment(tiny_package, other_package)
    client = of_canary(worker)
    assert ask(worker, pngs[0], client).model.version == "2"
    assert states(worker) == {"answers": 1}
    worker.log.end_canary(ending(asked, "stepped back"))
    until(lambda: ask(worker, pngs[0], client).model.version == "1")
    assert {ask(worker, png, f"c{row}").model.version for row, png in enumerate(pngs[:20])} == {"1"}
    assert (worker.model_info().canary, worker.model_info().canary_share) == (None, None)
    assert states(worker) == {"stepped back": 1}
    page = monitoring.page(worker, SPANS["day"])
    assert "Version 2 was refused at " in page
    assert "8 of 10 right.</p><p>Next: <code>make bento</code>" in page
    assert "Version 2 answers" not in page
    again = opened()
    assert ask(again, pngs[0], client).model.version == "1"


def test_a_canary_that_is_promoted_goes_on_until_it_is_rolled_back_and_the_page_says_what_to_type(
    opened: Open, tiny_package: Package, other_package: Package, pngs: list[bytes], often: None
) -> None:
    worker = opened()
    worker.log.end_canary(ending(experiment(tiny_package, other_package), "promoted"))
    until(lambda: states(worker) == {"promoted": 1})
    assert ask(worker, pngs[0], of_canary(worker)).model.version == "2"
    assert worker.model_info().canary == "2"
    page = monitoring.page(worker, SPANS["day"])
    assert "Version 2 was promoted at " in page
    assert "Next: <code>make bento</code>" in page
    worker.log.end_canary(ending(experiment(tiny_package, other_package), "stepped back"))  # it was rolled back
    until(lambda: ask(worker, pngs[0], of_canary(worker)).model.version == "1")
    assert states(worker) == {"stepped back": 1}


def test_answers_of_after_the_end_are_not_counted(
    opened: Open, tiny_package: Package, other_package: Package, pngs: list[bytes], often: None
) -> None:
    worker = opened()
    assert worker.canary_state is not None

    def label(number: int) -> None:
        answer = ask(worker, pngs[number], of_canary(worker, number=number))
        said = Feedback(answer.prediction_id, 0, "review", time.time_ns() // 1000)
        worker.log.append_feedback([said])

    label(0)
    worker.log.end_canary(ending(experiment(tiny_package, other_package), "promoted"))
    until(lambda: states(worker) == {"promoted": 1})
    label(1)
    state = worker.canary_state.read()
    assert (state.counts.canary.labels, sum(state.answers.values())) == (1, 1)


@pytest.mark.fault("the shared log is away when a service with a canary starts, and when it starts again")
def test_machines_learn_the_end_from_the_shared_log_and_know_it_while_that_is_away(
    opened: Open,
    tiny_package: Package,
    other_package: Package,
    pngs: list[bytes],
    postgres_server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    often: None,
) -> None:
    backend = shared_logs.make("postgresql", postgres_server)
    with proxy.between(backend.server) as wire, contextlib.closing(backend.connect()) as shared:
        monkeypatch.setenv("FASHION_LOG", backend.address(wire.address))
        wire.cut()
        with caplog.at_level(logging.WARNING):
            first = opened()
            client = of_canary(first)
            assert ask(first, pngs[0], client).model.version == "2"
            until(lambda: "whether the canary's comparison has ended is not known: " in caplog.text)
        wire.resume()
        monkeypatch.setenv("FASHION_HOME", str(tmp_path / "another"))
        second = opened()
        assert ask(second, pngs[0], client).model.version == "2"
        shared.end_canary(ending(experiment(tiny_package, other_package), "stepped back"))
        until(lambda: {ask(each, pngs[0], client).model.version for each in (first, second)} == {"1"})
        third = opened()  # on that machine again
        assert ask(third, pngs[0], client).model.version == "1"
        wire.cut()
        fourth = opened()
        assert ask(fourth, pngs[0], client).model.version == "1"
        wire.resume()
