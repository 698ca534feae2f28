"""Windows of the local log and of shared ones: all return the same rows, each once, whatever clocks do."""

import dataclasses
import datetime
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import shared_logs
from support.log_rows import DIGEST, MODEL_NAME, outcomes
from support.log_rows import record as logged
from support.shared_logs import SERVERS

from fashion.config.compose import compose, load_as
from fashion.config.drift import DriftConfig
from fashion.drift import inspection
from fashion.home import Home
from fashion.predictions import windows
from fashion.predictions.batch import Batch, concatenate, from_rows
from fashion.predictions.firestore import FirestoreLog
from fashion.predictions.log import PredictionLog
from fashion.predictions.partition_reader import Export
from fashion.predictions.partition_writer import export_days
from fashion.predictions.partitions import day_of
from fashion.predictions.record import (
    FOREVER_US,
    UNLABELLED,
    DamagedLog,
    Feedback,
    LogUnavailable,
    ModelId,
    PredictionRecord,
)
from fashion.predictions.shared_log import Outcome
from fashion.predictions.windows import (
    ExportedRows,
    LateFeedback,
    LocalRows,
    SharedRows,
    Source,
    Window,
    divide,
)
from fashion.storage.address import open_store

START = 1_800_000_000_000_000
HOUR = 3_600_000_000
ROWS = 60
TIED = 40
"""Rows that share one time."""


def record(row: int, *, role: str = "champion", version: str = "1", classes: int = 3) -> PredictionRecord:
    return logged(
        time_us=START + (min(row, TIED) * 1000),  # rows from TIED on are of one moment
        model_version=version,
        role=role,
        label=row % classes,
        confidence=0.5 + row / 1000,
        probabilities=tuple(1 / classes for _ in range(classes)),
        statistics=tuple(row + column / 8 for column in range(8)),
        embedding=tuple(float(row) for _ in range(16)),
        image_sha256=f"{row:064x}",
        client=f"client {row}" if row % 2 else None,
    )


@pytest.fixture(scope="module")
def records() -> list[PredictionRecord]:
    answered = [record(row, version="1" if row < 20 else "2") for row in range(ROWS)]
    shadows = [record(row, role="shadow", version="3") for row in range(5)]
    return answered + shadows


@pytest.fixture(scope="module")
def feedback(records: list[PredictionRecord]) -> list[Feedback]:
    labels = [Feedback(records[row].prediction_id, 1, "page", START + HOUR) for row in range(0, 30, 3)]
    return [*labels, Feedback(records[0].prediction_id, 2, "page", START + 2 * HOUR)]


@pytest.fixture(scope="module")
def local(
    records: list[PredictionRecord], feedback: list[Feedback], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalRows]:
    with PredictionLog(tmp_path_factory.mktemp("log") / "predictions.db") as log:
        log.append(records)
        log.append_feedback(feedback)
        yield LocalRows(log)


@pytest.fixture(scope="module")
def exported(local: LocalRows, tmp_path_factory: pytest.TempPathFactory) -> ExportedRows:
    """The same rows as files by day, in row groups that divide the rows of one moment."""
    store = open_store(str(tmp_path_factory.mktemp("exported")))
    days = range(day_of(START), day_of(START) + 1)
    export_days(local._log.window, store, days, group_rows=7)
    return ExportedRows(Export(store))


