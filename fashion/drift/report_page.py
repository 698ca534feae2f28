"""The first page of a drift report, for a reader who does not know p-values: HTML that needs no connection.

In this order: is something wrong, does it hurt and what to do; then why, how bad it is, what changed, examples, and
earlier windows. Decides nothing.
"""

import base64
import gzip
import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from fashion.drift import charts, report_examples, report_traffic
from fashion.drift.evidently_report import EvidentlyPage
from fashion.drift.report_examples import Example
from fashion.drift.report_style import STYLE, TABLE, UNPACK
from fashion.drift.result import FAMILIES, DriftResult, FeedbackAccuracy
from fashion.drift.verdict import (
    VERDICTS,
    Step,
    describe_span,
    does_it_hurt,
    format_p_value,
    format_time,
    headline,
    is_wrong,
    reliability,
    what_to_do,
)
from fashion.drift.window_part import Inspection
from fashion.model.accuracy import BEYOND, HARMFUL, Estimate
from fashion.model.package import SeverityThresholds
from fashion.model.predictor import Predictions
from fashion.model.severity import Signals

MAX_CONFUSIONS = 6
"""Kinds of mistakes that are listed."""
MIN_CLASS_ROWS = 5
"""Rows with feedback of a class that are needed to list its mistakes."""
TONES = {"Yes": "bad", "Likely": "bad", "No": "good"}
"""Colours of answers."""
SIGNAL_WORDS = {
    "confidence": "Mean confidence",
    "entropy": "Mean entropy of the probabilities",
    "unsure": "Unsure rows",
    **{f"embedding_{share}": f"Rows that the network finds unusual, {1 - share:.1%}" for share in BEYOND},
    **{f"picture_{share}": f"Rows that are unusual as pictures too, {1 - share:.1%}" for share in BEYOND},
    "classes": "Rows that the predicted classes have moved by",
}
"""The signals of the estimated accuracy."""


def render(
    inspection: Inspection,
    *,
    model: str,
    report_id: str,
    class_names: Sequence[str],
    reference: Predictions | None,
    examples: Sequence[Example],
    history: Sequence[Mapping[str, Any]],
    evidently_pages: Sequence[EvidentlyPage],
    remarks: Sequence[str] = (),
) -> str:
    """A report as one HTML file.

    Args:
        inspection: what is reported.
        model: name of the registered model.
        report_id: of this report, for the commands that it names.
        class_names: of the version.
        reference: rows that the window was compared with; None for an unknown version.
        examples: the most unusual rows.
        history: earlier windows as from `fashion.drift.result.result_as_dict`, each with its `id`; newest first.
        evidently_pages: shown below, when a reader opens them.
        remarks: sentences to show under the verdict.
    """
    result = inspection.result
    changes: Iterator[str] = iter(())
    if reference is not None and inspection.sample is not None:
        changes = charts.section(result, reference, inspection.sample.predictions, class_names)
    body = [
        *_header(result, model, report_id),
        *(f"<p class='remark'>{escape(remark)}</p>" for remark in remarks),
        *_why(result),
        *_how_bad(result, class_names),
        *report_traffic.slices_section(result),
        *changes,
        *report_examples.section(examples, class_names),
        *_history(history),
        *_evidently(evidently_pages),
    ]
    title = escape(f"{headline(result)} ({model} version {result.model_version})")
    return (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<style>{STYLE}</style></head><body><main>\n" + "\n".join(body) + "\n</main></body></html>\n"
    )


def _header(result: DriftResult, model: str, report_id: str) -> Iterator[str]:
    """The first screen."""
    if result.conditions & {"harmful", "decline", "coverage", "no_traffic", "unreadable"}:
        tone = "bad"
    else:
        tone = {"drift": "warn", "no_drift": "good", "insufficient_data": "plain"}[result.decision]
    version = f", version {escape(result.model_version)}" if result.model_version else ""
    yield f"<header class='{tone}'><h1>{escape(headline(result))}</h1>"
    span = f", {describe_span(result)}" if result.rows else ""
    counted = report_traffic.describe_traffic(result)
    yield f"<p class='of'>{escape(model)}{version}: {result.rows:,} predictions{span}. {escape(counted)}</p></header>"
    yield "<div class='answers'>"
    for question, answer in (("Is something wrong?", is_wrong(result)), ("Does it hurt?", does_it_hurt(result))):
        word = f"<b class='{TONES.get(answer.word, '')}'>{escape(answer.word)}</b>"
        yield f"<div><h2>{question}</h2>{word}<p>{escape(answer.sentence)}.</p></div>"
    first, *others = what_to_do(result, report_id)
    yield f"<div><h2>What to do?</h2><b>{escape(first.sentence)}</b>{_command(first)}"
    yield from (f"<p>{escape(step.sentence)}:</p>{_command(step)}" for step in others)
    yield "</div></div>"
    if accepted := result.context.accepted_rows:
        yield f"<p class='remark'>Compared with {accepted:,} rows of windows that were accepted as the new normal.</p>"
    if result.unreadable and "unreadable" not in result.conditions:
        yield f"<p class='remark'>{result.unreadable:,} more rows hold no usable numbers, and are in no test.</p>"


