"""Whether a challenger may replace the champion, by their predictions on the same rows. Knows no registry.

Only rows whose labels are known or trusted judge: the test split, its shifted copies (`shifted`), and held-out feedback
that was reviewed, or is of sources that reviews have proven (`fashion.predictions.sources`). Labels of anybody else
may be learnt, where they are on usual pictures, and never judge. So whoever sends wrong labels under names that no
review has proven, one or many, can neither promote a model that is worse on usual pictures nor keep a better one out:
what was learnt of them shows on the test split or on its copies, and nothing that they said is asked. Names are free:
who sends under a proven one is believed as that source is, until reviews and other checks refute it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.config.train import GateConfig
from fashion.data.dataset import Split
from fashion.evaluation import shifted
from fashion.evaluation.latency import time_predictions
from fashion.metrics.calibration import expected_calibration_error
from fashion.metrics.classification import mcnemar_exact, paired_bootstrap_difference, wilson_interval
from fashion.model.package import NotComparable, Package, require_comparable
from fashion.model.predictor import Predictor

MIN_CLASS_ROWS = 50
"""Rows of a class that are needed to compare its recall: with fewer, two pictures make several points."""
MIN_PRECISE_ROWS = 1000
"""Rows that a set needs for the checks of margin and calibration. With fewer, as feedback and small data sets often
have, half a point cannot be told from noise: only a significant loss counts, and of the first set, any loss at all."""
ALONE = "nothing to compare with"
"""The check of a model where there is no champion: always passed, it says why there is none."""
CHECK, PASSED, FAILED = "check/", "passed", "failed"
"""How the tags of a version begin that hold the checks, and how their values begin."""
COMPARED_WITH = "compared.with"
"""Tag: number of the version that a version was compared with; absent where it was compared with none."""
SEED = 0
"""Of the bootstrap: the same rows give the same verdict."""


@dataclass(frozen=True)
class Rows:
    """N labelled rows that both models have scored and neither was trained on."""

    name: str
    """Of the set, such as `test` or `feedback`."""
    labels: NDArray[np.int64]
    """(N,)"""
    champion: NDArray[np.floating[Any]]
    """(N, classes) calibrated probabilities."""
    challenger: NDArray[np.floating[Any]]
    """(N, classes) calibrated probabilities."""


@dataclass(frozen=True)
class Check:
    """One condition of the gate."""

    name: str
    passed: bool
    value: float
    """What was measured."""
    bound: float
    """What it is compared with."""
    sentence: str
    """The result, for a person."""


@dataclass(frozen=True)
class Verdict:
    """The decision, with every number that it rests on."""

    promoted: bool
    checks: tuple[Check, ...]
    champion: int | None = None
    """The version that the challenger was compared with; None where there was none."""
    notes: tuple[str, ...] = ()
    """What else a person should know of how the decision came about."""
    awaits_approval: bool = False
    """True if every check passed, and a person is to decide: `gate.approval`."""
    awaits_canary: bool = False
    """True if every check passed, and live traffic is to decide: `gate.canary`."""

    @property
    def reason(self) -> str:
        """One sentence: the failed checks, or that all passed and how accuracy changed; and the notes."""
        failed = [check for check in self.checks if not check.passed]
        if failed or self.checks[0].name == ALONE:
            decisive = "; ".join(check.sentence for check in failed or self.checks)
        else:
            overall = [
                check.sentence
                for check in self.checks
                if check.name.endswith(("worse", "within the margin", "as good"))
            ]
            decisive = f"all {len(self.checks)} checks passed; {'; '.join(overall)}"
        return f"{decisive} ({'; '.join(self.notes)})" if self.notes else decisive


def as_tags(verdict: Verdict) -> dict[str, str]:
    """One tag for each check, and one for the version that was compared with."""
    compared = {} if verdict.champion is None else {COMPARED_WITH: str(verdict.champion)}
    return compared | {
        f"{CHECK}{check.name}": f"{PASSED if check.passed else FAILED}: {check.value:.6g}, bound {check.bound:.6g}"
        for check in verdict.checks
    }


def judge(champion: Package, challenger: Package, splits: Mapping[str, Split], gate: GateConfig) -> Verdict:
    """Score and time two packages on the same rows, and decide.

    Args:
        champion: lies in a folder.
        challenger: lies in a folder.
        splits: name -> rows that neither was trained on; latency is measured on the first one, and shifted copies are
            made of it.
        gate: bounds of the checks.

    Returns:
        The verdict; packages with other classes or image sizes fail its only check.
    """
    try:
        require_comparable(champion, challenger)
    except NotComparable as error:
        sentence = f"{error}; promote by hand if that is meant"
        return Verdict(False, (Check("comparable", False, 0.0, 1.0, sentence),))
    predictors = (Predictor(champion), Predictor(challenger))
    rows = [
        Rows(name, split.labels, *(predictor.predict(split.images).probabilities for predictor in predictors))
        for name, split in splits.items()
    ]
    images = next(iter(splits.values())).images
    champion_ms, challenger_ms = np.median(
        time_predictions([predictor.predict for predictor in predictors], images), axis=1
    )
    return decide(
        rows,
        copies=[
            Rows(name, split.labels, *(predictor.predict(split.images).probabilities for predictor in predictors))
            for name, split in shifted.copies(next(iter(splits.values())), seed=SEED)
        ],
        class_names=champion.class_names,
        gate=gate,
        champion_latency_ms=float(champion_ms),
        challenger_latency_ms=float(challenger_ms),
    )


def judge_alone(challenger: Package, splits: Mapping[str, Split], gate: GateConfig, *, why: str) -> Verdict:
    """Score a package that there is nothing to compare with: it must be better than guessing.

    Args:
        challenger: lies in a folder.
        splits: name -> rows that it was not trained on; the first one counts.
        gate: bounds of the checks.
        why: there is nothing to compare with, for a person.
    """
    name, split = next(iter(splits.items()))
    right = Predictor(challenger).predict(split.images).labels == split.labels
    check = _over_chance(name, right, split.labels, len(challenger.class_names), gate)
    return Verdict(check.passed, (Check(ALONE, True, 1.0, 1.0, why), check))


def decide(
    rows: Sequence[Rows],
    *,
    copies: Sequence[Rows] = (),
    class_names: Sequence[str],
    gate: GateConfig,
    champion_latency_ms: float,
    challenger_latency_ms: float,
) -> Verdict:
    """Promote the challenger if no check fails.

    On each set of rows: accuracy is not significantly worse by McNemar's exact test, and no class loses more recall
    than allowed. On sets with `MIN_PRECISE_ROWS`: the interval of the paired difference is not below minus the margin,
    and calibration is within its bound. On a first set with fewer: the same interval, or as many rows are right as the
    champion has right, or another set shows that the challenger is better. Once: no shifted copy loses more accuracy
    than allowed, beyond chance, and latency is within its bound.

    Args:
        rows: one or more sets.
        copies: the shifted copies of the first set; none checks none.
        class_names: of both models.
        gate: bounds of the checks.
        champion_latency_ms: of one prediction, milliseconds.
        challenger_latency_ms: of one prediction, milliseconds.

    Raises:
        ValueError: no rows, or probabilities whose shape does not fit labels and classes.
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
        is_precise = len(part.labels) >= MIN_PRECISE_ROWS
        if is_precise or index == 0:
            margin = _margin(part, gate)
            checks.append(margin if is_precise or margin.passed else _as_good(part, rows[1:], gate))
        checks += _classes(part, class_names, gate)
        checks += [_calibration(part, gate)] if is_precise else []
    checks += [_copies(copies, gate)] if copies else []
    checks.append(_latency(champion_latency_ms, challenger_latency_ms, gate))
    return Verdict(all(check.passed for check in checks), tuple(checks))


