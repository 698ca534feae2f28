"""Who gives feedback, and how far each source is believed: by what is known to be true. Knows no files and no registry.

Anybody may send feedback under any name, so neither a name nor the agreement of many names proves anything: who lies
under ten names agrees with itself, and outvotes one who is right. How often sources agree (`agreement`) is therefore
told beside how often they agree with reviews, for a person to look at, and decides nothing.

A source is checked against reviews of the same pictures, against known labels of the data set's pictures, and against
answers that can hardly be wrong: those on usual pictures (`fashion.model.typicality`) of which the model was sure. It

- is *refuted* if its labels are wrong more often than MAX_WRONG, beyond chance, by any of these: it is quarantined;
- is *proven* if not, and reviews show that its labels are right: it is learnt from, and the gate judges by it, where
  they are on unusual pictures too, which nothing but a review checks;
- is else *unproven*: its labels on usual pictures are learnt, for a model that gets them wrong is refused on the test
  split and its shifted copies; those on unusual pictures wait for a review, for nothing else tells whether they lie.

Where a source contradicts sure answers, either the source is wrong or the model is, as after a change of what pictures
show. Reviews on which the source agrees with the model do not tell: whoever lies may be right where it is looked at. So
reviews decide by those answers of this kind that they cover: as often as a reviewer found the source right and the
model surely wrong, the model may be wrong on the rest too. What the source contradicts beyond that refutes it, however
many of its other labels were reviewed and right.

Reviewers are checked by pictures of a known class among those that they review (`review_checks`). Where these refute
them, their reviews count as those of any refuted source: they are quarantined, judge nothing, and prove nobody.

Not known: all reviewers share one standing. Names are free, so all who send under one name share a standing, as all
users of the page do, and who sends under the name of a proven source is believed. A source that is right for long and
then lies is believed until enough of its RECENT labels that can be checked are lies. Lies of a proven source on
unusual pictures, and on those of which the model is not sure, are found by reviews of them alone. Who may send
feedback at all is for its keys to say (`FASHION_FEEDBACK_KEYS`).
"""

import dataclasses
import functools
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fashion.metrics.classification import wilson_interval
from fashion.metrics.special import binomial_at_least
from fashion.model.package import Package
from fashion.model.reference import Reference
from fashion.model.typicality import Typicality
from fashion.predictions import agreement, review_checks
from fashion.predictions.agreement import Agreement
from fashion.predictions.record import FOREVER_US, REVIEW, Feedback, LoggedPrediction, ModelId, PredictionRecord
from fashion.predictions.withdrawal import Decision, Decisions

SURE = 0.95
"""Confidence from which an answer on a usual picture counts as true."""
USUAL = 0.01
"""A picture is usual if at least this share of the held-out pictures is less usual; `serve.unlike_share` by default."""
MAX_WRONG = 0.1
"""Share of a source's labels that may be wrong: people err, and judge wrong answers more often than right ones."""
SIGNIFICANCE = 0.001
"""A source is refuted where so many wrong labels would have been this likely at MAX_WRONG."""
PROVEN = 0.8
"""A source is proven where the lower bound of the 95 % interval of its agreement with reviews is at least this: by 16
reviewed labels that are all right."""
RECENT = 500
"""Latest labels of a source that it is checked by, of those that can be checked."""
NEWEST = 50_000
"""Labelled rows that are looked at: the latest ones, more than a training takes by default."""
FEW = 20
"""Sources with fewer labels that can be checked are checked together: a name for each lie is no way out."""

Standing = Literal["proven", "unproven", "refuted"]


