"""Which version answered when, and what drift reports said then. Draws nothing."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from bentos.classifier.schemas import Report
from bentos.classifier.traffic_answer import as_moment
from bentos.web.charts import Band, Mark
from fashion.drift import reports
from fashion.predictions.slots import Period, Version

VERDICTS = {
    "bad": "harmful, accuracy is down, or rows cannot be judged",
    "warn": "drift",
    "good": "no drift",
    "none": "not enough data",
}
"""Kind of a mark -> what it means."""
HARM = frozenset({"harmful", "decline", "coverage", "unreadable", "unjudged", "no_traffic"})
"""Conditions of a report that somebody should look at now."""


def bands(periods: Sequence[Period]) -> list[Band]:
    """Which version answered most of each step; steps without traffic belong to the version before.

    Args:
        periods: the oldest first.
    """
    found: list[Band] = []
    for step, period in enumerate(periods):
        answered = {version: each.rows for version, each in period.versions.items() if version.role == "champion"}
        if not any(answered.values()):
            continue
        version = max(answered, key=lambda version: answered[version])
        name = name_of(version)
        if found and found[-1].label == name:
            continue
        if found:
            found[-1] = dataclasses.replace(found[-1], end=step)
        found.append(Band(step, len(periods), name, version.model.version))
    return found


def versions(periods: Sequence[Period]) -> dict[Version, tuple[int, int, int]]:
    """Version -> start of its first step, start of its last one, and its rows; the newest first.

    Args:
        periods: the oldest first.
    """
    found: dict[Version, tuple[int, int, int]] = {}
    for period in periods:
        for version, each in period.versions.items():
            if each.rows:
                first, _, rows = found.get(version, (period.since_us, 0, 0))
                found[version] = (first, period.since_us, rows + each.rows)
    return dict(sorted(found.items(), key=lambda item: item[1][:2], reverse=True))


def name_of(version: Version) -> str:
    """What a version is called."""
    return f"version {version.model.version}"


def time_us(report: Report) -> float:
    """When a report was made, microseconds since 1970; 0 if its id does not say."""
    return reports.time_of(report["id"]) * 1e6


def conditions(report: Report) -> list[str]:
    """What a report says beside its decision."""
    found: Any = report.get("conditions")  # of a file that may be damaged
    return [str(each) for each in found if each != report.get("decision")] if isinstance(found, list) else []


def mark(report: Report, since_us: int, until_us: int) -> Mark:
    """The mark of a report.

    Args:
        report: of the time below.
        since_us: start of the time axis, microseconds since 1970, UTC.
        until_us: end of it, likewise.
    """
    made = time_us(report)
    said = ", ".join([str(report.get("decision", "")), *conditions(report)])
    label = f"{as_moment(made):%d %b, %H:%M}: {said}, version {report.get('model_version', '')}"
    return Mark((made - since_us) / (until_us - since_us), _kind(report), label, report["url"])


def _kind(report: Report) -> str:
    if HARM.intersection(conditions(report)):
        return "bad"
    return {"drift": "warn", "no_drift": "good"}.get(str(report.get("decision")), "none")
