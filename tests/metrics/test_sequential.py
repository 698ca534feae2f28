"""The sequential test of two accuracies: wrong decisions whatever the number of looks, bounds, and what it finds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import streams

from fashion.metrics import sequential
from fashion.metrics.sequential import Arm, Rules, judge

COUNTS = st.integers(0, 3000)
EQUAL, BOUNDARY = Rules(0.0, 0.95), Rules(0.05, 0.95)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_equal_versions_are_told_apart_at_most_as_often_as_configured(share: float) -> None:
    found = streams.decide(streams.accuracies(0.9, 0.9, share), EQUAL, streams=400, labels=400, seed=1)
    assert found.promoted <= 0.05
    assert found.stepped_back <= 0.05


@pytest.mark.slow
def test_equal_versions_are_seldom_told_apart_in_ten_thousand_long_streams() -> None:
    found = streams.decide(streams.accuracies(0.9, 0.9, 0.5), EQUAL, streams=10_000, labels=2000, seed=1)
    assert found.promoted <= 0.05
    assert found.stepped_back <= 0.05


def test_a_canary_that_loses_just_the_margin_is_promoted_at_most_as_often_as_configured() -> None:
    found = streams.decide(streams.accuracies(0.9, 0.85, 0.5), BOUNDARY, streams=400, labels=400, seed=1)
    assert found.promoted <= 0.05


def test_the_usual_interval_does_not_bear_a_look_after_each_label() -> None:
    label = streams.accuracies(0.9, 0.9, 0.5)
    assert streams.decide(label, EQUAL, streams=400, labels=400, seed=1, test=streams.fixed).promoted > 0.15


@pytest.mark.parametrize(("canary", "decision"), [(0.97, 1), (0.75, -1)])
def test_what_is_better_is_promoted_and_what_is_worse_steps_back(canary: float, decision: int) -> None:
    found = streams.decide(streams.accuracies(0.9, canary, 0.5), BOUNDARY, streams=20, labels=2000, seed=1)
    assert (found.decision == decision).all()


def test_labels_of_alike_pictures_are_no_evidence() -> None:
    """Why one label a client counts."""
    label = streams.clients(0.85, 0.15, 50, 0.5)
    assert streams.decide(label, EQUAL, streams=200, labels=500, seed=1).promoted > 0.05


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.sampled_from([0.0, 0.005, 0.05]))
def test_the_decision_is_what_the_evidence_says(
    right: int, wrong: int, others: int, mistakes: int, margin: float
) -> None:
    champion, canary, rules = Arm(others, mistakes), Arm(right, wrong), Rules(margin, 0.95)
    verdict = judge(champion, canary, rules)
    counts = (right, wrong), (others, mistakes)
    promotes = sequential.log_evidence(*counts, -margin) >= np.log(20)
    steps_back = sequential.log_counterevidence(*counts, 0.0) >= np.log(20)
    assert verdict.decision == ("step back" if steps_back else "promote" if promotes else "go on")
    assert -1 <= verdict.low <= (0 if verdict.difference is None else verdict.difference) + 1e-9
    assert (0 if verdict.difference is None else verdict.difference) - 1e-9 <= verdict.high <= 1


def test_a_worse_canary_within_the_margin_steps_back() -> None:
    assert judge(Arm(95_000, 5_000), Arm(93_000, 7_000), Rules(0.05, 0.95)).decision == "step back"


def test_without_labels_nothing_is_said() -> None:
    verdict = judge(Arm(), Arm(5, 0), EQUAL)
    assert (verdict.decision, verdict.difference, verdict.low, verdict.high) == ("go on", None, -1.0, 1.0)
    assert sequential.accuracy_bounds(Arm(), 0.95) == (0.0, 1.0)


@given(COUNTS, COUNTS)
def test_the_bounds_of_an_accuracy_are_around_it(right: int, wrong: int) -> None:
    low, high = sequential.accuracy_bounds(Arm(right, wrong), 0.95)
    assert 0 <= low <= (right / (right + wrong) if right + wrong else 0.5) <= high <= 1


def test_more_labels_give_closer_bounds() -> None:
    widths = [high - low for n in (10, 100, 1000) for low, high in [sequential.accuracy_bounds(Arm(9 * n, n), 0.95)]]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.03


def test_the_likeliest_pair_is_found() -> None:
    """Against a search over all pairs."""
    grid = np.linspace(0, 1, 2001)
    for counts, difference in (((30, 10, 95, 5), 0.0), ((5, 5, 50, 1), -0.2), ((9, 1, 3, 17), 0.1)):
        other = grid[(grid + difference >= 0) & (grid + difference <= 1)]
        searched = max(
            float(
                sequential._log_likelihood(*counts[:2], min(p + difference, p1))
                + sequential._log_likelihood(*counts[2:], p)
            )
            for p in other
            for p1 in [counts[0] / (counts[0] + counts[1])]
        )
        found = float(sequential._log_most_likely(*counts, difference))
        assert found == pytest.approx(searched, abs=1e-3)
        assert found >= searched - 1e-9
