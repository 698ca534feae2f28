"""Drift reports at rest: a folder or bucket with a page and a result for each. Knows names, not what they say.

The result is written last: a report without one is half-written, and does not exist yet for whoever reads.
"""

import datetime
import json
import re
from collections.abc import Mapping
from typing import Any

from fashion.blobs import BlobNotFound, Store

PAGE, RESULT = "report.html", "result.json"
"""Files of a report, in a folder of its name."""
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
UNREADABLE = {"decision": "unreadable"}


def name(time_us: int, model_version: str) -> str:
    """The name of a report on a version: sorted by time."""
    moment = datetime.datetime.fromtimestamp(time_us / 1e6, datetime.UTC)
    version = re.sub(r"[^A-Za-z0-9_.-]", "-", model_version)[:40] or "none"
    return f"{moment:%Y%m%dT%H%M%S}Z-v{version}"


def publish(store: Store, report_id: str, page: str, result: Mapping[str, Any]) -> None:
    """Keep a report; one of the same name is replaced."""
    store.put(f"{report_id}/{PAGE}", page.encode())
    store.put(f"{report_id}/{RESULT}", (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())


def latest(store: Store, count: int) -> list[dict[str, Any]]:
    """Results of the latest reports, newest first, each with its `id`; one that cannot be read says so."""
    ids = sorted({each.split("/")[0] for each in store.list() if each.endswith(f"/{RESULT}")}, reverse=True)
    return [{"id": each, **_result(store, each)} for each in ids[:count]]


def page(store: Store, report_id: str) -> bytes:
    """A report's page.

    Raises:
        BlobNotFound: there is none of this name.
    """
    if not ID.fullmatch(report_id):
        raise BlobNotFound(report_id)
    return store.get(f"{report_id}/{PAGE}")


def _result(store: Store, report_id: str) -> dict[str, Any]:
    try:
        content = json.loads(store.get(f"{report_id}/{RESULT}"))
    except (BlobNotFound, ValueError):  # damaged, or removed meanwhile
        return UNREADABLE
    return content if isinstance(content, dict) else UNREADABLE
