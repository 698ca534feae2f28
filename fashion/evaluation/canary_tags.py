"""Tags of a canary's version: the rules of its comparison, how it ended, and whether people were told.

A process may be killed between the promotion or the refusal and the tags that say so: `complete` writes them later.
"""

import dataclasses
import datetime
import json
from typing import NamedTuple

from fashion.config.names import MODEL_NAME
from fashion.predictions.canary import Experiment
from fashion.predictions.canary_ending import CanaryEnding, Kind
from fashion.registry import champions, versions
from fashion.registry.versions import RegistryError, Version

RULES = "canary.rules"
"""Tag with the fields of the last `Experiment` of a version, as JSON."""
ENDED = "canary.ended_us"
"""Tag with the time at which it ended, microseconds since 1970, UTC."""
RESULT = "canary.result"
"""Tag with what came out: an ending and its reason."""
TOLD = "canary.told"
"""Tag that says whether people were told how it ended: `yes` or `no`. Comparisons of before this tag have none."""

_DECISIONS: dict[Kind, str] = {"promoted": "promoted", "stepped back": "refused"}
"""Kind of an ending -> the tags `.time` and `.reason` of such a decision on a version."""


class EndedComparison(NamedTuple):
    """A comparison that is over."""

    version: Version
    ending: CanaryEnding


def begin(version: Version, experiment: Experiment, *, name: str = MODEL_NAME) -> None:
    """Store the rules of a comparison.

    Args:
        version: the canary.
        experiment: the rules.
        name: of the registered model.
    """
    versions.set_tags(version, {RULES: json.dumps(dataclasses.asdict(experiment))}, name=name)


def of_version(version: Version) -> Experiment | None:
    """Return the comparison of a version that was begun and not ended; None where there is none.

    Raises:
        RegistryError: somebody has edited its tag.
    """
    experiment = _begun(version)
    return None if experiment is None or _how(version, experiment) is not None else experiment


def ending_of(version: Version, name: str = MODEL_NAME) -> CanaryEnding | None:
    """Return how the last comparison of a version ended; None where it goes on, or there is none.

    One that ended by a decision on the version is over before its tags say so; a promotion that was rolled back is a
    step back.

    Raises:
        RegistryError: somebody has edited a tag.
    """
    experiment = _begun(version)
    how = None if experiment is None else _how(version, experiment)
    if experiment is None or how is None:
        return None
    of_model = "" if name == MODEL_NAME else f" tracking.registered_model={name}"
    ended_us, kind, reason = how
    command = f'make bento ARGS="serve.canary=null{of_model}"'
    return CanaryEnding(experiment.champion, experiment.canary, ended_us, kind, reason, command)


def end(version: Version, kind: Kind, reason: str, *, ended_us: int, name: str = MODEL_NAME) -> EndedComparison:
    """Store that the comparison of a version is over, and that nobody was told.

    Args:
        version: the canary.
        kind: its outcome.
        reason: one sentence without a full stop.
        ended_us: when, microseconds since 1970, UTC.
        name: of the registered model.
    """
    # The time last: with it, the comparison is over.
    versions.set_tags(version, {RESULT: f"{kind}: {reason}", TOLD: "no", ENDED: str(ended_us)}, name=name)
    ended = versions.get(str(version.number), name)
    ending = ending_of(ended, name)
    assert ending is not None, "only what was begun ends"
    return EndedComparison(ended, ending)


def complete(name: str = MODEL_NAME) -> list[EndedComparison]:
    """Return the last comparison of each version where it is over; what a killed process left is completed.

    A canary that a person has promoted is compared no more either.

    Raises:
        RegistryError: somebody has edited a tag.
    """
    champions.settle(name)
    found = []
    for version in versions.list_versions(name):
        ending = ending_of(version, name)
        if ending is not None and version.tags.get(ENDED) != str(ending.ended_us):
            found.append(end(version, ending.kind, ending.reason, ended_us=ending.ended_us, name=name))
        elif ending is not None:
            found.append(EndedComparison(version, ending))
    return found


def is_told(version: Version) -> bool:
    """Return True if people need not be told how the comparison of a version ended."""
    return version.tags.get(TOLD) != "no"


def record_told(version: Version, *, name: str = MODEL_NAME) -> None:
    """Store that people were told how the comparison of a version ended.

    Args:
        version: the canary.
        name: of the registered model.
    """
    versions.set_tags(version, {TOLD: "yes"}, name=name)


def _begun(version: Version) -> Experiment | None:
    """The last comparison of a version, ended or not; None without one."""
    if RULES not in version.tags:
        return None
    try:
        int(version.tags.get(ENDED, "0"))
        return Experiment.of(json.loads(version.tags[RULES]))
    except (ValueError, TypeError, KeyError) as error:
        raise RegistryError(
            f"the tag {RULES} of version {version.number} cannot be read ({error}): delete it in MLflow, and deploy "
            "the canary again"
        ) from None


def _how(version: Version, experiment: Experiment) -> tuple[int, Kind, str] | None:
    """When the last comparison of a version ended, in microseconds since 1970, how, and why; None where it goes on."""
    ended_us, result = int(version.tags.get(ENDED, "0")), version.tags.get(RESULT, "")
    if experiment.since_us <= ended_us:
        kind: Kind = "promoted" if result.startswith("promoted: ") else "stepped back"
        rolled_back, promoted = (version.tags.get(f"{event}.time", "") for event in ("rolled_back", "promoted"))
        if kind == "promoted" and rolled_back > promoted:
            back_us = int(1e6 * datetime.datetime.fromisoformat(rolled_back).timestamp())
            reason = f"it was rolled back ({version.tags.get('rolled_back.reason', 'no reason is recorded')})"
            return max(back_us, ended_us + 1), "stepped back", reason
        return ended_us, kind, result.removeprefix(f"{kind}: ")
    decisions = [
        (int(1e6 * moment.timestamp()), kind, version.tags.get(f"{tag}.reason", ""))
        for kind, tag in _DECISIONS.items()
        if f"{tag}.time" in version.tags
        for moment in [datetime.datetime.fromisoformat(version.tags[f"{tag}.time"])]
    ]
    return max((each for each in decisions if each[0] >= experiment.since_us), default=None)
