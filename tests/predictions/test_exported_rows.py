"""What an export holds, read in batches: the log's rows bit for bit, and one sentence where it is not an export."""

import dataclasses
import io
import itertools
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.log_rows import DAY_US, EDGES, bits, record
from support.stores import KINDS, Clouds

from fashion.config.compose import compose, load_as
from fashion.config.drift import DriftConfig
from fashion.drift import inspection, late_labels
from fashion.drift.reference_stats import ReferenceStats
from fashion.home import Home
from fashion.images.statistics import STATISTICS
from fashion.model.package import Package
from fashion.model.reference import Reference
from fashion.predictions import windows
from fashion.predictions.batch import Batch
from fashion.predictions.log import PredictionLog
from fashion.predictions.partition_reader import Export
from fashion.predictions.partition_writer import export_days
from fashion.predictions.partitions import Part
from fashion.predictions.record import FOREVER_US, DamagedLog, Feedback, LogUnavailable
from fashion.predictions.windows import ExportedRows, LocalRows, Window, divide
from fashion.storage.address import open_store
from fashion.storage.blobs import Store

DAY = 20_000
START = DAY * DAY_US
DAYS = range(DAY, DAY + 3)
EVERYTHING = Window(0, FOREVER_US)
ROWS = 900


@pytest.fixture(scope="module")
def log(sound_package: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PredictionLog]:
    """Three days of rows like the reference's, many of them at equal times, a third with feedback, some by a shadow."""
    rows, random_ = Reference.of(sound_package).predictions, random.Random(0)
    chosen = np.random.default_rng(0).integers(0, len(rows.labels), ROWS)
    records = [
        record(
            time_us=START + random_.randrange(300) * DAY_US // 100,
            model_version="1",
            role="shadow" if number % 50 == 0 else "champion",
            label=int(rows.labels[row]),
            confidence=float(rows.confidences[row]),
            probabilities=tuple(rows.probabilities[row].tolist()),
            statistics=tuple(rows.statistics[row].tolist()),
            embedding=tuple(rows.embeddings[row].tolist()),
            image_sha256=f"{number:064x}",
        )
        for number, row in enumerate(chosen)
    ]
    feedback = [
        Feedback(each.prediction_id, label, "page", each.time_us + 1 + label)
        for each, label in itertools.product(records[::3], (2, 1))
        if each.role == "champion"
    ]
    with PredictionLog(tmp_path_factory.mktemp("log") / "predictions.db") as log:
        log.append(records)
        log.append_feedback(feedback)
        yield log


@pytest.fixture(scope="module")
def stats(sound_package: Package) -> ReferenceStats:
    return ReferenceStats.of(sound_package, Reference.of(sound_package))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "exported"))


