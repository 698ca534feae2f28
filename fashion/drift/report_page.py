"""The first page of a drift report, for somebody who has not heard of p-values. HTML that needs no connection.

Says in this order: the verdict, why, how bad it is, what changed, and how it was in the past.
"""

import base64
import datetime
import gzip
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from fashion.data.dataset import Split
from fashion.drift.charts import bars, column_values, histogram
from fashion.drift.evidently_report import Drawing
from fashion.drift.inspection import Inspected, Unusual
from fashion.drift.result import FAMILIES, LABELS, DriftResult, FeedbackAccuracy
from fashion.images import image_store
from fashion.images.image_store import DamagedImage
from fashion.images.transform import Images
from fashion.model.predictor import Predictions
from fashion.predictions.record import UNLABELLED
from fashion.storage.blobs import BlobNotFound, Store

MOST_CHANGED = 6
"""Columns whose distributions are on the first page."""
MOST_GROWN = 6
"""Mistakes that are listed."""
MIN_CLASS_ROWS = 5
"""Judged rows of a class from which its mistakes are listed."""

VERDICTS = {
    "insufficient_data": "Too little to judge",
    "no_drift": "No drift",
    "none": "No drift",
    "harmless": "Drift, that seems harmless",
    "harmful": "Drift, that is likely to hurt",
}


@dataclass(frozen=True, eq=False)
class Example:
    """An unusual row's picture, and a usual one of the class that it was taken for."""

    row: Unusual
    picture: Images | None
    """None where pictures are not kept, or this one is gone."""
    usual: Images | None
    """None where the reference's pictures are not at hand."""


def page(
    found: Inspected,
    *,
    model: str,
    class_names: Sequence[str],
    reference: Predictions | None,
    examples: Sequence[Example],
    history: Sequence[Mapping[str, Any]],
    drawings: Sequence[Drawing],
    remarks: Sequence[str] = (),
) -> str:
    """A report as one HTML file.

    Args:
        found: what is reported.
        model: name of the registered model.
        class_names: of the version.
        reference: what it was compared with; None where there is none.
        examples: the most unusual rows.
        history: past windows as `fashion.drift.result.result_as_dict` gives them, with their `id`; newest first.
        drawings: Evidently's.
        remarks: sentences on what else is worth knowing.
    """
    result = found.result
    body = [
        *_verdict(result, model),
        *(f"<p class='remark'>{escape(remark)}</p>" for remark in remarks),
        *_why(result),
        *_how_bad(result, class_names),
        *_what_changed(found, reference, class_names),
        *_examples(examples, class_names),
        *_history(history),
        *_drawings(drawings),
    ]
    title = escape(f"{verdict(result)}: {model} version {result.model_version}")
    return (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<style>{STYLE}</style></head><body><main>\n" + "\n".join(body) + "\n</main></body></html>\n"
    )


def examples(unusual: Sequence[Unusual], store: Store, held_out: Split | None) -> list[Example]:
    """Pictures of unusual rows, each beside one of the held-out pictures of the class that it was taken for.

    Args:
        unusual: the rows.
        store: where pictures of users are kept.
        held_out: pictures to compare them with, if they are at hand.
    """
    found = []
    turns: Counter[int] = Counter()
    for row in unusual:
        try:
            picture = image_store.get(store, row.image_sha256)
        except (BlobNotFound, DamagedImage):
            picture = None
        usual = None
        if held_out is not None and (mine := np.flatnonzero(held_out.labels == row.label)).size:
            usual = held_out.images[mine[turns[row.label] % len(mine)]]
            turns[row.label] += 1
        found.append(Example(row, picture, usual))
    return found


def verdict(result: DriftResult) -> str:
    """The verdict in a few words."""
    words = VERDICTS[result.level if result.decision == "drift" else result.decision]
    if "decline" in result.conditions:
        return f"{words}; accuracy has fallen" if result.decision == "drift" else "Accuracy has fallen"
    return words