@dataclass(frozen=True, eq=False)
class Outlook:
    """What one model is sure of."""

    typicality: Typicality
    sure_wrong: float
    """Share of its sure answers on held-out pictures that are wrong."""

    @classmethod
    def of(cls, package: Package) -> "Outlook":
        """Read that of a package; one of before packages held what is usual is measured by its reference.

        Raises:
            fashion.model.package.DamagedPackage: a file of the package cannot be read.
        """
        reference = Reference.of(package)
        sure = reference.predictions.confidences >= SURE
        wrong = reference.predictions.labels[sure] != reference.labels[sure]
        return cls(Typicality.of(package) or Typicality.fit(reference), float(wrong.mean()) if len(wrong) else 0.0)

    def usual(self, records: Sequence[PredictionRecord]) -> NDArray[np.bool_]:
        """(N,) True for pictures like those that the model has learnt.

        Args:
            records: N of this model.
        """
        features = np.array([[*each.embedding, *each.statistics] for each in records], np.float64)
        usual: NDArray[np.bool_] = self.typicality.shares(self.typicality.distances_of(features)) >= USUAL
        return usual


@dataclass
class FeedbackSource:
    """What is known of one source, or of several that have few labels."""

    names: list[str]
    labels: int = 0
    """Predictions that it has labelled, several on one picture too."""
    reviewed: int = 0
    """Of the recent ones that can be checked, those that were reviewed too."""
    reviewed_wrong: int = 0
    reviewed_sure: int = 0
    """The reviewed ones on usual pictures of which the model was sure."""
    confirmed: int = 0
    """Those of them that contradict the model, and reviews agree with."""
    known: int = 0
    """Those of the data set's pictures; of reviewers, those that were mixed in among what they reviewed."""
    known_wrong: int = 0
    sure: int = 0
    """Those on usual pictures of which the model was sure."""
    sure_wrong: int = 0
    """Those of them that contradict the model."""
    expected_wrong: float = 0.0
    """How many of them contradict it where the source is right, by the models' held-out rows."""

    @property
    def checked(self) -> int:
        """Labels that can be checked."""
        return self.reviewed + self.known + self.sure

    @property
    def standing(self) -> Standing:
        """How far it is believed. The reviews of one source prove nothing of another."""
        checks = (
            (self.known_wrong, self.known, MAX_WRONG),
            (self.sure_wrong, self.sure, MAX_WRONG + self._model_wrong),
        )
        if any(_is_beyond_chance(*check) for check in checks):
            return "refuted"
        right = self.reviewed - self.reviewed_wrong
        if self._is_alone and self.reviewed and wilson_interval(right, self.reviewed)[0] >= PROVEN:
            return "proven"
        wrong, checkable = self.reviewed_wrong + self.known_wrong, self.reviewed + self.known
        return "refuted" if _is_beyond_chance(wrong, checkable, MAX_WRONG) else "unproven"

    @property
    def _is_alone(self) -> bool:
        return len(self.names) == 1

    @property
    def _model_wrong(self) -> float:
        """Share of sure answers that may be wrong: as on held-out pictures; more where reviews show that it is more."""
        held_out = self.expected_wrong / self.sure if self.sure else 0.0
        if not (self._is_alone and self.confirmed):
            return held_out
        low, high = wilson_interval(self.confirmed, self.reviewed_sure)
        return high if low > held_out else held_out

    @property
    def agreement_with_known(self) -> str:
        """How often it is right where the class is known, for a person."""
        return f"{self.known - self.known_wrong:,} of {self.known:,} agree with the known class"

    @property
    def evidence(self) -> str:
        """How many of its labels contradict what is known, for a person."""
        parts = [
            f"{wrong:,} of {total:,} contradict {what}"
            for wrong, total, what in (
                (self.reviewed_wrong, self.reviewed, "reviews"),
                (self.known_wrong, self.known, "known pictures" if self.names == [REVIEW] else "the data set"),
                (self.sure_wrong, self.sure, "sure answers on usual pictures"),
            )
            if total
        ]
        if self.sure_wrong and self.reviewed_sure:
            parts.append(f"reviews confirm {self.confirmed:,} contradictions of {self.reviewed_sure:,} such answers")
        return f"{self.labels:,} labels: {'; '.join(parts) or 'none can be checked'}"


