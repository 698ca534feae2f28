"""Drift reports at rest: a folder or bucket with a page and a result for each. Knows names, not what they say.

The result is written last: a report without one is half-written, and does not exist yet for whoever reads.
"""

import datetime
import json
import re
from collections.abc import Mapping
from typing import Any

from fashion.storage.blobs import BlobNotFound, Store

PAGE, RESULT = "report.html", "result.json"
"""Files of a report, in a folder of its name."""
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
UNREADABLE = {"decision": "unreadable"}


def name(time_us: int, model_version: str) -> str:
    """The name of a report on a version: sorted by time."""
    version = re.sub(r"[^A-Za-z0-9_.-]", "-", model_version)[:40] or "none"
    return f"{_moment(time_us)}-v{version}"


def publish(store: Store, report_id: str, page: str, result: Mapping[str, Any]) -> None:
    """Keep a report; one of the same name is replaced."""
    content = json.dumps(result, indent=1, allow_nan=False) + "\n"
    store.put(f"{report_id}/{PAGE}", page.encode())
    store.put(f"{report_id}/{RESULT}", content.encode())


def latest(store: Store, count: int, *, before_us: int | None = None) -> list[dict[str, Any]]:
    """Results of the latest reports, newest first, each with its `id`; one that cannot be read says so.

    Args:
        before_us: only reports of earlier seconds than this time's.
    """
    found = {each.split("/")[0] for each in store.list() if each.endswith(f"/{RESULT}")}
    if before_us is not None:
        found = {each for each in found if each < _moment(before_us)}
    ids = sorted(found, key=_order, reverse=True)
    return [{"id": each, **_result(store, each)} for each in ids[:count]]


def page(store: Store, report_id: str) -> bytes:
    """A report's page.

    Raises:
        BlobNotFound: there is none of this name.
    """
    if not ID.fullmatch(report_id):
        raise BlobNotFound(report_id)
    content = store.get(f"{report_id}/{PAGE}")
    if not store.exists(f"{report_id}/{RESULT}"):
        raise BlobNotFound(report_id)
    return content


def _moment(time_us: int) -> str:
    return f"{datetime.datetime.fromtimestamp(time_us / 1e6, datetime.UTC):%Y%m%dT%H%M%SZ}"


def _order(report_id: str) -> list[tuple[int, str]]:
    """By time, then by version, where 10 comes after 9."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", report_id)]


def _result(store: Store, report_id: str) -> dict[str, Any]:
    try:
        content = json.loads(store.get(f"{report_id}/{RESULT}"))
    except (BlobNotFound, ValueError):  # damaged, or removed meanwhile
        return UNREADABLE
    return content if isinstance(content, dict) else UNREADABLE
