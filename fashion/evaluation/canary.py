"""The comparison of a canary with the champion: begun by a deployment, ended by a promotion or a step back.

Tags of the canary's version hold the rules, which were fixed when it began. Knows no log, no trust and no service.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fashion.config.names import MODEL_NAME
from fashion.evaluation import canary_tags
from fashion.evaluation.canary_tags import of_version
from fashion.evaluation.gate import CHECK, COMPARED_WITH, PASSED
from fashion.metrics.sequential import Rules, Verdict
from fashion.predictions.canary import Counts, Experiment, describe
from fashion.predictions.canary_ending import CanaryEnding
from fashion.predictions.record import ModelId
from fashion.registry import champions, versions
from fashion.registry.champions import A_PERSON, WAITING, WAITS_FOR
from fashion.registry.versions import CHALLENGER, CHAMPION, RegistryError, Version

Ending = Literal["promoted", "stepped back", "waits", "goes on", "failed"]


@dataclass(frozen=True)
class CanaryComparison:
    """An experiment with its labels until now."""

    version: Version
    """The canary."""
    experiment: Experiment
    counts: Counts
    verdict: Verdict


@dataclass(frozen=True)
class Outcome:
    """The outcome of a canary."""

    ending: Ending
    sentence: str
    """Ends without a full stop."""
    command: str
    """What to type next."""

    @property
    def has_ended(self) -> bool:
        """True if the comparison is over."""
        return self.ending in ("promoted", "stepped back")


def choose(
    which: str | int, served: Version, *, name: str = MODEL_NAME, force_reason: str | None = None
) -> tuple[Version | None, str]:
    """Choose the version that answers beside the served one, and say why there is none where it must not.

    An alias follows the registry: once its version was promoted or stepped back, there is no canary any more, so that
    the same command builds the next bento.

    Args:
        which: alias or number of the canary.
        served: the version that answers the others.
        name: of the registered model.
        force_reason: why a version may answer that was refused or rolled back; None for no such reason.

    Returns:
        The canary, or None and a sentence.

    Raises:
        RegistryError: there is no such version, it was refused, or it would be compared with another than the champion.
    """
    if CHAMPION not in served.aliases:
        raise RegistryError(
            f"a canary is compared with the champion, and version {served.number} is served: leave out `version` and "
            "`alias`, or leave out serve.canary"
        )
    known = versions.list_versions(name)
    if which == CHALLENGER and not any(CHALLENGER in version.aliases for version in known):
        return None, f"no version is the challenger: version {served.number} answers alone"
    found = versions.get(str(which), name)
    if found.number == served.number:
        return None, f"version {found.number} is the champion: it answers alone"
    problem = why_not(found)
    if problem and force_reason is None:
        if not str(which).isdecimal():
            return None, f"version {found.number} {problem}: version {served.number} answers alone"
        raise RegistryError(
            f"version {found.number} {problem}, and a canary answers users: let it score unseen with "
            f"serve.shadow={found.number}, or say why it may with deploy.force_reason=..."
        )
    objection = why_not_promoted(found, served.number)
    return found, (
        f"version {found.number} answers as canary of version {served.number}"
        f"{f', and only a person may promote it, for it {objection}' if objection else ''}"
    )


def why_not(version: Version) -> str:
    """Why a version must not answer as a canary; empty where it may."""
    tags, promoted = version.tags, version.tags.get("promoted.time", "")
    for event, what in (("refused", "was refused"), ("rolled_back", "was rolled back")):
        if tags.get(f"{event}.time", "") > promoted:
            return f"{what} ({tags.get(f'{event}.reason', 'no reason is recorded')})"
    return ""


def why_not_promoted(version: Version, champion: int) -> str:
    """Why live traffic alone must not promote a version; empty where it may.

    Labels show accuracy alone. Classes, calibration, latency and shifted copies are the gate's to check, so a version
    is promoted only if it passed every check of the gate against the same champion and nobody has decided otherwise
    since.

    Args:
        version: the canary.
        champion: number of the version that it is compared with.
    """
    if problem := why_not(version):
        return problem
    tags = version.tags
    outcomes = {key.removeprefix(CHECK): value for key, value in tags.items() if key.startswith(CHECK)}
    failed = [name for name, outcome in sorted(outcomes.items()) if not outcome.startswith(PASSED)]
    if failed:
        return f"failed the gate's check of {failed[0]!r} ({outcomes[failed[0]]})"
    if not outcomes and WAITING not in tags:
        return "was never judged by the gate"
    # While it waits, a version without this tag passed against the present champion, or with gate.champion=ignore.
    compared_with = tags.get(COMPARED_WITH, str(champion) if WAITING in tags else "no version")
    if compared_with != str(champion):
        return f"passed the gate compared with {compared_with}, not with {champion}"
    return "waits for approval" if tags.get(WAITS_FOR, A_PERSON) == A_PERSON and WAITING in tags else ""


def begin(
    version: Version,
    champion: ModelId,
    canary: ModelId,
    *,
    share: float,
    rules: Rules,
    name: str = MODEL_NAME,
    clock: Callable[[], float] = time.time,
) -> Experiment:
    """Fix the rules of a comparison. Under the same rules as before, one that was not ended goes on.

    Args:
        version: the canary.
        champion: what it is compared with.
        canary: the canary.
        share: of the clients that it answers.
        rules: of the decision.
        name: of the registered model.
        clock: seconds since 1970.
    """
    before = of_version(version)
    started = Experiment(champion, canary, share, int(clock() * 1e6), rules.margin, rules.confidence)
    if before is not None and dataclasses.replace(before, since_us=started.since_us) == started:
        return before
    canary_tags.begin(version, started, name=name)
    return started


def running(name: str = MODEL_NAME) -> tuple[Version, Experiment] | None:
    """Return the canary that was deployed last and its comparison with the present champion; None without one.

    Raises:
        RegistryError: somebody has edited its tag.
    """
    known = versions.list_versions(name)
    champion = next((str(version.number) for version in known if CHAMPION in version.aliases), None)
    found = [
        (version, experiment)
        for version in known
        if (experiment := of_version(version)) is not None and experiment.champion.version == champion
    ]
    return max(found, key=lambda each: each[1].since_us, default=None)


def settle(compared: CanaryComparison, *, name: str = MODEL_NAME, clock: Callable[[], float] = time.time) -> Outcome:
    """Do what the verdict says: promote the canary, step back from it, or go on.

    A version that the gate has not passed, or that waits for a person's approval, is not promoted; the outcome says
    why, and what to type.

    Args:
        compared: the comparison.
        name: of the registered model.
        clock: seconds since 1970.

    Raises:
        fashion.registry.champions.ChampionChanged: another version is the champion by now; nothing was changed.
        fashion.model.package.DamagedPackage: the canary's files are not those that were registered.
    """
    version, number = compared.version, compared.version.number
    champion = int(compared.experiment.champion.version)
    reason = describe(compared.experiment, compared.counts, compared.verdict)
    if compared.verdict.decision == "go on":
        return Outcome("goes on", reason, "fashion canary status")
    if compared.verdict.decision == "step back":
        champions.reject(version, reason=reason, name=name, expected=champion)
        ended = canary_tags.end(version, "stepped back", reason, ended_us=int(clock() * 1e6), name=name)
        return outcome_of(ended.ending)
    if objection := why_not_promoted(version, champion):
        option = "" if name == MODEL_NAME else f" --name {name}"
        command = f'fashion registry promote {number} --expect {champion}{option} --reason "..."'
        return Outcome("waits", f"only a person may promote canary {number}, for it {objection}: {reason}", command)
    champions.promote(version, reason=reason, name=name, event="promoted by its canary", expected=champion)
    ended = canary_tags.end(version, "promoted", reason, ended_us=int(clock() * 1e6), name=name)
    return outcome_of(ended.ending)


def outcome_of(ending: CanaryEnding) -> Outcome:
    """Say how a comparison ended."""
    canary, champion = ending.canary.version, ending.champion.version
    if ending.kind == "promoted":
        sentence = f"canary {canary} is the champion, in place of version {champion}: {ending.reason}"
        then = "a service goes on with its share until the next bento"
    else:
        sentence = f"canary {canary} is refused, and version {champion} stays champion: {ending.reason}"
        then = "running services stop asking it within a minute"
    return Outcome(ending.kind, f"{sentence}; {then}", ending.command)


def describe_last(name: str = MODEL_NAME) -> str | None:
    """What becomes of the canary that was deployed last beside the champion; None without one.

    A canary that became the champion is not said to be one any more.

    Args:
        name: of the registered model.

    Raises:
        RegistryError: somebody has edited its tag.
    """
    found = running(name)
    if found is not None:
        version, experiment = found
        return (
            f"version {version.number} answers {experiment.share:.0%} of the clients beside version "
            f"{experiment.champion.version}: fashion canary status"
        )
    known = versions.list_versions(name)
    champion = next((str(version.number) for version in known if CHAMPION in version.aliases), None)
    endings = [ending for version in known if (ending := canary_tags.ending_of(version, name)) is not None]
    last = max(endings, key=lambda each: each.ended_us, default=None)
    return outcome_of(last).sentence if last is not None and last.champion.version == champion else None