def condition(name: str, result: DriftResult) -> tuple[str, str]:
    """A condition of `DriftResult.conditions` in words: a title, and why."""
    judged = result.feedback
    if name == "decline" and judged is not None:
        why = (
            f"{judged.accuracy:.1%} of {judged.rows:,} rows with feedback are right ({judged.low:.1%} to "
            f"{judged.high:.1%}), of the reference {result.reference_accuracy:.1%} were (p = {_p(judged.p_decline)})"
        )
        return "Accuracy has fallen", why
    return VERDICTS[result.level if result.decision == "drift" else result.decision], result.reason


def _verdict(result: DriftResult, model: str) -> Iterator[str]:
    tone = "bad" if result.conditions & {"harmful", "decline"} else "warn" if result.decision == "drift" else "good"
    tone = "plain" if result.decision == "insufficient_data" and tone == "good" else tone
    version = f", version {escape(result.model_version)}" if result.model_version else ""
    yield f"<header class='{tone}'><h1>{escape(verdict(result))}</h1><p>{escape(result.reason)}.</p></header>"
    span = f", from {_moment(result.since_us)} to {_moment(result.until_us)} UTC" if result.rows else ""
    yield f"<p class='of'>{escape(model)}{version}: {result.rows:,} predictions{span}.</p>"


def _why(result: DriftResult) -> Iterator[str]:
    if not result.p_values:
        return
    share = result.alpha / len(FAMILIES)
    yield "<section><h2>Why</h2><table><tr><th>what is compared</th><th class='n'>columns</th>"
    yield "<th class='n'>p-value</th><th class='n'>drift below</th><th></th></tr>"
    for family in FAMILIES:
        mine = [column for column in result.columns if column.family == family]
        p_value = result.p_values[family]
        said = "drift" if any(column.drifted for column in mine) else "as usual"
        yield (
            f"<tr><th>{family}</th><td class='n'>{len(mine)}</td><td class='n'>{_p(p_value)}</td>"
            f"<td class='n'>{_p(share)}</td><td class='{'hit' if said == 'drift' else ''}'>{said}</td></tr>"
        )
    yield "</table>"
    alarms = result.false_alarms
    if alarms is not None:
        yield (
            f"<p>How often this decision is wrong when nothing changed: {alarms.alarms} of {alarms.resplits} windows "
            f"of {alarms.rows:,} rows, drawn from the model's own held-out data, were called drift "
            f"({alarms.alarms / alarms.resplits:.1%}; 95&nbsp;% interval {alarms.low:.1%} to {alarms.high:.1%}). "
            f"By design it is at most {result.alpha:.1%}.</p>"
        )
    yield "</section>"


def _how_bad(result: DriftResult, class_names: Sequence[str]) -> Iterator[str]:
    if result.severity is None and result.feedback is None:
        return
    yield "<section><h2>How bad</h2><dl>"
    if result.estimated is not None:
        note = "from how confidence has changed" if result.estimated.reliable else "unreliable: the change is too large"
        yield _fact("Accuracy, estimated", f"{result.estimated.accuracy:.1%}", note, result.estimated.reliable)
    judged = result.feedback
    if judged is not None:
        note = f"{judged.rows:,} rows with feedback; {judged.low:.1%} to {judged.high:.1%}"
        yield _fact("Accuracy, by feedback", f"{judged.accuracy:.1%}", note, True)
        told = {None: "too few to tell", True: "it has fallen", False: "not shown to have fallen"}[judged.declined]
        yield _fact("Against the reference", told, f"Fisher's exact test, p = {_p(judged.p_decline)}", True)
    if result.reference_rows:
        note = f"{result.reference_rows:,} held-out rows"
        yield _fact("Accuracy, reference", f"{result.reference_accuracy:.1%}", note, True)
    yield "</dl>"
    if result.severity is not None:
        yield from _signals(result)
    if judged is not None:
        yield "<p class='small'>Feedback is on rows that people chose to judge: they may not be like the others.</p>"
        yield from _confusions(judged, class_names)
    yield "</section>"


