"""Two models on live rows: counts, the paired test, and the table a person reads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fashion.evaluation.comparison import Comparison, Pair, format_table
from fashion.metrics.classification import mcnemar_exact

NAMES = ("a", "b", "c")
pairs = st.builds(
    Pair,
    served=st.integers(0, 2),
    served_confidence=st.floats(0, 1),
    other=st.integers(0, 2),
    other_confidence=st.floats(0, 1),
    true_label=st.one_of(st.none(), st.integers(0, 2)),
)


@given(st.lists(pairs, min_size=1, max_size=50))
def test_counts_do_not_depend_on_the_batches(rows: list[Pair]) -> None:
    whole = Comparison().add(rows)
    parts = Comparison().add(rows[:10]).add(rows[10:])
    assert whole == parts
    assert whole.rows == len(rows)
    assert whole.agreed == sum(row.served == row.other for row in rows)
    assert whole.agreed + sum(whole.differing.values()) == whole.rows
    labelled = [row for row in rows if row.true_label is not None]
    if labelled:
        expected = mcnemar_exact(
            np.array([row.served == row.true_label for row in labelled]),
            np.array([row.other == row.true_label for row in labelled]),
        )
        assert whole.test() == expected
    else:
        assert whole.test() is None
    assert format_table(whole, served="version 1", other="version 2", class_names=NAMES)


def test_the_table_shows_accuracy_and_where_the_models_differ() -> None:
    rows = [Pair(0, 0.9, 0, 0.8, 0)] * 6 + [Pair(0, 0.9, 1, 0.6, 1)] * 3 + [Pair(2, 0.5, 1, 0.5, None)]
    text = format_table(Comparison().add(rows), served="version 1", other="version 2", class_names=NAMES)
    assert "10 pictures scored by both; the same label for 60.0%" in text
    assert "accuracy, 9 labelled" in text
    assert "66.7%" in text
    assert "100.0%" in text
    assert "only version 1 is right 0 times, only version 2 3 times" in text
    assert "3 x a against b" in text


def test_without_feedback_accuracy_is_unknown() -> None:
    text = format_table(Comparison().add([Pair(0, 0.9, 0, 0.8, None)]), served="1", other="2", class_names=NAMES)
    assert "accuracy is unknown" in text
    assert "interval" not in text


def test_an_empty_comparison_is_one_sentence() -> None:
    assert (
        format_table(Comparison(), served="1", other="2", class_names=NAMES) == "no row has been scored by both 1 and 2"
    )


def test_labels_without_names_are_shown_as_numbers() -> None:
    text = format_table(Comparison().add([Pair(7, 1, 8, 1, None)]), served="1", other="2", class_names=())
    assert "1 x 7 against 8" in text


@pytest.mark.parametrize("right", [True, False])
def test_equal_predictions_are_not_significant(right: bool) -> None:
    test = Comparison().add([Pair(0, 1, 0, 1, 0 if right else 1)] * 5).test()
    assert test is not None
    assert test.p_value == 1
