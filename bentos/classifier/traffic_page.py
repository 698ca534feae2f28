"""The charts of traffic over time, each with its table. Reads no log."""

from collections.abc import Iterator, Sequence

from bentos.classifier import traffic_timeline as timeline
from bentos.classifier.schemas import Report
from bentos.classifier.traffic import TrafficOverTime
from bentos.classifier.traffic_answer import QUANTILES, as_moment
from bentos.web import charts
from bentos.web.charts import Series, Tick, TimeAxis
from bentos.web.html import text
from fashion.predictions.slots import SPANS, Period, Traffic

STEPS = {"day": "an hour", "week": "6 hours", "month": "a day"}
"""How long a step of a span is."""
FROM = "from, UTC"
"""Head of the first column."""


def sections(traffic: TrafficOverTime, listed: Sequence[Report], *, source: str, share: float | None) -> Iterator[str]:
    """The section of the page on a span, as HTML.

    Args:
        traffic: of the span.
        listed: drift reports, newest first.
        source: whose rows these are; one sentence.
        share: of pictures as in training that would be called unlike them; None if the model cannot tell.
    """
    yield "<section><h2>Over time</h2>"
    yield "<nav class='spans' aria-label='Time that is shown'>"
    for name in SPANS:
        current = " aria-current='page'" if name == traffic.span.name else ""
        yield f"<a href='/monitoring?span={name}'{current}>{name.capitalize()}</a>"
    yield "</nav>"
    remarks = [f"{source} Times are UTC; the last step is under way."]
    if traffic.others:
        remarks.append(f"{traffic.others:,} predictions of other models are not counted here.")
    yield f"<p class='note'>{text(' '.join(remarks))}</p>"
    if traffic.problem:
        yield f"<p>{text(traffic.problem)}</p>"
    if traffic.waiting:
        minutes = 5 * traffic.waiting
        yield f"<p>The log is being counted, the newest rows first: {minutes:,} minutes of it are left. Load again.</p>"
    if traffic.periods and not traffic.waiting and _is_empty(traffic, listed):
        yield "<p class='empty'>No prediction, no request for one and no drift report in this time.</p>"
    elif traffic.periods:
        yield "<div class='figures'>"
        yield from _Charts(traffic, listed, share).figures()
        yield "</div>"
    yield "</section>"


def _is_empty(traffic: TrafficOverTime, listed: Sequence[Report]) -> bool:
    known = any(each.versions or each.requests for each in traffic.periods)
    return not known and not any(timeline.time_us(each) >= traffic.periods[0].since_us for each in listed)


