"""How often sources of feedback say the same of one prediction. Decides nothing: many names may be one person."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from fashion.predictions.record import REVIEW, Feedback


@dataclass
class Agreement:
    """Of one source's labels, those on predictions that others have labelled too."""

    others: int = 0
    """Labels of other sources on the same predictions."""
    same_as_others: int = 0
    reviews: int = 0
    """Reviews of the same predictions."""
    same_as_reviews: int = 0

    def __str__(self) -> str:
        """For a person; empty where nobody else has labelled the same predictions."""
        parts = [
            f"{same:,} of {total:,} {what}"
            for same, total, what in (
                (self.same_as_reviews, self.reviews, "reviews"),
                (self.same_as_others, self.others, "labels of other sources"),
            )
            if total
        ]
        return f"says the same as {' and '.join(parts)}" if parts else ""


def count(feedback: Iterable[Feedback], found: dict[str, Agreement]) -> None:
    """Count the feedback on one prediction; the last label of each source counts.

    Args:
        feedback: on the prediction, in the order of time.
        found: source -> its agreement until now; added to.
    """
    last = {each.source: each.true_label for each in feedback}
    review = last.pop(REVIEW, None)
    labels = Counter(last.values())
    for source, label in last.items():
        agreement = found.setdefault(source, Agreement())
        agreement.others += len(last) - 1
        agreement.same_as_others += labels[label] - 1
        agreement.reviews += review is not None
        agreement.same_as_reviews += review == label
