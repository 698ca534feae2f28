"""Which answers are a canary's, and which labels are counted."""

import dataclasses
import json
from typing import Any

import pytest
from support.log_rows import record

from fashion.predictions.canary import Experiment, count, describe, judge
from fashion.predictions.record import CHECK, ROLLOUT, Feedback, LoggedPrediction, ModelId

ONE, TWO = ModelId("m", "1", "1" * 16), ModelId("m", "2", "2" * 16)
EXPERIMENT = Experiment(ONE, TWO, share=0.3, since_us=1000, margin=0.02, confidence=0.95)


def of(canary: bool, number: int = 0) -> str:
    """The name of a client that one version answers."""
    names = (f"client-{each}" for each in range(10_000))
    return [name for name in names if EXPERIMENT.goes_to_canary(name, "0" * 64) == canary][number]


def row(client: str | None, *, right: bool = True, model: ModelId | None = None, **changed: Any) -> LoggedPrediction:
    sha256 = changed.pop("sha256", "a" * 64)
    if model is None:
        model = TWO if EXPERIMENT.goes_to_canary(client, sha256) else ONE
    label_time, predicted_time = changed.pop("label_us", 3000), changed.pop("time_us", 2000)
    made = record(
        client=client,
        label=1,
        time_us=predicted_time,
        image_sha256=sha256,
        model_name=model.name,
        model_version=model.version,
        model_digest=model.digest,
    )
    said = Feedback(made.prediction_id, 1 if right else 0, changed.pop("source", "review"), label_time)
    return LoggedPrediction(made, (said,))


def counted(*rows: LoggedPrediction) -> tuple[int, int, int, int]:
    """Right and wrong labels of the champion, then of the canary."""
    counts = count(rows, EXPERIMENT, lambda each: each.feedback[0].source == "review")
    return counts.champion.right, counts.champion.wrong, counts.canary.right, counts.canary.wrong


def test_the_canary_answers_its_share_of_the_clients_and_each_always_alike() -> None:
    asked = [EXPERIMENT.goes_to_canary(f"client-{number}", "a" * 64) for number in range(20_000)]
    assert sum(asked) / len(asked) == pytest.approx(EXPERIMENT.share, abs=0.01)
    assert asked == [EXPERIMENT.goes_to_canary(f"client-{number}", "b" * 64) for number in range(20_000)]


def test_without_a_client_the_picture_decides() -> None:
    digests = [f"{number:064x}" for number in range(20_000)]
    asked = [EXPERIMENT.goes_to_canary(None, sha256) for sha256 in digests]
    assert sum(asked) / len(asked) == pytest.approx(EXPERIMENT.share, abs=0.01)
    assert asked == [EXPERIMENT.goes_to_canary(None, sha256) for sha256 in digests]


def test_another_canary_is_tried_on_other_clients() -> None:
    other = dataclasses.replace(EXPERIMENT, canary=ModelId("m", "3", "3" * 16))
    same = sum(
        EXPERIMENT.goes_to_canary(f"{number}", "") and other.goes_to_canary(f"{number}", "") for number in range(20_000)
    )
    assert same / 20_000 == pytest.approx(EXPERIMENT.share**2, abs=0.01)


@pytest.mark.parametrize("client", [CHECK, ROLLOUT])
def test_the_projects_own_checks_are_answered_by_the_champion(client: str) -> None:
    everybody = dataclasses.replace(EXPERIMENT, share=1.0)
    assert not everybody.goes_to_canary(client, "a" * 64)
    assert counted(row(client)) == (0, 0, 0, 0)


def test_a_client_counts_once_by_its_first_label() -> None:
    mine, other = of(True), of(False)
    rows = [row(mine, right=False, label_us=5000), row(mine, label_us=4000), row(mine, label_us=6000)]
    assert counted(*rows, row(other, right=False), row(other, label_us=9000)) == (0, 1, 1, 0)


def test_each_picture_without_a_client_counts_once() -> None:
    rows = [row(None, sha256=f"{number:064x}") for number in (1, 1, 2, 3)]
    assert sum(counted(*rows)) == 3


def test_labels_that_are_not_trusted_do_not_count_and_are_told() -> None:
    rows = [row(of(False), source="page"), row(of(False), label_us=9000), row(of(True), source="page")]
    counts = count(rows, EXPERIMENT, lambda each: each.feedback[0].source == "review")
    assert counted(*rows) == (1, 0, 0, 0)
    assert (counts.champion.labels, counts.champion.trusted, counts.canary.labels) == (2, 1, 1)


def test_answers_of_before_and_of_other_versions_do_not_count() -> None:
    client = of(False)
    third = ModelId("m", "3", "3" * 16)
    unlabelled = LoggedPrediction(row(client).record)
    assert counted(row(client, time_us=999), row(client, model=third), unlabelled) == (0, 0, 0, 0)


def test_answers_of_after_the_end_do_not_count_whenever_they_were_labelled() -> None:
    rows = [row(of(True, number), time_us=1500 + number, label_us=9000) for number in range(3)]
    counts = count(rows, EXPERIMENT, lambda _: True, until_us=1502)
    assert (counts.canary.labels, counts.canary.right) == (2, 2)


def test_answers_that_the_other_version_should_have_given_do_not_count() -> None:
    rows = [row(of(True), model=ONE), row(of(False), model=TWO)]
    counts = count(rows, EXPERIMENT, lambda _: True)
    assert (counted(*rows), counts.elsewhere) == ((0, 0, 0, 0), 2)


def test_the_state_is_told_in_a_sentence() -> None:
    rows = [row(of(number % 2 == 0, number), right=number != 4) for number in range(12)]
    counts = count(rows, EXPERIMENT, lambda _: True)
    said = describe(EXPERIMENT, counts, judge(EXPERIMENT, counts))
    assert said.startswith("5 of 6 right (83.3%) against 6 of 6 right (100.0%); accuracy changes by -16.67 points, ")
    assert said.endswith("at least -2.00 required")
    empty = count([], EXPERIMENT, lambda _: True)
    assert describe(EXPERIMENT, empty, judge(EXPERIMENT, empty)) == "no label against no label: nothing can be said yet"


def test_an_experiment_survives_json() -> None:
    assert Experiment.of(json.loads(json.dumps(dataclasses.asdict(EXPERIMENT)))) == EXPERIMENT
