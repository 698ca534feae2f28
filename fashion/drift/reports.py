"""Stored drift reports: a folder or bucket with a page and a result for each. Knows no report's content.

The result is written last: a report without one is incomplete, and readers treat it as missing.
"""

import contextlib
import datetime
import gzip
import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from fashion.storage.blobs import BlobNotFound, Store

PAGE, RESULT = "report.html", "result.json"
"""Files of a report, in a folder named by its id."""
SNAPSHOT = re.compile(r"([^/]+)/evidently-(.+)\.json\.gz")
"""Further files, of which there may be none: what Evidently's own UI opens."""
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
"""What an id looks like."""
ID_TIME = "%Y%m%dT%H%M%SZ"
"""What an id begins with."""
UNREADABLE = {"decision": "unreadable"}
"""The result of a report whose file is damaged."""


def make_id(time_us: int, model_name: str, model_version: str) -> str:
    """The id of a report on a version, such as `20270115T080000Z-shoes-v3`; ids sort by time.

    Args:
        time_us: microseconds since 1970.
        model_name: any text; characters that are not safe in a path are replaced.
        model_version: likewise.
    """
    name, version = (re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:38] or "none" for text in (model_name, model_version))
    return f"{_format_time(time_us)}-{name}-v{version}"


def state_of(name: str, model_name: str) -> str:
    """The blob of a state that each model has of its own, such as `state/alerts-shoes-1f2e3d4c.json`.

    Args:
        name: `state/alerts.json` or alike.
        model_name: of the registered model; a hash tells names apart whose characters are replaced.
    """
    safe = re.sub(r"[^A-Za-z0-9_-]", "-", model_name)[:40]
    digest = hashlib.sha256(model_name.encode()).hexdigest()[:8]
    return f"{name.removesuffix('.json')}-{safe}-{digest}.json"


def link(report_id: str, *, reports: str, service: str | None) -> str:
    """Where a person can read a report: a page of the service, or the file.

    Args:
        report_id: from `make_id`.
        reports: folder or bucket of the reports.
        service: address of the service, such as `https://example.org`; None if it is not known.
    """
    if service:
        return f"{service.rstrip('/')}/monitoring/reports/{report_id}"
    return f"{reports.rstrip('/')}/{report_id}/{PAGE}"


def publish(
    store: Store, report_id: str, page: str, result: Mapping[str, Any], snapshots: Mapping[str, str] | None = None
) -> None:
    """Store a report, replacing one with the same id.

    Args:
        store: of the reports.
        report_id: from `make_id`.
        page: HTML.
        result: JSON, without NaN.
        snapshots: title -> JSON of Evidently's.
    """
    content = json.dumps(result, indent=1, allow_nan=False) + "\n"
    for title, snapshot in (snapshots or {}).items():
        name = title.lower().replace(" ", "-")
        store.put(f"{report_id}/evidently-{name}.json.gz", gzip.compress(snapshot.encode(), mtime=0))
    store.put(f"{report_id}/{PAGE}", page.encode())
    store.put(f"{report_id}/{RESULT}", content.encode())


def latest(
    store: Store, count: int, *, before_us: int | None = None, model_name: str | None = None
) -> list[dict[str, Any]]:
    """Results of the latest reports, newest first, each with its `id`; a damaged one is `UNREADABLE`.

    Args:
        store: of the reports.
        count: at most this many.
        before_us: only reports of earlier seconds than this time, microseconds since 1970; None for all.
        model_name: only reports on this registered model; None for all.
    """
    complete = {each.split("/")[0] for each in store.list() if each.endswith(f"/{RESULT}")}
    if before_us is not None:
        complete = {each for each in complete if each < _format_time(before_us)}
    ids = sorted(complete, key=_sort_key, reverse=True)
    results = ({"id": each, **_result(store, each)} for each in ids)
    return list(islice((each for each in results if model_name in (None, each.get("model_name"))), count))


