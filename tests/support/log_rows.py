"""Rows for logs: plausible records, any records, and processes that write them."""

import contextlib
import dataclasses
import os
import sqlite3
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from fashion.home import REPOSITORY
from fashion.images.statistics import STATISTICS
from fashion.predictions.log import PredictionLog
from fashion.predictions.outbox import Outgoing
from fashion.predictions.record import (
    REVIEW,
    Feedback,
    LoggedPrediction,
    PredictionRecord,
    new_prediction_id,
)
from fashion.predictions.shared_log import Outcome, SharedLog

DAY_US = 86_400_000_000


LATER = 2**62


MODEL_NAME = "fashion-classifier"
"""Of rows that no test gives another."""
DIGEST = "0123456789abcdef" * 4
"""Of the package that made them."""


def review(path: Path, rows: int) -> None:
    """Review the latest predictions that have feedback, as somebody who agrees with it.

    Args:
        path: of the log.
        rows: how many.
    """
    with PredictionLog(path) as log:
        said = [row.judgement for row in log.latest(rows, role="champion", with_feedback=True)]
        now_us = time.time_ns() // 1000
        log.append_feedback(Feedback(each.prediction_id, each.true_label, REVIEW, now_us) for each in said if each)


EDGES = {
    "f": (0.0, -0.0, 1.0, 2.0**-149, -(2.0**-126), 1 / 3 + 2.0**-26, 3.3e38),
    "e": (0.0, -0.0, 1.0, 2.0**-24, -(2.0**-14), 65504.0),
}


tags = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


def record(**changed: Any) -> PredictionRecord:
    """A plausible record of now."""
    given = {
        "prediction_id": new_prediction_id(),
        "time_us": time.time_ns() // 1000,
        "model_version": "3",
        "model_name": MODEL_NAME,
        "model_digest": DIGEST[:16],
        "role": "champion",
        "label": 1,
        "confidence": 0.75,
        "probabilities": (0.25, 0.75),
        "statistics": (0.5,) * len(STATISTICS),
        "embedding": (1.5,) * 16,
        "image_sha256": "0123456789abcdef" * 4,
        "latency_ms": 2.5,
    }
    return PredictionRecord(**(given | changed))


def vectors(kind: str, length: int) -> st.SearchStrategy[tuple[float, ...]]:
    """Any finite float32 ('f') or float16 ('e') numbers."""
    size = struct.calcsize(kind) * length
    edges = st.lists(st.sampled_from(EDGES[kind]), min_size=length, max_size=length)
    wild = st.binary(min_size=size, max_size=size).map(lambda data: struct.unpack(f"<{length}{kind}", data))
    rounded = edges.map(lambda numbers: struct.unpack(f"<{length}{kind}", struct.pack(f"<{length}{kind}", *numbers)))
    return (wild | rounded).map(lambda numbers: tuple(n if abs(n) < 3.4e38 else -0.0 for n in numbers))


def records() -> st.SearchStrategy[PredictionRecord]:
    """Any records whose numbers are float32 and float16."""
    return st.builds(
        PredictionRecord,
        prediction_id=st.builds(new_prediction_id),
        time_us=st.integers(0, 253_402_300_799_999_999),
        model_version=tags,
        role=st.sampled_from(["champion", "shadow"]),
        label=st.integers(0, 9),
        confidence=st.floats(0, 1, width=32),
        probabilities=vectors("f", 10),
        statistics=vectors("f", len(STATISTICS)),
        embedding=vectors("e", 16),
        image_sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
        latency_ms=st.floats(0, 1e9),
        client=st.none() | tags,
        model_name=st.none() | tags,
        model_digest=st.none() | st.binary(min_size=8, max_size=32).map(bytes.hex),
    )


def bits(record: PredictionRecord) -> list[Any]:
    """A record to compare bit for bit: 0.0 differs from -0.0."""
    numbers = (record.confidence, record.latency_ms, *record.probabilities, *record.statistics, *record.embedding)
    return [dataclasses.astuple(record), struct.pack(f"<{len(numbers)}d", *numbers)]


def outgoing(log: PredictionLog) -> list[PredictionRecord | Feedback]:
    """Everything that waits in the outbox."""
    return [row.item for row in log.outbox.due(1_000_000, LATER)]


def ship(log: PredictionLog) -> None:
    """Mark everything that waits as shipped."""
    log.outbox.settle([row.sequence for row in log.outbox.due(1_000_000, LATER)])


def python(script: str, *arguments: object, before: Sequence[str] = (), **options: Any) -> subprocess.Popen[str]:
    """Start a script in a process of its own."""
    return subprocess.Popen(
        [*before, sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def output_of(process: subprocess.Popen[str]) -> str:
    """Wait for a process, assert that it succeeded, and return what it printed."""
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return output


@contextlib.contextmanager
def locked(log: PredictionLog) -> Iterator[None]:
    """Hold the file's write lock while the block runs."""
    with contextlib.closing(sqlite3.connect(log.path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def mixed(requests: list[tuple[int, str, str]]) -> list[PredictionRecord]:
    """Records of requests, given as (time_us, model_name, roles joined with `+`)."""
    rows = []
    for time_us, model_name, roles in requests:
        one = record(time_us=time_us, model_name=model_name)
        rows += [dataclasses.replace(one, role=role) for role in roles.split("+")]
    return rows


requests = st.tuples(
    st.integers(0, 5), st.sampled_from(["1", "2"]), st.sampled_from(["champion", "shadow", "champion+shadow"])
)


def at(time_us: int) -> Callable[[], int]:
    """A clock that is one day after `time_us`."""
    return lambda: (time_us + DAY_US) * 1000


def rows(*items: PredictionRecord | Feedback) -> list[Outgoing]:
    """Items as rows of the outbox."""
    return [Outgoing(i, 0, item) for i, item in enumerate(items)]


def outcomes(remote: SharedLog, *items: PredictionRecord | Feedback) -> list[Outcome]:
    """Send items and return their outcomes, in the same order."""
    deliveries = sorted(remote.send(rows(*items)), key=lambda each: each.row.sequence)
    assert [each.row.item for each in deliveries] == list(items)
    return [each.outcome for each in deliveries]


def stored(remote: SharedLog) -> list[LoggedPrediction]:
    """Every prediction that is stored."""
    return list(remote.read_window(0, LATER, page_rows=1000))


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
