"""How often a canary is promoted or refused wrongly, looked at after each label, and how many labels it takes."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fashion.metrics.sequential import Rules
from tests.benchmarks.measurement import ServingOptions, Table, run_one
from tests.support import streams
from tests.support.streams import Decided, Labels, Test

CONFIDENCE = 0.95
STREAMS, LABELS = 10_000, 2000
POWER_STREAMS, POWER_LABELS = 200, 10_000


def tables(options: ServingOptions) -> Iterator[Table]:
    """Count wrong decisions where the null hypothesis holds, of alike labels, and right ones where it does not."""
    count, labels = (200, 200) if options.quick else (STREAMS, LABELS)
    yield _false_decisions(count, labels)
    yield _clients(count, labels)
    yield _power(*((20, 300) if options.quick else (POWER_STREAMS, POWER_LABELS)))


def _false_decisions(count: int, labels: int) -> Table:
    cases: list[tuple[str, float, Labels]] = [
        ("A/A, 90 % right, half", 0.0, streams.accuracies(0.9, 0.9, 0.5)),
        ("A/A, 90 % right, a tenth", 0.0, streams.accuracies(0.9, 0.9, 0.1)),
        ("A/A, 60 % right, a tenth", 0.0, streams.accuracies(0.6, 0.6, 0.1)),
        ("A/A, 99 % right, half", 0.0, streams.accuracies(0.99, 0.99, 0.5)),
        ("A/A, both fall by 10 points", 0.0, streams.accuracies(0.9, 0.9, 0.5, later=-0.1, after=labels // 2)),
        ("worse by the margin of 0.5 points", 0.005, streams.accuracies(0.9, 0.895, 0.5)),
        ("worse by the margin of 2 points", 0.02, streams.accuracies(0.9, 0.88, 0.5)),
        ("worse by the margin of 2 points, a tenth", 0.02, streams.accuracies(0.9, 0.88, 0.1)),
    ]
    rows: list[dict[str, Any]] = []
    for name, margin, label in cases:
        row: dict[str, Any] = {"labels": name}
        tests: dict[str, Test] = {"": streams.anytime}
        if not rows:
            tests[", usual interval"] = streams.fixed
        for what, test in tests.items():
            found = streams.decide(label, Rules(margin, CONFIDENCE), streams=count, labels=labels, seed=0, test=test)
            # Where the canary is worse, to step back is right.
            wrong_back = found.stepped_back if margin == 0 else None
            rows.append({**row, "labels": name + what, "promoted": found.promoted, "stepped back": wrong_back})
    note = (
        f"{count:,} streams, looked at after each of {labels:,} labels; {CONFIDENCE:.0%} confidence allows 5 %. "
        "The usual interval is the one for a single look. Half, a tenth: the share of the canary; half where not said."
    )
    return Table("Wrong decisions", rows, note, {"promoted": ".2%", "stepped back": ".2%"})


def _clients(count: int, labels: int) -> Table:
    rows: list[dict[str, Any]] = []
    for each in (1, 5, 20):
        label = streams.clients(0.85, 0.1, each, 0.5)
        rules = Rules(0.0, CONFIDENCE)
        found = streams.decide(label, rules, streams=count // 4, labels=labels, seed=0)
        rows.append({"labels a client": each, "promoted": found.promoted, "stepped back": found.stepped_back})
    note = (
        f"A/A as above, {count // 4:,} streams; clients differ from each other by 10 points (standard deviation) and "
        "send that many labels, each of which counts. The project counts one label a client: the first row."
    )
    return Table("If all labels of a client counted", rows, note, {"promoted": ".2%", "stepped back": ".2%"})


def _power(count: int, labels: int) -> Table:
    rows: list[dict[str, Any]] = []
    for share in (0.1, 0.5):
        for difference in (0.05, 0.02, 0.0, -0.05, -0.1):
            label = streams.accuracies(0.9, 0.9 + difference, share)
            found = streams.decide(label, Rules(0.02, CONFIDENCE), streams=count, labels=labels, seed=0)
            rows.append(
                {
                    "share": share,
                    "difference": difference,
                    "promoted": found.promoted,
                    "stepped back": found.stepped_back,
                    "labels, median": _median(found, labels),
                }
            )
    note = (
        f"{count:,} streams of at most {labels:,} labels; a champion that is 90 % right, a margin of 2 points. Labels: "
        "of both versions together, until the decision."
    )
    formats = dict.fromkeys(("share", "promoted", "stepped back"), ".0%")
    return Table("Labels until a decision", rows, note, {**formats, "difference": "+.0%"})


def _median(found: Decided, labels: int) -> str:
    median = float(np.median(found.labels))
    return f"{median:,.0f}" if median < labels else f"more than {labels:,}"


if __name__ == "__main__":
    run_one("canary")