def without_prediction(page: bytes, prediction_id: str) -> bytes:
    """A page without the figure of a prediction, which shows its picture.

    Args:
        page: HTML.
        prediction_id: shown in the figure.
    """
    figure = rb"<figure>(?:(?!</figure>).)*" + re.escape(prediction_id.encode()) + rb"(?:(?!</figure>).)*</figure>"
    return re.sub(figure, b"", page, flags=re.DOTALL)


def with_prediction(store: Store, prediction_id: str) -> Iterator[tuple[str, bytes]]:
    """Yield the id and the page of each report that shows a prediction.

    Args:
        store: of the reports.
        prediction_id: a uuid7; reports of before its time are not read.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be read.
    """
    made_s = (uuid.UUID(prediction_id).int >> 80) / 1000
    for name in sorted(store.list()):
        report_id, _, file = name.rpartition("/")
        if file == PAGE and time_of(report_id) >= made_s - 86_400:  # a clock may have been set back
            with contextlib.suppress(BlobNotFound):
                page = store.get(name)
                if prediction_id.encode() in page:
                    yield report_id, page


def delete_before(store: Store, time_s: float) -> int:
    """Delete reports that were made before a time, and return how many. What has no time in its id stays.

    Args:
        store: of the reports.
        time_s: seconds since 1970.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be used.
    """
    old: dict[str, list[str]] = {}
    for name in store.list():
        report_id = name.split("/")[0]
        if 0 < time_of(report_id) < time_s:
            old.setdefault(report_id, []).append(name)
    for names in old.values():
        for name in sorted(names, reverse=True):  # the result first: without it the report counts as missing
            store.delete(name)
    return len(old)


def time_of(report_id: str) -> float:
    """When a report was made, seconds since 1970; 0 if its id does not say."""
    try:
        moment = datetime.datetime.strptime(report_id[:16], ID_TIME)
    except ValueError:
        return 0.0
    return moment.replace(tzinfo=datetime.UTC).timestamp()


def read_page(store: Store, report_id: str) -> bytes:
    """A report's page.

    Raises:
        BlobNotFound: there is no complete report with this id.
    """
    if not ID.fullmatch(report_id):
        raise BlobNotFound(report_id)
    content = store.get(f"{report_id}/{PAGE}")
    if not store.exists(f"{report_id}/{RESULT}"):
        raise BlobNotFound(report_id)
    return content


def read_snapshots(store: Store) -> Iterator[tuple[str, str, str]]:
    """Yield the report's id, the title and the JSON of each snapshot of Evidently's, oldest first.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be read.
    """
    for name in sorted(store.list()):
        if match := SNAPSHOT.fullmatch(name):
            with contextlib.suppress(BlobNotFound, OSError, EOFError):  # removed meanwhile, or damaged
                yield match[1], match[2].replace("-", " "), gzip.decompress(store.get(name)).decode()


def read_result(store: Store, report_id: str) -> dict[str, Any]:
    """A report's result; `UNREADABLE` if it is damaged.

    Raises:
        BlobNotFound: there is no complete report with this id.
    """
    if not ID.fullmatch(report_id) or not store.exists(f"{report_id}/{RESULT}"):
        raise BlobNotFound(report_id)
    return _result(store, report_id)


def _format_time(time_us: int) -> str:
    return datetime.datetime.fromtimestamp(time_us / 1e6, datetime.UTC).strftime(ID_TIME)


def _sort_key(report_id: str) -> list[tuple[int, str]]:
    """By time, then by version, with 10 after 9."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", report_id)]


def _result(store: Store, report_id: str) -> dict[str, Any]:
    try:
        content = json.loads(store.get(f"{report_id}/{RESULT}"))
    except (BlobNotFound, ValueError):  # damaged, or removed meanwhile
        return UNREADABLE
    return content if isinstance(content, dict) else UNREADABLE
