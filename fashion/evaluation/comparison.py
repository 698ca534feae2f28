"""Two models on the same logged rows: how often they agree and, by feedback, which is right. Knows no registry."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fashion.metrics.classification import McNemar, mcnemar_exact, wilson_interval


@dataclass(frozen=True)
class Pair:
    """One picture with the prediction that was served and that of another model."""

    served: int
    """Label."""
    served_confidence: float
    other: int
    """Label."""
    other_confidence: float
    true_label: int | None
    """From feedback; None without any."""


@dataclass
class Comparison:
    """Counts of any number of pairs."""

    rows: int = 0
    agreed: int = 0
    """Rows for which both models predict the same label."""
    served_confidence: float = 0.0
    """Sum over the rows."""
    other_confidence: float = 0.0
    """Sum over the rows."""
    served_right: list[bool] = field(default_factory=list)
    """One entry for each row with feedback."""
    other_right: list[bool] = field(default_factory=list)
    """One entry for each row with feedback."""
    differing: "Counter[tuple[int, int]]" = field(default_factory=Counter)
    """(served, other) label -> rows, where they differ."""

    def add(self, pairs: Iterable[Pair]) -> "Comparison":
        """Count pairs, and return the comparison itself."""
        for pair in pairs:
            self.rows += 1
            self.agreed += pair.served == pair.other
            self.served_confidence += pair.served_confidence
            self.other_confidence += pair.other_confidence
            if pair.served != pair.other:
                self.differing[pair.served, pair.other] += 1
            if pair.true_label is not None:
                self.served_right.append(pair.served == pair.true_label)
                self.other_right.append(pair.other == pair.true_label)
        return self

    def test(self) -> McNemar | None:
        """McNemar's exact test on the rows with feedback; None without any."""
        if not self.served_right:
            return None
        return mcnemar_exact(np.array(self.served_right), np.array(self.other_right))


def format_table(comparison: Comparison, *, served: str, other: str, class_names: Sequence[str]) -> str:
    """A comparison as lines of text.

    Args:
        comparison: the counts.
        served: heading for the predictions that were served.
        other: heading for those of the other model.
        class_names: of both models; labels beyond them are shown as numbers.
    """
    if not comparison.rows:
        return f"no row has been scored by both {served} and {other}"
    lines = [
        f"{comparison.rows:,} pictures scored by both; the same label for {comparison.agreed / comparison.rows:.1%}",
        f"{'':24}{served:>16}{other:>16}",
        f"{'mean confidence':24}{comparison.served_confidence / comparison.rows:>16.1%}"
        f"{comparison.other_confidence / comparison.rows:>16.1%}",
    ]
    test = comparison.test()
    if test is None:
        lines.append("no feedback on these rows: accuracy is unknown")
    else:
        total = len(comparison.served_right)
        right = (sum(comparison.served_right), sum(comparison.other_right))
        intervals = [wilson_interval(count, total) for count in right]
        lines.append(f"{f'accuracy, {total:,} labelled':24}{right[0] / total:>16.1%}{right[1] / total:>16.1%}")
        cells = "".join(f"{f'{low:.1%} to {high:.1%}':>16}" for low, high in intervals)
        lines.append(f"{'95 % interval':24}{cells}")
        lines.append(
            f"only {served} is right {test.b} times, only {other} {test.c} times: McNemar p = {test.p_value:.3g}"
        )
    lines += [
        f"  {count:>6,} x {_name(class_names, first)} against {_name(class_names, second)}"
        for (first, second), count in comparison.differing.most_common(10)
    ]
    return "\n".join(lines)


def _name(class_names: Sequence[str], label: int) -> str:
    return class_names[label] if label < len(class_names) else str(label)
