"""What is known of a window beside its rows: silence, feedback that came late, rows without a reference, lost time."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fashion.drift import verdict
from fashion.drift.references import References
from fashion.drift.result import Context, with_unjudged
from fashion.drift.window_part import Inspection
from fashion.predictions.record import ModelId
from fashion.predictions.windows import Source, Window


class Surroundings(NamedTuple):
    """What all versions in a window have in common."""

    unjudged: str
    """One sentence on rows without a reference; empty without any."""
    later: int
    """Predictions that are dated after the window, in the future."""
    context: Context
    span: tuple[int, int]
    """Bounds of the window up to now, microseconds since 1970."""


def look_around(
    source: Source,
    window: Window,
    unjudged: Mapping[ModelId, int],
    references: References,
    *,
    now_us: int,
    due_us: int,
    data: str = "",
) -> Surroundings:
    """Look at what is beside the rows of a window.

    Args:
        source: the log.
        window: that was inspected.
        unjudged: rows without a reference, by model.
        references: says why.
        now_us: microseconds since 1970. A window that ended before is not asked whether the service is silent.
        due_us: as in `Context`.
        data: as in `Context`.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be read.
    """
    ends_now = window.since_us < now_us <= window.until_us
    is_silent = ends_now and source.span(window) is None
    before = source.span(Window(0, window.since_us)) if is_silent else None
    context = Context(
        before[1] if before else 0,
        unknown=references.unknown(unjudged),
        due_us=due_us,
        data=data,
        ends_now=ends_now and window.rows is None,
    )
    later = source.count_after(window) if ends_now else 0
    span = (window.since_us, min(window.until_us, now_us))
    return Surroundings(references.describe_unjudged(unjudged), later, context, span)


def with_context(
    inspected: Inspection, around: Surroundings, late_labels: Mapping[ModelId, int], references: References
) -> Inspection:
    """An inspection whose result knows what is beside its rows.

    Args:
        inspected: of one version.
        around: what all versions have in common.
        late_labels: rows of before the window whose feedback arrived in it, by model.
        references: what the versions were compared with.
    """
    result = inspected.result
    late = sum(
        rows
        for model, rows in late_labels.items()
        if (model.version, model.digest or "") == (result.model_version, result.model_digest)
    )
    version = references.loaded.get(result.model_version)
    accepted = 0 if version is None else version.accepted_rows
    context = dataclasses.replace(around.context, late_labels=late, accepted_rows=accepted)
    known = dataclasses.replace(result, context=context)
    if late and not result.rows and not result.unreadable:
        reason = "this version has predicted nothing in this window, but feedback on earlier predictions has come"
        known = dataclasses.replace(known, reason=reason, since_us=around.span[0], until_us=around.span[1])
    return dataclasses.replace(inspected, result=with_unjudged(known, around.unjudged, context.unknown))


def describe(inspected: Sequence[Inspection], around: Surroundings, *, longer_since_us: int | None) -> list[str]:
    """Sentences on what is unusual about a window.

    Args:
        inspected: its versions.
        around: what they have in common.
        longer_since_us: where it begins, if that is earlier than configured; microseconds since 1970.
    """
    results = [each.result for each in inspected]
    remarks = [f"{around.unjudged}."] if around.unjudged and results[-1].rows else []
    answering = [result.model_version for result in results if result.rows]
    if len(answering) > 1:
        served = ", ".join(answering)
        remarks.append(f"Several versions answered in this window ({served}): each has a report of its own.")
    if around.later:
        remarks.append(
            f"{around.later:,} predictions are dated after this window, in the future: a clock was set back. They "
            "belong to a later window."
        )
    if longer_since_us is not None:
        since = verdict.format_time(longer_since_us)
        remarks.append(f"Runs were missed: this window is longer than usual, and begins at {since} UTC.")
    return remarks
