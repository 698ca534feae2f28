"""What is Firestore's own: documents that expire, are too large or damaged, and Google's libraries and credentials."""

import contextlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support import shared_logs
from support.log_rows import outcomes, output_of, python, record, rows, stored
from support.shared_logs import TOO_LARGE, Backend

from fashion.predictions.firestore import FirestoreLog
from fashion.predictions.record import DamagedLog, Feedback
from fashion.predictions.shared_log import Outcome, SharedLog
from fashion.predictions.withdrawal import Decisions


@pytest.fixture
def backend(emulator: str) -> Backend:
    return shared_logs.make("firestore", emulator)


@pytest.fixture
def project(backend: Backend) -> str:
    return backend.name


def test_documents_expire_after_the_configured_days(emulator: str, remote: SharedLog, project: str) -> None:
    from google.cloud.firestore import Client

    keeps = contextlib.closing(FirestoreLog(project, expire_days=1.5, collection="brief"))
    row = record(time_us=1_000_000)
    with keeps as brief:
        outcomes(brief, row)
        assert brief.get(row.prediction_id).record == row
    document = Client(project).collection("brief").document(row.prediction_id).get().to_dict()
    assert document["expire_at"].timestamp() == 1 + 1.5 * 86_400


def test_a_document_that_is_too_large_is_refused_and_the_others_are_stored(remote: SharedLog) -> None:
    good = [record(time_us=i) for i in range(9)]
    large, huge = record(embedding=TOO_LARGE), record(embedding=10 * TOO_LARGE)  # more than a request may have
    odd = Feedback("a/b", 1, "page", 1)
    sent = [*good[:3], large, *good[3:6], odd, huge, *good[6:]]
    found = dict(zip(sent, outcomes(remote, *sent), strict=True))
    assert [found[row] for row in good] == [Outcome.SHIPPED] * 9
    assert [found[item] for item in (large, huge, odd)] == [Outcome.REFUSED] * 3
    assert [each.record for each in stored(remote)] == good
    reasons = {answer.row.item: answer.reason for answer in remote.send(rows(large, odd))}
    assert "longer than 1048487 bytes" in reasons[large]
    assert "cannot be a document" in reasons[odd]


def test_decisions_take_no_longer_than_the_reading_that_needs_them(remote: SharedLog, project: str) -> None:
    limits: list[float | None] = []

    class Noting(FirestoreLog):
        def decisions(self, *, timeout_s: float | None = None) -> Decisions:
            limits.append(timeout_s)
            return super().decisions(timeout_s=timeout_s)

    row = record()
    said = Feedback(row.prediction_id, 1, "page", 1)
    outcomes(remote, row)
    outcomes(remote, said)
    with contextlib.closing(Noting(project)) as log:
        assert log.get(row.prediction_id, timeout_s=2.0).feedback == (said,)
        assert [each.feedback for each in log.latest(1, timeout_s=3.0)] == [(said,)]
        assert [each.feedback for each in log.labelled()] == [(said,)]
    first, *others = limits
    assert first is not None
    assert 0 < first <= 2
    assert others == [3.0, None]


@pytest.mark.fault("foreign document in Firestore")
@pytest.mark.parametrize(
    "changed",
    [{"label": "1"}, {"embedding": b"odd"}, {"embedding": None}, {"statistics": {}}, {"feedback": 3}, {"role": ""}],
)
def test_a_document_that_is_not_a_prediction_is_named(changed: dict[str, Any], remote: SharedLog, project: str) -> None:
    from google.cloud.firestore import Client

    row = record()
    outcomes(remote, row)
    Client(project).collection("predictions").document(row.prediction_id).update(changed)
    for read in (lambda: remote.get(row.prediction_id), lambda: stored(remote)):
        with pytest.raises(DamagedLog, match=f"document {row.prediction_id} is not a prediction: .* correct or delete"):
            read()


def without_google(script: str, home: Path) -> subprocess.Popen[str]:
    away = ("FIRESTORE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT", "GOOGLE_APPLICATION_CREDENTIALS")
    with pytest.MonkeyPatch.context() as patch:
        for name in away:
            patch.delenv(name, raising=False)
        for name, value in {"HOME": str(home), "CLOUDSDK_CONFIG": str(home), "NO_GCE_CHECK": "true"}.items():
            patch.setenv(name, value)
        return python(script)


def test_missing_credentials_name_the_remedy(tmp_path: Path) -> None:
    script = """
        from fashion.predictions.firestore import FirestoreLog
        from fashion.predictions.shared_log import SharedLogUnavailable
        try:
            FirestoreLog("nobodys").get("01a210f9-adec-7a93-8180-2b2d71881f13")
        except SharedLogUnavailable as error:
            print(error)
    """
    output = output_of(without_google(script, tmp_path))
    assert "firestore://nobodys/(default)/predictions cannot be used without Google credentials" in output
    assert "gcloud auth application-default login" in output


def test_a_missing_package_names_the_extra(tmp_path: Path) -> None:
    script = """
        import sys
        sys.modules["google.cloud"] = sys.modules["google.cloud.firestore"] = None
        from fashion.predictions.firestore import FirestoreLog
        from fashion.predictions.shared_log import SharedLogUnavailable
        try:
            FirestoreLog("p")
        except SharedLogUnavailable as error:
            print(error)
    """
    assert "install the extra `fashion[gcp]`" in output_of(without_google(script, tmp_path))


def test_google_libraries_are_imported_on_first_use(tmp_path: Path) -> None:
    script = """
        import sys
        from fashion.predictions.firestore import FirestoreLog
        FirestoreLog("p").close()
        print([name for name in ("grpc", "google.cloud.firestore", "google.api_core") if name in sys.modules])
    """
    assert output_of(without_google(script, tmp_path)) == "[]\n"
