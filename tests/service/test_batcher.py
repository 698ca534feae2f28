"""The batcher and the background work after it: batches, records, errors, shadows, stored pictures, closing."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.pictures import stored_digests

from bentos.classifier import background
from bentos.classifier.background import Background
from bentos.classifier.batcher import Batcher, Closed, Scored
from fashion.data.dataset import Dataset
from fashion.images import image_store
from fashion.images.transform import Images
from fashion.model.package import Package
from fashion.model.predictor import Predictions, Predictor
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import LogUnavailable, ModelId
from fashion.storage.address import open_store


@pytest.fixture
def log(tmp_path: Path) -> Iterator[PredictionLog]:
    with PredictionLog(tmp_path / "log.db") as opened:
        yield opened


@pytest.fixture(scope="module")
def predictor(tiny_package: Package) -> Predictor:
    return Predictor(tiny_package)


def predict(batcher: Batcher, images: Sequence[object], together: int = 1) -> list[Scored]:
    """Predict images one a job, `together` jobs at a time."""

    async def run() -> list[Scored]:
        scored: list[Scored] = []
        for start in range(0, len(images), together):
            jobs = [
                batcher.predict([image], client=None, started=time.perf_counter())  # type: ignore[list-item]
                for image in images[start : start + together]
            ]
            scored += [each for part in await asyncio.gather(*jobs) for each in part]
        return scored

    return asyncio.run(run())


@pytest.mark.parametrize("together", [1, 7, 200])
def test_answers_are_those_of_the_predictor_however_many_wait(
    predictor: Predictor, log: PredictionLog, small_dataset: Dataset, together: int
) -> None:
    images = small_dataset.test.images[:200]
    batcher = Batcher(predictor, log, model=ModelId("shoes", "7", "0123456789abcdef"))
    try:
        scored = predict(batcher, list(images), together)
    finally:
        batcher.close()
    expected = predictor.predict(images)
    assert [each.record.label for each in scored] == expected.labels.tolist()
    for row, each in enumerate(scored):
        assert each.record.probabilities == pytest.approx(expected.probabilities[row].tolist(), abs=1e-5)
        assert each.record.statistics == pytest.approx(expected.statistics[row].tolist(), abs=1e-6)
        assert each.record.image_sha256 == image_store.digest(images[row])
        assert log.get(each.record.prediction_id).record.label == each.record.label
    assert log.count() == 200


class Watched(Predictor):
    """Notes the thread and the number of pictures of each call, and takes as long as it is told."""

    def __init__(self, of: Package) -> None:
        super().__init__(of)
        self.seconds = 0.0
        self.calls: list[tuple[str, int]] = []

    def predict(self, images: Images) -> Predictions:
        self.calls.append((threading.current_thread().name, len(images)))
        time.sleep(self.seconds)
        return super().predict(images)


class TestAPictureThatComesAlone:
    @pytest.fixture
    def watched(self, tiny_package: Package) -> Watched:
        return Watched(tiny_package)

    @pytest.fixture
    def batcher(
        self, watched: Watched, log: PredictionLog, small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Batcher]:
        """One that has predicted a picture, in its thread: how long that takes decides on the next ones."""
        monkeypatch.setattr("bentos.classifier.batcher.QUICK_SECONDS", 2.0)  # whatever this machine does meanwhile
        monkeypatch.setattr("bentos.classifier.batcher.LATEST", 1.0)
        opened = Batcher(watched, log, model=ModelId("shoes", "7", "0123456789abcdef"))
        one(opened, small_dataset)
        yield opened
        opened.close()

    def test_is_predicted_in_the_event_loop(
        self, batcher: Batcher, watched: Watched, log: PredictionLog, small_dataset: Dataset
    ) -> None:
        for _ in range(4):
            one(batcher, small_dataset)
        assert watched.calls == [("batcher", 1), *[(threading.current_thread().name, 1)] * 4]
        assert log.count() == 5

    def test_is_not_where_others_come_with_it(
        self, batcher: Batcher, watched: Watched, log: PredictionLog, small_dataset: Dataset
    ) -> None:
        predict(batcher, list(small_dataset.test.images[:21]), 7)
        assert {name for name, _ in watched.calls} == {"batcher"}
        assert sum(size for _, size in watched.calls) == log.count() == 22

    def test_is_not_while_the_thread_works(self, batcher: Batcher, watched: Watched, small_dataset: Dataset) -> None:
        first, second, third = small_dataset.test.images[:3]
        watched.seconds = 0.5

        async def run() -> None:
            two = [asyncio.ensure_future(batcher.predict([each], client=None, started=0.0)) for each in (first, second)]
            await asyncio.sleep(0.1)
            await asyncio.gather(*two, batcher.predict([third], client=None, started=0.0))

        asyncio.run(run())
        assert {name for name, _ in watched.calls} == {"batcher"}

    def test_goes_to_the_thread_once_such_pictures_take_long_and_comes_back(
        self, batcher: Batcher, watched: Watched, small_dataset: Dataset
    ) -> None:
        watched.seconds = 2.1
        one(batcher, small_dataset)
        watched.seconds = 0.0
        one(batcher, small_dataset)
        one(batcher, small_dataset)
        here = threading.current_thread().name
        assert [name for name, _ in watched.calls] == ["batcher", here, "batcher", here]

    @pytest.mark.fault("another process writes to the log while one picture waits")
    def test_does_not_hold_up_other_requests_while_another_process_writes(
        self, batcher: Batcher, log: PredictionLog, small_dataset: Dataset
    ) -> None:
        image = small_dataset.test.images[0]
        other = sqlite3.connect(log.path, isolation_level=None)

        async def run() -> float:
            other.execute("BEGIN IMMEDIATE")
            job = asyncio.ensure_future(batcher.predict([image], client=None, started=0.0))
            began = time.perf_counter()
            await asyncio.sleep(0.2)  # what another request would wait
            waited = time.perf_counter() - began
            assert not job.done()
            other.execute("ROLLBACK")
            await job
            return waited

        assert asyncio.run(run()) < 5  # SQLite would wait for 30
        other.close()
        assert log.count() == 2

    def test_is_answered_by_an_error_where_it_cannot_be_logged(
        self, batcher: Batcher, log: PredictionLog, small_dataset: Dataset, tmp_path: Path
    ) -> None:
        aside = tmp_path / "aside.db"
        log.path.rename(aside)
        with pytest.raises(LogUnavailable):
            one(batcher, small_dataset)
        aside.rename(log.path)
        one(batcher, small_dataset)
        assert log.count() == 2


def one(batcher: Batcher, dataset: Dataset) -> None:
    """Predict a picture, once the thread has nothing left to do."""
    while not batcher._idle:
        time.sleep(0.001)
    predict(batcher, [dataset.test.images[0]])


def test_closing_answers_what_waits_and_rejects_what_comes_later(
    predictor: Predictor, log: PredictionLog, small_dataset: Dataset
) -> None:
    batcher = Batcher(predictor, log, model=ModelId("shoes", "7", "0123456789abcdef"))

    async def run() -> None:
        jobs = [
            asyncio.ensure_future(batcher.predict([image], client=None, started=0.0))
            for image in small_dataset.test.images[:100]
        ]
        await asyncio.sleep(0)  # they are queued
        await asyncio.to_thread(batcher.close)
        assert len([await job for job in jobs]) == 100
        with pytest.raises(Closed):
            await batcher.predict([small_dataset.test.images[0]], client=None, started=0.0)

    asyncio.run(run())
    assert log.count() == 100


def test_a_prediction_that_cannot_be_logged_is_an_error_and_the_next_one_works(
    predictor: Predictor, log: PredictionLog, small_dataset: Dataset, tmp_path: Path
) -> None:
    batcher = Batcher(predictor, log, model=ModelId("shoes", "7", "0123456789abcdef"))
    aside = tmp_path / "aside.db"
    try:
        log.path.rename(aside)
        with pytest.raises(LogUnavailable):
            predict(batcher, [small_dataset.test.images[0]])
        aside.rename(log.path)
        predict(batcher, [small_dataset.test.images[0]])
    finally:
        batcher.close()
    assert log.count() == 1


def test_a_client_that_disconnects_affects_no_other(
    predictor: Predictor, log: PredictionLog, small_dataset: Dataset
) -> None:
    batcher = Batcher(predictor, log, model=ModelId("shoes", "7", "0123456789abcdef"))

    async def run() -> None:
        gone = asyncio.ensure_future(batcher.predict([small_dataset.test.images[0]], client=None, started=0.0))
        stays = asyncio.ensure_future(batcher.predict([small_dataset.test.images[1]], client=None, started=0.0))
        await asyncio.sleep(0)
        gone.cancel()
        assert len(await stays) == 1

    asyncio.run(run())
    batcher.close()
    assert log.count() == 2  # both were predicted


def test_a_shadow_logs_under_the_same_ids(predictor: Predictor, log: PredictionLog, small_dataset: Dataset) -> None:
    shadow = background.shadow(predictor, log, model=ModelId("shoes", "8", "0123456789abcdef"))
    batcher = Batcher(predictor, log, model=ModelId("shoes", "7", "0123456789abcdef"), after=shadow.offer)
    scored = predict(batcher, list(small_dataset.test.images[:50]))
    batcher.close()
    shadow.close(10)
    assert (shadow.done, shadow.dropped, shadow.failed) == (50, 0, 0)
    for each in scored:
        mirrored = log.get(each.record.prediction_id, "shadow").record
        assert mirrored.model_version == "8"
        assert mirrored.label == each.record.label
        assert mirrored.time_us == each.record.time_us


def test_each_picture_is_stored_once(
    predictor: Predictor, log: PredictionLog, small_dataset: Dataset, tmp_path: Path
) -> None:
    store = open_store(str(tmp_path / "images"))
    writer = background.image_writer(store)
    batcher = Batcher(predictor, log, model=ModelId("shoes", "7", "0123456789abcdef"), after=writer.offer)
    images = list(small_dataset.test.images[:10])
    predict(batcher, images * 3)
    batcher.close()
    writer.close(10)
    assert stored_digests(store) == {image_store.digest(image) for image in images}
    for image in images:
        assert (image_store.get(store, image_store.digest(image)) == image).all()


class TestBackground:
    def scored(self, predictor: Predictor, log: PredictionLog, dataset: Dataset) -> list[Scored]:
        batcher = Batcher(predictor, log, model=ModelId("shoes", "7", "0123456789abcdef"))
        try:
            return predict(batcher, list(dataset.test.images[:20]))
        finally:
            batcher.close()

    def test_drops_and_counts_what_exceeds_its_capacity(
        self, predictor: Predictor, log: PredictionLog, small_dataset: Dataset
    ) -> None:
        slow = Background("slow", lambda _: time.sleep(0.2), capacity=4)
        started = time.monotonic()
        slow.offer(self.scored(predictor, log, small_dataset))
        assert time.monotonic() - started < 5
        slow.close(10)
        assert slow.dropped > 0
        assert slow.done + slow.dropped == 20

    def test_goes_on_after_an_error(self, predictor: Predictor, log: PredictionLog, small_dataset: Dataset) -> None:
        rows = self.scored(predictor, log, small_dataset)

        def work(batch: list[Scored]) -> None:
            if rows[0] in batch:
                raise RuntimeError("no")

        fragile = Background("fragile", work)
        fragile.offer(rows[:1])
        time.sleep(0.2)
        fragile.offer(rows[1:])
        fragile.close(10)
        assert (fragile.failed, fragile.done) == (1, 19)
