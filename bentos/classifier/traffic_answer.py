"""Traffic over time as JSON. Reads no log."""

import datetime
from collections.abc import Sequence

from bentos.classifier.schemas import (
    LabelCounts,
    LatencyQuantiles,
    Report,
    TrafficAnswer,
    TrafficPeriod,
    VersionPeriod,
)
from bentos.classifier.traffic import TrafficOverTime
from fashion.drift import reports
from fashion.predictions.slots import Period

QUANTILES = (0.5, 0.95, 0.99)
"""Of latencies."""


def answer(traffic: TrafficOverTime, listed: Sequence[Report], *, source: str) -> TrafficAnswer:
    """What is known of a span, for programs.

    Args:
        traffic: of the span.
        listed: drift reports, newest first.
        source: whose rows these are; one sentence.
    """
    since, requests_since = (traffic.periods[0].since_us if traffic.periods else 0), traffic.requests_since_us
    return TrafficAnswer(
        span=traffic.span.name,
        step_seconds=traffic.span.step_us // 1_000_000,
        source=source,
        complete=not traffic.waiting and traffic.problem is None,
        problem=traffic.problem,
        requests_since=None if requests_since is None else as_moment(requests_since).isoformat(),
        periods=tuple(_period(each) for each in traffic.periods),
        reports=tuple(each for each in listed if since and reports.time_of(each["id"]) * 1e6 >= since),
    )


def as_moment(time_us: float) -> datetime.datetime:
    """A time of a log, in UTC.

    Args:
        time_us: microseconds since 1970.
    """
    return datetime.datetime.fromtimestamp(time_us / 1e6, datetime.UTC)


def _period(period: Period) -> TrafficPeriod:
    total = period.total()
    p50, p95, p99 = (total.latency_ms(each) for each in QUANTILES)
    known = p50 is not None and p95 is not None and p99 is not None
    low, high = total.accuracy_interval or (None, None)
    return TrafficPeriod(
        since=as_moment(period.since_us).isoformat(),
        until=as_moment(period.until_us).isoformat(),
        predictions=total.rows,
        mean_confidence=_rounded(total.mean_confidence),
        latency_ms=LatencyQuantiles(*(round(each or 0.0, 3) for each in (p50, p95, p99))) if known else None,
        compared=total.judged,
        unlike=total.untypical,
        labels=LabelCounts(total.labelled, total.right, _rounded(total.accuracy), _rounded(low), _rounded(high)),
        requests={str(status): count for status, count in sorted(period.requests.items())},
        versions=tuple(
            VersionPeriod(version.model.version, version.model.digest, version.role, each.rows)
            for version, each in period.versions.items()
            if each.rows
        ),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