def _over_chance(
    name: str, right: NDArray[np.bool_], labels: NDArray[np.integer[Any]], num_classes: int, gate: GateConfig
) -> Check:
    """Whether accuracy is above that of guessing, by the lower bound of its interval.

    Args:
        name: of the set of rows.
        right: (N,) True where the model is right.
        labels: (N,)
        num_classes: of the model.
        gate: the margin, and the confidence of the interval.
    """
    chance = max(1 / num_classes, float(np.bincount(labels).max() / len(labels)))
    bound = chance + gate.min_accuracy_over_chance * (1 - chance)
    low, _ = wilson_interval(int(right.sum()), len(right), gate.confidence)
    return Check(
        f"{name}: better than guessing",
        low >= bound,
        low,
        bound,
        f"{name}: {right.mean():.2%} right, at least {low:.2%} with {gate.confidence:.0%} confidence; guessing is "
        f"right in {chance:.2%}, and {bound:.2%} are required",
    )


def _latency(champion_ms: float, challenger_ms: float, gate: GateConfig) -> Check:
    ratio = challenger_ms / champion_ms
    return Check(
        "latency",
        ratio <= gate.max_latency_ratio,
        ratio,
        gate.max_latency_ratio,
        f"one prediction takes {challenger_ms:.2f} ms, the champion's {champion_ms:.2f} ms: "
        f"{ratio:.2f} times, {gate.max_latency_ratio:g} allowed",
    )


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
        "required)",
    )


