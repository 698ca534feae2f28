"""A result in words, the same on the page and in alerts: is something wrong, does it hurt, what to do."""

import datetime
import math
from collections.abc import Sequence
from typing import NamedTuple

from fashion.config.next_command import of_data
from fashion.drift.result import LABELS, Coverage, DriftResult, FeedbackAccuracy
from fashion.model.accuracy import Estimate

VERDICTS = {
    "insufficient_data": "Not enough data",
    "no_drift": "No drift",
    "none": "No drift",
    "harmless": "Harmless drift",
    "harmful": "Harmful drift",
}
"""Decisions, and levels of drift, in words."""

TRAIN = 'make drift ARGS="retrain.enabled=true"'
"""Command that trains if accuracy is down."""
MAX_NAMES = 3
"""Changed columns that are named in a sentence."""


class Answer(NamedTuple):
    """An answer to one question of a reader."""

    word: str
    """One or two words: yes, no, likely."""
    sentence: str
    """The numbers behind it; ends without a full stop."""


class Step(NamedTuple):
    """Something to do."""

    sentence: str
    """Ends without a full stop."""
    command: str = ""
    """What to type; empty where there is nothing to type."""


def headline(result: DriftResult) -> str:
    """The verdict in a few words."""
    conditions = result.conditions
    if "no_traffic" in conditions:
        return "No traffic"
    if "decline" in conditions:
        return f"{_verdict(result)}: accuracy is down" if result.decision == "drift" else "Accuracy is down"
    if result.decision != "drift":
        if "coverage" in conditions:
            return "Prediction sets miss the truth"
        if "unreadable" in conditions:
            return "Rows cannot be read"
        if "unjudged" in conditions and not result.rows:
            return "Rows cannot be judged"
    return _verdict(result)


def describe_condition(name: str, result: DriftResult) -> tuple[str, str]:
    """A condition of `DriftResult.conditions` as a title and the reason for it."""
    if name == "decline" and result.feedback is not None:
        return "Accuracy is down", describe_feedback(result)
    if name == "coverage" and result.coverage is not None:
        return "Prediction sets miss the truth", _describe_coverage(result.coverage)
    if name == "unreadable":
        return "Rows cannot be read", _describe_unreadable(result)
    if name == "unjudged":
        return "Rows cannot be judged", result.unjudged
    if name == "no_traffic":
        return "No traffic", _describe_silence(result)
    return _verdict(result), result.reason


def is_wrong(result: DriftResult) -> Answer:
    """Whether something is wrong, and what."""
    conditions = result.conditions
    for name in ("no_traffic", "unreadable"):
        if name in conditions:
            return Answer("Yes", describe_condition(name, result)[1])
    if result.decision == "drift":
        return Answer(
            "Yes" if conditions & {"harmful", "decline", "coverage"} else "Something changed", _describe_changes(result)
        )
    if "decline" in conditions:
        usual = "The pictures look as usual, but more" if result.decision == "no_drift" else "More"
        return Answer("Yes", f"{usual} of the answers are wrong")
    if "coverage" in conditions:
        return Answer("Yes", describe_condition("coverage", result)[1])
    if "unjudged" in conditions:
        return Answer("In part", result.unjudged)
    return Answer("No" if result.decision == "no_drift" else "Cannot tell", result.reason)


def does_it_hurt(result: DriftResult) -> Answer:
    """Whether accuracy suffers, and how much, as far as anyone knows."""
    feedback, estimated = result.feedback, result.estimated
    usual = f"{result.reference_accuracy:.1%} of the held-out pictures"
    if "unreadable" in result.conditions:
        return Answer("Cannot tell", "Too few of the rows can be read")
    if feedback is not None and feedback.declined is not None:
        of_rows = f"{feedback.rows:,} rows with feedback{_late(feedback)}"
        sentence = f"{feedback.accuracy:.1%} of {of_rows} are right, against {usual}"
        return Answer("Yes" if feedback.declined else "No", sentence)
    if estimated is None:
        few = f"; {feedback.rows:,} rows with feedback are too few{_clients(feedback)}" if feedback else ""
        return Answer("Cannot tell", f"There is no estimate of accuracy for this window{few}")
    sentence = f"Nobody measured it. {describe_estimate(estimated)}, against {usual}"
    if result.level == "harmful":
        return Answer("Likely", sentence)
    return Answer("Probably not" if estimated.reliable else "Cannot tell", sentence)


def what_to_do(result: DriftResult, report_id: str) -> list[Step]:
    """What to do, the most urgent first.

    Args:
        result: of the window.
        report_id: of the report on it.
    """
    data, model = result.context.data, result.model_name
    return [Step(each.sentence, of_data(each.command, data, model=model)) for each in _steps(result, report_id)]


