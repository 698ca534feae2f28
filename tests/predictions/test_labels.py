"""One rule says which class a label means: names before numbers, and no number where a class is called by one."""

import pytest

from fashion.predictions.labels import to_class

CLOTHES = ("top", "boot", "Größe 7")
NUMBERED = ("1", "2", "3")


@pytest.mark.parametrize(
    ("label", "names", "found"),
    [
        ("boot", CLOTHES, 1),
        (" boot ", CLOTHES, 1),
        ("2", CLOTHES, 2),
        (2, CLOTHES, 2),
        (0, CLOTHES, 0),
        ("1", NUMBERED, 0),
        (1, NUMBERED, 0),
        ("3", NUMBERED, 2),
        ("boot", ("boot", "7"), 0),
        (7, ("boot", "7"), 1),
    ],
)
def test_a_name_comes_before_a_number(label: str | int, names: tuple[str, ...], found: int) -> None:
    assert to_class(label, names) == found


@pytest.mark.parametrize("label", ["hat", "", "-1", "1.0", "Boot", "3", 3, -1, True, "\u0661", "9" * 5000])
def test_what_is_no_class_is_one_sentence_with_the_classes(label: str | int) -> None:
    with pytest.raises(ValueError, match=r"^true_label must be one of top, boot, Größe 7, or its number from 0 to 2,"):
        to_class(label, CLOTHES)


@pytest.mark.parametrize("label", ["0", 0, "4"])
def test_a_number_that_is_no_name_is_refused_where_classes_are_numbers(label: str | int) -> None:
    with pytest.raises(ValueError, match=f"^true_label must be one of 1, 2, 3, got '{label}'$"):
        to_class(label, NUMBERED)
