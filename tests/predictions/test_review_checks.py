"""Pictures of a known class check who reviews: a liar loses the last word, who errs seldom does not."""

from pathlib import Path

import numpy as np
from support.log_rows import record

from fashion.drift import belief
from fashion.predictions import review_checks, sources
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import FOREVER_US, REVIEW, Feedback, new_prediction_id
from fashion.predictions.sources import FeedbackSource, Trust
from fashion.predictions.windows import LocalRows
from fashion.predictions.withdrawal import Decision


def review_known(log: PredictionLog, wrong: int, total: int, *, since_us: int = 1) -> None:
    for number in range(total):
        said = 3 if number < wrong else 8
        decided = review_checks.decision(new_prediction_id(), known=8, said=said, who="ann", now_us=since_us + number)
        log.decide([decided])


def reviewed(log: PredictionLog, count: int = 20) -> None:
    """Predictions that `bob` and a reviewer label alike."""
    rows = [record() for _ in range(count)]
    log.append(rows)
    said = ("bob", REVIEW)
    log.append_feedback(Feedback(row.prediction_id, 1, name, row.time_us + 1) for row in rows for name in said)


def trust(log: PredictionLog) -> Trust:
    rows = log.latest(1000, role="champion", with_feedback=True, withdrawn=True)
    return sources.assess(rows, lambda model: None, decisions=log.decisions())


def test_a_lying_reviewer_judges_and_proves_nobody(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "log.db")
    reviewed(log)
    row = next(iter(log.latest(1, role="champion", with_feedback=True)))
    assert trust(log).use(row).judge
    assert trust(log).standing("bob") == "proven"
    review_known(log, 1, 20)
    assert trust(log).use(row).judge
    assert trust(log).standing("bob") == "proven"
    review_known(log, 15, 20, since_us=100)
    assert not trust(log).use(row).judge
    assert trust(log).standing("bob") == "unproven"
    said = belief.quarantine(LocalRows(log), trust(log), may_release=False)
    assert said[0] == "feedback of 'review' is quarantined (20 labels: 16 of 40 contradict known pictures)"
    assert log.get(row.record.prediction_id).judgement.source == "bob"  # type: ignore[union-attr]
    log.decide([Decision("restore", REVIEW, None, 0, FOREVER_US, 999, "ann", "a trainee has gone")])
    assert trust(log).use(row).judge


def test_checks_are_no_predictions_and_no_labels(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "log.db")
    reviewed(log, 3)
    before = list(log.latest(100, role="champion", with_feedback=True, withdrawn=True))
    review_known(log, 10, 20)
    assert list(log.latest(100, role="champion", with_feedback=True, withdrawn=True)) == before
    assert log.count(role="champion") == 3
    assert log.decisions().skipped() == []


def test_what_was_undone_or_discarded_by_its_time_checks_nobody(tmp_path: Path) -> None:
    log, shown = PredictionLog(tmp_path / "log.db"), new_prediction_id()
    first = review_checks.decision(shown, known=8, said=3, who="ann", now_us=10)
    log.decide([first, first])  # as sent to a shared log again
    assert [each.is_wrong for each in review_checks.read(log.decisions())] == [True]
    log.decide([Decision("discard", REVIEW, shown, 10, 11, 12, "ann", "undone on the review page")])
    assert review_checks.read(log.decisions()) == []
    log.decide([review_checks.decision(shown, known=8, said=8, who="ann", now_us=20)])
    assert [each.is_wrong for each in review_checks.read(log.decisions())] == [False]
    log.decide([Decision("discard", REVIEW, None, 0, 21, 30, "ann", "lies")])
    assert review_checks.read(log.decisions()) == []


def test_who_errs_seldom_keeps_the_trust_however_often_it_is_looked_at() -> None:
    rng = np.random.default_rng(1)

    def is_ever_refuted(share_wrong: float, most: int) -> bool:
        wrong = np.cumsum(rng.random(most) < share_wrong)
        return any(
            FeedbackSource([REVIEW], known=total, known_wrong=int(wrong[total - 1])).standing == "refuted"
            for total in range(1, most + 1)
        )

    assert sum(is_ever_refuted(0.05, 200) for _ in range(200)) <= 2
    assert all(is_ever_refuted(0.9, 10) for _ in range(200))
