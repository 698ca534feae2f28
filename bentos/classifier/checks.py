"""The known pictures of the review page: which are to be shown, and how often what was said is right. Knows no HTTP.

Answers are stored as `fashion.predictions.review_checks` has it, in the log: nothing of this is kept in a worker alone.
"""

from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from bentos.classifier.known_pictures import KnownPictures, Showing
from bentos.classifier.schemas import ReviewedKnown
from fashion.images.transform import Images
from fashion.predictions import review_checks
from fashion.predictions.record import REVIEW
from fashion.predictions.review_checks import ReviewCheck
from fashion.predictions.sources import Trust
from fashion.predictions.withdrawal import Decisions

STEP = 10
"""How often they agree is told of this many more at a time: that one answer was of a known picture does not show."""


class Checks:
    """What is known of the known pictures of one bento. Its callers share a lock."""

    def __init__(self, folder: Path, share: float) -> None:
        """
        Args:
            folder: of the bento.
            share: about this share of what is shown, at most 0.25.
        """
        self._known = KnownPictures.read(folder)
        # Every other picture that is shown is drawn at random, and the known ones are among those.
        self._odds = 2 * share / (1 - 2 * share)
        self._answered: dict[str, ReviewCheck] = {}
        """By the id of the showing."""
        self.quarantined = False
        """Whether reviews count nowhere, as drift or a training has decided."""

    def read(self, decisions: Decisions) -> None:
        """Bring this up to date.

        Args:
            decisions: all of the log.
        """
        self._answered = {each.review.prediction_id: each for each in review_checks.read(decisions)}
        self.quarantined = REVIEW in Trust(decisions=decisions).held()

    def add(self, answer: ReviewCheck) -> None:
        """Count what was just said of a known picture."""
        self._answered[answer.review.prediction_id] = answer

    def drop(self, picture_id: str) -> None:
        """Count what was said under an id no more."""
        self._answered.pop(picture_id, None)

    def picture_of(self, picture_id: str) -> int | None:
        """The index of the known picture that an id stands for; None where it is that of a prediction, or of nothing.

        Args:
            picture_id: any text.
        """
        return None if self._known is None else self._known.picture_of(picture_id)

    def label_of(self, picture: int) -> int:
        """The class of a known picture, by their indices."""
        assert self._known is not None, "an index is of `picture_of`"
        return int(self._known.labels[picture])

    def image_of(self, showing: Showing) -> tuple[str, Images]:
        """The sha256 and the pixels of what is to be shown."""
        assert self._known is not None, "a showing is of `showings`"
        return self._known.sha256[showing.picture], self._known.images[showing.picture]

    def sha256_of(self, picture_id: str) -> str | None:
        """The sha256 of the known picture that an id stands for; None likewise."""
        picture = self.picture_of(picture_id)
        return None if self._known is None or picture is None else self._known.sha256[picture]

    def showings(
        self, waiting: Mapping[str, int], *, predicted: AbstractSet[str], skipped: AbstractSet[str]
    ) -> list[Showing]:
        """What may be shown among predictions, of the pictures that were labelled the least often.

        Args:
            waiting: sha256 of a predicted picture without a label -> when its id was made, in microseconds since 1970.
            predicted: sha256 of all pictures that were predicted: one of them would be shown twice.
            skipped: ids under which a picture was shown of which nobody could tell what it is.
        """
        if self._known is None or not self._odds:
            return []
        known = self._known
        unclear = set(map(known.picture_of, skipped))
        usable = [
            picture for picture, sha256 in enumerate(known.sha256) if sha256 not in predicted and picture not in unclear
        ]
        times = Counter(map(known.picture_of, self._answered))
        least = min((times[picture] for picture in usable), default=0)
        may_show = {picture for picture in usable if times[picture] == least}
        return list(
            known.showings(waiting, self._odds, used=self._answered.keys() | skipped, may_show=may_show.__contains__)
        )

    @property
    def agreement(self) -> ReviewedKnown | None:
        """How often what was said is right, of the oldest answers, ten more at a time; None of fewer than ten."""
        in_order = sorted(self._answered.values(), key=lambda each: each.review.time_us)
        told = in_order[: len(in_order) // STEP * STEP]
        return ReviewedKnown(sum(not each.is_wrong for each in told), len(told)) if told else None
