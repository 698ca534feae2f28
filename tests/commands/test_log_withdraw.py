"""`fashion log discard` and `restore`: what counts no more, and counts again; nothing is lost."""

import contextlib
from pathlib import Path

import pytest
from support import shared_logs
from support.log_rows import outcomes, record
from support.shared_logs import SERVERS

from fashion.commands.main import main
from fashion.predictions import review_checks
from fashion.predictions.batch import from_rows
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import FOREVER_US, REVIEW, UNLABELLED, Feedback, PredictionRecord, new_prediction_id
from fashion.predictions.shipper import Shipper
from fashion.predictions.withdrawal import Decision


@pytest.fixture
def rows() -> list[PredictionRecord]:
    return [record() for _ in range(6)]


@pytest.fixture
def log(rows: list[PredictionRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PredictionLog:
    """A log of six predictions, all labelled: four by mallory, two by ann."""
    monkeypatch.setenv("FASHION_HOME", str(tmp_path))
    monkeypatch.delenv("FASHION_LOG", raising=False)
    log = PredictionLog(tmp_path / "predictions.db")
    log.append(rows)
    log.append_feedback(
        Feedback(each.prediction_id, 1, "mallory" if number < 4 else "ann", each.time_us)
        for number, each in enumerate(rows)
    )
    return log


def counted(log: PredictionLog) -> int:
    """Rows whose label counts, by each way of reading them."""
    by_row = len(list(log.latest(100, with_feedback=True)))
    pages = [batch for page in log.row_pages(0, FOREVER_US, role="champion") for batch in from_rows(page)]
    assert sum(int((batch.true_labels != UNLABELLED).sum()) for batch in pages) == by_row
    assert sum(row.true_label is not None for row in log.window(0, FOREVER_US)) == by_row
    return by_row


def test_discarded_feedback_counts_no_more_and_restored_feedback_again(
    log: PredictionLog, rows: list[PredictionRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["log", "discard", "--source", "mallory", "--dry-run"]) == 0
    assert capsys.readouterr().out == "would be discarded: 4 labels (mallory 4)\n"
    assert counted(log) == 6
    assert main(["log", "discard", "--source", "mallory", "--reason", "lies"]) == 0
    assert capsys.readouterr().out == "discarded: 4 labels (mallory 4)\n"
    assert counted(log) == 2
    log.append_feedback([Feedback(rows[0].prediction_id, 2, "mallory", rows[0].time_us + 5)])
    assert counted(log) == 2  # what the source says later does not count either
    assert main(["log", "status"]) == 0
    said = capsys.readouterr().out
    assert "feedback of ann: 2 counted\n" in said
    assert "feedback of mallory: 5 discarded (" in said
    assert ": lies)" in said
    assert main(["log", "restore", "--id", rows[0].prediction_id]) == 0
    assert capsys.readouterr().out == "restored: 2 labels (mallory 2)\n"
    assert counted(log) == 3
    assert main(["log", "restore", "--source", "mallory"]) == 0
    assert capsys.readouterr().out == "restored: 3 labels (mallory 3); 2 were so before\n"
    assert counted(log) == 6
    assert len(list(log.decisions())) == 3


def test_feedback_is_discarded_by_time(log: PredictionLog, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", "discard", "--until", "2020-01-01"]) == 0
    assert counted(log) == 6
    assert main(["log", "discard", "--since", "2020-01-01"]) == 0
    assert counted(log) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "name feedback by --source, --id, --since or --until: this would be all of it"),
        (["--id", "boot"], "--id takes the prediction_id of an answer, got 'boot'"),
        (["--since", "2026-02-01", "--until", "2026-01-01"], "--since must be before --until"),
        (["--since", "yesterday"], "yesterday"),
    ],
)
def test_what_cannot_be_discarded_is_one_sentence(
    options: list[str], said: str, log: PredictionLog, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["log", "discard", *options]) == 1
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
    assert counted(log) == 6


def test_only_trusted_tables_hold_reviews(
    log: PredictionLog, rows: list[PredictionRecord], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(f"prediction_id,true_label,source\n{rows[0].prediction_id},3,review\n")
    command = ["log", "feedback", str(table), "--classes", ",".join(map(str, range(len(rows[0].probabilities))))]
    command[-1] = ",".join(f"c{number}" for number in range(len(rows[0].probabilities)))
    table.write_text(f"prediction_id,true_label,source\n{rows[0].prediction_id},c0,review\n")
    assert main(command) == 1
    assert "source review is reserved: --reviewed says" in capsys.readouterr().err
    assert log.get(rows[0].prediction_id).true_label == 1
    assert main([*command, "--reviewed"]) == 0
    assert log.get(rows[0].prediction_id).true_label == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", SERVERS)
def test_decisions_hold_in_the_shared_log_too(
    kind: str,
    log: PredictionLog,
    rows: list[PredictionRecord],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = shared_logs.make(kind, request.getfixturevalue(SERVERS[kind]))
    for name, value in backend.environment().items():
        monkeypatch.setenv(name, value)
    with contextlib.closing(backend.connect()) as remote:
        assert list(remote.labelled()) == []
        log.outbox.ship_to(remote.address)
        assert Shipper(log, remote).drain(30).rows == 0
        assert len(list(remote.labelled())) == 6
        assert main(["log", "discard", "--source", "mallory"]) == 0
        for reading in (remote.labelled(), (row for row in remote.latest(10) if row.feedback)):
            assert {row.feedback[0].source for row in reading} == {"ann"}
        assert len(list(remote.labelled(withdrawn=True))) == 6
        assert remote.get(rows[0].prediction_id).feedback == ()
        assert counted(log) == 2
        assert main(["log", "restore", "--id", rows[0].prediction_id]) == 0
        assert {row.record.prediction_id for row in remote.labelled()} == {
            each.prediction_id for each in (rows[0], *rows[4:])
        }
        decisions = list(remote.decisions())
        assert [each.action for each in decisions] == ["discard", "restore"]
        outcomes(remote, Feedback(rows[1].prediction_id, 2, "mallory", rows[1].time_us + 9))
        assert remote.get(rows[1].prediction_id).feedback == ()


def test_a_decision_about_everything_or_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="this would be all of it"):
        Decision("discard", None, None, 0, FOREVER_US, 1, "ann", "")
    with pytest.raises(ValueError, match="the time must end after it begins, got 5 to 5"):
        Decision("discard", None, None, 5, 5, 1, "ann", "")
    with pytest.raises(ValueError, match="action must be one of discard, quarantine, restore, release, got 'burn'"):
        Decision("burn", "ann", None, 0, FOREVER_US, 1, "ann", "")  # type: ignore[arg-type]


def test_status_says_how_often_sources_agree(
    log: PredictionLog, rows: list[PredictionRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    first = rows[0]
    log.append_feedback(
        Feedback(first.prediction_id, label, source, first.time_us + 5)
        for source, label in (("bob", 2), ("eve", 2), ("max", 3))
    )
    assert main(["log", "status"]) == 0
    assert "feedback of max: 1 counted; says the same as 0 of 3 labels of other sources\n" in capsys.readouterr().out


def test_status_says_how_many_known_pictures_reviews_are_right_about(
    log: PredictionLog, rows: list[PredictionRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    log.append_feedback([Feedback(rows[0].prediction_id, 2, REVIEW, rows[0].time_us + 5)])
    for number, said in enumerate((8, 8, 3)):
        log.decide([review_checks.decision(new_prediction_id(), known=8, said=said, who="ann", now_us=number + 1)])
    assert main(["log", "status"]) == 0
    assert "feedback of review: 1 counted; right about 2 of 3 known pictures\n" in capsys.readouterr().out
