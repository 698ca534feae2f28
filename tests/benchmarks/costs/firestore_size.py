"""How many bytes Firestore bills for a document and for its index entries, by its published rules. Knows no prices.

The rules: https://firebase.google.com/docs/firestore/storage-size.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

COLLECTION = "predictions"
EXTRA_NAME, EXTRA_DOCUMENT, EXTRA_ENTRY = 16, 32, 32


def document_bytes(name: str, content: Mapping[str, Any]) -> int:
    """Return the size of a document in the root collection `predictions`."""
    return _name_bytes(name) + _map_bytes(content) + EXTRA_DOCUMENT


def index_bytes(name: str, content: Mapping[str, Any], exempt: Collection[str] = ()) -> int:
    """Return the size of a document's entries in single-field indexes.

    Firestore makes one ascending and one descending entry for each field, for each key of a map too, and another for
    each different element of an array.

    Args:
        name: of the document.
        content: its fields.
        exempt: fields without an index; a map's keys are exempt with it.
    """
    return sum(
        _name_bytes(name) + EXTRA_NAME + _string_bytes(path) + size + EXTRA_ENTRY
        for path, size in _entries(content, "", exempt)
    )


def _entries(content: Mapping[str, Any], prefix: str, exempt: Collection[str]) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for key, value in content.items():
        path = f"{prefix}{key}"
        if path in exempt:
            continue
        if isinstance(value, Mapping):
            found += _entries(value, f"{path}.", exempt)
        if isinstance(value, list | tuple):
            found += [(path, _value_bytes(each)) for each in dict.fromkeys(value)]
        found += [(path, _value_bytes(value))] * 2
    return found


def _name_bytes(name: str) -> int:
    return _string_bytes(COLLECTION) + _string_bytes(name) + EXTRA_NAME


def _map_bytes(content: Mapping[str, Any]) -> int:
    return sum(_string_bytes(key) + _value_bytes(value) for key, value in content.items())


def _string_bytes(text: str) -> int:
    return len(text.encode()) + 1


def _value_bytes(value: Any) -> int:
    match value:
        case None | bool():
            return 1
        case int() | float() | datetime():
            return 8
        case str():
            return _string_bytes(value)
        case bytes():
            return len(value)
        case list() | tuple():
            return sum(map(_value_bytes, value))
        case Mapping():
            return _map_bytes(value)
    raise TypeError(f"no published size for {type(value).__name__}")