def _steps(result: DriftResult, report_id: str) -> list[Step]:
    conditions = result.conditions
    accept = Step("If the traffic stays like this, make it the reference", f"fashion drift accept {report_id}")
    take_back = Step("If a new version came shortly before, take it back", 'make rollback REASON="accuracy is down"')
    if "no_traffic" in conditions:
        return [Step("Look whether the service is up, and asked", "fashion status")]
    if conditions & {"decline", "coverage"} and not result.rows:  # it may have been taken back before
        train = Step("If this version still answers, train on the labelled pictures", TRAIN)
        return [Step("Nothing, if another version answers now: this one has predicted nothing"), train]
    if conditions & {"decline", "coverage"}:
        train = Step("Otherwise train on the labelled pictures", TRAIN)
        return [take_back, train]
    if "unreadable" in conditions:
        return [Step("Look for damage in the log and in the service that writes it", "fashion home verify")]
    if "harmful" in conditions and (result.feedback is None or result.feedback.declined is None):
        label = Step("Label some of these pictures, to know the accuracy", "fashion log feedback labels.csv")
        return [label, take_back]
    if "drift" in conditions:
        return [Step("Nothing now. The most unusual rows are below"), accept]
    if "unjudged" in conditions:
        return [Step("Look which versions the registry holds", "fashion registry list")]
    if result.decision == "insufficient_data":
        return [Step("Look at a longer window", 'make drift ARGS="window=7d"')]
    return [Step("Nothing")]


def describe_estimate(estimated: Estimate) -> str:
    """The estimate, and whether it can be relied on."""
    return f"Accuracy is estimated at {estimated.accuracy:.1%} ({reliability(estimated)})"


def reliability(estimated: Estimate) -> str:
    """Whether an estimate can be relied on, in a few words."""
    if estimated.low is None or estimated.high is None:
        return "reliable" if estimated.reliable else "unreliable: the change is too large"
    between = f"between {estimated.low:.1%} and {estimated.high:.1%}"
    return between if estimated.reliable else f"{between}: too wide to rely on"


def describe_feedback(result: DriftResult) -> str:
    """The measured accuracy beside that of the reference."""
    feedback: FeedbackAccuracy | None = result.feedback
    if feedback is None:
        return "There is no feedback"
    return (
        f"{feedback.accuracy:.1%} of {feedback.rows:,} rows with feedback{_late(feedback)} are right "
        f"({feedback.low:.1%} to {feedback.high:.1%}); of the reference {result.reference_accuracy:.1%} were "
        f"(p = {format_p_value(feedback.p_decline)}){f'; {feedback.note}' if feedback.note else ''}"
    )


def _describe_coverage(coverage: Coverage) -> str:
    return (
        f"the prediction sets of {coverage.held:.1%} of {coverage.rows:,} rows with feedback hold the true label "
        f"({coverage.low:.1%} to {coverage.high:.1%}); they are to hold {coverage.nominal:.1%} "
        f"(p = {format_p_value(coverage.p_fall)}){f'; {coverage.note}' if coverage.note else ''}"
    )


def describe_span(result: DriftResult) -> str:
    """The time of the window."""
    return f"{format_time(result.since_us)} to {format_time(result.until_us)} UTC"


def format_time(time_us: int) -> str:
    """A time, given in microseconds since 1970, to the minute, in UTC."""
    return f"{datetime.datetime.fromtimestamp(time_us / 1e6, datetime.UTC):%Y-%m-%d %H:%M}"


def format_p_value(value: float) -> str:
    """A p-value in a few characters; NaN is that of no test."""
    if math.isnan(value):
        return "not tested"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}" if value > 0 else "under 1e-300"


def _verdict(result: DriftResult) -> str:
    return VERDICTS[result.level if result.decision == "drift" else result.decision]


def _late(feedback: FeedbackAccuracy) -> str:
    return f", {feedback.late:,} of them on earlier predictions," if feedback.late else ""


def _clients(feedback: FeedbackAccuracy) -> str:
    """Of rows that cannot be tested: whether it is for their clients."""
    return ", or of too few clients that differ from each other" if math.isnan(feedback.p_decline) else ""


def _describe_changes(result: DriftResult) -> str:
    """What differs most, for who does not know the names of columns."""
    drifted = sorted(
        (column for column in result.columns if column.drifted), key=lambda column: (column.p_value, -column.distance)
    )
    shown = [column.name for column in drifted[:MAX_NAMES]]
    classes = [name[2:-1] for name in shown if name.startswith("p(")]
    names = [name.replace("_", " ") for name in shown if name != LABELS and not name.startswith("p(")]
    names += ["the mix of predicted classes"] if LABELS in shown else []
    names += [f"how sure it is of {_listed(classes)}"] if classes else []
    names += [f"{len(drifted) - MAX_NAMES} more"] if len(drifted) > MAX_NAMES else []
    words = _listed(names) or "something"
    return f"{words[0].upper()}{words[1:]} {'differ' if len(names) > 1 else 'differs'} from the reference"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _describe_unreadable(result: DriftResult) -> str:
    return (
        f"{result.unreadable:,} of {result.rows + result.unreadable:,} rows ({result.unreadable_share:.1%}) hold no "
        "usable numbers, and are in no test"
    )


def _describe_silence(result: DriftResult) -> str:
    return (
        f"Nothing was predicted from {describe_span(result)}; the last prediction before is of "
        f"{format_time(result.context.last_before_us)} UTC"
    )
