"""The requests of the soak, and what is right about their answers. Knows nothing of faults and of servers."""

import itertools
import json
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks import load
from tests.benchmarks.load import LOST, Answer
from tests.benchmarks.serving import Requests

BATCH = 8
RECENT = 1000
"""Predictions that feedback may be on."""

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
    interrupted: int = 0
    """Requests whose connection ended before their answer."""
    turned_away: Counter[str] = field(default_factory=Counter)
    """Answers of 5xx that say when to come again, by status and code."""


def judge(answers: list[Answer], outcome: Outcome) -> None:
    """Count answers, and what is wrong with them."""
    for answer in answers:
        kind, detail = answer.request
        outcome.requests[kind] += 1
        expected = BAD[detail][0] if kind == "bad" else EXPECTED[kind]
        if answer.status == LOST:
            outcome.interrupted += 1
            continue
        if answer.status >= 500 and answer.may_retry:
            outcome.turned_away[f"{answer.status} {_code(answer.body)}"] += 1
            continue
        if answer.status != expected:
            what = f"{answer.status} {_code(answer.body)} instead of {expected}"
            outcome.errors[f"{detail if kind == 'bad' else kind}: {what}"] += 1
            continue
        try:
            problem = _JUDGES[kind](json.loads(answer.body), detail, outcome)
        except (ValueError, LookupError, TypeError) as error:
            problem = f"unreadable answer ({type(error).__name__}: {error})"
        if problem:
            outcome.errors[f"{kind}: {problem}"] += 1


def _code(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return "without a code"


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