class _Charts:
    """The figures of one span."""

    def __init__(self, traffic: TrafficOverTime, listed: Sequence[Report], share: float | None) -> None:
        self._traffic, self._periods, self._share = traffic, traffic.periods, share
        self._totals = [each.total() for each in self._periods]
        self._all = Traffic()
        for each in self._totals:
            self._all.add(each)
        self._since, self._until = self._periods[0].since_us, self._periods[-1].until_us
        self._reports = [each for each in listed if self._since <= timeline.time_us(each) < self._until]
        self._bands = timeline.bands(self._periods)
        changes = [band.start for band in self._bands[1:]]
        self._marks = [timeline.mark(each, self._since, self._until) for each in self._reports]
        serious = [mark for mark in self._marks if mark.kind in ("bad", "warn")]
        names = [self._name(each) for each in self._periods]
        self._time = TimeAxis(names, list(self._ticks()), changes, serious)

    def figures(self) -> Iterator[str]:
        """All of them."""
        yield self._timeline()
        yield self._predictions()
        yield self._errors()
        yield self._latency()
        yield self._confidence()
        yield self._untypical()
        yield self._accuracy()

    def _timeline(self) -> str:
        title = "Versions and drift"
        if not self._bands and not self._reports:
            return self._empty(title, "No prediction and no drift report in this time.", whole=True)
        chart = charts.timeline(
            self._time, self._bands, self._marks, label="Model versions and drift reports over time"
        )
        kinds = {mark.kind for mark in self._marks}
        items = [(f"mark {kind}", meaning) for kind, meaning in timeline.VERDICTS.items() if kind in kinds]
        rows = [
            (text(timeline.name_of(version)), text(version.role), self._moment(first), self._moment(last), f"{count:,}")
            for version, (first, last, count) in timeline.versions(self._periods).items()
        ]
        body = chart + (charts.legend(items) if items else "")
        body += charts.table("Versions", ("version", "role", "first seen", "last seen", "predictions"), rows, words=4)
        if not self._reports:
            return self._figure(title, "", "no drift report in this time", body, whole=True)
        listed = [
            (
                f"<a href='{text(each['url'])}'>{self._moment(timeline.time_us(each))}</a>",
                *(text(value) for value in (each.get("decision", ""), ", ".join(timeline.conditions(each)))),
            )
            for each in self._reports
        ]
        body += charts.table("Drift reports", ("report", "decision", "conditions"), listed, words=3)
        note = f"a mark for each of {len(listed)} drift report{'' if len(listed) == 1 else 's'}"
        return self._figure(title, "", note, body, whole=True)

    def _predictions(self) -> str:
        if not self._all.rows:
            return self._empty("Predictions", "No prediction in this time.")
        counts = [float(each.rows) for each in self._totals]
        chart = charts.bars(self._time, [Series("predictions", "a", counts)], _count, label="Predictions over time")
        rows = [(name, f"{each.rows:,}") for name, each in self._by_time()]
        body = chart + charts.table("Predictions", (FROM, "predictions"), rows)
        return self._figure(
            "Predictions",
            f"{self._all.rows:,}",
            f"pictures that were answered; a bar is {STEPS[self._traffic.span.name]}",
            body,
        )

    def _errors(self) -> str:
        title, since = "Requests with errors", self._traffic.requests_since_us
        total = sum(sum(each.requests.values()) for each in self._periods)
        if since is None or not total:
            why = "No request for predictions was counted in this time. The service counts them: the log does not."
            return self._empty(title, why)
        refused, failed = ([float(_requests(each, digit)) for each in self._periods] for digit in (4, 5))
        series = [Series("refused", "warn", refused), Series("failed", "bad", failed)]
        chart = charts.bars(self._time, series, _count, label="Requests with errors over time")
        rows = [
            (self._name(each), *(f"{_requests(each, digit):,}" for digit in (2, 4, 5)), text(_statuses(each)))
            for each in reversed(self._periods)
        ]
        counted = f", counted since {self._moment(since)}" if since > self._since else ""
        note = f"of {total:,} requests for predictions that this machine answered{counted}"
        meanings = (
            ("warn", f"refused (4xx): {sum(refused):,.0f}, the request was at fault"),
            ("bad", f"failed (5xx): {sum(failed):,.0f}, the service was at fault"),
        )
        heads = (FROM, "answered", "refused", "failed", "by status")
        body = chart + charts.legend(meanings) + charts.table("Requests", heads, rows)
        return self._figure(title, f"{sum(refused) + sum(failed):,.0f}", note, body)

    def _latency(self) -> str:
        if not self._all.rows:
            return self._empty("Latency", "No prediction in this time.")
        found = {each: [total.latency_ms(each) for total in self._totals] for each in QUANTILES}
        series = [Series("95th percentile", "b", found[0.95]), Series("median", "a", found[0.5])]
        chart = charts.lines(self._time, series, _milliseconds, label="Latency over time")
        rows = [
            (name, *(_optional(total.latency_ms(each), _milliseconds) for each in QUANTILES))
            for name, total in self._by_time()
        ]
        body = chart + charts.legend([("b", "95th percentile"), ("a", "median")])
        body += charts.table("Latency", (FROM, "median", "95th percentile", "99th percentile"), rows)
        value = _optional(self._all.latency_ms(0.95), _milliseconds)
        return self._figure("Latency", value, "95th percentile, from the request's arrival to the log", body)

    def _confidence(self) -> str:
        if not self._all.rows:
            return self._empty("Mean confidence", "No prediction in this time.")
        values = [each.mean_confidence for each in self._totals]
        chart = charts.lines(
            self._time,
            [Series("mean confidence", "a", values)],
            _percent,
            label="Mean confidence over time",
            share=True,
        )
        rows = [(name, _optional(each.mean_confidence, _percent)) for name, each in self._by_time()]
        body = chart + charts.table("Mean confidence", (FROM, "mean confidence"), rows)
        value = _optional(self._all.mean_confidence, _percent)
        return self._figure("Mean confidence", value, "calibrated: about this share should be right", body)

    def _untypical(self) -> str:
        title = "Unlike anything learnt"
        if not self._all.judged:
            why = "The served version cannot tell such pictures." if self._share is None else "No picture in this time."
            return self._empty(
                title, f"{why} Pictures are compared with what the version has learnt while it is served."
            )
        values = [each.untypical_share for each in self._totals]
        series = [Series("unlike", "a", values)]
        if self._share is not None:
            series.append(Series("expected", "c", [self._share] * len(values)))
        chart = charts.lines(
            self._time, series, _short_percent, label="Share of untypical pictures over time", share=True
        )
        rows = [
            (name, f"{each.untypical:,}", f"{each.judged:,}", _optional(each.untypical_share, _percent))
            for name, each in self._by_time()
        ]
        body = chart + charts.table(title, (FROM, "unlike", "of", "share"), rows)
        note = "" if self._share is None else f"dashed: {self._share:.0%}, the share of pictures as in training"
        if self._all.judged < self._all.rows:
            note += f"; of {self._all.judged:,} pictures that were compared with what their version has learnt"
        return self._figure(title, _optional(self._all.untypical_share, _percent), note.lstrip("; "), body)

    def _accuracy(self) -> str:
        title = "Accuracy by labels"
        if not self._all.labelled:
            return self._empty(title, "No prediction of this time has a label: send some to /feedback.")
        values = [
            None if (bounds := each.accuracy_interval) is None else (bounds[0], each.accuracy or 0.0, bounds[1])
            for each in self._totals
        ]
        chart = charts.intervals(self._time, "accuracy", values, label="Accuracy by labels over time")
        rows = []
        for name, each in self._by_time():
            bounds = each.accuracy_interval
            interval = "" if bounds is None else f"{bounds[0]:.1%} to {bounds[1]:.1%}"
            rows.append((name, _optional(each.accuracy, _percent), interval, f"{each.right:,}", f"{each.labelled:,}"))
        heads = (FROM, "accuracy", "95 % interval", "right", "labelled")
        low, high = self._all.accuracy_interval or (0.0, 1.0)
        note = (
            f"95 % interval {low:.1%} to {high:.1%}: {self._all.right:,} of {self._all.labelled:,} with a label, "
            "by the time of the prediction. People chose what to label: this is not the accuracy of all"
        )
        body = chart + charts.legend([("a", "share that is right"), ("a band", "95 % interval")])
        return self._figure(title, _percent(self._all.accuracy or 0.0), note, body + charts.table(title, heads, rows))

    def _figure(self, title: str, value: str, note: str, body: str, *, whole: bool = False) -> str:
        shown = f"<b>{text(value)}</b>" if value else ""
        kind = " class='whole'" if whole else ""
        caption = f"<figcaption><h3>{text(title)}</h3>{shown}<small>{text(note)}</small></figcaption>"
        return f"<figure{kind}>{caption}{body}</figure>"

    def _empty(self, title: str, why: str, *, whole: bool = False) -> str:
        return self._figure(title, "", "", f"<p class='empty'>{text(why)}</p>", whole=whole)

    def _by_time(self) -> Iterator[tuple[str, Traffic]]:
        """What each step is called and its traffic, the newest first."""
        yield from reversed(
            [(self._name(each), total) for each, total in zip(self._periods, self._totals, strict=True)]
        )

    def _name(self, period: Period) -> str:
        form = "%a %d %b" if self._traffic.span.name == "month" else "%a %d %b, %H:%M"
        return f"{as_moment(period.since_us):{form}}"

    def _moment(self, time_us: float) -> str:
        return f"{as_moment(time_us):%d %b, %H:%M}"

    def _ticks(self) -> Iterator[Tick]:
        """Times that are shown: each sixth hour, each day, or each Monday and one between."""
        steps = len(self._periods)
        for step, period in enumerate(self._periods):
            moment, place = as_moment(period.since_us), step / steps
            if self._traffic.span.name == "day" and moment.hour % 3 == 0:
                label = f"{moment:%a %d}" if moment.hour == 0 else f"{moment:%H:%M}"
                yield Tick(place, label, moment.hour % 6 != 0)
            elif self._traffic.span.name == "week" and moment.hour == 0:
                yield Tick(place, f"{moment:%a %d}", moment.day % 2 == 1)
            elif self._traffic.span.name == "month" and step % 4 == steps % 4:
                yield Tick(place, f"{moment:%d %b}", step % 8 != steps % 8)


def _requests(period: Period, digit: int) -> int:
    """Requests of a step whose status begins with a digit; 2 stands for all that is no error."""
    return sum(
        count for status, count in period.requests.items() if status // 100 == digit or (digit == 2 and status < 400)
    )


def _statuses(period: Period) -> str:
    errors = sorted(status for status in period.requests if status >= 400)
    return ", ".join(f"{status}: {period.requests[status]:,}" for status in errors)


def _optional(value: float | None, form: charts.Format) -> str:
    return "" if value is None else form(value)


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _short_percent(value: float) -> str:
    return _percent(value).replace(".0%", "%")


def _count(value: float) -> str:
    return (
        f"{value:,.0f}"
        if value < 100_000
        else f"{value / 1000:,.0f} k"
        if value < 10_000_000
        else f"{value / 1e6:,.0f} M"
    )


def _milliseconds(value: float) -> str:
    return f"{f'{value:.1f}'.removesuffix('.0') if value < 10 else f'{value:,.0f}'} ms"
