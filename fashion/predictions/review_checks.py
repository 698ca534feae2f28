"""Reviews of pictures whose class is known: they check who reviews. Knows no page and no pictures.

Each is a decision about feedback on a prediction that was never made. So it is stored and shared as decisions are, and
is by construction no prediction, no traffic, no label to learn and no part of any accuracy. An undo, and a discard of
reviews by their time, name it as they name any other review.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from fashion.predictions.record import REVIEW, Feedback
from fashion.predictions.withdrawal import Decision, Decisions

_REASON = re.compile(r"a picture of the known class (\d+) was taken for (\d+)")


class ReviewCheck(NamedTuple):
    """What a review says of a picture whose class is known."""

    review: Feedback
    known: int
    """Index of the true class."""

    @property
    def is_wrong(self) -> bool:
        """Whether the review contradicts what is known."""
        return self.review.true_label != self.known


def decision(picture_id: str, *, known: int, said: int, who: str, now_us: int) -> Decision:
    """The decision that stores a review of a picture whose class is known; no feedback on a prediction changes by it.

    Args:
        picture_id: under which the picture was shown: a uuid7 that no prediction has.
        known: index of the true class.
        said: index of the class by the review.
        who: under whom the service runs.
        now_us: microseconds since 1970, UTC.
    """
    reason = f"a picture of the known class {known} was taken for {said}"
    return Decision("discard", REVIEW, picture_id, now_us, now_us + 1, now_us, who, reason)


def read(decisions: Iterable[Decision]) -> list[ReviewCheck]:
    """Read the reviews of known pictures that count, the oldest first: of several on one showing the last one.

    Args:
        decisions: all of a log. One may be there twice, as after it was sent to a shared log again.
    """
    found, others = list[ReviewCheck](), list[Decision]()
    for each in decisions:
        match = _REASON.fullmatch(each.reason)
        if match is None or each.source != REVIEW or each.prediction_id is None:
            if each.action != "quarantine":  # what a flow holds back is checked anew
                others.append(each)
            continue
        known, said = map(int, match.groups())
        found.append(ReviewCheck(Feedback(each.prediction_id, said, REVIEW, each.since_us), known))
    withdrawn = Decisions(others)
    found.sort(key=lambda each: each.review.time_us)
    return list({each.review.prediction_id: each for each in found if withdrawn.count(each.review)}.values())