COUNTS = tuple(each.name for each in dataclasses.fields(FeedbackSource) if each.name != "names")
"""What sources of few labels have in sum."""


@dataclass(frozen=True)
class Use:
    """What a labelled row may be used for."""

    learn: bool
    judge: bool
    why_not: str = ""
    """Why it may not be learnt, after "1 row "; empty where it may."""


@dataclass(frozen=True)
class Trust:
    """What is known of all sources."""

    sources: tuple[FeedbackSource, ...] = ()
    """Those of few labels as one, the last; the reviewers alone, the first, where known pictures have checked them."""
    usual: frozenset[str] = frozenset()
    """Ids of labelled predictions on usual pictures."""
    decisions: Decisions = field(default_factory=Decisions)
    """On feedback, as they were before."""
    agreement: Mapping[str, Agreement] = field(default_factory=dict)
    """Source -> how often others say the same of its predictions."""

    @functools.cached_property
    def _standings(self) -> dict[str, Standing]:
        return {name: standing for each in self.sources for standing in [each.standing] for name in each.names}

    def standing(self, name: str) -> Standing:
        """How far a source is believed."""
        return self._standings.get(name, "unproven")

    def use(self, row: LoggedPrediction) -> Use:
        """What a row may be used for, by the feedback that counts.

        Args:
            row: with feedback.
        """
        said = row.judgement
        assert said is not None, "only rows with feedback have a use"
        last = self.decisions.last(said)
        accepted = last is not None and last.action == "restore"
        standing = self.standing(said.source)
        if standing == "proven" or (said.source == REVIEW and (standing != "refuted" or REVIEW in self.restored())):
            return Use(True, True)
        if standing == "refuted" and not accepted:
            return Use(False, False, "of quarantined sources")
        if not accepted and row.record.prediction_id not in self.usual:
            return Use(False, False, "on unusual pictures, by sources that no review has proven (see /review)")
        return Use(True, False)

    def held(self) -> set[str]:
        """Sources that a flow has quarantined before, as long as nobody has decided otherwise."""
        last = {each.source: each.action for each in self.decisions if each.source and _is_of_all(each)}
        return {name for name, action in last.items() if action == "quarantine"}

    def restored(self) -> set[str]:
        """Sources that a person accepts, whatever their labels are."""
        return {each.source for each in self.decisions if each.source and each.action == "restore" and _is_of_all(each)}

    def quarantined(self) -> dict[str, str]:
        """Source -> why it is refuted, without those that a person has restored, whenever their feedback came."""
        restored = self.restored()
        return {
            name: each.evidence
            for each in self.sources
            if each.standing == "refuted"
            for name in each.names
            if name not in restored
        }


def assess(
    rows: Iterable[LoggedPrediction],
    outlook: Callable[[ModelId], Outlook | None],
    *,
    decisions: Decisions,
    known: Mapping[str, int] | None = None,
) -> Trust:
    """Check every source by its recent labels.

    Args:
        rows: with feedback, that which does not count too, newest first.
        outlook: of the model that made a prediction; None where its package is not available.
        decisions: on feedback. What a person has discarded is left out; quarantined sources are checked anew.
        known: sha256 of a picture -> its label, where that is known.
    """
    labelled = list(itertools.islice(rows, NEWEST))
    discarded = Decisions(each for each in decisions if each.action != "quarantine")
    truth = {
        row.record.image_sha256: each.true_label
        for row in reversed(labelled)
        for each in discarded.counted(row.feedback)
        if each.source == REVIEW
    }
    reviewers = _reviewers(labelled, discarded, decisions)
    if _are_refuted(reviewers, decisions):
        truth = {}
    usual, expected = _usual(labelled, outlook)
    found: dict[str, FeedbackSource] = {}
    agreed: dict[str, Agreement] = {}
    for row in labelled:
        agreement.count(discarded.counted(row.feedback), agreed)
        for said in _last_of_each(discarded.counted(row.feedback)):
            source = found.setdefault(said.source, FeedbackSource([said.source]))
            source.labels += 1
            if source.checked < RECENT:
                _check(source, said, row.record, truth, known or {}, expected)
    several, few = list[FeedbackSource](), list[FeedbackSource]()
    for each in found.values():
        (several if each.checked >= FEW or each.standing == "proven" else few).append(each)
    checked = [reviewers] if reviewers.checked else []
    return Trust((*checked, *several, *_together(few)), usual, decisions, agreed)