def _command(step: Step) -> str:
    return f"<code>{escape(step.command)}</code>" if step.command else ""


def _why(result: DriftResult) -> Iterator[str]:
    if not result.p_values:
        return
    share = format_p_value(result.alpha / len(FAMILIES))
    yield f"<section><h2>Why</h2>{TABLE}<tr><th>what is compared</th><th class='n'>columns</th>"
    yield "<th class='n'>p-value</th><th class='n'>drift below</th><th>result</th></tr>"
    for family in FAMILIES:
        columns = [column for column in result.columns if column.family == family]
        drifted, p_value = any(column.drifted for column in columns), result.p_values[family]
        verdict = "not tested" if math.isnan(p_value) else "drift" if drifted else "no drift"
        yield (
            f"<tr><th>{family}</th><td class='n'>{len(columns)}</td>"
            f"<td class='n'>{'' if math.isnan(p_value) else format_p_value(p_value)}</td><td class='n'>{share}</td>"
            f"<td class='{'hit' if drifted else ''}'>{verdict}</td></tr>"
        )
    yield "</table>"
    alarms = result.false_alarms
    if alarms is not None:
        source = "windows that were accepted" if result.context.accepted_rows else "the model's own held-out data"
        yield (
            f"<p>How often this decision is wrong when nothing changed: {alarms.alarms} of {alarms.resplits} windows "
            f"of {alarms.rows:,} rows, drawn from {source}, were called drift "
            f"({alarms.alarms / alarms.resplits:.1%}; 95&nbsp;% interval {alarms.low:.1%} to {alarms.high:.1%}). "
            f"By design it is at most {100 * result.alpha:.2g}&nbsp;%{_yearly(result)}.</p>"
        )
    yield "</section>"


def _yearly(result: DriftResult) -> str:
    expected = result.false_alarms_per_year
    return "" if expected is None else f": of all runs of a year, at most {expected:.3g} in expectation"


def _how_bad(result: DriftResult, class_names: Sequence[str]) -> Iterator[str]:
    if result.severity is None and result.feedback is None:
        return
    yield "<section><h2>How bad</h2><dl>"
    if result.estimated is not None:
        reliable = result.estimated.reliable
        note = reliability(result.estimated)
        yield _fact("Accuracy, estimated", f"{result.estimated.accuracy:.1%}", note, reliable=reliable)
    feedback = result.feedback
    if feedback is not None:
        late = f", {feedback.late:,} on earlier predictions" if feedback.late else ""
        note = f"{feedback.rows:,} rows with feedback{late}; {feedback.low:.1%} to {feedback.high:.1%}"
        yield _fact("Accuracy, by feedback", f"{feedback.accuracy:.1%}", note)
        few = "too few rows or clients" if math.isnan(feedback.p_decline) else "too few rows"
        change = {None: few, True: "down", False: "not shown to be down"}[feedback.declined]
        note = f"Fisher's exact test, p = {format_p_value(feedback.p_decline)}"
        yield _fact("Against the reference", change, note)
    if result.coverage is not None:
        note = f"to be {result.coverage.nominal:.1%}; {result.coverage.low:.1%} to {result.coverage.high:.1%}"
        yield _fact("Sets with the true label", f"{result.coverage.held:.1%}", note)
    if result.reference_rows:
        note = f"{result.reference_rows:,} held-out rows"
        yield _fact("Accuracy, reference", f"{result.reference_accuracy:.1%}", note)
    yield "</dl>"
    if result.severity is not None and result.severity.signals is not None:
        yield from _old_signals(result.severity.signals, result.severity.thresholds)
    elif result.estimated is not None and result.estimated.signals:
        yield from _signals(result.estimated)
    if feedback is not None:
        note = feedback.note or "users choose which rows get feedback, so those rows may differ from the others"
        yield f"<p class='small'>{escape(note[0].upper() + note[1:])}.</p>"
        yield from _confusions(feedback, class_names)
    yield "</section>"


def _signals(estimated: Estimate) -> Iterator[str]:
    yield f"{TABLE}<tr><th>sign of harm</th><th class='n'>now</th><th class='n'>usual</th>"
    yield "<th class='n'>costs, points</th></tr>"
    for name, now, usual, fall in estimated.signals:
        form = ".2f" if name == "entropy" else ".1%"
        numbers = "".join(
            f"<td class='n'>{text}</td>" for text in (f"{now:{form}}", f"{usual:{form}}", f"{100 * fall:.1f}")
        )
        yield f"<tr><th>{escape(SIGNAL_WORDS[name])}</th>{numbers}</tr>"
    yield (
        "</table><p class='small'>How much accuracy each sign costs was learnt when this version was trained, from "
        "held-out pictures that were corrupted in many ways. A negative cost takes back what another sign says."
        f" A window is called harmful where they add up to about {100 * HARMFUL:.0f} points or more.</p>"
    )


