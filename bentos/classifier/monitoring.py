"""The monitoring page: recent traffic from the log, and the reports of the drift flow. Knows no models."""

import datetime
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from bentos.web.html import sheet, text
from bentos.web.responses import ApiError
from fashion.drift import reports
from fashion.predictions.record import LoggedPrediction
from fashion.storage.blobs import BlobNotFound, Store

if TYPE_CHECKING:
    from bentos.classifier.worker import Worker

RECENT = 1000
"""Predictions that the page sums up: a look at any traffic costs the same."""
REPORTS = 50
# A report brings its own scripts and data; the sandbox gives it an origin of its own, away from the service's.
REPORT_HEADERS = {
    "content-security-policy": "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'none'",
    "cache-control": "no-store",
}


def listed(store: Store) -> list[dict[str, Any]]:
    """The latest reports, newest first: `id`, `url`, and what the decision was."""
    return [{"url": f"/monitoring/reports/{each['id']}", **each} for each in reports.latest(store, REPORTS)]


def report(store: Store, report_id: str) -> Response:
    """One report's page.

    Raises:
        Refusal: there is none of this name.
    """
    try:
        return Response(reports.page(store, report_id), 200, REPORT_HEADERS, "text/html; charset=utf-8")
    except BlobNotFound:
        remedy = "GET /monitoring/reports lists what there is"
        raise ApiError(404, "not_found", f"there is no report {report_id[:60]!r}", remedy) from None


def page(desk: "Worker") -> str:
    """The page, as HTML."""
    recent = list(desk.log.latest(RECENT, role="champion"))
    served = f"{desk.deployment.model['name']}, version {desk.deployment.model['version']}"
    lead = f"{text(served)}<br>{text(desk.deployment.model.get('summary', ''))}"
    return sheet("Monitoring", lead, [*_traffic(desk, recent), *_reports(listed(desk.reports)), *_log(desk)])


def _traffic(desk: "Worker", recent: Sequence[LoggedPrediction]) -> Iterator[str]:
    yield "<section><h2>Recent traffic</h2>"
    if not recent:
        yield "<p>Nothing was predicted yet. <a href='/'>Try a picture.</a></p></section>"
        return
    times = [each.record.time_us for each in recent]
    confidence = sum(each.record.confidence for each in recent) / len(recent)
    slowest = sorted(each.record.latency_ms for each in recent)[int(0.95 * (len(recent) - 1))]
    judged = [each for each in recent if each.true_label is not None]
    yield "<dl>"
    yield _fact("Predictions", f"{len(recent):,}", f"{_moment(min(times))} to {_moment(max(times))} UTC")
    yield _fact("Mean confidence", f"{confidence:.1%}", "calibrated: about the share that should be right")
    right = sum(each.true_label == each.record.label for each in judged)
    note = f"{right:,} of {len(judged):,} with feedback" if judged else "no feedback yet"
    yield _fact("Right, by feedback", f"{right / len(judged):.1%}" if judged else "unknown", note)
    yield _fact("95 % answered within", f"{slowest:.1f} ms", "from the request's arrival to the log")
    yield "</dl><table><caption>What was predicted</caption>"
    yield "<tr><th>class</th><th class='share'>share</th><th class='number'>rows</th></tr>"
    counts = Counter(each.record.label for each in recent)
    for label, name in enumerate(desk.package.class_names):
        share = counts[label] / len(recent)
        meter = f"<meter max='1' value='{share:.4f}' aria-label='{text(name)}'></meter>"
        cells = f"<td class='share'>{meter}</td><td class='number'>{counts[label]:,}</td>"
        yield f"<tr><th scope='row'>{text(name)}</th>{cells}</tr>"
    yield "</table></section>"


def _reports(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "<section><h2>Drift reports</h2>"
    if not found:
        yield "<p>There is no report yet. The drift flow writes them.</p></section>"
        return
    yield "<table><tr><th>report</th><th>decision</th><th>rows</th><th>model</th></tr>"
    for each in found:
        link = f"<a href='{text(each['url'])}'>{text(each['id'])}</a>"
        cells = (text(each.get(key, "")) for key in ("decision", "rows", "model_version"))
        yield f"<tr><th scope='row'>{link}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    yield "</table></section>"


def _log(desk: "Worker") -> Iterator[str]:
    backlog = desk.log.outbox.backlog()
    yield "<section><h2>Prediction log</h2>"
    if backlog.destination is None:
        yield "<p>Kept on this machine.</p></section>"
        return
    yield f"<p>Shipped to {text(backlog.destination)}.</p><dl>"
    yield _fact("Waiting", f"{backlog.rows:,} rows", f"the oldest for {backlog.age_s:.0f} s")
    yield _fact("Refused", f"{backlog.refused:,} rows", "; ".join(backlog.reasons) or "none")
    yield "</dl>"
    if backlog.problem:
        yield f"<p>{text(backlog.problem)}</p>"
    yield "</section>"


def _fact(name: str, value: str, note: str) -> str:
    return f"<div><dt>{text(name)}</dt><dd>{text(value)}<small>{text(note)}</small></dd></div>"


def _moment(time_us: int) -> str:
    return f"{datetime.datetime.fromtimestamp(time_us / 1e6, datetime.UTC):%Y-%m-%d %H:%M}"