def _signals(result: DriftResult) -> Iterator[str]:
    assert result.severity is not None
    signals, bounds = result.severity.signals, result.severity.thresholds
    rows = [
        ("Mean confidence, lower by", signals.confidence_drop, bounds.confidence_drop),
        ("Largest distance of a class probability", signals.output_distance, bounds.output_distance),
        ("Rows unlike any held-out one", signals.outlier_fraction, bounds.outlier_fraction),
    ]
    yield "<table><tr><th>sign of harm</th><th class='n'>now</th><th class='n'>harmless up to</th><th></th></tr>"
    for name, now, bound in rows:
        share = min(1.0, max(0.0, now) / bound / 2) if bound > 0 else 0.0
        bar = f"<span style='width:{share:.0%}' class='{'over' if now > bound else ''}'></span>"
        meter = f"<span class='meter'>{bar}</span>"
        yield f"<tr><th>{name}</th><td class='n'>{now:.1%}</td><td class='n'>{bound:.1%}</td><td>{meter}</td></tr>"
    yield (
        "</table><p class='small'>The bounds were calibrated when this version was trained, on held-out pictures that "
        f"were corrupted in many ways: they found {bounds.detected:.0%} of the windows that cost more than five points "
        f"of accuracy, and called {bounds.false_alarms:.0%} of the others harmful.</p>"
    )


def _confusions(judged: FeedbackAccuracy, class_names: Sequence[str]) -> Iterator[str]:
    """The mistakes that have grown most, as shares of their class."""
    now, before = (np.array(matrix, np.float64) for matrix in (judged.confusion, judged.reference_confusion))
    counted = now.sum(axis=1) >= MIN_CLASS_ROWS
    shares, usual = (matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1) for matrix in (now, before))
    grown = np.where(counted[:, None] & ~np.eye(len(now), dtype=bool), shares - usual, 0)
    worst = [divmod(int(each), len(now)) for each in np.argsort(-grown, axis=None)[:MOST_GROWN]]
    worst = [(true, taken) for true, taken in worst if grown[true, taken] > 0]
    if not worst:
        return
    yield "<table><tr><th>it is</th><th>taken for</th><th class='n'>now</th><th class='n'>in the reference</th></tr>"
    for true, taken in worst:
        yield (
            f"<tr><td>{escape(class_names[true])}</td><td>{escape(class_names[taken])}</td>"
            f"<td class='n'>{shares[true, taken]:.1%}</td><td class='n'>{usual[true, taken]:.1%}</td></tr>"
        )
    yield "</table>"


def _what_changed(found: Inspected, reference: Predictions | None, class_names: Sequence[str]) -> Iterator[str]:
    result = found.result
    if not result.columns or reference is None or found.sample is None:
        return
    ranked = sorted(result.columns, key=lambda column: (not column.drifted, column.p_value, -column.distance))
    drifted = sum(column.drifted for column in result.columns)
    yield f"<section><h2>What changed</h2><p>{drifted} of {len(ranked)} columns differ. The most changed ones:</p>"
    yield "<div class='charts'>"
    for column in ranked[:MOST_CHANGED]:
        before, now = (column_values(part, column.name, class_names) for part in (reference, found.sample.predictions))
        chart = bars(before, now, class_names) if column.name == LABELS else histogram(before, now)
        flag = "hit" if column.drifted else ""
        yield (
            f"<figure><figcaption class='{flag}'><b>{escape(column.name)}</b>distance {column.distance:.2f}, "
            f"p = {_p(column.p_value)}, drift below {_p(column.threshold)}</figcaption>{chart}</figure>"
        )
    yield "</div><p class='small'><span class='key before'></span>reference "
    yield "<span class='key now'></span>this window; "
    yield "heights are square roots of shares, so that few rows can be seen beside many</p>"
    yield "<details><summary>Every column, with its test</summary><table><tr><th>column</th><th>test</th>"
    yield "<th class='n'>distance</th><th class='n'>p-value</th><th class='n'>drift below</th><th></th></tr>"
    for column in ranked:
        test = "chi-square" if column.name == LABELS else "Kolmogorov-Smirnov"
        said = "drift" if column.drifted else "as usual"
        yield (
            f"<tr><th>{escape(column.name)}</th><td>{test}</td><td class='n'>{column.distance:.3f}</td>"
            f"<td class='n'>{_p(column.p_value)}</td><td class='n'>{column.threshold:.2g}</td>"
            f"<td class='{'hit' if column.drifted else ''}'>{said}</td></tr>"
        )
    yield "</table></details></section>"


