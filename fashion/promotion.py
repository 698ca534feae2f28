"""Champion against challenger on the same rows: may it be replaced, and why. Knows no registry and no model."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.calibration import expected_calibration_error
from fashion.config import GateConfig
from fashion.dataset import Split
from fashion.metrics import mcnemar_exact, paired_bootstrap_difference
from fashion.package import NotComparable, Package, require_comparable
from fashion.predictor import Predictor

LATENCY_CALLS = 200
SEED = 0
"""Of the bootstrap: the same rows give the same verdict."""


@dataclass(frozen=True)
class Rows:
    """Labelled rows that both have scored and neither was trained on."""

    name: str
    labels: NDArray[np.int64]
    """(N,)"""
    champion: NDArray[np.floating[Any]]
    """(N, classes) calibrated probabilities."""
    challenger: NDArray[np.floating[Any]]
    """(N, classes) likewise."""


@dataclass(frozen=True)
class Check:
    """One condition of the gate."""

    name: str
    passed: bool
    value: float
    bound: float
    sentence: str
    """The finding, for a person."""


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, with every number."""

    promoted: bool
    checks: tuple[Check, ...]

    @property
    def reason(self) -> str:
        """One sentence: what failed, or that nothing did and how accuracy changed."""
        failed = [check.sentence for check in self.checks if not check.passed]
        if failed:
            return "; ".join(failed)
        if len(self.checks) == 1:
            return self.checks[0].sentence
        margin = next(check for check in self.checks if check.name.endswith("within the margin"))
        return f"all {len(self.checks)} checks passed; {margin.sentence}"


FIRST = Verdict(True, (Check("first version", True, 1.0, 1.0, "there is no champion yet"),))


def judge(champion: Package, challenger: Package, test: Split, gate: GateConfig) -> Verdict:
    """Score two packages on the same test rows, timing them alternately, and decide."""
    try:
        require_comparable(champion, challenger)
    except NotComparable as error:
        sentence = f"{error}; promote by hand if that is meant"
        return Verdict(False, (Check("comparable", False, 0.0, 1.0, sentence),))
    mine, theirs = (Predictor(champion), Predictor(challenger))
    rows = Rows("test", test.labels, mine.predict(test.images).probabilities, theirs.predict(test.images).probabilities)
    times: tuple[list[float], list[float]] = ([], [])
    for index in range(LATENCY_CALLS):
        for predictor, taken in zip((mine, theirs), times, strict=True):
            started = time.perf_counter()
            predictor.predict(test.images[index % len(test.images)][None])
            taken.append(1000 * (time.perf_counter() - started))
    before, after = (float(np.median(taken)) for taken in times)
    return decide(
        [rows],
        class_names=champion.class_names,
        gate=gate,
        champion_latency_ms=before,
        challenger_latency_ms=after,
    )


def decide(
    rows: Sequence[Rows],
    *,
    class_names: Sequence[str],
    gate: GateConfig,
    champion_latency_ms: float,
    challenger_latency_ms: float,
) -> Verdict:
    """Promote the challenger when no check fails.

    On each set of rows: not shown worse by McNemar's exact test, and the interval of the paired difference
    not below minus the margin; no class loses more recall than allowed; calibration and latency within bounds.

    Raises:
        ValueError: no rows, or probabilities of other shape than labels and classes.
    """
    if not rows:
        raise ValueError("a gate needs rows to score on, got none")
    checks: list[Check] = []
    for part in rows:
        expected = (len(part.labels), len(class_names))
        if part.champion.shape != expected or part.challenger.shape != expected:
            raise ValueError(
                f"{part.name}: probabilities must be {expected}, got {part.champion.shape} and {part.challenger.shape}"
            )
        checks += [*_overall(part, gate), _classes(part, class_names, gate), _calibration(part, gate)]
    ratio = challenger_latency_ms / champion_latency_ms
    checks.append(
        Check(
            "latency",
            ratio <= gate.max_latency_ratio,
            ratio,
            gate.max_latency_ratio,
            f"one prediction takes {challenger_latency_ms:.2f} ms, the champion's {champion_latency_ms:.2f} ms: "
            f"{ratio:.2f} times, {gate.max_latency_ratio:g} allowed",
        )
    )
    return Verdict(all(check.passed for check in checks), tuple(checks))


def _overall(rows: Rows, gate: GateConfig) -> list[Check]:
    champion = rows.champion.argmax(axis=1) == rows.labels
    challenger = rows.challenger.argmax(axis=1) == rows.labels
    test = mcnemar_exact(champion, challenger)
    difference, low, high = paired_bootstrap_difference(champion, challenger, confidence=gate.confidence, seed=SEED)
    alpha = 1 - gate.confidence
    return [
        Check(
            f"{rows.name}: not shown worse",
            test.p_worse >= alpha,
            test.p_worse,
            alpha,
            f"{rows.name}: {challenger.mean():.2%} right against {champion.mean():.2%}; {test.c} rows only the "
            f"challenger has right, {test.b} only the champion (McNemar p = {test.p_worse:.3g}, at least {alpha:.2g} "
            "wanted)",
        ),
        Check(
            f"{rows.name}: within the margin",
            low >= -gate.margin,
            low,
            -gate.margin,
            f"{rows.name}: accuracy changes by {100 * difference:+.2f} points, {gate.confidence:.0%} interval "
            f"{100 * low:+.2f} to {100 * high:+.2f}; at least {-100 * gate.margin:+.2f} wanted",
        ),
    ]


def _classes(rows: Rows, class_names: Sequence[str], gate: GateConfig) -> Check:
    changes = {}
    for index, name in enumerate(class_names):
        mine = rows.labels == index
        if mine.any():
            before = (rows.champion[mine].argmax(axis=1) == index).mean()
            changes[name] = float((rows.challenger[mine].argmax(axis=1) == index).mean() - before)
    worst = min(changes, key=lambda name: changes[name])
    return Check(
        f"{rows.name}: every class",
        changes[worst] >= -gate.max_class_drop,
        changes[worst],
        -gate.max_class_drop,
        f"{rows.name}: the class that loses most is {worst}, recall {100 * changes[worst]:+.1f} points; "
        f"{-100 * gate.max_class_drop:+.1f} allowed",
    )


def _calibration(rows: Rows, gate: GateConfig) -> Check:
    champion = expected_calibration_error(rows.champion, rows.labels)
    challenger = expected_calibration_error(rows.challenger, rows.labels)
    return Check(
        f"{rows.name}: calibration",
        challenger - champion <= gate.max_ece_increase,
        challenger - champion,
        gate.max_ece_increase,
        f"{rows.name}: calibration error {challenger:.2%} against {champion:.2%}; "
        f"{gate.max_ece_increase:.2%} more allowed",
    )


if __name__ == "__main__":
    import sys

    from fashion import promotion_command

    sys.exit(promotion_command.main())
