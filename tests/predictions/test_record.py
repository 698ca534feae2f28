"""Ids and records: unique, ordered, checked, and stored bit for bit."""

import functools
import itertools
import os
import re
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.log_rows import (
    bits,
    outgoing,
    output_of,
    python,
    record,
    records,
)

from fashion.images.statistics import STATISTICS
from fashion.predictions.export import export_parquet
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import (
    Feedback,
    PredictionRecord,
    is_prediction_id,
    new_prediction_id,
)

# Ids


@pytest.fixture
def first_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no id was given yet, whatever clocks other tests have seen."""
    monkeypatch.setattr("fashion.predictions.record._last_id", 0)


@pytest.mark.usefixtures("first_id")
def test_an_id_is_a_uuid7_of_the_clocks_millisecond() -> None:
    made = uuid.UUID(new_prediction_id(clock=lambda: 1_234_567_890_123_999_999))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == 1_234_567_890_123
    assert is_prediction_id(str(made))


@given(clock=st.lists(st.integers(0, 2**61) | st.just(10**18), min_size=2), byte=st.sampled_from([0, 0x5A, 0xFF, None]))
def test_ids_increase_whatever_the_clock_does(clock: list[int], byte: int | None) -> None:
    def random_bytes(count: int) -> bytes:
        return os.urandom(count) if byte is None else bytes([byte]) * count

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fashion.predictions.record._last_id", 0)
        ids = [new_prediction_id(functools.partial(int, now), random_bytes) for now in clock]
    assert ids == sorted(set(ids))
    for each in ids:
        assert is_prediction_id(each)
        assert uuid.UUID(each).version == 7


def test_ids_of_threads_differ_and_increase_in_each() -> None:
    with ThreadPoolExecutor(8) as pool:
        by_thread = list(pool.map(lambda _: [new_prediction_id() for _ in range(500)], range(8)))
    assert all(ids == sorted(ids) for ids in by_thread)
    assert len(set().union(*by_thread)) == 4000


def test_ids_of_processes_differ() -> None:
    script = """
        from fashion.predictions.record import new_prediction_id
        print(*(new_prediction_id(lambda: 10**18) for _ in range(500)))
    """
    processes = [python(script) for _ in range(2)]
    assert len(set().union(*(output_of(process).split() for process in processes))) == 1000


@pytest.mark.usefixtures("first_id")
def test_an_id_cannot_be_guessed_from_the_one_before() -> None:
    ids = [uuid.UUID(new_prediction_id(clock=lambda: 10**18)).int for _ in range(200)]
    steps = {after - before for before, after in itertools.pairwise(ids)}
    assert len(steps) == 199


# Records


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"prediction_id": str(uuid.uuid4())}, "prediction_id must be a uuid7 in lower case, got '"),
        ({"prediction_id": new_prediction_id().upper()}, "prediction_id must be a uuid7 in lower case, got '"),
        ({"prediction_id": new_prediction_id() + "\n"}, "prediction_id must be a uuid7 in lower case, got '"),
        ({"time_us": -1}, "time_us must be microseconds since 1970, got -1"),
        ({"time_us": 10**18}, "time_us must be microseconds since 1970, got 1000000000000000000"),
        ({"model_version": ""}, "model_version must be 1 to 200 bytes long, got ''"),
        ({"model_name": ""}, "model_name must be 1 to 200 bytes long, got ''"),
        ({"model_digest": "abc"}, "model_digest must be 16 to 64 hexadecimal digits, got 'abc'"),
        ({"role": "challenger"}, "role must be one of ('champion', 'shadow'), got 'challenger'"),
        ({"label": 2}, "label must be one of 2 classes, got 2"),
        ({"label": -1}, "label must be one of 2 classes, got -1"),
        ({"confidence": float("nan")}, "confidence must be finite and less than 3.4e+38, got nan"),
        ({"latency_ms": float("inf")}, "latency_ms must be finite and less than 3.4e+38, got inf"),
        ({"probabilities": (0.0, 1e39)}, "probabilities must be finite and less than 3.4e+38, got 1e+39"),
        ({"statistics": (0.5,)}, "statistics must be 8 numbers, got 1"),
        ({"statistics": (float("nan"),) * 8}, "statistics must be finite and less than 3.4e+38, got nan"),
        ({"embedding": (0.0, -65520.0)}, "embedding must be finite and less than 65520, got -65520.0"),
        ({"image_sha256": "F" * 64}, "image_sha256 must be 64 hexadecimal digits, got 'FFF"),
        ({"client": "ö" * 101}, "client must be 1 to 200 bytes long, got 'ööö"),
        ({"client": "\ud800"}, "surrogates not allowed"),
    ],
)
def test_an_invalid_record_is_rejected_with_its_value(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        record(**changed)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"true_label": -1}, "true_label must be a class, got -1"),
        ({"true_label": 2**40}, "true_label must be a class, got 1099511627776"),
        ({"source": "x" * 201}, "source must be 1 to 200 bytes long, got 'xxx"),
        ({"time_us": -5}, "time_us must be microseconds since 1970, got -5"),
    ],
)
def test_invalid_feedback_is_rejected_with_its_value(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Feedback(**({"prediction_id": new_prediction_id(), "true_label": 1, "source": "page", "time_us": 1} | changed))


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(records(), max_size=5))
def test_records_come_back_bit_for_bit_from_the_file_and_from_parquet(rows: list[PredictionRecord]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with PredictionLog(Path(folder, "log.db")) as log:
            log.outbox.ship_to("firestore://p")
            log.append(rows)
        with PredictionLog(Path(folder, "log.db")) as log:
            found = [log.get(row.prediction_id, row.role).record for row in rows]
            assert list(map(bits, found)) == list(map(bits, rows))
            assert list(map(bits, outgoing(log))) == list(map(bits, rows))
            assert export_parquet(log, Path(folder, "log.parquet")) == len(rows)
        table = pq.read_table(Path(folder, "log.parquet"))
    exported = {row["prediction_id"]: row for row in table.to_pylist()}
    times = dict(zip(table["prediction_id"].to_pylist(), table["time"].cast("int64").to_pylist(), strict=True))
    for row in rows:
        its = exported[row.prediction_id]
        again = PredictionRecord(
            prediction_id=its["prediction_id"],
            time_us=times[row.prediction_id],
            label=its["predicted"],
            probabilities=tuple(its["probabilities"]),
            statistics=tuple(its[name] for name in STATISTICS),
            embedding=tuple(map(float, its["embedding"])),
            **{name: its[name] for name in ("model_name", "model_version", "model_digest", "role", "confidence")},
            **{name: its[name] for name in ("latency_ms", "client")},
            image_sha256=its["image_sha256"],
        )
        assert bits(again) == bits(row)


def test_numbers_are_rounded_once(log: PredictionLog) -> None:
    rough = record(probabilities=(0.1, 0.9), embedding=(0.1, 65519.9), label=np.int64(1), latency_ms=np.float32(1.1))
    log.append([rough])
    kept = log.get(rough.prediction_id).record
    assert kept.probabilities == (float(np.float32(0.1)), float(np.float32(0.9)))
    assert kept.embedding == (float(np.float16(0.1)), 65504.0)
    log.append([rough])  # the same, and no other record of this id
    log.append([kept])
    assert log.count() == 1