def _margin(rows: Rows, gate: GateConfig) -> Check:
    difference, low, high = paired_bootstrap_difference(*_right(rows), confidence=gate.confidence, seed=SEED)
    return Check(
        f"{rows.name}: within the margin",
        low >= -gate.margin,
        low,
        -gate.margin,
        f"{rows.name}: accuracy changes by {100 * difference:+.2f} points, {gate.confidence:.0%} interval "
        f"{100 * low:+.2f} to {100 * high:+.2f}; at least {-100 * gate.margin:+.2f} required",
    )


def _as_good(rows: Rows, others: Sequence[Rows], gate: GateConfig) -> Check:
    """Whether as many rows are right as the champion has right, or other sets show that the challenger is better."""
    champion, challenger = (int(right.sum()) for right in _right(rows))
    better = [each.name for each in others if mcnemar_exact(*_right(each)).p_better < 1 - gate.confidence]
    why = f"; on {', '.join(better)} it is better beyond chance" if better else ""
    return Check(
        f"{rows.name}: as good",
        challenger >= champion or bool(better),
        challenger,
        champion,
        f"{rows.name}: {challenger} of {len(rows.labels)} rows are right, the champion has {champion} right; they are "
        f"too few to bound a loss by, so there may be none{why}",
    )


def _right(rows: Rows) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(N,) for each model, True where its most probable class is the label."""
    return rows.champion.argmax(axis=1) == rows.labels, rows.challenger.argmax(axis=1) == rows.labels


def _classes(rows: Rows, class_names: Sequence[str], gate: GateConfig) -> list[Check]:
    changes = {}
    for index, name in enumerate(class_names):
        of_class = rows.labels == index
        if of_class.sum() >= MIN_CLASS_ROWS:
            before = (rows.champion[of_class].argmax(axis=1) == index).mean()
            changes[name] = float((rows.challenger[of_class].argmax(axis=1) == index).mean() - before)
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


def _copies(copies: Sequence[Rows], gate: GateConfig) -> Check:
    """Whether no copy shows what the set itself does not: a model that was taught wrong labels on altered pictures."""
    alpha = (1 - gate.confidence) / len(copies)  # Bonferroni
    changes = [(float(after.mean() - before.mean()), part) for part in copies for before, after in [_right(part)]]
    failing = [
        (change, part)
        for change, part in changes
        if change < -gate.max_shifted_drop and mcnemar_exact(*_right(part)).p_worse < alpha
    ]
    change, worst = min(failing or changes, key=lambda each: each[0])
    before, after = (right.mean() for right in _right(worst))
    return Check(
        "shifted copies",
        not failing,
        change,
        -gate.max_shifted_drop,
        f"of {len(copies)} shifted copies the one that loses most is {worst.name}: {after:.2%} right against "
        f"{before:.2%}; {-100 * gate.max_shifted_drop:+.1f} points allowed",
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
