"""Champion against challenger on the same rows: may it be replaced, and why. Knows no registry and no model."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.config.train import GateConfig
from fashion.data.dataset import Split
from fashion.metrics.calibration import expected_calibration_error
from fashion.metrics.classification import mcnemar_exact, paired_bootstrap_difference
from fashion.model.package import NotComparable, Package, require_comparable
from fashion.model.predictor import Predictor

LATENCY_CALLS = 200
MIN_CLASS_ROWS = 50
"""Rows of a class from which its recall is compared: with fewer, two pictures are several points."""
MIN_FINE_ROWS = 1000
"""Rows, of sets after the first, from which a change of half a point, and calibration, can be told from noise. With
fewer, as feedback often has, only a loss that is shown counts."""
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
        overall = [check.sentence for check in self.checks if check.name.endswith(("worse", "within the margin"))]
        return f"all {len(self.checks)} checks passed; {'; '.join(overall)}"


FIRST = Verdict(True, (Check("first version", True, 1.0, 1.0, "there is no champion yet"),))


def as_tags(verdict: Verdict) -> dict[str, str]:
    """Each check's finding, as tags of the version that was judged."""
    return {
        f"check/{check.name}": f"{'passed' if check.passed else 'failed'}: {check.value:.6g}, bound {check.bound:.6g}"
        for check in verdict.checks
    }


def judge(champion: Package, challenger: Package, splits: Mapping[str, Split], gate: GateConfig) -> Verdict:
    """Score two packages on the same rows of every split, timing them alternately, and decide."""
    try:
        require_comparable(champion, challenger)
    except NotComparable as error:
        sentence = f"{error}; promote by hand if that is meant"
        return Verdict(False, (Check("comparable", False, 0.0, 1.0, sentence),))
    mine, theirs = (Predictor(champion), Predictor(challenger))
    rows = [
        Rows(name, split.labels, *(each.predict(split.images).probabilities for each in (mine, theirs)))
        for name, split in splits.items()
    ]
    images = next(iter(splits.values())).images
    times: tuple[list[float], list[float]] = ([], [])
    for index in range(LATENCY_CALLS):
        for predictor, taken in zip((mine, theirs), times, strict=True):
            started = time.perf_counter()
            predictor.predict(images[index % len(images)][None])
            taken.append(1000 * (time.perf_counter() - started))
    before, after = (float(np.median(taken)) for taken in times)
    return decide(
        rows,
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

    On each set of rows: not shown worse by McNemar's exact test; no class loses more recall than allowed. On the
    first one, and on others where there are enough rows to tell: the interval of the paired difference not below
    minus the margin, and calibration within bounds. Latency within bounds.

    Raises:
        ValueError: no rows, or probabilities of other shape than labels and classes.
    """
    if not rows:
        raise ValueError("a gate needs rows to score on, got none")
    checks: list[Check] = []
    for index, part in enumerate(rows):
        expected = (len(part.labels), len(class_names))
        if part.champion.shape != expected or part.challenger.shape != expected:
            raise ValueError(
                f"{part.name}: probabilities must be {expected}, got {part.champion.shape} and {part.challenger.shape}"
            )
        checks.append(_not_worse(part, gate))
        is_fine = index == 0 or len(part.labels) >= MIN_FINE_ROWS
        checks += [_margin(part, gate)] if is_fine else []
        checks += _classes(part, class_names, gate)
        checks += [_calibration(part, gate)] if is_fine else []
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


def _not_worse(rows: Rows, gate: GateConfig) -> Check:
    champion, challenger = _right(rows)
    test = mcnemar_exact(champion, challenger)
    alpha = 1 - gate.confidence
    return Check(
        f"{rows.name}: not shown worse",
        test.p_worse >= alpha,
        test.p_worse,
        alpha,
        f"{rows.name}: {challenger.mean():.2%} right against {champion.mean():.2%}; {test.c} rows only the "
        f"challenger has right, {test.b} only the champion (McNemar p = {test.p_worse:.3g}, at least {alpha:.2g} "
        "wanted)",
    )


def _margin(rows: Rows, gate: GateConfig) -> Check:
    difference, low, high = paired_bootstrap_difference(*_right(rows), confidence=gate.confidence, seed=SEED)
    return Check(
        f"{rows.name}: within the margin",
        low >= -gate.margin,
        low,
        -gate.margin,
        f"{rows.name}: accuracy changes by {100 * difference:+.2f} points, {gate.confidence:.0%} interval "
        f"{100 * low:+.2f} to {100 * high:+.2f}; at least {-100 * gate.margin:+.2f} wanted",
    )


def _right(rows: Rows) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return rows.champion.argmax(axis=1) == rows.labels, rows.challenger.argmax(axis=1) == rows.labels


def _classes(rows: Rows, class_names: Sequence[str], gate: GateConfig) -> list[Check]:
    changes = {}
    for index, name in enumerate(class_names):
        mine = rows.labels == index
        if mine.sum() >= MIN_CLASS_ROWS:
            before = (rows.champion[mine].argmax(axis=1) == index).mean()
            changes[name] = float((rows.challenger[mine].argmax(axis=1) == index).mean() - before)
    if not changes:
        return []
    worst = min(changes, key=lambda name: changes[name])
    few = len(class_names) - len(changes)
    left_out = f"; {few} classes have fewer than {MIN_CLASS_ROWS} rows" if few else ""
    return [
        Check(
            f"{rows.name}: every class",
            changes[worst] >= -gate.max_class_drop,
            changes[worst],
            -gate.max_class_drop,
            f"{rows.name}: the class that loses most is {worst}, recall {100 * changes[worst]:+.1f} points; "
            f"{-100 * gate.max_class_drop:+.1f} allowed{left_out}",
        )
    ]


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
