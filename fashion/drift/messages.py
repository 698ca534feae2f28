"""What alerts say: what, how bad, when, on which version, where to read more, and the next command. Sends nothing."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from fashion.drift import alerts, verdict
from fashion.drift.alerts import Alert
from fashion.drift.result import DriftResult

OF_THE_MODEL = ("unjudged", "no_traffic")
"""Conditions of the window as a whole, not of one version."""
LEVELS = {"none": 0, "harmless": 1, "harmful": 2}


def of_window(
    reported: Sequence[tuple[DriftResult, str]], on: Collection[str], *, model: str, link: Callable[[str], str]
) -> dict[str, Alert | None]:
    """`alerts.key` -> the alert on a condition; None where it could be tested and does not hold.

    Args:
        reported: the result and the report's id of each version in the window, that of the latest row last.
        on: conditions that people are alerted to.
        model: name of the registered model.
        link: returns where a report can be read.
    """
    messages: dict[str, Alert | None] = {}
    for result, report_id in reported:
        names = result.testable & set(on)
        if "drift" in names:  # which is sent again when it becomes harmful
            names.discard("harmful")
        for name in sorted(names):
            version = "" if name in OF_THE_MODEL else alerts.version_key(result.model_version, result.model_digest)
            holds = name in result.conditions
            messages[alerts.key(name, version)] = _alert(name, result, report_id, model, link) if holds else None
    return messages


def problem(error: str) -> Alert:
    """The alert on a failure of the flow.

    Args:
        error: one sentence. Another number in it is no other failure.
    """
    text = f"{error}\nNothing is watched until this is mended.\nNext: fashion status"
    return Alert("The drift flow cannot do its work", text, matter=re.sub(r"\d+", "#", error))


def channels(problems: Sequence[str]) -> Alert | None:
    """The alert on addresses of alerts that cannot be used; None without any.

    Args:
        problems: one sentence each.
    """
    if not problems:
        return None
    text = "\n".join([*problems, "All other channels have this message.", "Next: fashion schedule check"])
    return Alert("An address of alerts cannot be used", text, matter=" ".join(problems))


def training(
    outcome: str, *, model: str, ended_well: bool, promoted: bool, command: str, awaits_approval: bool = False
) -> Alert:
    """The message on a training that drift started.

    Args:
        outcome: one sentence.
        model: name of the registered model.
        ended_well: False if the training failed, or the building of a bento after it.
        promoted: True if there is a new champion.
        command: what to type next.
        awaits_approval: True if the version passed the gate, and a person is to promote it.
    """
    refused = "A challenger waits for approval" if awaits_approval else "A challenger was refused: the champion stays"
    what = "A new champion" if promoted else refused
    title = what if ended_well else "A training that drift started failed"
    return Alert(f"{title}: {model}", f"{outcome}.\nNext: {command}")


def acting_conditions(results: Iterable[DriftResult]) -> set[str]:
    """Conditions to act on: those that hold on the latest version on which they could be tested.

    A version that has answered ten rows hides nothing of the one before; one that was tested replaces it. One that has
    answered nothing is not acted on: late feedback on it says nothing of the version that answers now.

    Args:
        results: one for each version in the window, that of the latest row last.
    """
    latest: Mapping[str, bool] = {
        name: name in result.conditions
        for result in results
        if result.rows or result.unreadable or not result.model_version
        for name in sorted(result.testable)
    }
    return {name for name, holds in latest.items() if holds}


def _alert(name: str, result: DriftResult, report_id: str, model: str, link: Callable[[str], str]) -> Alert:
    title, reason = verdict.describe_condition(name, result)
    of_version = f" version {result.model_version}" if name not in OF_THE_MODEL and result.model_version else ""
    lines = [f"{reason}."]
    if name in ("drift", "harmful"):
        hurt = verdict.does_it_hurt(result)
        lines.append(f"Does it hurt? {hurt.word}: {hurt.sentence}.")
    if result.rows:
        lines.append(f"When: {verdict.describe_span(result)}, {result.rows:,} predictions.")
    lines.append(f"Report: {link(report_id)}")
    lines += [f"Next: {_step(step)}" for step in verdict.what_to_do(result, report_id)[:2] if step.command]
    matter = " ".join(result.context.unknown) if name == "unjudged" else ""
    rows = f", {result.rows:,} predictions" if of_version else ""
    return Alert(f"{title}: {model}{of_version}{rows}", "\n".join(lines), _rank(name, result), matter)


def _step(step: verdict.Step) -> str:
    return f"{step.sentence}: {step.command}"


def _rank(name: str, result: DriftResult) -> int:
    """How bad a condition is: the level of drift, or in tenths how much accuracy is down or is unreadable."""
    if name in ("drift", "harmful"):
        return LEVELS[result.level]
    if name == "decline" and result.feedback is not None:
        return int(10 * max(0.0, result.reference_accuracy - result.feedback.accuracy))
    return int(10 * result.unreadable_share) if name == "unreadable" else 0