@pytest.fixture(
    scope="module", params=["local", "exported", *(pytest.param(kind, marks=pytest.mark.slow) for kind in SERVERS)]
)
def source(
    request: pytest.FixtureRequest, records: list[PredictionRecord], feedback: list[Feedback]
) -> Iterator[Source]:
    """The local log, its export, and each of the databases that machines share, with the same rows."""
    if request.param in ("local", "exported"):
        yield request.getfixturevalue(request.param)
        return
    backend = shared_logs.make(request.param, request.getfixturevalue(SERVERS[request.param]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRESTORE_EMULATOR_HOST", backend.server)
        log = backend.connect()
        for items in (records, feedback):
            assert set(outcomes(log, *items)) == {Outcome.SHIPPED}
        yield SharedRows(log)
        log.close()


def rows(batches: Iterator[Batch]) -> list[str]:
    return [prediction_id for batch in batches for prediction_id in batch.prediction_ids]


EVERYTHING = Window(0, FOREVER_US)


class TestAnyLog:
    def test_every_answered_row_is_there_once(self, source: Source, records: list[PredictionRecord]) -> None:
        assert sorted(rows(source.batches(EVERYTHING))) == sorted(each.prediction_id for each in records[:ROWS])

    def test_late_feedback_comes_with_its_picture_and_client(
        self, source: Source, records: list[PredictionRecord]
    ) -> None:
        late = [records[row] for row in range(3, 30, 3)]  # the first row's counts from an hour later on
        expected = {
            LateFeedback(each.model, each.label, 1, each.prediction_id, each.image_sha256, each.client) for each in late
        }
        found = list(source.late_feedback(Window(START + HOUR, START + 2 * HOUR), 0))
        assert set(found) == expected
        assert len(found) == len(expected)

    def test_a_window_is_half_open(self, source: Source, records: list[PredictionRecord]) -> None:
        found = rows(source.batches(Window(START + 5000, START + 10_000)))
        assert sorted(found) == sorted(each.prediction_id for each in records[5:10])

    @pytest.mark.parametrize("count", [1, 7, 20, 45, ROWS, 1000])
    def test_the_latest_rows_are_the_latest(self, source: Source, records: list[PredictionRecord], count: int) -> None:
        latest = sorted(records[:ROWS], key=lambda each: (each.time_us, each.prediction_id))[-count:]
        found = rows(source.batches(Window(0, FOREVER_US, count)))
        assert sorted(found) == sorted(each.prediction_id for each in latest)

    def test_columns_hold_what_was_logged(self, source: Source, records: list[PredictionRecord]) -> None:
        by_id = {each.prediction_id: each for each in records}
        for batch in source.batches(EVERYTHING):
            for row, prediction_id in enumerate(batch.prediction_ids):
                logged = by_id[prediction_id]
                assert batch.times_us[row] == logged.time_us
                assert batch.models[row] == logged.model
                assert batch.image_sha256[row] == logged.image_sha256
                assert batch.clients is not None
                assert batch.clients[row] == logged.client
                assert batch.predictions.labels[row] == logged.label
                assert batch.predictions.confidences[row] == np.float32(logged.confidence)
                assert batch.predictions.statistics[row] == pytest.approx(logged.statistics)
                assert batch.predictions.embeddings[row].tolist() == list(logged.embedding)
                assert batch.predictions.probabilities[row] == pytest.approx(logged.probabilities)

    def test_the_latest_feedback_counts(self, source: Source, records: list[PredictionRecord]) -> None:
        found: dict[str, int] = {}
        for batch in source.batches(EVERYTHING):
            found |= dict(zip(batch.prediction_ids, batch.true_labels.tolist(), strict=True))
        expected = {each.prediction_id: UNLABELLED for each in records[:ROWS]}
        expected |= {records[row].prediction_id: 1 for row in range(0, 30, 3)}
        expected[records[0].prediction_id] = 2
        assert found == expected

    def test_labelled_rows_come_newest_first(self, source: Source, records: list[PredictionRecord]) -> None:
        found = [each.record.prediction_id for each in source.labelled()]
        assert found == [records[row].prediction_id for row in range(27, -1, -3)]

    def test_rows_after_the_window_are_counted(self, source: Source) -> None:
        assert source.count_after(Window(0, START + 10_000)) == ROWS - 10
        assert source.count_after(EVERYTHING) == 0

    def test_an_empty_window_has_no_batch(self, source: Source) -> None:
        assert list(source.batches(Window(START - HOUR, START))) == []
        assert list(source.batches(Window(START + HOUR, START - HOUR))) == []  # a clock went back between the two

    @pytest.mark.parametrize("parts", [1, 2, 3, 8])
    def test_parts_of_a_window_hold_each_of_its_rows_once(
        self, source: Source, records: list[PredictionRecord], parts: int
    ) -> None:
        whole = Window(START, FOREVER_US)
        divided = divide(whole, source.span(whole), parts)
        assert len(divided) == parts
        counts = [sum(len(batch) for batch in source.batches(part)) for part in divided]
        assert sum(counts) == ROWS
        assert parts == 1 or max(counts) < ROWS
        ids = [each for part in divided for batch in source.batches(part) for each in batch.prediction_ids]
        assert len(set(ids)) == ROWS

    def test_the_span_is_that_of_the_windows_rows(self, source: Source, records: list[PredictionRecord]) -> None:
        times = [each.time_us for each in records if each.role == "champion"]
        first, last = source.span(Window(times[3], FOREVER_US)) or (0, 0)
        assert (first, last) == (times[3], times[-1])
        assert source.span(Window(FOREVER_US - 10, FOREVER_US)) is None


@given(first=st.integers(0, 10**15), length=st.integers(0, 10**6), before=st.integers(0, 5), parts=st.integers(1, 50))
def test_parts_follow_one_another_without_gap(first: int, length: int, before: int, parts: int) -> None:
    window = Window(first - before, first + length + 1)
    divided = divide(window, (first, first + length), parts)
    assert (divided[0].since_us, divided[-1].until_us) == (window.since_us, window.until_us)
    assert len(divided) <= parts
    for earlier, later in itertools.pairwise(divided):
        assert earlier.since_us < earlier.until_us == later.since_us < later.until_us


def test_a_number_of_rows_and_an_empty_window_are_not_divided() -> None:
    assert divide(Window(0, FOREVER_US, 400), (5, 9), 3) == [Window(0, FOREVER_US, 400)]
    assert divide(Window(0, 10), None, 3) == [Window(0, 10)]


class TestBatch:
    def test_rows_of_one_version_are_selected(self, local: LocalRows) -> None:
        (batch,) = local.batches(EVERYTHING)
        parts = [batch.of(ModelId(MODEL_NAME, version, DIGEST[:16])) for version in ("1", "2", "3")]
        assert [len(part) for part in parts] == [20, 40, 0]
        assert {each.version for each in parts[0].models} == {"1"}

    def test_batches_are_concatenated(self, local: LocalRows) -> None:
        (batch,) = local.batches(EVERYTHING)
        again = concatenate([batch[[0, 1, 2]], batch[[3]], batch[list(range(4, ROWS))]])
        assert list(again.prediction_ids) == list(batch.prediction_ids)
        np.testing.assert_array_equal(again.predictions.statistics, batch.predictions.statistics)


def test_rows_of_different_models_share_a_log(tmp_path: Path) -> None:
    with PredictionLog(tmp_path / "predictions.db") as log:
        log.append([record(row, classes=3 + row % 2) for row in range(10)])
        widths = [batch.predictions.probabilities.shape for batch in LocalRows(log).batches(EVERYTHING)]
    assert sorted(widths) == [(5, 3), (5, 4)]


def test_pages_lose_nothing_between_equal_times(local: LocalRows, records: list[PredictionRecord]) -> None:
    for page_rows in (1, 3, 7):
        found = [
            prediction_id
            for page in local._log.row_pages(0, FOREVER_US, role="champion", page_rows=page_rows)
            for batch in from_rows(page)
            for prediction_id in batch.prediction_ids
        ]
        assert sorted(found) == sorted(each.prediction_id for each in records[:ROWS])


@pytest.mark.fault("damaged row of the log")
def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    import sqlite3

    with PredictionLog(tmp_path / "predictions.db") as log:
        log.append([record(row) for row in range(3)])
        with sqlite3.connect(tmp_path / "predictions.db") as connection:
            connection.execute("UPDATE predictions SET statistics = x'00' WHERE label = 1")
        with pytest.raises(DamagedLog, match=r"predictions\.db"):
            list(LocalRows(log).batches(EVERYTHING))


def test_a_damaged_document_is_named(emulator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from google.cloud import firestore

    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", emulator)
    project = f"damaged-{time.time_ns()}"
    moment = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
    spoilt = firestore.Client(project).collection("predictions").document("spoilt")
    spoilt.set({"time": moment, "role": "champion", "labelled": True})
    rows = SharedRows(FirestoreLog(project))
    for read in (lambda: list(rows.batches(EVERYTHING)), lambda: list(rows.labelled())):
        with pytest.raises(
            DamagedLog, match=r"predictions is damaged: document spoilt is not a prediction: .* correct or"
        ):
            read()


class TestChosen:
    NOW = 1_800_000_000

    def window(self, *words: str) -> Window:
        settings = load_as(DriftConfig, compose(words, root="drift"))
        return inspection.select_window(settings, clock=lambda: self.NOW * 10**9)

    def test_a_span_ends_now(self) -> None:
        assert self.window() == Window((self.NOW - 86_400) * 10**6, self.NOW * 10**6)
        assert self.window("window=90m") == Window((self.NOW - 5_400) * 10**6, self.NOW * 10**6)

    def test_rows_are_the_latest_of_all(self) -> None:
        assert self.window("rows=500") == Window(0, FOREVER_US, 500)

    def test_since_is_utc(self) -> None:
        since = datetime.datetime(2026, 11, 1, 8, tzinfo=datetime.UTC)
        assert self.window("since=2026-11-01T08:00").since_us == int(since.timestamp() * 1e6)


class TestOpen:
    def test_no_log_is_one_sentence(self, mlflow_home: Home) -> None:
        with pytest.raises(LogUnavailable, match=r"there is no prediction log .*predictions\.db: `make serve` begins"):
            windows.open_source(mlflow_home)

    @pytest.mark.parametrize("kind", ["shared", "firestore"])
    def test_a_shared_log_that_is_not_named_is_one_sentence(self, kind: str, mlflow_home: Home) -> None:
        with pytest.raises(LogUnavailable, match=f"source={kind}, but FASHION_LOG names no log: set it, or"):
            windows.open_source(mlflow_home, kind)

    @pytest.mark.parametrize(
        ("named", "address"),
        [
            ("firestore://project/other", "firestore://project/other/predictions"),
            ("postgresql://somebody:secret@db.example:5433/team?sslmode=require", "postgresql://db.example:5433/team"),
        ],
    )
    def test_a_shared_log_is_read_where_it_is_named(self, named: str, address: str, mlflow_home: Home) -> None:
        remote = dataclasses.replace(mlflow_home, shared_log=named)
        for kind in ("auto", "shared"):
            found = windows.open_source(remote, kind)
            assert isinstance(found, SharedRows)
            assert found.address == address
        PredictionLog(mlflow_home.predictions).close()
        assert isinstance(windows.open_source(remote, "local"), LocalRows)
