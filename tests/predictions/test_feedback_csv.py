"""Tables of feedback: each row becomes a label or an error with its line, and one bad row costs no other."""

import io

import pytest

from fashion.predictions.feedback_csv import FeedbackRow, InvalidTable, RowError, parse_feedback

NAMES = ("top", "boot", "7")


def parse(text: str, names: tuple[str, ...] = NAMES) -> list[FeedbackRow | RowError]:
    return list(parse_feedback(io.StringIO(text, newline=""), names))


def test_numbers_and_names_are_labels() -> None:
    assert parse("prediction_id,true_label,source\na,1,ann\nb,boot,bob\nc, top ,\n") == [
        FeedbackRow(2, "a", 1, "ann"),
        FeedbackRow(3, "b", 1, "bob"),
        FeedbackRow(4, "c", 0, "csv"),
    ]


def test_columns_may_have_any_order_and_the_source_may_be_missing() -> None:
    assert parse("true_label,note,prediction_id\n1,x, a \n") == [FeedbackRow(2, "a", 1, "csv")]


def test_digits_are_a_class_number_even_where_a_class_is_called_so() -> None:
    assert parse("prediction_id,true_label\na,7\n") == [FeedbackRow(2, "a", 7, "csv")]


@pytest.mark.parametrize("label", ["hat", "", "-1", "1.0", "Boot"])
def test_a_label_that_is_neither_is_an_error_of_its_line(label: str) -> None:
    first, second = parse(f"prediction_id,true_label\na,{label}\nb,1\n")
    assert first == RowError(2, "a", f"true_label must be a number or a class name, got {label!r}")
    assert second == FeedbackRow(3, "b", 1, "csv")


def test_without_names_only_numbers_are_labels() -> None:
    first, second = parse("prediction_id,true_label\na,boot\nb,1\n", names=())
    assert isinstance(first, RowError)
    assert second == FeedbackRow(3, "b", 1, "csv")


def test_a_short_row_is_an_error() -> None:
    assert parse("prediction_id,true_label\na\n") == [
        RowError(2, "a", "true_label must be a number or a class name, got ''")
    ]


def test_lines_are_counted_over_blank_lines() -> None:
    assert [row.line for row in parse("prediction_id,true_label\n\na,1\n\nb,1\n")] == [3, 5]


@pytest.mark.parametrize("text", ["", "id,label\na,1\n", "prediction_id\na\n"])
def test_a_table_without_the_columns_is_rejected(text: str) -> None:
    with pytest.raises(InvalidTable, match="must have the columns prediction_id and true_label"):
        parse(text)


def test_a_header_without_rows_is_an_empty_table() -> None:
    assert parse("prediction_id,true_label\n") == []


def test_a_table_that_cannot_be_parsed_is_rejected_after_the_rows_before() -> None:
    rows = parse_feedback(iter(["prediction_id,true_label\n", "a,1\n", "b,1\rc,2\n"]), NAMES)
    assert next(rows) == FeedbackRow(2, "a", 1, "csv")
    with pytest.raises(InvalidTable, match="cannot be read"):
        list(rows)