def everything(batches: Iterator[Batch]) -> dict[str, tuple[object, ...]]:
    """Id -> all that a batch holds of a row, as bytes."""
    return {
        prediction_id: (
            batch.predictions.labels[row].tobytes(),
            batch.predictions.confidences[row].tobytes(),
            batch.predictions.probabilities[row].tobytes(),
            batch.predictions.statistics[row].tobytes(),
            batch.predictions.embeddings[row].tobytes(),
            int(batch.true_labels[row]),
            int(batch.times_us[row]),
            batch.image_sha256[row],
            None if batch.clients is None else batch.clients[row],
            batch.models[row],
            batch.predictions.embeddings.dtype,
            batch.predictions.statistics.dtype,
        )
        for batch in batches
        for row, prediction_id in enumerate(batch.prediction_ids)
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", *KINDS])
def test_a_bucket_is_read_as_the_log_is(
    kind: str, log: PredictionLog, tmp_path: Path, clouds: Clouds, monkeypatch: pytest.MonkeyPatch, mlflow_home: Home
) -> None:
    address = str(tmp_path) if kind == "folder" else f"{clouds.bucket(kind, monkeypatch)}/predictions"
    export_days(log.window, open_store(address), DAYS, file_rows=100, group_rows=30)
    found, local = windows.open_source(mlflow_home, address), LocalRows(log)
    assert isinstance(found, ExportedRows)
    assert found.address == address
    for window in (EVERYTHING, Window(START + DAY_US // 2, START + 2 * DAY_US), Window(0, FOREVER_US, 333)):
        rows = everything(local.batches(window))
        assert rows
        assert everything(found.batches(window)) == rows
        assert found.span(window) == local.span(window)
    assert found.count_after(Window(0, START + DAY_US)) == local.count_after(Window(0, START + DAY_US)) > 0
    for one, other in zip(found.labelled(), local.labelled(), strict=True):
        assert bits(one.record) == bits(other.record)
        assert one.feedback == other.feedback


@pytest.mark.parametrize("workers", [1, 5])
def test_a_decision_on_an_export_is_that_on_the_log(
    workers: int, log: PredictionLog, store: Store, stats: ReferenceStats
) -> None:
    export_days(log.window, store, DAYS, file_rows=100, group_rows=30)
    settings = load_as(DriftConfig, compose(root="drift")).decision
    results = []
    for source in (LocalRows(log), ExportedRows(Export(store))):
        parts = [
            inspection.count(source.batches(part), lambda version: stats, max_plot_rows=100, max_examples=5)
            for part in divide(EVERYTHING, source.span(EVERYTHING), workers)
        ]
        ((inspected,), _) = inspection.decide(parts, lambda version: stats, settings)
        assert inspected.sample is not None
        results.append((repr(inspected.result), inspected.unusual_rows, everything(iter([inspected.sample]))))
    assert results[0][0] == results[1][0]
    assert repr(results[0][1]) == repr(results[1][1])
    assert results[0][2] == results[1][2]


def test_late_labels_count_the_same_in_any_log_and_in_any_number_of_parts(
    log: PredictionLog, plain_log: PredictionLog, store: Store, stats: ReferenceStats
) -> None:
    """Rows of three days by 20 clients, of which some send a picture again; all labels are of the third day."""
    rows = [each.record for each in log.window(0, FOREVER_US, role="champion")]
    rows = [
        dataclasses.replace(each, client=f"client {number % 20}", image_sha256=f"{number % 700:064x}")
        for number, each in enumerate(rows)
    ]
    plain_log.append(rows)
    given = range(0, len(rows), 2)
    plain_log.append_feedback(
        Feedback(rows[each].prediction_id, each % 10, "page", START + 3 * DAY_US - 1) for each in given
    )
    export_days(plain_log.window, store, DAYS, file_rows=100, group_rows=30)
    settings = load_as(DriftConfig, compose(root="drift")).decision
    window = Window(START + 2 * DAY_US, START + 3 * DAY_US)
    results = set()
    for source, workers in itertools.product((LocalRows(plain_log), ExportedRows(Export(store))), (1, 5)):
        late = late_labels.count(source, window, lambda _: stats)
        parts = [
            inspection.count(source.batches(part), lambda _: stats, max_plot_rows=100, max_examples=5)
            for part in divide(window, source.span(window), workers)
        ]
        ((inspected,), _) = inspection.decide([*reversed(parts), late.part], lambda _: stats, settings)
        feedback = inspected.result.feedback
        assert feedback is not None
        assert 0 < feedback.late < feedback.rows < len(given)
        results.add(repr(inspected.result))
    assert len(results) == 1


def test_extreme_numbers_and_several_models_survive(plain_log: PredictionLog, store: Store) -> None:
    floats, halves = (
        struct.unpack(f"<{len(EDGES[kind])}{kind}", struct.pack(f"<{len(EDGES[kind])}{kind}", *EDGES[kind]))
        for kind in ("f", "e")
    )
    numbers = (*floats, -1.5)
    plain_log.append(
        record(
            time_us=START,
            probabilities=numbers[: 3 + row % 3],
            statistics=numbers,
            embedding=(halves * 3)[:16],
        )
        for row in range(30)
    )
    export_days(plain_log.window, store, DAYS, group_rows=7)
    rows = everything(LocalRows(plain_log).batches(EVERYTHING))
    assert len(rows) == 30
    assert everything(ExportedRows(Export(store)).batches(EVERYTHING)) == rows


def test_only_files_that_a_window_touches_are_read(plain_log: PredictionLog, store: Store) -> None:
    plain_log.append(record(time_us=START + each * 60_000_000) for each in range(100))
    export_days(plain_log.window, store, DAYS, file_rows=20)
    names = sorted(store.list())
    for name in names[1:]:
        store.put(name, b"not read")
    source = ExportedRows(Export(store))
    assert sum(len(batch) for batch in source.batches(Window(START, START + 20 * 60_000_000))) == 20
    with pytest.raises(DamagedLog):
        list(source.batches(Window(START, START + 20 * 60_000_000 + 1)))


def test_files_of_before_rows_named_their_model_are_read(plain_log: PredictionLog, store: Store) -> None:
    row = record(time_us=START)
    plain_log.append([row])
    plain_log.append_feedback([Feedback(row.prediction_id, 1, "page", START)])
    export_days(plain_log.window, store, DAYS)
    name = Part(START, START).name
    store.put(name, _changed(store.get(name), lambda table: table.drop_columns(["model_name", "model_digest"])))
    source = ExportedRows(Export(store))
    (batch,) = source.batches(EVERYTHING)
    assert batch.models == [(None, row.model_version, None)]
    (labelled,) = source.labelled()
    assert labelled.record == dataclasses.replace(row, model_name=None, model_digest=None)


class TestNoExport:
    def test_an_empty_export_is_one_sentence(self, store: Store) -> None:
        source = ExportedRows(Export(store))
        for read in (
            lambda: list(source.batches(EVERYTHING)),
            lambda: list(source.labelled()),
            lambda: source.span(EVERYTHING),
            lambda: source.count_after(Window(0, START)),
        ):
            with pytest.raises(LogUnavailable, match=r"^there is no export in .*: `fashion log export .*` writes it$"):
                read()

    @pytest.mark.fault("damaged file of an export")
    @pytest.mark.parametrize(
        ("damage", "reason"),
        [
            (lambda data: b"no Parquet", "Parquet magic bytes not found"),
            (lambda data: data[: len(data) // 2], "Parquet"),
            (lambda data: _changed(data, lambda table: table.drop_columns("embedding")), "it has no column embedding"),
            (lambda data: _changed(data, lambda table: _without(table, "image_sha256")), "image_sha256 lacks values"),
            (lambda data: _changed(data, lambda table: _without(table, STATISTICS[2])), f"{STATISTICS[2]} lacks"),
            (lambda data: _changed(data, lambda table: _shorter(table)), "other embeddings than this version writes"),
        ],
        ids=["foreign", "cut", "column", "text", "number", "embedding"],
    )
    def test_a_damaged_file_is_named(self, damage: object, reason: str, plain_log: PredictionLog, store: Store) -> None:
        plain_log.append(record(time_us=START + each) for each in range(30))
        export_days(plain_log.window, store, DAYS)
        name = Part(START, START).name
        assert callable(damage)
        store.put(name, damage(store.get(name)))
        with pytest.raises(
            DamagedLog, match=f"/{name} is damaged: .*{reason}.*; delete it and export its day again"
        ) as e:
            list(ExportedRows(Export(store)).batches(EVERYTHING))
        assert "\n" not in str(e.value)


def _changed(data: bytes, change: object) -> bytes:
    assert callable(change)
    sink = io.BytesIO()
    pq.write_table(change(pq.read_table(pa.BufferReader(data))), sink)
    return sink.getvalue()


def _without(table: pa.Table, name: str) -> pa.Table:
    kind = table.schema.field(name).type
    return table.set_column(table.schema.get_field_index(name), name, pa.nulls(len(table), kind))


def _shorter(table: pa.Table) -> pa.Table:
    short = pa.array([[1.0]] * len(table), pa.list_(pa.float32()))
    return table.set_column(table.schema.get_field_index("embedding"), "embedding", short)


def test_rows_that_two_exports_left_in_two_files_count_once_and_the_next_export_removes_them(
    plain_log: PredictionLog, store: Store
) -> None:
    rows = [record(time_us=START + each * 1_000_000) for each in range(40)]
    plain_log.append(rows)
    export_days(plain_log.window, store, DAYS)
    other = open_store(f"{store.address}-other")
    export_days(plain_log.window, other, DAYS, file_rows=20)
    name = max(other.list())
    store.put(name, other.get(name))
    source = ExportedRows(Export(store))
    for _ in range(2):
        ids = [each for batch in source.batches(EVERYTHING) for each in batch.prediction_ids]
        assert sorted(ids) == [row.prediction_id for row in rows]
        export_days(plain_log.window, store, DAYS)
    held = [pq.read_metadata(pa.BufferReader(store.get(each))).num_rows for each in sorted(store.list())]
    assert held == [20, 20]
