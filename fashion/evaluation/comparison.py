"""Two models on the same live rows: how often they agree, and who is right where somebody said. Knows no registry."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fashion.metrics.classification import McNemar, mcnemar_exact, wilson_interval


@dataclass(frozen=True)
class Pair:
    """One picture: what was answered, and what the other model says."""

    answered: int
    """Label."""
    answered_confidence: float
    other: int
    other_confidence: float
    true_label: int | None
    """By feedback; None where nobody said."""


@dataclass
class Comparison:
    """Counts over pairs; takes any number of them in constant memory."""

    rows: int = 0
    agreed: int = 0
    answered_confidence: float = 0.0
    other_confidence: float = 0.0
    answered_right: list[bool] = field(default_factory=list)
    """Of the rows with feedback only."""
    other_right: list[bool] = field(default_factory=list)
    differing: "Counter[tuple[int, int]]" = field(default_factory=Counter)
    """(answered, other) label -> rows, where they differ."""

    def add(self, pairs: Iterable[Pair]) -> "Comparison":
        """Count pairs."""
        for pair in pairs:
            self.rows += 1
            self.agreed += pair.answered == pair.other
            self.answered_confidence += pair.answered_confidence
            self.other_confidence += pair.other_confidence
            if pair.answered != pair.other:
                self.differing[pair.answered, pair.other] += 1
            if pair.true_label is not None:
                self.answered_right.append(pair.answered == pair.true_label)
                self.other_right.append(pair.other == pair.true_label)
        return self

    def test(self) -> McNemar | None:
        """McNemar's exact test on the rows with feedback; None without any."""
        if not self.answered_right:
            return None
        return mcnemar_exact(np.array(self.answered_right), np.array(self.other_right))


def table(found: Comparison, *, answered: str, other: str, class_names: Sequence[str]) -> str:
    """A comparison for a person, in lines of text."""
    if not found.rows:
        return f"no row has been scored by both {answered} and {other}"
    lines = [
        f"{found.rows:,} pictures scored by both; the same label for {found.agreed / found.rows:.1%}",
        f"{'':24}{answered:>16}{other:>16}",
        f"{'mean confidence':24}{found.answered_confidence / found.rows:>16.1%}"
        f"{found.other_confidence / found.rows:>16.1%}",
    ]
    test = found.test()
    if test is None:
        lines.append("nobody said what the pictures are: no accuracy")
    else:
        total = len(found.answered_right)
        right = (sum(found.answered_right), sum(found.other_right))
        intervals = [wilson_interval(count, total) for count in right]
        lines.append(f"{f'right, of {total:,} judged':24}{right[0] / total:>16.1%}{right[1] / total:>16.1%}")
        cells = "".join(f"{f'{low:.1%} to {high:.1%}':>16}" for low, high in intervals)
        lines.append(f"{'95 % interval':24}{cells}")
        lines.append(
            f"only {answered} is right {test.b} times, only {other} {test.c} times: McNemar p = {test.p_value:.3g}"
        )
    lines += [
        f"  {count:>6,} x {_name(class_names, mine)} against {_name(class_names, theirs)}"
        for (mine, theirs), count in found.differing.most_common(10)
    ]
    return "\n".join(lines)


def _name(class_names: Sequence[str], label: int) -> str:
    return class_names[label] if label < len(class_names) else str(label)
