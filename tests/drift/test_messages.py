"""What alerts say, and which versions of a window they are about."""

import dataclasses

import pytest
from support.imagined import SETTINGS

from fashion.drift import messages
from fashion.drift.alerts import Alert
from fashion.drift.result import Context, DriftResult, Estimate, FeedbackAccuracy, Severity, empty_window
from fashion.model.package import SeverityThresholds
from fashion.model.severity import Signals

ALL = ("drift", "decline", "coverage", "unreadable", "unjudged", "no_traffic")
CHOSEN = ("2026-11-27 06:00", 1_795_759_200_000_000)
SILENT = Context(last_before_us=CHOSEN[1], ends_now=True)


def result(version: str = "1", rows: int = 1000, **changed: object) -> DriftResult:
    """A result without drift."""
    settings = dataclasses.replace(SETTINGS, min_rows=200)
    given = {
        "decision": "no_drift" if rows >= 200 else "insufficient_data",
        "reason": f"{rows:,} rows look like the reference",
        "rows": rows,
        "model_version": version,
        "reference_accuracy": 0.93,
        "since_us": CHOSEN[1],
        "until_us": CHOSEN[1] + 86_400_000_000,
        "estimated": Estimate(0.92, True),
    }
    return dataclasses.replace(empty_window("shoes", (0, 1), settings), **(given | changed))  # type: ignore[arg-type]


def severity(level: str) -> Severity:
    bounds = SeverityThresholds(0.1, 0.4, 0.05, 8.0, 500, 1.0, 0.0)
    return Severity(level, Signals(0.2, 0.5, 0.0), bounds)  # type: ignore[arg-type]


def drifted(version: str = "1", level: str = "harmless", **changed: object) -> DriftResult:
    return result(version, decision="drift", reason="brightness differs", severity=severity(level), **changed)


def judged(accuracy: float, *, declined: bool = True) -> FeedbackAccuracy:
    return FeedbackAccuracy(300, accuracy, accuracy - 0.05, accuracy + 0.05, 1e-9, declined, ((1,),), ((1,),))


def of(*results: DriftResult, on: tuple[str, ...] = ALL) -> dict[str, Alert | None]:
    reported = [(each, f"report-v{each.model_version}") for each in results]
    return messages.of_window(reported, on, model="shoes", link=lambda report_id: f"https://example.org/{report_id}")


def alert(found: Alert | None) -> Alert:
    assert found is not None
    return found


def test_an_alert_says_what_how_bad_when_on_which_version_where_and_what_next() -> None:
    found = alert(of(drifted("7", "harmful", estimated=Estimate(0.81, False)))["drift:7"])
    assert found.title == "Harmful drift: shoes version 7, 1,000 predictions"
    assert found.text.splitlines() == [
        "brightness differs.",
        "Does it hurt? Likely: Nobody measured it. Accuracy is estimated at 81.0% (unreliable: the change is "
        "too large), against 93.0% of the held-out pictures.",
        "When: 2026-11-27 06:00 to 2026-11-28 06:00 UTC, 1,000 predictions.",
        "Report: https://example.org/report-v7",
        "Next: Label some of these pictures, to know the accuracy: fashion log feedback labels.csv",
        'Next: If a new version came shortly before, take it back: make rollback REASON="accuracy is down"',
    ]