def _old_signals(signals: Signals, bounds: SeverityThresholds | None) -> Iterator[str]:
    if bounds is None:
        return
    rows = [
        ("Loss of mean confidence", signals.confidence_drop, bounds.confidence_drop),
        ("Largest distance of a class probability", signals.output_distance, bounds.output_distance),
        ("Rows unlike the reference", signals.outlier_fraction, bounds.outlier_fraction),
    ]
    yield f"{TABLE}<tr><th>sign of harm</th><th class='n'>now</th><th class='n'>harmless up to</th>"
    yield "<th>compared</th></tr>"
    for name, now, bound in rows:
        share = min(1.0, max(0.0, now) / bound / 2) if bound > 0 else 0.0
        bar = f"<span style='width:{share:.0%}' class='{'over' if now > bound else ''}'></span>"
        meter = f"<span class='meter'>{bar}</span>"
        yield f"<tr><th>{name}</th><td class='n'>{now:.1%}</td><td class='n'>{bound:.1%}</td><td>{meter}</td></tr>"
    yield (
        "</table><p class='small'>The bounds were calibrated when this version was trained, on held-out pictures that "
        f"were corrupted in many ways: they found {bounds.detected:.0%} of the windows that lost more than five points "
        f"of accuracy, and called {bounds.false_alarms:.0%} of the others harmful.</p>"
    )


def _confusions(feedback: FeedbackAccuracy, class_names: Sequence[str]) -> Iterator[str]:
    """The mistakes that grew most, as shares of their true class."""
    now, before = (np.array(matrix, np.float64) for matrix in (feedback.confusion, feedback.reference_confusion))
    enough = now.sum(axis=1) >= MIN_CLASS_ROWS
    shares, usual = (matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1) for matrix in (now, before))
    growth = np.where(enough[:, None] & ~np.eye(len(now), dtype=bool), shares - usual, 0)
    worst = [divmod(int(index), len(now)) for index in np.argsort(-growth, axis=None)[:MAX_CONFUSIONS]]
    worst = [(true, predicted) for true, predicted in worst if growth[true, predicted] > 0]
    if not worst:
        return
    yield "<p class='small'>The mistakes that grew most, each as a share of its true class:</p>"
    yield f"{TABLE}<tr><th>true class</th><th>predicted</th><th class='n'>now</th><th class='n'>in the reference</th>"
    yield "</tr>"
    for true, predicted in worst:
        yield (
            f"<tr><td>{escape(class_names[true])}</td><td>{escape(class_names[predicted])}</td>"
            f"<td class='n'>{shares[true, predicted]:.1%}</td><td class='n'>{usual[true, predicted]:.1%}</td></tr>"
        )
    yield "</table>"


def _history(history: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not history:
        return
    yield f"<section><h2>Earlier windows</h2>{TABLE}<tr><th>window ended</th><th>version</th><th class='n'>rows</th>"
    yield "<th>verdict</th><th class='n'>estimated</th><th class='n'>by feedback</th></tr>"
    for past in history:
        estimated, feedback = past.get("estimated") or {}, past.get("feedback") or {}
        decision = str(past.get("decision"))
        words = VERDICTS.get(str(past.get("level")) if decision == "drift" else decision, "unreadable")
        cells = [
            f"<td>{format_time(int(past.get('until_us') or 0))}</td>",
            f"<td>{escape(str(past.get('model_version', '')))}</td>",
            f"<td class='n'>{int(past.get('rows') or 0):,}</td>",
            f"<td class='{'hit' if decision == 'drift' else ''}'>{escape(words)}</td>",
            f"<td class='n'>{_format_estimate(estimated)}</td>",
            f"<td class='n'>{_format_share(feedback.get('accuracy'))}</td>",
        ]
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</table><p class='small'>(?): an estimate that is not reliable.</p></section>"


def _evidently(pages: Sequence[EvidentlyPage]) -> Iterator[str]:
    for page in pages:
        packed = base64.b64encode(gzip.compress(page.html.encode(), mtime=0)).decode()
        yield (
            f"<details><summary>{escape(page.title)}, by Evidently</summary><p class='small'>{escape(page.note)}"
            f"</p><iframe title='{escape(page.title)}'></iframe>"
            f"<script type='application/gzip'>{packed}</script></details>"
        )
    if pages:
        yield f"<script>{UNPACK}</script>"


def _fact(name: str, value: str, note: str, *, reliable: bool = True) -> str:
    return (
        f"<div class='{'' if reliable else 'unsure'}'><dt>{escape(name)}</dt><dd>{escape(value)}"
        f"<small>{escape(note)}</small></dd></div>"
    )


def _format_estimate(estimated: Mapping[str, Any]) -> str:
    share = _format_share(estimated.get("accuracy"))
    return f"{share} (unreliable)" if share and not estimated.get("reliable", True) else share


def _format_share(value: Any) -> str:
    return f"{value:.1%}" if isinstance(value, float) else ""
