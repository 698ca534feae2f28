"""What queries of Firestore read: no more than they return, by indexes that configs/deploy/firestore names."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import firestore, shared_logs
from support.firestore import Reads
from support.gcloud_messages import sdk
from support.log_rows import LATER, MODEL_NAME, outcomes, output_of, python, record
from support.shared_logs import Backend

from fashion.config.compose import compose, load_as
from fashion.config.drift import DriftConfig
from fashion.drift import retraining
from fashion.home import REPOSITORY
from fashion.images import image_store
from fashion.predictions import withdrawal
from fashion.predictions.firestore import FirestoreLog
from fashion.predictions.firestore_decisions import name_of
from fashion.predictions.firestore_decisions import to_document as to_decision_document
from fashion.predictions.firestore_documents import to_document, to_element
from fashion.predictions.labelled import Believed
from fashion.predictions.record import FOREVER_US, Feedback, new_prediction_id
from fashion.predictions.shared_log import Outcome
from fashion.predictions.sources import FeedbackSource, Trust
from fashion.predictions.windows import SharedRows
from fashion.predictions.withdrawal import Decision
from fashion.storage.address import open_store

FOLDER = REPOSITORY / "configs" / "deploy" / "firestore"
UNLABELLED, LABELLED = 100_000, 300


@pytest.fixture
def backend(emulator: str) -> Backend:
    return shared_logs.make("firestore", emulator)


@pytest.fixture
def collection(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The collection of predictions, by Google's own client."""
    from google.cloud.firestore import Client

    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", backend.server)
    return Client(backend.name).collection("predictions")


@pytest.fixture
def log(backend: Backend, collection: Any) -> Iterator[FirestoreLog]:
    with contextlib.closing(FirestoreLog(backend.name)) as log:
        yield log


def test_labelled_rows_are_found_without_reading_the_others(log: FirestoreLog, collection: Any, tmp_path: Path) -> None:
    def write(start: int) -> None:
        batch = collection._client.batch()
        for i in range(start, start + 500):  # times alone: to read one as a prediction would fail
            batch.set(collection.document(f"unlabelled-{i}"), {"time": i, "role": "champion"})
        batch.commit()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(0, UNLABELLED, 500)))
    labelled = [record(time_us=i) for i in range(LABELLED)]
    assert set(outcomes(log, *labelled)) == {Outcome.SHIPPED}
    given = [Feedback(row.prediction_id, 1, "page", 5) for row in labelled]
    assert set(outcomes(log, *given)) == {Outcome.SHIPPED}

    with firestore.counted() as reads:
        assert [each.record for each in log.labelled()] == labelled[::-1]
    assert reads.documents == LABELLED
    assert len(reads.queries) == 2  # of rows, and of decisions on feedback

    store = open_store(str(tmp_path))
    image_store.put(store, np.zeros((28, 28), np.uint8), labelled[0].image_sha256)  # all rows are of one picture
    settings = load_as(DriftConfig, compose(["retrain.enabled=true", "retrain.min_new_labels=250"], root="drift"))
    with firestore.counted() as reads:
        decision = retraining.decide(
            ["harmful"],
            SharedRows(log).labelled(),
            settings.retrain,
            store,
            model_name=MODEL_NAME,
            believed=Believed(Trust((FeedbackSource(["page"], reviewed=30),))),
            images=store,
        )
        assert decision.train, decision.reason
    assert reads.documents == LABELLED


def test_decisions_are_read_once_and_then_those_that_are_new(
    log: FirestoreLog, collection: Any, backend: Backend
) -> None:
    row, decided = record(), collection._client.collection("predictions-decisions")
    outcomes(log, row)
    outcomes(log, Feedback(row.prediction_id, 1, "page", 5))
    old = [withdrawal.skip(new_prediction_id(), who="ann", now_us=number) for number in range(300)]
    batch = collection._client.batch()
    for number, each in enumerate(old):
        batch.set(decided.document(name_of(1_700_000_000_000_000_000, number)), to_decision_document(each))
    batch.commit()
    with firestore.counted() as reads:
        assert list(log.decisions()) == old
    assert reads.documents == 300

    discard = Decision("discard", "page", None, 0, FOREVER_US, 6, "ann", "a liar")
    with contextlib.closing(FirestoreLog(backend.name)) as elsewhere:
        elsewhere.decide([discard])
    with firestore.counted() as reads:
        assert log.get(row.prediction_id).feedback == ()
        assert list(log.decisions()) == [*old, discard]
        assert list(log.labelled()) == []
    assert reads.documents == 3 + 1  # the last five minutes' decisions, three times, and a row

    log.forget(old[0].prediction_id or "")
    assert list(log.decisions()) == [*old[1:], discard]