def _examples(examples: Sequence[Example], class_names: Sequence[str]) -> Iterator[str]:
    if not examples:
        return
    yield "<section><h2>The most unusual rows</h2>"
    if all(each.picture is None for each in examples):
        yield "<p>Their pictures were not kept: <code>serve.log.images=true</code> keeps them.</p>"
    yield "<div class='examples'>"
    for each in examples:
        name = class_names[each.row.label]
        said = "" if each.row.true_label == UNLABELLED else f"<br>it is: {escape(class_names[each.row.true_label])}"
        yield (
            f"<figure>{_picture(each.picture, 'as sent')}{_picture(each.usual, f'a usual {name}')}"
            f"<figcaption><b>{escape(name)}</b>{each.row.confidence:.0%} sure{said}<br>"
            f"<span class='id'>{escape(each.row.prediction_id)}</span></figcaption></figure>"
        )
    yield (
        "</div><p class='small'>Left what the network saw, right a held-out picture of the class it was taken for. "
        "Chosen by how far their statistics and their embedding are from the reference's.</p></section>"
    )


def _history(history: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not history:
        return
    yield "<section><h2>Before this</h2><table><tr><th>window ended</th><th>version</th><th class='n'>rows</th>"
    yield "<th>verdict</th><th class='n'>estimated</th><th class='n'>by feedback</th></tr>"
    for past in history:
        estimated, judged = past.get("estimated") or {}, past.get("feedback") or {}
        decision = str(past.get("decision"))
        words = VERDICTS.get(str(past.get("level")) if decision == "drift" else decision, "unreadable")
        cells = [
            f"<td>{_moment(int(past.get('until_us') or 0))}</td>",
            f"<td>{escape(str(past.get('model_version', '')))}</td>",
            f"<td class='n'>{int(past.get('rows') or 0):,}</td>",
            f"<td class='{'hit' if decision == 'drift' else ''}'>{escape(words)}</td>",
            f"<td class='n'>{_share(estimated.get('accuracy'))}</td>",
            f"<td class='n'>{_share(judged.get('accuracy'))}</td>",
        ]
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</table></section>"


def _drawings(drawings: Sequence[Drawing]) -> Iterator[str]:
    for each in drawings:
        packed = base64.b64encode(gzip.compress(each.html.encode(), mtime=0)).decode()
        yield (
            f"<details><summary>{escape(each.title)}, drawn by Evidently</summary><p class='small'>{escape(each.note)}"
            f"</p><iframe title='{escape(each.title)}'></iframe>"
            f"<script type='application/gzip'>{packed}</script></details>"
        )
    if drawings:
        yield f"<script>{UNPACK}</script>"


def _picture(image: Images | None, name: str) -> str:
    if image is None:
        return f"<span class='none' title='{escape(name)}'>no picture</span>"
    encoded = base64.b64encode(image_store.to_png(image)).decode()
    return f"<img alt='{escape(name)}' title='{escape(name)}' src='data:image/png;base64,{encoded}'>"


def _fact(name: str, value: str, note: str, sure: bool) -> str:
    return (
        f"<div class='{'' if sure else 'unsure'}'><dt>{escape(name)}</dt><dd>{escape(value)}"
        f"<small>{escape(note)}</small></dd></div>"
    )


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}" if value > 0 else "under 1e-300"


def _share(value: Any) -> str:
    return f"{value:.1%}" if isinstance(value, float) else ""


def _moment(time_us: int) -> str:
    return f"{datetime.datetime.fromtimestamp(time_us / 1e6, datetime.UTC):%Y-%m-%d %H:%M}"


