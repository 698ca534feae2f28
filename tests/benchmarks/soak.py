"""Mixed load on the served bento for some minutes: memory of its worker, and whether all it acknowledged is logged."""

import itertools
import json
import random
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import load
from tests.benchmarks.load import LOST, Answer
from tests.benchmarks.measurement import Table, run_one, say
from tests.benchmarks.serving import Deployed, Requests, Served, ServingOptions, deploy, pictures

CONNECTIONS = 4
PAUSE_SECONDS = 0.01
"""Rest of a connection: some 250 requests a second in all, a quarter of what the service takes."""
BATCH = 8
SLICES = 6
"""Looks at memory a minute; connections are opened anew after each."""
RECENT = 1000
"""Predictions that feedback may be on."""
WARM_UP = 0.2
"""Share of the time after which memory is judged."""
FLAT_MB = 5.0
"""Growth over the judged time that counts as none: a page cache of SQLite or a metric's label more."""

WEIGHTS = {"picture": 12, "batch": 1, "feedback": 3, "prediction": 1, "bad": 3}
"""How often each kind of request is sent."""
EXPECTED = {"picture": 200, "batch": 200, "feedback": 201, "prediction": 200}

_UNKNOWN = "00000000-0000-7000-8000-000000000000"
BAD: Mapping[str, tuple[int, bytes]] = {
    "text for a picture": (415, load.upload("/predict", [b"not a picture"])),
    "empty file": (400, load.upload("/predict", [b""])),
    "another field": (422, load.upload("/predict", [b"\x89PNG\r\n\x1a\n"], field="photo")),
    "broken picture": (400, load.upload("/predict", [b"\x89PNG\r\n\x1a\n" + b"\0" * 40])),
    "another type": (415, load.post("/predict", b"<picture/>", "application/xml")),
    "feedback that is not JSON": (400, load.post("/feedback", b"{", "application/json")),
    "feedback on an unknown prediction": (
        404,
        load.post("/feedback", json.dumps({"prediction_id": _UNKNOWN, "true_label": 1}).encode(), "application/json"),
    ),
    "feedback without a label": (
        422,
        load.post("/feedback", json.dumps({"prediction_id": _UNKNOWN}).encode(), "application/json"),
    ),
    "an unknown prediction": (404, load.get(f"/predictions/{_UNKNOWN}")),
    "an unknown path": (404, load.get("/nothing")),
}
"""Requests that are rejected, and with which status."""


@dataclass
class Outcome:
    """Requests so far and their outcome."""

    labels: Mapping[int, str]
    """Right answers, by picture."""
    requests: Counter[str] = field(default_factory=Counter)
    """By kind."""
    errors: Counter[str] = field(default_factory=Counter)
    predictions: set[str] = field(default_factory=set)
    """Ids that were acknowledged."""
    feedback: Counter[str] = field(default_factory=Counter)
    """Feedback that was acknowledged, by prediction."""
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=RECENT))


@dataclass(frozen=True)
class Look:
    """Memory at one time."""

    seconds: float
    megabytes: float


def tables(options: ServingOptions) -> Iterator[Table]:
    """Load, look, and compare with the log.

    Raises:
        SystemExit: an answer was wrong or missing, or something that was acknowledged is not in the log.
    """
    minutes = 0.1 if options.quick else options.minutes
    with tempfile.TemporaryDirectory() as folder:
        deployed = deploy(Path(folder), options)
        requests, labels = pictures(deployed.package)
        outcome = Outcome(labels)
        with deployed.serve() as server:
            rows, looks = _watch(server, requests, outcome, minutes)
        lost = _lost(outcome, deployed)
    yield Table(
        "Soak",
        rows,
        f"{CONNECTIONS} connections, each resting {1000 * PAUSE_SECONDS:.0f} ms after an answer; requests by kind: "
        f"{', '.join(f'{count:,} {kind}' for kind, count in outcome.requests.items())}. Errors: "
        f"{dict(outcome.errors) or 'none'}; {len(BAD)} kinds of bad requests were rejected as expected, unless "
        "listed here.",
        {"minute": ".1f", "worker MB": ".1f"},
    )
    yield _verdict(looks, outcome, lost)
    if outcome.errors or any(lost):
        raise SystemExit(f"error: lost predictions and feedback: {lost}; wrong answers: {dict(outcome.errors)}")


def judge(answers: list[Answer], outcome: Outcome) -> None:
    """Count answers, and what is wrong with them."""
    for answer in answers:
        kind, detail = answer.request
        outcome.requests[kind] += 1
        expected = BAD[detail][0] if kind == "bad" else EXPECTED[kind]
        if answer.status != expected:
            what = "lost" if answer.status == LOST else f"{answer.status} instead of {expected}"
            outcome.errors[f"{detail if kind == 'bad' else kind}: {what}"] += 1
            continue
        try:
            problem = _JUDGES[kind](json.loads(answer.body), detail, outcome)
        except (ValueError, LookupError, TypeError) as error:
            problem = f"unreadable answer ({type(error).__name__}: {error})"
        if problem:
            outcome.errors[f"{kind}: {problem}"] += 1


def _picture(content: dict[str, Any], row: int, outcome: Outcome) -> str | None:
    _acknowledge(content["prediction_id"], outcome)
    return None if content["label"] == outcome.labels[row] else "another label"


def _batch(content: dict[str, Any], rows: list[int], outcome: Outcome) -> str | None:
    for each in content["results"]:
        _acknowledge(each["prediction_id"], outcome)
    right = [outcome.labels[row] for row in rows]
    return None if [each["label"] for each in content["results"]] == right else "other labels"


