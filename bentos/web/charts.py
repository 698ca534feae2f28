"""Charts over time as SVG, without scripts or styles of their own. Knows numbers and places, not what they mean.

Positions along time are percentages and heights are pixels, so a chart fills any width and its text stays as large as
the page's. Colours are classes of `page/charts.css`: a policy that forbids styles in a page stands.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from bentos.web.html import text

HEIGHT = 150
"""Of the part that shows values, in pixels."""
TOP, BOTTOM = 20, 24
"""Room above the highest value, and below the lowest for the times."""
GAP = 0.14
"""Between two bars, as a share of a step."""
WIDE, NARROW = 20, 5
"""Percent of the width that the label of a band takes on a phone, and its short form."""
SHAPES = {
    "bad": "M-5.5 4.5 L0 -5.5 L5.5 4.5 Z",
    "warn": "M0 -5.5 L5.5 0 L0 5.5 L-5.5 0 Z",
    "good": "M-4 0 a4 4 0 1 0 8 0 a4 4 0 1 0 -8 0",
    "none": "M-3.5 -3.5 h7 v7 h-7 Z",
}
"""Of marks, by what they mean: they differ in more than colour."""

Values = Sequence[float | None]
Format = Callable[[float], str]


@dataclass(frozen=True)
class Tick:
    """A label on the time axis."""

    place: float
    """In [0, 1]."""
    label: str
    is_minor: bool = False
    """Left out on narrow screens."""


@dataclass(frozen=True)
class Mark:
    """Something that happened at one time."""

    place: float
    """In [0, 1]."""
    kind: str
    """A key of `SHAPES`."""
    label: str
    url: str = ""


@dataclass(frozen=True)
class Band:
    """Something that lasted for some steps."""

    start: int
    end: int
    """The first step after it."""
    label: str
    short: str
    """Written where the band is too narrow for the label."""


@dataclass(frozen=True)
class TimeAxis:
    """What all charts of a page share."""

    steps: Sequence[str]
    """What each step is called."""
    ticks: Sequence[Tick]
    changes: Sequence[int] = ()
    """Steps at which something changed: a line in each chart."""
    marks: Sequence[Mark] = ()
    """Shown in each chart."""


@dataclass(frozen=True)
class Series:
    """Values of one kind."""

    name: str
    kind: str
    """Its class in `charts.css`."""
    values: Values
    """One for each step; None where nothing is known."""


def bars(time: TimeAxis, series: Sequence[Series], form: Format, *, label: str) -> str:
    """Bars on top of each other, from zero.

    Args:
        time: the axis.
        series: from the lowest to the highest.
        form: writes a value.
        label: what the chart shows, for who cannot see it.
    """
    totals = [sum(each.values[step] or 0 for each in series) for step in range(len(time.steps))]
    axis = _ValueAxis.of(totals, whole=True)
    parts = []
    for step in range(len(time.steps)):
        below = 0.0
        for each in series:
            value = each.values[step]
            if value:
                low, high = axis.y(below), axis.y(below + value)
                title = f"{time.steps[step]}: {form(value)} {each.name}"
                parts.append(_rectangle(time, step, high, max(low - high, 1), each.kind, title))
                below += value
    return _chart(time, axis, form, parts, label)


def lines(time: TimeAxis, series: Sequence[Series], form: Format, *, label: str, share: bool = False) -> str:
    """Lines, broken where nothing is known.

    Args:
        time: the axis.
        series: a line each.
        form: writes a value.
        label: what the chart shows, for who cannot see it.
        share: values are in [0, 1].
    """
    known = [value for each in series for value in each.values if value is not None]
    axis = _ValueAxis.of(known, share=share)
    parts = []
    for each in series:
        places = [(_middle(time, step), value) for step, value in enumerate(each.values)]
        for is_known, group in groupby(places, key=lambda place: place[1] is not None):
            if is_known:
                points = " ".join(f"{x:.3f},{axis.y(value or 0):.1f}" for x, value in group)
                parts.append(
                    f"<svg width='100%' height='{TOP + HEIGHT}' viewBox='0 0 100 {TOP + HEIGHT}' "
                    f"preserveAspectRatio='none'><polyline class='{each.kind}' points='{points}'/></svg>"
                )
        for step, value in enumerate(each.values):
            if value is not None:
                title = text(f"{time.steps[step]}: {each.name} {form(value)}")
                place = f"cx='{_middle(time, step):.3f}%' cy='{axis.y(value):.1f}'"
                parts.append(f"<circle class='{each.kind}' {place} r='2.5'><title>{title}</title></circle>")
    return _chart(time, axis, form, parts, label)


def intervals(time: TimeAxis, name: str, values: Sequence[tuple[float, float, float] | None], *, label: str) -> str:
    """Shares in [0, 1] with their intervals: a band around a line in each step.

    Args:
        time: the axis.
        name: of the values.
        values: the low end, the value and the high end for each step; None where nothing is known.
        label: what the chart shows, for who cannot see it.
    """
    axis = _ValueAxis.of([each for found in values if found is not None for each in found], share=True)
    parts = []
    for step, found in enumerate(values):
        if found is not None:
            low, value, high = (axis.y(each) for each in found)
            title = f"{time.steps[step]}: {name} {found[1]:.1%}, {found[0]:.1%} to {found[2]:.1%}"
            parts.append(_rectangle(time, step, high, max(low - high, 1), "a band", title))
            parts.append(_rectangle(time, step, value - 1.25, 2.5, "a", title))
    return _chart(time, axis, lambda value: f"{value:.0%}", parts, label)


def timeline(time: TimeAxis, bands: Sequence[Band], marks: Sequence[Mark], *, label: str) -> str:
    """Bands with their names, and below them marks.

    Args:
        time: the axis.
        bands: what lasted.
        marks: what happened.
        label: what the chart shows, for who cannot see it.
    """
    steps, height = len(time.steps), 64
    parts = []
    for number, each in enumerate(bands):
        x, width = 100 * each.start / steps, 100 * (each.end - each.start) / steps
        name, shown = text(each.label), each.label if width >= WIDE else each.short if width >= NARROW else ""
        # A nested svg cuts off what is wider than its band.
        parts.append(
            f"<svg x='{x:.3f}%' y='0' width='{width:.3f}%' height='28'>"
            f"<rect class='version {'odd' if number % 2 else 'even'}' width='100%' height='28'>"
            f"<title>{name}</title></rect><text x='7' y='19'>{text(shown)}</text></svg>"
        )
    parts += [_mark(each, 46) for each in marks]
    parts += _times(time, height)
    drawing = (
        f"<svg class='plot' height='{height + BOTTOM}' role='group' aria-label='{text(label)}'>{''.join(parts)}</svg>"
    )
    return f"<div class='chart'>{drawing}</div>"


def legend(items: Iterable[tuple[str, str]]) -> str:
    """What the colours and shapes mean.

    Args:
        items: a class, or a key of `SHAPES` after `mark `, and its meaning in plain text.
    """
    return "<ul class='legend'>" + "".join(f"<li>{_swatch(kind)}{text(name)}</li>" for kind, name in items) + "</ul>"


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """The numbers of a chart, to be opened.

    Args:
        caption: plain text.
        heads: of the columns, the first of which names the row.
        rows: HTML of each cell.
        words: columns that are no numbers, the first ones.
    """
    kinds = [*[""] * words, *[" class='number'"] * (len(heads) - words)]
    head = "".join(f"<th scope='col'{kind}>{text(each)}</th>" for kind, each in zip(kinds, heads, strict=True))
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td{kind}>{each}</td>" for kind, each in zip(kinds[1:], others, strict=True))
        lines.append(f"<tr><th scope='row'>{first}</th>{cells}</tr>")
    body = "".join(lines)
    return (
        f"<details><summary>{text(caption)}, as a table</summary><div class='wide' tabindex='0'><table class='numbers'>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )


@dataclass(frozen=True)
class _ValueAxis:
    low: float
    high: float
    step: float

    @classmethod
    def of(cls, values: Values, *, whole: bool = False, share: bool = False) -> "_ValueAxis":
        """An axis with round labels: from zero, or for shares from below the lowest to above the highest."""
        known = [value for value in values if value is not None]
        low, high = (min(known), max(known)) if known else (0.0, 0.0)
        if share:
            room = max(high - low, 0.02)
            low, high = max(0.0, low - 0.1 * room), min(1.0, high + 0.1 * room)
            if low < 0.3 * high:
                low = 0.0
        else:
            low = 0.0
        step = _round_step((high - low) / 3, whole=whole)
        low = math.floor(low / step + 1e-9) * step
        high = max(math.ceil(high / step - 1e-9) * step, low + step)
        return cls(low, min(high, 1.0) if share else high, step)

    def y(self, value: float) -> float:
        return TOP + HEIGHT * (1 - (value - self.low) / (self.high - self.low))

    def ticks(self) -> Iterator[float]:
        for number in range(round((self.high - self.low) / self.step) + 1):
            yield self.low + number * self.step


def _round_step(at_least: float, *, whole: bool) -> float:
    """The least of 1, 2, 2.5 and 5 times a power of ten that is large enough."""
    if at_least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(at_least))
    if whole and power < 1:
        return 1.0
    factors = (1, 2, 5, 10) if whole and power == 1 else (1, 2, 2.5, 5, 10)
    return next(factor * power for factor in factors if factor * power >= at_least * (1 - 1e-9))


def _chart(time: TimeAxis, axis: _ValueAxis, form: Format, parts: Iterable[str], label: str) -> str:
    height = TOP + HEIGHT + BOTTOM
    grid, values = [], []
    for tick in axis.ticks():
        y = axis.y(tick)
        grid.append(f"<line class='grid' x1='0' x2='100%' y1='{y:.1f}' y2='{y:.1f}'/>")
        values.append(f"<text x='100%' dx='-8' y='{y + 4:.1f}' text-anchor='end'>{text(form(tick))}</text>")
    steps = len(time.steps)
    for change in time.changes:
        x = f"{100 * change / steps:.3f}%"
        grid.append(f"<line class='change' x1='{x}' x2='{x}' y1='0' y2='{TOP + HEIGHT}'/>")
    drawn = [*grid, *parts, *(_mark(each, 7) for each in time.marks), *_times(time, TOP + HEIGHT)]
    return (
        f"<div class='chart'><svg class='values' height='{height}' aria-hidden='true'>{''.join(values)}</svg>"
        f"<svg class='plot' height='{height}' role='group' aria-label='{text(label)}'>{''.join(drawn)}</svg></div>"
    )


def _times(time: TimeAxis, y: int) -> Iterator[str]:
    for tick in time.ticks:
        x = f"{100 * tick.place:.3f}%"
        anchor = "start" if tick.place < 0.02 else "end" if tick.place > 0.95 else "middle"
        kind = " class='minor'" if tick.is_minor else ""
        yield f"<line class='tick' x1='{x}' x2='{x}' y1='{y}' y2='{y + 4}'/>"
        yield f"<text{kind} x='{x}' y='{y + 18}' text-anchor='{anchor}'>{text(tick.label)}</text>"


def _rectangle(time: TimeAxis, step: int, y: float, height: float, kind: str, title: str) -> str:
    steps = len(time.steps)
    x, width = 100 * (step + GAP / 2) / steps, 100 * (1 - GAP) / steps
    under_way = " partial" if step == steps - 1 else ""
    return (
        f"<rect class='{kind}{under_way}' x='{x:.3f}%' width='{width:.3f}%' y='{y:.1f}' height='{height:.1f}'>"
        f"<title>{text(title)}</title></rect>"
    )


def _mark(mark: Mark, y: int) -> str:
    shape = f"<path class='mark {mark.kind}' d='{SHAPES[mark.kind]}'><title>{text(mark.label)}</title></path>"
    if mark.url:
        shape = f"<a href='{text(mark.url)}' aria-label='{text(mark.label)}'>{shape}</a>"
    return f"<svg class='at' x='{100 * mark.place:.3f}%' y='{y}'>{shape}</svg>"


def _middle(time: TimeAxis, step: int) -> float:
    return 100 * (step + 0.5) / len(time.steps)


def _swatch(kind: str) -> str:
    if kind.startswith("mark "):
        box, shape = "-7 -7 14 14", f"<path class='{kind}' d='{SHAPES[kind[5:]]}'/>"
    else:
        box, shape = "0 0 14 14", f"<rect class='{kind}' width='14' height='14'/>"
    return f"<svg class='swatch' viewBox='{box}' aria-hidden='true'>{shape}</svg>"
