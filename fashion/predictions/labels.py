"""Which class a label of a person means: the one rule for JSON, CSV and the command line. Knows no log."""

from collections.abc import Sequence


def to_class(label: str | int, class_names: Sequence[str]) -> int:
    """Return the class that a label means: by name first, then by number, from 0.

    Numbers count only where no class is called by one: among classes named `1`, `2` and `3`, a label of 0 would be the
    class `1` by number, and whoever sent it may as well have counted from elsewhere.

    Args:
        label: a name or a number; a number means the same as its digits.
        class_names: in order.

    Raises:
        ValueError: the label is no class. The message names it and the classes.
    """
    text = str(label).strip()
    if text in class_names:
        return list(class_names).index(text)
    are_numbers = any(_is_number(name) for name in class_names)
    if not isinstance(label, bool) and not are_numbers and _is_number(text) and int(text) < len(class_names):
        return int(text)
    numbers = "" if are_numbers else f", or its number from 0 to {len(class_names) - 1}"
    raise ValueError(f"true_label must be one of {', '.join(class_names)}{numbers}, got {str(label)[:60]!r}")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10
