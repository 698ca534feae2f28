"""The monitoring page's list of drift reports."""

from typing import Any

import pytest

from bentos.classifier import monitoring


@pytest.mark.parametrize(
    ("estimated", "shown"),
    [
        ({"accuracy": 0.912, "reliable": True}, "<td>91.2%</td>"),
        ({"accuracy": 0.912, "reliable": False}, "<td>91.2% (unreliable)</td>"),
        (None, "<td></td>"),
    ],
)
def test_a_report_says_what_accuracy_is_estimated_and_whether_reliably(
    estimated: dict[str, Any] | None, shown: str
) -> None:
    report = {"id": "r", "url": "/r", "decision": "drift", "rows": 300, "estimated": estimated}
    assert shown in "".join(monitoring._reports([report]))  # type: ignore[list-item]