@pytest.mark.parametrize(
    ("holds", "name"),
    [
        (drifted(), "drift:1"),
        (result(feedback=judged(0.6)), "decline:1"),
        (result(rows=300, unreadable=700), "unreadable:1"),
        (result(context=Context(unknown=("shoes version 9",)), unjudged="30 are of version 9"), "unjudged"),
        (result(version="", rows=0, context=SILENT), "no_traffic"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_condition_names_its_report_and_a_command(holds: DriftResult, name: str) -> None:
    found = alert(of(holds)[name])
    assert "shoes" in found.title
    assert "Report: https://example.org/report-v" in found.text
    assert "Next: " in found.text
    assert not [each for key, each in of(result()).items() if each is not None and key == name]


def test_versions_of_one_number_have_conditions_of_their_own() -> None:
    found = of(drifted(model_digest="0a1b2c3d4e5f6a7b"), result(model_digest="ffffffffffffffff"))
    assert alert(found["drift:1:0a1b2c3d"]).title.startswith("Harmless drift")
    assert found["drift:1:ffffffff"] is None


def test_drift_that_becomes_harmful_has_a_higher_rank() -> None:
    ranks = [alert(of(drifted(level=level))["drift:1"]).rank for level in ("harmless", "harmful")]
    assert ranks == sorted(set(ranks))


def test_accuracy_that_falls_further_has_a_higher_rank() -> None:
    ranks = [alert(of(result(feedback=judged(accuracy)))["decline:1"]).rank for accuracy in (0.85, 0.7, 0.25)]
    assert ranks == sorted(set(ranks))


def test_harmful_drift_alone_can_be_asked_for() -> None:
    assert of(drifted(), on=("harmful",)) == {"harmful:1": None}
    assert alert(of(drifted(level="harmful"), on=("harmful",))["harmful:1"]).title.startswith("Harmful drift")


def test_a_new_version_hides_nothing_of_the_one_before() -> None:
    bad = drifted("1", "harmful", feedback=judged(0.6))
    found = of(bad, result("2", rows=10))
    assert alert(found["drift:1"]).title.startswith("Harmful drift")
    assert alert(found["decline:1"]).title.startswith("Accuracy is down: shoes version 1")
    assert "drift:2" not in found


def test_a_version_that_was_tested_replaces_the_one_before_for_retraining() -> None:
    bad = drifted("1", "harmful", feedback=judged(0.6))
    assert messages.acting_conditions([bad, result("2", rows=10)]) == {"drift", "harmful", "decline"}
    assert messages.acting_conditions([bad, result("2")]) == {"decline"}
    well = result("2", feedback=judged(0.93, declined=False))
    assert messages.acting_conditions([bad, well]) == set()
    assert messages.acting_conditions([result("1"), drifted("2")]) == {"drift"}


def test_late_feedback_on_a_version_that_was_taken_back_starts_nothing_and_takes_nothing_back() -> None:
    late = result("1", rows=0, feedback=judged(0.6))
    assert late.conditions == {"decline"}
    assert messages.acting_conditions([late, result("2", rows=10)]) == set()
    text = alert(of(late)["decline:1"]).text
    assert "rollback" not in text
    assert "If this version still answers, train on the labelled pictures" in text
    assert "rollback" in alert(of(result("1", feedback=judged(0.6)))["decline:1"]).text


def test_rows_that_cannot_be_read_are_acted_on() -> None:
    assert messages.acting_conditions([result("1", rows=0, unreadable=700)]) == {"unreadable"}


def test_silence_names_the_last_prediction_and_ends_with_the_next() -> None:
    silent = result(version="", rows=0, context=SILENT)
    assert f"the last prediction before is of {CHOSEN[0]} UTC" in alert(of(silent)["no_traffic"]).text
    assert of(result(context=Context(ends_now=True)))["no_traffic"] is None
    nothing_ever = result(version="", rows=0, context=Context(ends_now=True))
    assert "no_traffic" not in of(nothing_ever)


def test_rows_of_another_time_do_not_end_the_alert_on_silence() -> None:
    assert "no_traffic" not in of(result())


def test_other_unknown_versions_are_another_matter_and_more_rows_are_not() -> None:
    def found(version: str, rows: int) -> Alert:
        context = Context(unknown=(f"shoes version {version}",))
        return alert(of(result(context=context, unjudged=f"{rows} are of version {version}"))["unjudged"])

    assert found("9", 10).matter == found("9", 500).matter != found("8", 10).matter


def test_a_problem_with_another_number_is_the_same_problem() -> None:
    first, again, other = map(messages.problem, ("port 5000 is closed", "port 5001 is closed", "the disk is full"))
    assert first.matter == again.matter != other.matter
    assert "Next: " in first.text


@pytest.mark.parametrize(
    ("ended_well", "promoted", "title"),
    [
        (True, True, "A new champion: shoes"),
        (True, False, "A challenger was refused: the champion stays: shoes"),
        (False, False, "A training that drift started failed: shoes"),
        (False, True, "A training that drift started failed: shoes"),
    ],
)
def test_what_became_of_a_training_is_said(ended_well: bool, promoted: bool, title: str) -> None:
    found = messages.training("why", model="shoes", ended_well=ended_well, promoted=promoted, command="next")
    assert found == Alert(title, "why.\nNext: next")


def test_channels_that_cannot_be_used_are_one_condition_that_ends() -> None:
    assert messages.channels([]) is None
    assert "FASHION_WEBHOOK must be" in alert(messages.channels(["FASHION_WEBHOOK must be an address"])).text
