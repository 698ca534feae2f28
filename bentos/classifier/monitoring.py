"""The monitoring page: traffic over time and of late, drift reports, and the log's backlog. Reads no log itself."""

import datetime
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from starlette.responses import Response

from bentos.classifier import traffic_page
from bentos.classifier.recent import Recent
from bentos.classifier.records import has_classes
from bentos.classifier.schemas import ModelInfo, Report, TrafficAnswer
from bentos.classifier.traffic_answer import answer
from bentos.classifier.unlike import Unlike
from bentos.web import html
from bentos.web.html import text
from bentos.web.responses import ApiError
from fashion.drift import reports
from fashion.predictions.outbox import Backlog
from fashion.predictions.record import LoggedPrediction, ModelId
from fashion.predictions.slots import Span
from fashion.storage.blobs import BlobNotFound, Store

if TYPE_CHECKING:
    from bentos.classifier.worker import Worker

REPORTS = 50
"""Reports that are listed."""
# A report has its own scripts and data; the sandbox keeps them from the service's origin.
REPORT_HEADERS = {
    "content-security-policy": "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'none'",
    "cache-control": "no-store",
}


def latest_reports(store: Store) -> tuple[Report, ...]:
    """List the latest reports, newest first."""
    rows = reports.latest(store, REPORTS)
    return tuple(cast(Report, {"url": f"/monitoring/reports/{row['id']}", **row}) for row in rows)


def report_response(store: Store, report_id: str) -> Response:
    """Respond with the page of one report.

    Raises:
        ApiError: there is no report of this name.
    """
    try:
        return Response(reports.read_page(store, report_id), 200, REPORT_HEADERS, "text/html; charset=utf-8")
    except BlobNotFound:
        remedy = "GET /monitoring/reports lists what there is"
        raise ApiError(404, "not_found", f"there is no report {report_id[:60]!r}", remedy) from None


def page(worker: "Worker", span: Span) -> str:
    """Render the page as HTML.

    Args:
        worker: whose traffic is shown.
        span: how much time is shown.
    """
    recent = worker.recent.read()
    listed = latest_reports(worker.reports)
    backlog = worker.log.outbox.backlog()
    share = None if worker.unlike.typicality is None else worker.unlike.share
    model = worker.model_info()
    lead = f"{text(f'{model.name}, version {model.version}')}<br>{text(model.summary)}"
    sections = [
        *traffic_page.sections(worker.traffic.read(span), listed, source=_source(backlog), share=share),
        *_traffic(model, recent, worker.unlike),
        *(() if worker.canary_state is None else worker.canary_state.section()),
        *_reports(listed),
        *_log(backlog),
    ]
    return html.page(worker.site, "Monitoring", lead, sections, styles=["/page/charts.css"])


def traffic_answer(worker: "Worker", span: Span) -> TrafficAnswer:
    """The traffic over time for programs.

    Args:
        worker: whose traffic is shown.
        span: how much time is shown.
    """
    source = _source(worker.log.outbox.backlog())
    return answer(worker.traffic.read(span), latest_reports(worker.reports), source=source)


def _source(backlog: Backlog) -> str:
    """Whose rows are counted over time, in one sentence."""
    if backlog.destination is None:
        return "All predictions in this machine's log."
    return (
        "Predictions and labels in this machine's log alone: what other machines ship to "
        f"{backlog.destination} is not counted here."
    )


def _traffic(model: ModelInfo, latest: Recent, unlike: Unlike) -> Iterator[str]:
    yield f"<section><h2>Recent traffic</h2><p>{text(latest.source)}</p>"
    recent = [each for each in latest.rows if has_classes(each.record, model.name, model.class_names)]
    if others := len(latest.rows) - len(recent):
        yield f"<p>{others:,} more are of other models, and are not counted here.</p>"
    if not recent:
        yield "<p>There are no predictions yet. <a href='/'>Try a picture.</a></p></section>"
        return
    times = [each.record.time_us for each in recent]
    confidence = sum(each.record.confidence for each in recent) / len(recent)
    p95 = sorted(each.record.latency_ms for each in recent)[int(0.95 * (len(recent) - 1))]
    labelled = [each for each in recent if each.true_label is not None]
    yield "<dl>"
    yield _fact("Predictions", f"{len(recent):,}", f"{_moment(min(times))} to {_moment(max(times))} UTC")
    yield _fact("Mean confidence", f"{confidence:.1%}", "calibrated: about this share should be right")
    yield from _unlike(model, recent, unlike)
    right = sum(each.true_label == each.record.label for each in labelled)
    note = f"{right:,} of {len(labelled):,} with feedback, which people chose" if labelled else "no feedback yet"
    yield _fact("Accuracy by feedback", f"{right / len(labelled):.1%}" if labelled else "unknown", note)
    yield _fact("95th percentile of latency", f"{p95:.1f} ms", "from the request's arrival to the log")
    yield "</dl><table><caption>Predicted classes</caption>"
    yield "<tr><th>class</th><th class='share'>share</th><th class='number'>rows</th></tr>"
    counts = Counter(each.record.label for each in recent)
    for label, name in enumerate(model.class_names):
        share = counts[label] / len(recent)
        meter = f"<meter max='1' value='{share:.4f}' aria-label='{text(name)}'></meter>"
        cells = f"<td class='share'>{meter}</td><td class='number'>{counts[label]:,}</td>"
        yield f"<tr><th scope='row'>{text(name)}</th>{cells}</tr>"
    yield "</table></section>"


def _unlike(model: ModelInfo, recent: Sequence[LoggedPrediction], unlike: Unlike) -> Iterator[str]:
    """The share of the served version's pictures that are unlike what it has learnt, where it can tell."""
    served = ModelId.of(model.name, model.version, model.digest)
    rows = [each.record for each in recent if each.record.model == served]
    count = unlike.count(rows)
    if count is not None:
        note = f"of pictures as in training, about {unlike.share:.0%} would be"
        yield _fact("Unlike anything learnt", f"{count / len(rows):.1%}", note)


def _reports(listed: Sequence[Report]) -> Iterator[str]:
    yield "<section><h2>Drift reports</h2>"
    if not listed:
        yield "<p>There is no report yet. The drift flow writes them.</p></section>"
        return
    heads = ("report", "decision", "rows", "accuracy, estimated", "model")
    yield f"<div class='wide' tabindex='0'><table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>"
    for each in listed:
        link = f"<a href='{text(each['url'])}'>{text(each['id'])}</a>"
        named = f"{each.get('model_name', '')} {each.get('model_version', '')}".strip()
        cells = (text(value) for value in (each.get("decision", ""), each.get("rows", ""), _estimate(each), named))
        yield f"<tr><th scope='row'>{link}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    yield "</table></div></section>"


def _estimate(report: Report) -> str:
    """A report's accuracy without labels, and whether it is reliable."""
    estimated = cast(dict[str, Any], report).get("estimated") or {}
    accuracy = estimated.get("accuracy")
    if not isinstance(accuracy, float):
        return ""
    return f"{accuracy:.1%}" if estimated.get("reliable") else f"{accuracy:.1%} (unreliable)"


def _log(backlog: Backlog) -> Iterator[str]:
    yield "<section><h2>Prediction log</h2>"
    if backlog.destination is None:
        yield "<p>Stored on this machine.</p></section>"
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
