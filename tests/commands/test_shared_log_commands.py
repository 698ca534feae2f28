"""`fashion log` where machines share a log: feedback on other machines' predictions, and what is said without one."""

import contextlib
from pathlib import Path

import pytest
from support import shared_logs
from support.log_rows import outcomes, record
from support.shared_logs import SERVERS

from fashion.commands.main import main
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import new_prediction_id
from fashion.predictions.shipper import Shipper


@pytest.mark.slow
@pytest.mark.parametrize("kind", SERVERS)
def test_a_table_of_feedback_may_name_predictions_of_other_machines(
    kind: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    backend = shared_logs.make(kind, request.getfixturevalue(SERVERS[kind]))
    for name, value in {**backend.environment(), "FASHION_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    here, elsewhere, nowhere = record(), record(), new_prediction_id()
    table = tmp_path / "labels.csv"
    ids = (here.prediction_id, elsewhere.prediction_id, nowhere)
    table.write_text("\n".join(["prediction_id,true_label", *(f"{each},1" for each in ids)]))
    with PredictionLog(tmp_path / "predictions.db") as log, contextlib.closing(backend.connect()) as remote:
        list(remote.labelled())  # a first connection may take longer than a request
        log.append([here])
        outcomes(remote, elsewhere)
        assert main(["log", "feedback", str(table), "--classes", "top,boot"]) == 1
        printed = capsys.readouterr()
        assert printed.out == "2 rows stored, 1 rejected\n"
        assert printed.err == f"line 4: no prediction {nowhere} at {remote.address}\n"
        assert Shipper(log, remote).drain(30).rows == 0
        assert {each.record: each.true_label for each in remote.labelled()} == {here: 1, elsewhere: 1}


def test_commands_say_what_a_shared_log_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path))
    for named, said in (
        (None, "FASHION_LOG names no shared log: set it to firestore://project[/database] or postgresql://"),
        ("postgresql://u:se@same@h/d", "FASHION_LOG must be postgresql://user:password@host[:port]/database with"),
        ("postgresql://u:sesame@h/d", "postgresql://h/d marks labelled rows by itself: there is nothing to do"),
    ):
        monkeypatch.delenv("FASHION_LOG", raising=False)
        if named:
            monkeypatch.setenv("FASHION_LOG", named)
        assert main(["log", "mark-labelled"]) == 1
        printed = capsys.readouterr().err
        assert printed.startswith(f"error: {said}")
        assert printed.count("\n") == 1
        assert "same" not in printed