# Each of Evidently's pages brings 4 MB of scripts: packed they are a quarter, and only who looks waits for them.
UNPACK = """
for (const drawing of document.querySelectorAll('details:has(iframe)')) drawing.addEventListener('toggle', async () => {
  const packed = drawing.querySelector('script'), frame = drawing.querySelector('iframe');
  if (!packed) return;
  const bytes = Uint8Array.from(atob(packed.textContent), each => each.charCodeAt(0));
  packed.remove();
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  frame.srcdoc = await new Response(stream).text();
});
"""

STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1d2430, #e6e9ee); --dim: light-dark(#5a6472, #9aa4b2);
  --line: light-dark(#dfe3e8, #343b46); --paper: light-dark(#fff, #14181f); --before: light-dark(#8b98a9, #8592a3);
  --now: #e07b2f; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 24px 20px 64px; }
header { border-left: 8px solid var(--dim); padding: 4px 0 4px 20px; }
header.good { border-color: #2e8b57; } header.warn { border-color: #d99a1c; } header.bad { border-color: #c8402f; }
h1 { font-size: 34px; line-height: 1.15; margin: 0; } header p { font-size: 19px; margin: 8px 0 0; }
h2 { font-size: 21px; margin: 40px 0 10px; border-top: 1px solid var(--line); padding-top: 20px; }
.of, .small, .remark { color: var(--dim); } .small { font-size: 14px; } .remark { border-left: 3px solid #d99a1c;
  padding-left: 12px; }
table { border-collapse: collapse; width: 100%; font-size: 15px; } th, td { text-align: left; padding: 6px 12px 6px 0;
  border-bottom: 1px solid var(--line); font-weight: 400; } tr:first-child th { color: var(--dim); font-size: 14px; }
.n { text-align: right; font-variant-numeric: tabular-nums; } .hit { color: light-dark(#b23a22, #ff8d70); }
td.hit { font-weight: 600; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 16px; margin: 0 0 20px; }
dl div { border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; } dt { color: var(--dim);
  font-size: 14px; } dd { margin: 0; font-size: 24px; } dd small { display: block; font-size: 13px; color: var(--dim); }
.unsure dd { opacity: .6; text-decoration: line-through; } .unsure small { display: inline-block !important;
  text-decoration: none; }
.meter { display: block; width: 160px; height: 8px; background: var(--line); border-radius: 4px; position: relative; }
.meter span { display: block; height: 8px; border-radius: 4px; background: var(--before); }
.meter .over { background: #c8402f; } .meter::after { content: ''; position: absolute; left: 50%; top: -3px;
  height: 14px; border-left: 2px solid var(--ink); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); gap: 20px; }
figure { margin: 0; } figcaption { font-size: 13px; color: var(--dim); } figcaption b { display: block;
  font-size: 15px; color: var(--ink); } figcaption.hit b { color: light-dark(#b23a22, #ff8d70); }
svg { width: 100%; } svg text { font-size: 10px; fill: var(--dim); } .before { fill: var(--before); }
.now { fill: var(--now); fill-opacity: .25; stroke: var(--now); stroke-width: 1.5; } rect.now { fill-opacity: 1;
  stroke: none; } polygon.before { fill-opacity: .45; }
.key { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin: 0 4px 0 12px;
  vertical-align: -1px; } .key.before { background: var(--before); } .key.now { background: var(--now); }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(168px, 1fr)); gap: 20px; }
.examples img, .examples .none { width: 80px; height: 80px; image-rendering: pixelated; border-radius: 4px;
  margin-right: 4px; vertical-align: top; } .examples .none { display: inline-flex; align-items: center;
  justify-content: center; font-size: 11px; color: var(--dim); border: 1px dashed var(--line);
  box-sizing: border-box; }
.id { font: 9px ui-monospace, monospace; } details { margin-top: 24px; border-top: 1px solid var(--line);
  padding-top: 16px; } summary { cursor: pointer; font-size: 18px; } iframe { width: 100%; height: 82vh;
  border: 1px solid var(--line); border-radius: 8px; background: #fff; }
"""
