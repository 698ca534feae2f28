"""The steps of a rollout: which share of the traffic a new revision gets next, and when it gives all of it back.

Knows the revision and what examines it by their interfaces only: no cloud, no network, no model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

ALL = 100
"""Percent."""


class RolloutError(RuntimeError):
    """A rollout cannot begin or go on; traffic stays as last set. The message is one sentence with the remedy."""


@dataclass(frozen=True)
class Check:
    """One thing that was examined."""

    name: str
    passed: bool
    sentence: str
    """The finding, with its numbers."""


@dataclass(frozen=True)
class Stage:
    """A share of the traffic, and what was found while the new revision had it."""

    share: int
    """Percent."""
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Outcome:
    """How a rollout ended."""

    served: bool
    """True if the new revision has all traffic, False if the previous one has it again."""
    sentence: str
    stages: tuple[Stage, ...] = ()


class Candidate(Protocol):
    """A new revision of a service. Every method may raise RolloutError."""

    name: str

    def prepare(self) -> int | None:
        """Make the revision, without traffic, or find the one that an earlier call made.

        Returns:
            The percentage of the traffic that it has, or None if an earlier rollout of it has ended with all of it.
        """

    def url(self) -> str:
        """Return an address that reaches this revision alone."""

    def set_share(self, percent: int) -> None:
        """Give the revision a percentage of the traffic, and the previous revision the rest."""

    def finish(self) -> None:
        """Record that the rollout has ended with all traffic on this revision."""

    def step_back(self, reason: str) -> None:
        """Give all traffic to the previous revision, and record why."""


class Probe(Protocol):
    """What examines a revision at its own address. Never raises for what the revision does."""

    def smoke(self, url: str) -> Sequence[Check]:
        """Examine a revision before it has traffic."""

    def measure(self, url: str) -> Sequence[Check]:
        """Examine a revision while it has a share of the traffic, for as long as the share is held."""


def roll_out(
    candidate: Candidate, probe: Probe, shares: Sequence[int], *, say: Callable[[str], None] = print
) -> Outcome:
    """Give a revision rising shares of the traffic as long as every check passes, or else none.

    Killed at any point, it leaves the traffic as it was last set; called again, it goes on from there.

    Args:
        candidate: the revision.
        probe: examines it at each share.
        shares: rising percentages; the last is 100.
        say: called with a sentence for each step.

    Raises:
        RolloutError: the revision cannot be made, or its traffic not be set.
    """
    share = candidate.prepare()
    if share is None:
        return Outcome(True, f"{candidate.name} has all traffic already: nothing was changed")
    say(f"{candidate.name} has {share} % of the traffic")
    stages: list[Stage] = []
    while True:
        examine = probe.measure if share else probe.smoke
        checks = tuple(examine(candidate.url()))
        stages.append(Stage(share, checks))
        for check in checks:
            say(f"  {'' if check.passed else 'FAILED: '}{check.sentence}")
        failed = [check.sentence for check in checks if not check.passed]
        if failed:
            reason = f"at {share} % of the traffic: {'; '.join(failed)}"
            candidate.step_back(reason)
            sentence = f"{candidate.name} was stepped back, the previous revision has all traffic: {reason}"
            return Outcome(False, sentence, tuple(stages))
        if share == ALL:
            candidate.finish()
            return Outcome(True, f"{candidate.name} has all traffic", tuple(stages))
        share = next((each for each in shares if each > share), ALL)
        candidate.set_share(share)
        say(f"{candidate.name} gets {share} % of the traffic")
