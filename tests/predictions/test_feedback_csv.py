"""Tables of feedback: each row becomes a label or an error with its line, and one bad row costs no other."""

import io

import pytest

from fashion.predictions.feedback_csv import FeedbackRow, InvalidTable, RowError, parse_feedback


def parse(text: str) -> list[FeedbackRow | RowError]:
    return list(parse_feedback(io.StringIO(text, newline="")))


def test_labels_are_read_as_they_were_written() -> None:
    assert parse("prediction_id,true_label,source\na,1,ann\nb,boot,bob\nc, top ,\n") == [
        FeedbackRow(2, "a", "1", "ann"),
        FeedbackRow(3, "b", "boot", "bob"),
        FeedbackRow(4, "c", "top", "csv"),
    ]


def test_columns_may_have_any_order_and_the_source_may_be_missing() -> None:
    assert parse("true_label,note,prediction_id\n1,x, a \n") == [FeedbackRow(2, "a", "1", "csv")]


@pytest.mark.parametrize("row", ["a,", "a, ,", "a"])
def test_a_row_without_a_label_is_an_error_of_its_line(row: str) -> None:
    assert parse(f"prediction_id,true_label,source\n{row}\nb,1\n") == [
        RowError(2, "a", "true_label is empty"),
        FeedbackRow(3, "b", "1", "csv"),
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
    rows = parse_feedback(iter(["prediction_id,true_label\n", "a,1\n", "b,1\rc,2\n"]))
    assert next(rows) == FeedbackRow(2, "a", "1", "csv")
    with pytest.raises(InvalidTable, match="cannot be read"):
        list(rows)
