"""Sources are quarantined on evidence, and released on evidence only."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fashion.drift import belief
from fashion.predictions.log import PredictionLog
from fashion.predictions.sources import FeedbackSource, Trust
from fashion.predictions.windows import LocalRows


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[LocalRows]:
    with PredictionLog(tmp_path / "predictions.db") as log:
        yield LocalRows(log)


def trust(rows: LocalRows, **counts: int) -> Trust:
    """What is known of `ann` now, and all decisions so far."""
    return Trust((FeedbackSource(["ann"], labels=100, **counts),), decisions=rows.decisions())


def actions(rows: LocalRows) -> list[str]:
    return [each.action for each in rows.decisions()]


def test_a_source_is_released_by_right_labels_and_not_by_silence(rows: LocalRows) -> None:
    wrong = trust(rows, known=40, known_wrong=40)
    (sentence, remedy) = belief.quarantine(rows, wrong, may_release=True)
    assert sentence.startswith("feedback of 'ann' is quarantined (100 labels: 40 of 40 ")
    assert "fashion log restore --source NAME" in remedy
    belief.quarantine(rows, trust(rows, known=40, known_wrong=40), may_release=True)
    assert actions(rows) == ["quarantine"]  # once
    assert belief.quarantine(rows, trust(rows), may_release=True) == []  # its labels have left the log
    assert belief.quarantine(rows, trust(rows, sure=40), may_release=False) == []
    assert actions(rows) == ["quarantine"]
    assert belief.quarantine(rows, trust(rows, known=40), may_release=True) == [
        "feedback of 'ann' counts again: its labels agree with what is known"
    ]
    assert actions(rows) == ["quarantine", "release"]