def _reviewers(rows: Iterable[LoggedPrediction], discarded: Decisions, decisions: Decisions) -> FeedbackSource:
    """The reviewers as a source, which known pictures alone check."""
    checks = review_checks.read(decisions)[-RECENT:]
    labels = sum(any(said.source == REVIEW for said in discarded.counted(row.feedback)) for row in rows)
    return FeedbackSource([REVIEW], labels, known=len(checks), known_wrong=sum(each.is_wrong for each in checks))


def _are_refuted(reviewers: FeedbackSource, decisions: Decisions) -> bool:
    return reviewers.standing == "refuted" and REVIEW not in Trust(decisions=decisions).restored()


def _usual(
    rows: Sequence[LoggedPrediction], outlook: Callable[[ModelId], Outlook | None]
) -> tuple[frozenset[str], dict[str, float]]:
    """Ids of predictions on usual pictures; and of those of them that are sure, how often such answers are wrong."""
    by_model: defaultdict[ModelId, list[PredictionRecord]] = defaultdict(list)
    for row in rows:
        by_model[row.record.model].append(row.record)
    usual: set[str] = set()
    expected: dict[str, float] = {}
    for model, records in by_model.items():
        known = outlook(model)
        if known is None:
            continue
        for record, is_usual in zip(records, known.usual(records), strict=True):
            if is_usual:
                usual.add(record.prediction_id)
                if record.confidence >= SURE:
                    expected[record.prediction_id] = known.sure_wrong
    return frozenset(usual), expected


def _is_of_all(decision: Decision) -> bool:
    """Whether a decision is about all feedback of its source."""
    return decision.prediction_id is None and (decision.since_us, decision.until_us) == (0, FOREVER_US)


def _last_of_each(feedback: Iterable[Feedback]) -> list[Feedback]:
    """The latest feedback of each source but the reviewers."""
    return list({each.source: each for each in feedback if each.source != REVIEW}.values())


def _check(
    source: FeedbackSource,
    said: Feedback,
    record: PredictionRecord,
    truth: Mapping[str, int],
    known: Mapping[str, int],
    expected: Mapping[str, float],
) -> None:
    """Count one label by the best that is known of its picture."""
    sha256 = record.image_sha256
    if sha256 in truth:
        source.reviewed += 1
        source.reviewed_wrong += said.true_label != truth[sha256]
        if record.prediction_id in expected:
            source.reviewed_sure += 1
            source.confirmed += said.true_label == truth[sha256] != record.label
    elif sha256 in known:
        source.known += 1
        source.known_wrong += said.true_label != known[sha256]
    elif record.prediction_id in expected:
        source.sure += 1
        source.sure_wrong += said.true_label != record.label
        source.expected_wrong += expected[record.prediction_id]


def _together(sources: Sequence[FeedbackSource]) -> list[FeedbackSource]:
    """Sources of few labels as one; none where there are none."""
    if not sources:
        return []
    total = FeedbackSource(sorted(name for each in sources for name in each.names))
    for each in sources:
        for count in COUNTS:
            setattr(total, count, getattr(total, count) + getattr(each, count))
    return [total]


def _is_beyond_chance(wrong: int, total: int, allowed: float) -> bool:
    """Whether labels are wrong more often than allowed, by the binomial test."""
    return total > 0 and binomial_at_least(wrong, total, allowed) < SIGNIFICANCE
