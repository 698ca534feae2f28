"""How often sources say the same: a number that is told and decides nothing."""

import itertools

from support.log_rows import LATER, record

from fashion.drift import belief
from fashion.predictions import sources
from fashion.predictions.record import REVIEW, Feedback, LoggedPrediction
from fashion.predictions.withdrawal import Decision, Decisions

PICTURES = itertools.count()


def rows(count: int, **labels: int) -> list[LoggedPrediction]:
    """Predictions that each source has labelled alike, a microsecond after each other."""
    records = [record(image_sha256=f"{next(PICTURES):064x}") for _ in range(count)]
    return [
        LoggedPrediction(
            each,
            tuple(
                Feedback(each.prediction_id, label, source, each.time_us + step)
                for step, (source, label) in enumerate(labels.items())
            ),
        )
        for each in records
    ]


def test_labels_are_compared_with_those_of_others_and_of_reviews_on_the_same_prediction() -> None:
    both, reviewed = rows(6, ann=1, bob=1, eve=2), rows(3, ann=1, **{REVIEW: 1})
    trust = sources.assess([*both, *reviewed, *rows(5, ann=4)], lambda model: None, decisions=Decisions())
    assert str(trust.agreement["ann"]) == "says the same as 3 of 3 reviews and 6 of 12 labels of other sources"
    assert str(trust.agreement["eve"]) == "says the same as 0 of 12 labels of other sources"
    assert belief.describe_agreement(trust) == [
        "'ann', unproven, says the same as 3 of 3 reviews and 6 of 12 labels of other sources",
        "'bob', unproven, says the same as 6 of 12 labels of other sources",
        "'eve', unproven, says the same as 0 of 12 labels of other sources",
    ]
    discarded = Decisions([Decision("discard", "eve", None, 0, LATER, 1, "bob", "lies")])
    trust = sources.assess(both, lambda model: None, decisions=discarded)
    assert str(trust.agreement["ann"]) == "says the same as 6 of 6 labels of other sources"


def test_the_agreement_of_many_names_proves_nothing() -> None:
    liars = {f"liar {number}": 2 for number in range(9)}
    trust = sources.assess(rows(40, ann=1, **liars), lambda model: None, decisions=Decisions())
    assert str(trust.agreement["ann"]) == "says the same as 0 of 360 labels of other sources"
    assert {trust.standing(name) for name in ("ann", *liars)} == {"unproven"}


def test_one_that_labels_alone_is_not_told() -> None:
    trust = sources.assess(rows(4, ann=1), lambda model: None, decisions=Decisions())
    assert belief.describe_agreement(trust) == []
