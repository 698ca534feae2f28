"""Which feedback counts: what SQL says and what Python says are the same for any decisions."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.log_rows import record

from fashion.predictions import removal
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import FOREVER_US, Feedback
from fashion.predictions.withdrawal import Action, Decision, Decisions

ROWS = [record(time_us=number) for number in range(3)]
SOURCES = ("ann", "bob", "review")
IDS = [row.prediction_id for row in ROWS]
feedback = st.builds(Feedback, st.sampled_from(IDS), st.integers(0, 9), st.sampled_from(SOURCES), st.integers(0, 9))


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    since = draw(st.integers(0, 8))
    until = draw(st.one_of(st.integers(since + 1, 10), st.just(FOREVER_US)))
    source, prediction_id = draw(st.sampled_from((None, *SOURCES))), draw(st.sampled_from((None, *IDS)))
    if source is None and prediction_id is None and (since, until) == (0, FOREVER_US):
        source = "ann"
    action = draw(st.sampled_from(("discard", "quarantine", "restore", "release")))
    return Decision(action, source, prediction_id, since, until, 1, "ann", "")


@settings(max_examples=150, deadline=None)
@given(st.lists(feedback, max_size=8), st.lists(decisions(), max_size=8))
def test_sql_and_python_agree_on_what_counts(said: Sequence[Feedback], decided: Sequence[Decision]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, PredictionLog(Path(folder, "log.db")) as log:
        log.append(ROWS)
        log.append_feedback(said)
        log.decide(decided)
        assert list(log.decisions()) == list(decided)
        known = Decisions(decided)
        for row in ROWS:
            everything = [each for each in log.latest(9, with_feedback=True, withdrawn=True) if each.record == row]
            expected = known.counted(everything[0].feedback) if everything else ()
            assert log.get(row.prediction_id).feedback == expected
        labels = {row[0]: row[-2] for page in log.row_pages(0, FOREVER_US, role="champion") for row in page}
        assert labels == {row.prediction_id: log.get(row.prediction_id).true_label for row in ROWS}


@pytest.mark.parametrize(
    ("by_person", "by_flow", "expected"),
    [("discard", ("quarantine", "release"), 0), ("restore", ("quarantine",), 1), ("restore", ("release",), 1)],
)
@pytest.mark.parametrize("named", ["source", "prediction", "time"])
@pytest.mark.parametrize("person_first", [True, False])
def test_a_flow_never_overrules_a_person(
    by_person: Action, by_flow: Sequence[Action], expected: int, named: str, person_first: bool, log: PredictionLog
) -> None:
    said = Feedback(IDS[0], 1, "ann", 1)
    log.append(ROWS)
    log.append_feedback([said])
    source, prediction_id = "ann" if named == "source" else None, IDS[0] if named == "prediction" else None
    person = Decision(by_person, source, prediction_id, 0, 9 if named == "time" else FOREVER_US, 1, "bob", "")
    flow = [Decision(action, "ann", None, 0, FOREVER_US, 2, "the flow", "") for action in by_flow]
    log.decide([person, *flow] if person_first else [*flow, person])
    assert len(log.get(IDS[0]).feedback) == expected
    assert log.decisions().count(said) is bool(expected)


def test_decisions_go_with_the_prediction_that_is_forgotten(tmp_path: Path) -> None:
    with contextlib.closing(PredictionLog(tmp_path / "log.db")) as log:
        log.append(ROWS)
        log.append_feedback([Feedback(IDS[0], 1, "ann", 1)])
        log.decide([Decision("discard", None, IDS[0], 0, FOREVER_US, 1, "bob", "a slip")])
        removal.forget(log, IDS[0])
        assert list(log.decisions()) == []
        assert IDS[0].encode() not in log.path.read_bytes()
