"""Which answers are a canary's, and what the labels on both versions' answers say. Knows no registry and no trust.

A canary is a version that answers a share of the traffic beside the champion. Both answer, so the rows of both have
the role `champion` in the log: their version says which of them answered. Feedback, reviews and drift know them as any
other answers.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fashion.metrics import sequential
from fashion.metrics.sequential import Arm, Rules, Verdict
from fashion.predictions.hashing import hash_text
from fashion.predictions.record import FOREVER_US, OWN_CLIENTS, LoggedPrediction, ModelId


@dataclass(frozen=True)
class Experiment:
    """Two versions that answer, and the rules of their comparison. The rules are fixed before the first label."""

    champion: ModelId
    canary: ModelId
    share: float
    """Of the clients that the canary answers, in (0, 0.5]."""
    since_us: int
    """When it was deployed, microseconds since 1970, UTC: answers of before are not compared."""
    margin: float
    """Accuracy in [0, 1) that the canary may lose and still count as not worse."""
    confidence: float
    """One minus the probability of a wrong promotion, and of a wrong step back."""

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Experiment":
        """Return the experiment of its fields as JSON holds them.

        Raises:
            TypeError: they are others.
            KeyError: a version is missing.
        """
        models = {role: ModelId(*fields[role]) for role in ("champion", "canary")}
        return cls(**{**fields, **models})

    def goes_to_canary(self, client: str | None, image_sha256: str) -> bool:
        """Return True if the canary is to answer. The same for all answers of a client, on every machine.

        A request without a client's name sticks to its picture: sent again, it gets the same answer. This project's
        own checks are answered by the champion.

        Args:
            client: the X-Client header; None without.
            image_sha256: of the pixels.
        """
        if client in OWN_CLIENTS:
            return False
        # Salted with the pair of versions: the clients that try one canary are not those that try the next one.
        salt = f"{self.champion.digest}:{self.canary.digest}"
        return hash_text(f"{salt}:{unit(client, image_sha256)}") < self.share * 2**64


@dataclass
class ArmCounts:
    """Labels on the answers of one version."""

    labels: int = 0
    """On its answers, whoever gave them."""
    trusted: int = 0
    """Of these, the labels of reviewers and of proven sources."""
    right: int = 0
    """Units whose first trusted label is the answer."""
    wrong: int = 0
    """Units whose first trusted label is another one."""

    @property
    def arm(self) -> Arm:
        """What the test knows of it."""
        return Arm(self.right, self.wrong)


@dataclass
class Counts:
    """Labels on the answers of both."""

    champion: ArmCounts
    canary: ArmCounts
    elsewhere: int = 0
    """Labels on answers that the other version should have given: a service has no canary, or the canary failed."""


def unit(client: str | None, image_sha256: str) -> str:
    """What one label is counted of, and what sticks to a version: the client, or the picture of a nameless one.

    Args:
        client: the X-Client header; None without.
        image_sha256: of the pixels.
    """
    return f"picture {image_sha256}" if client is None else f"client {client}"


def count(
    rows: Iterable[LoggedPrediction],
    experiment: Experiment,
    is_trusted: Callable[[LoggedPrediction], bool],
    *,
    until_us: int = FOREVER_US,
) -> Counts:
    """Count the labels of an experiment: of each client, or of each picture without one, the first trusted label.

    Labels of one client are alike, and its answers all come from one version: more of them would pass for evidence
    that they are not. A client that sends much is no better known than one that sends little.

    Args:
        rows: with feedback that counts, in any order; other versions' and earlier ones are passed over.
        experiment: the versions.
        is_trusted: whether models may be judged by a row's label.
        until_us: when the comparison ended, microseconds since 1970, UTC: later answers are passed over.
    """
    counts = Counts(ArmCounts(), ArmCounts())
    found: list[tuple[int, str, LoggedPrediction]] = []
    for row in rows:
        said, record = row.judgement, row.record
        is_of_both = record.model in (experiment.champion, experiment.canary)
        is_within = experiment.since_us <= record.time_us < until_us
        if said is None or not is_within or not is_of_both or record.client in OWN_CLIENTS:
            continue
        is_canary = record.model == experiment.canary
        if is_canary != experiment.goes_to_canary(record.client, record.image_sha256):
            counts.elsewhere += 1
            continue
        arm = counts.canary if is_canary else counts.champion
        arm.labels += 1
        if is_trusted(row):
            arm.trusted += 1
            found.append((said.time_us, record.prediction_id, row))
    seen: set[str] = set()
    for _, _, row in sorted(found, key=lambda each: each[:2]):
        of = unit(row.record.client, row.record.image_sha256)
        if of not in seen:
            seen.add(of)
            arm = counts.canary if row.record.model == experiment.canary else counts.champion
            if row.true_label == row.record.label:
                arm.right += 1
            else:
                arm.wrong += 1
    return counts


def judge(experiment: Experiment, counts: Counts) -> Verdict:
    """Return what the counted labels say by the experiment's rules. May be asked after each label."""
    rules = Rules(experiment.margin, experiment.confidence)
    return sequential.judge(counts.champion.arm, counts.canary.arm, rules)


def describe(experiment: Experiment, counts: Counts, verdict: Verdict) -> str:
    """The labels and what they show, in one sentence without a full stop."""
    arms = " against ".join(_accuracy(each.arm) for each in (counts.canary, counts.champion))
    if verdict.difference is None:
        return f"{arms}: nothing can be said yet"
    return (
        f"{arms}; accuracy changes by {100 * verdict.difference:+.2f} points, at least {100 * verdict.low:+.2f} and at "
        f"most {100 * verdict.high:+.2f} with {experiment.confidence:.0%} confidence each; at least "
        f"{-100 * experiment.margin:+.2f} required"
    )


def _accuracy(arm: Arm) -> str:
    return "no label" if arm.accuracy is None else f"{arm.right:,} of {arm.labels:,} right ({arm.accuracy:.1%})"
