"""The parts of a drift report's first page on what was counted, and on which part of the traffic changed: HTML."""

import math
from collections.abc import Iterator
from html import escape

from fashion.drift.report_style import TABLE
from fashion.drift.result import DriftResult, Slice
from fashion.drift.verdict import format_p_value

MAX_SHOWN = 10
"""Slices in the table."""
MAX_NAME = 40
"""Characters of a client's tag."""


def describe_traffic(result: DriftResult) -> str:
    """How many pictures and clients there were, and what was counted; empty without rows."""
    traffic = result.traffic
    if traffic is None:
        return ""
    pictures = f"{_number(traffic.pictures, 'distinct picture')}, each counted once"
    if traffic.compared < traffic.pictures:
        pictures = f"about {pictures}: the tests look at {traffic.compared:,} of them, sampled at random"
    clients = _number(traffic.clients, "client") if traffic.clients else "no row names its client"
    if traffic.clients and traffic.untagged:
        clients += f" and {_number(traffic.untagged, 'row')} without one"
    sentence = f"{pictures}; {clients}."
    if traffic.worth == 0:
        sentence += " The clients are few and differ from each other, so that some tests say nothing."
    elif traffic.worth < 0.99 * traffic.compared:
        sentence += (
            f" A client's pictures are like each other: the test that this weakens most counts them as "
            f"{traffic.worth:,.0f} independent ones."
        )
    return sentence


def slices_section(result: DriftResult) -> Iterator[str]:
    """The section on slices, nothing where none was compared."""
    if not result.slices:
        return
    unusual = [each for each in result.slices if each.is_unusual]
    yield "<section><h2>Where</h2>"
    yield (
        f"<p>{len(unusual)} of {_number(len(result.slices), 'slice')} of the window (clients, hours of the day in UTC, "
        "predicted classes) "
        f"{'differs' if len(unusual) == 1 else 'differ'} from the reference or lost accuracy. All slices share an "
        f"alpha of {result.alpha:.2g} of their own (Holm's method); they do not decide whether there is drift.</p>"
    )
    if unusual:
        yield f"<div class='wide' tabindex='0'>{TABLE}<tr><th>slice</th><th class='n'>pictures</th>"
        yield "<th class='n'>p-value</th><th>differs in</th><th class='n'>right, by feedback</th><th>result</th></tr>"
        yield from map(_row, unusual[:MAX_SHOWN])
        yield "</table></div>"
    if len(unusual) > MAX_SHOWN:
        yield f"<p class='small'>And {len(unusual) - MAX_SHOWN} more, in result.json.</p>"
    yield "</section>"


def _row(found: Slice) -> str:
    name = found.name if len(found.name) <= MAX_NAME else f"{found.name[:MAX_NAME]}…"
    right = "" if math.isnan(found.accuracy) else f"{found.accuracy:.1%} of {found.labelled:,}"
    verdict = " and ".join(
        word for word, holds in (("changed", found.changed), ("less right", found.declined)) if holds
    )
    return (
        f"<tr><th>{found.kind} {escape(name)}</th><td class='n'>{found.pictures:,}</td>"
        f"<td class='n'>{format_p_value(found.p_value)}</td><td>{escape(', '.join(found.columns))}</td>"
        f"<td class='n'>{right}</td><td class='hit'>{verdict}</td></tr>"
    )


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