def test_feedback_of_older_versions_is_marked_by_a_command(
    log: FirestoreLog, collection: Any, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, unlabelled = record(time_us=1), record(time_us=2), record(time_us=3)
    said = Feedback(old.prediction_id, 1, "page", 5)
    collection.document(old.prediction_id).set(to_document(old) | {"feedback": [to_element(said)]})
    outcomes(log, new, unlabelled)
    outcomes(log, Feedback(new.prediction_id, 1, "page", 5))
    assert [each.record for each in log.labelled()] == [new]
    for name, value in backend.environment().items():
        monkeypatch.setenv(name, value)
    command = "import sys; from fashion.commands.main import main; sys.exit(main(['log', 'mark-labelled']))"
    assert output_of(python(command)) == "3 documents read, 1 marked as labelled\n"
    assert [each.record for each in log.labelled()] == [new, old]
    assert output_of(python(command)) == "3 documents read, 0 marked as labelled\n"


# Indexes as files


@pytest.fixture(scope="module")
def indexes() -> Any:
    return json.loads((FOLDER / "firestore.indexes.json").read_text())


@pytest.fixture
def queries(log: FirestoreLog) -> list[Any]:
    """One of each kind that the code sends."""
    row = record()
    outcomes(log, row)
    outcomes(log, Feedback(row.prediction_id, 1, "page", 1))
    with firestore.counted() as reads:
        for read in (log.read_window(0, LATER), log.read_window(0, 5), log.latest(1), log.labelled()):
            list(read)
        log.count_after(5, most=10)
        log.mark_labelled()
        assert log.has_picture(row.image_sha256)
        assert not log.has_picture(row.image_sha256, besides=row.prediction_id)
    assert reads.documents > 0
    return _distinct(reads)


def _distinct(reads: Reads) -> list[Any]:
    return list({str(query): query for query in reads.queries}.values())


def index_of(query: Any) -> list[tuple[str, str]]:
    """The fields of the index that a query needs, in order: equalities, then its order; its name is in each index.

    Empty for a query of a whole collection.
    """
    every = [each.field_filter for each in query.where.composite_filter.filters] or [query.where.field_filter]
    filters = [each for each in every if each.field.field_path]
    equal = [(each.field.field_path, "ASCENDING") for each in filters if each.op.name == "EQUAL"]
    ordered = [(each.field.field_path, each.direction.name) for each in query.order_by]
    return [*equal, *(each for each in ordered if each[0] != "__name__")]


def test_each_query_has_its_index(queries: list[Any], indexes: Any) -> None:
    composite = [
        [(part["fieldPath"], part["order"]) for part in each["fields"]]
        for each in indexes["indexes"]
        if (each["collectionGroup"], each["queryScope"]) == ("predictions", "COLLECTION")
    ]
    exempt = {each["fieldPath"] for each in indexes["fieldOverrides"] if not each["indexes"]}
    needed = [index for query in queries if (index := index_of(query))]
    assert len(needed) >= 4
    for index in needed:
        assert index in composite if len(index) > 1 else index[0][0] not in exempt, index
    assert all(index in needed for index in composite)  # and none that no query needs


def test_every_field_that_no_query_uses_is_exempt(queries: list[Any], indexes: Any, collection: Any) -> None:
    (document,) = (each.to_dict() for each in collection.stream())
    fields = {*document, *to_document(record(), expire_days=1)}
    ordered = {index[0][0] for index in map(index_of, queries) if len(index) == 1}
    exempt = {each["fieldPath"] for each in indexes["fieldOverrides"] if each["indexes"] == []}
    assert exempt == fields - ordered
    assert ordered == {"time", "image_sha256"}
    assert [each["fieldPath"] for each in indexes["fieldOverrides"] if each.get("ttl")] == ["expire_at"]


CHECK = """
import json, sys
sys.path[:0] = [f"{sys.argv[1]}/lib", f"{sys.argv[1]}/lib/third_party"]
from apitools.base.py import encoding
from googlecloudsdk.generated_clients.apis.firestore.v1 import firestore_v1_messages as messages
content = json.load(open(sys.argv[2]))
def check(kind, value):
    found = encoding.DictToMessage(value, kind)
    assert encoding.MessageToDict(found) == value, (kind.__name__, value)
for index in content["indexes"]:
    check(messages.GoogleFirestoreAdminV1Index, {k: v for k, v in index.items() if k != "collectionGroup"})
for field in content["fieldOverrides"]:
    indexes = [{"fields": [{"fieldPath": field["fieldPath"], "order": each["order"]}]} for each in field["indexes"]]
    check(messages.GoogleFirestoreAdminV1Field, {"indexConfig": {"indexes": indexes}} if indexes else {"name": "f"})
    assert set(field) <= {"collectionGroup", "fieldPath", "indexes", "ttl"}, field
print(len(content["indexes"]), len(content["fieldOverrides"]))
"""


@pytest.mark.slow
def test_the_file_is_what_the_admin_api_takes(indexes: Any) -> None:
    folder = Path(sdk())
    python = folder / "platform" / "bundledpythonunix" / "bin" / "python3"
    command = [
        str(python if python.exists() else "python3"),
        "-c",
        CHECK,
        str(folder),
        str(FOLDER / "firestore.indexes.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(len(indexes["indexes"])), str(len(indexes["fieldOverrides"]))]


def test_rules_deny_all_clients() -> None:
    lines = [line.strip() for line in (FOLDER / "firestore.rules").read_text().splitlines()]
    assert [line for line in lines if line.startswith("allow")] == ["allow read, write: if false;"]
    assert json.loads((FOLDER / "firebase.json").read_text())["firestore"] == {
        "rules": "firestore.rules",
        "indexes": "firestore.indexes.json",
    }