def _feedback(content: dict[str, Any], prediction_id: str, outcome: Outcome) -> str | None:
    outcome.feedback[prediction_id] += 1
    return None if content["prediction_id"] == prediction_id else "another prediction"


def _prediction(content: dict[str, Any], prediction_id: str, outcome: Outcome) -> str | None:
    return None if content["prediction_id"] == prediction_id else "another prediction"


def _bad(content: dict[str, Any], detail: str, outcome: Outcome) -> str | None:
    error = content["error"]
    return None if all(error[name] for name in ("code", "message", "remedy")) else f"{detail} is not explained"


_JUDGES: dict[str, Callable[..., str | None]] = {
    "picture": _picture,
    "batch": _batch,
    "feedback": _feedback,
    "prediction": _prediction,
    "bad": _bad,
}


def _acknowledge(prediction_id: str, outcome: Outcome) -> None:
    if prediction_id in outcome.predictions:
        outcome.errors["an id was given twice"] += 1
    outcome.predictions.add(prediction_id)
    outcome.recent.append(prediction_id)


def mixed(requests: Requests, outcome: Outcome, classes: list[str]) -> Iterator[tuple[tuple[str, object], bytes]]:
    """Requests without an end, in the same order in each run."""
    from fashion.images.image_store import to_png
    from tests.benchmarks.measurement import fashion_mnist

    rng = random.Random(0)
    one_by_one, bad = itertools.cycle(requests), itertools.cycle(BAD.items())
    images = fashion_mnist(None).test.images
    rows = [row for row, _ in requests]
    batches = [
        (part, load.upload("/predict/batch", [to_png(images[row]) for row in part], field="images"))
        for part in (rows[start : start + BATCH] for start in range(0, len(rows) - BATCH + 1, BATCH))
    ]
    kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
    while True:
        (kind,) = rng.choices(kinds, weights)
        if kind in ("feedback", "prediction") and not outcome.recent:
            kind = "picture"
        if kind == "picture":
            row, data = next(one_by_one)
            yield (kind, row), data
        elif kind == "batch":
            part, data = rng.choice(batches)
            yield (kind, part), data
        elif kind == "bad":
            name, (_, data) = next(bad)
            yield (kind, name), data
        elif kind == "prediction":
            prediction_id = rng.choice(outcome.recent)
            yield (kind, prediction_id), load.get(f"/predictions/{prediction_id}")
        else:
            prediction_id = rng.choice(outcome.recent)
            content = {"prediction_id": prediction_id, "true_label": rng.choice(classes), "source": "load"}
            yield (kind, prediction_id), load.post("/feedback", json.dumps(content).encode(), "application/json")


def _watch(
    server: Served, requests: Requests, outcome: Outcome, minutes: float
) -> tuple[list[dict[str, float | str]], list[Look]]:
    stream = mixed(requests, outcome, sorted(set(outcome.labels.values())))
    seconds = minutes * 60 / max(round(minutes * SLICES), 2)
    rows: list[dict[str, float | str]] = []
    looks: list[Look] = []
    started, is_over = time.perf_counter(), False
    while not is_over:
        found = load.drive(server.port, stream, connections=CONNECTIONS, seconds=seconds, pause=PAUSE_SECONDS)
        judge([*found.first, *found.answers], outcome)
        looks.append(Look(time.perf_counter() - started, server.megabytes()[0]))
        is_over = looks[-1].seconds >= 60 * minutes - seconds / 2
        if len(looks) % SLICES == 0 or is_over:
            minute = looks[-1].seconds / 60
            total, errors = outcome.requests.total(), outcome.errors.total()
            rows.append({"minute": minute, "requests": total, "errors": errors, "worker MB": looks[-1].megabytes})
            say(f"minute {minute:.1f}: {total:,} requests, errors {dict(outcome.errors)}, {looks[-1].megabytes:.1f} MB")
    return rows, looks


def _lost(outcome: Outcome, deployed: Deployed) -> tuple[int, int]:
    """Predictions and feedback that were acknowledged and are not in the log."""
    return len(outcome.predictions - deployed.logged()), (outcome.feedback - deployed.feedback()).total()


def trend(looks: list[Look]) -> tuple[float, float]:
    """Megabytes an hour by least squares, and grown by that in the judged time: after the warm-up."""
    judged = looks[round(len(looks) * WARM_UP) :]
    seconds = np.array([each.seconds for each in judged])
    slope = float(np.polyfit(seconds, [each.megabytes for each in judged], 1)[0]) if len(judged) > 1 else 0.0
    return 3600 * slope, slope * float(seconds[-1] - seconds[0])


def _verdict(looks: list[Look], outcome: Outcome, lost: tuple[int, int]) -> Table:
    hourly, grown = trend(looks)
    found = {
        "errors": (f"{outcome.errors.total()}", "none", not outcome.errors),
        f"lost of {len(outcome.predictions):,} acknowledged predictions": (f"{lost[0]}", "none", lost[0] == 0),
        f"lost of {outcome.feedback.total():,} acknowledged feedback": (f"{lost[1]}", "none", lost[1] == 0),
        "growth of the worker, MB": (f"{grown:.1f}", f"below {FLAT_MB:g}", grown < FLAT_MB),
    }
    return Table(
        "Verdict of the soak",
        [
            {"target": name, "aim": aim, "found": text, "holds": "yes" if holds else "NO"}
            for name, (text, aim, holds) in found.items()
        ],
        f"Growth: a line through {len(looks)} looks without the first {WARM_UP:.0%} ({hourly:+.1f} MB an hour).",
    )


if __name__ == "__main__":
    run_one("soak")
