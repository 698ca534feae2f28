"""Labelled feedback: images that users sent and labelled, for training and for the gate.

A hash of an image's pixels decides whether it is trained on or held out, so it is the same in every training. Labels
are users' alone; a prediction never becomes a label. `fashion.predictions.sources` says which labels are believed.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fashion.config.schema import DataConfig
from fashion.config.train import FeedbackConfig
from fashion.data.dataset import Dataset, Split
from fashion.images import image_store
from fashion.images.image_store import DamagedImage
from fashion.images.transform import Images
from fashion.predictions.record import REVIEW, LoggedPrediction
from fashion.predictions.sources import Trust, Use
from fashion.storage.blobs import BlobNotFound, Store

TEST_ROWS = "test rows"
"""Source of feedback on altered test rows, which `fashion traffic` sends; they must not be trained on."""


class NothingToLearn(RuntimeError):
    """A training was to learn from feedback, and there is none that it can. The message says why, and the remedy."""


@dataclass(frozen=True)
class Unlearnt:
    """A picture that a version learnt which was rolled back: it is not learnt again until somebody says otherwise."""

    version: int
    since_us: int
    """When it was rolled back, microseconds since 1970, UTC: a later review or `fashion log restore` lifts it."""


@dataclass(frozen=True)
class Believed:
    """What may be learnt, and judged by."""

    trust: Trust
    unlearnt: Mapping[str, Unlearnt] = field(default_factory=dict)
    """By sha256 of the picture."""

    def use(self, row: LoggedPrediction) -> Use:
        """What a row may be used for.

        Args:
            row: with feedback that counts.
        """
        said = row.judgement
        assert said is not None, "only rows with feedback have a use"
        if said.source == TEST_ROWS:
            return Use(False, False, "on altered test rows")
        undone = self.unlearnt.get(row.record.image_sha256)
        if undone is not None and not (said.source == REVIEW and said.time_us > undone.since_us):
            last = self.trust.decisions.last(said)
            if last is None or last.action != "restore" or last.time_us < undone.since_us:
                why = f"that version {undone.version} had learnt, which was rolled back (`fashion log restore` or "
                return Use(False, False, f"{why}feedback.rolled_back=learn lifts that)")
        return self.trust.use(row)


@dataclass(frozen=True, eq=False)
class LabelledFeedback:
    """Images of users with the labels that users gave."""

    train: Split
    """Images to train on."""
    held_out: Split
    """Images that are never trained on, with labels that are trusted; the gate compares models on them."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Reason -> number of labelled rows that are in neither."""

    @property
    def summary(self) -> str:
        """The counts in one sentence."""
        left = "".join(f"; {count:,} {why}" for why, count in self.left_out.items())
        return f"{len(self.train):,} labelled pictures of users to train on, {len(self.held_out):,} held out{left}"

    def describe(self) -> dict[str, int | str]:
        """What a model package holds of it: the counts, and the sha256 of `as_csv`."""
        digest = hashlib.sha256(self.as_csv()).hexdigest()
        return {"trained_on": len(self.train), "held_out": len(self.held_out), "sha256": digest}

    def as_csv(self) -> bytes:
        """Return a CSV file with each image's sha256, label and part."""
        lines = ["sha256,label,part"]
        for name, split in (("train", self.train), ("held out", self.held_out)):
            digests = map(image_store.digest, split.images)
            lines += [f"{sha256},{label},{name}" for sha256, label in zip(digests, split.labels, strict=True)]
        return ("\n".join(lines) + "\n").encode()


def collect(
    rows: Iterable[LoggedPrediction],
    store: Store,
    data: DataConfig,
    dataset: Dataset,
    settings: FeedbackConfig,
    *,
    model_name: str,
    believed: Believed,
) -> LabelledFeedback:
    """Collect the latest labelled images.

    Args:
        rows: the log, newest first.
        store: where images are stored.
        data: the class names.
        dataset: images that are in it are left out, and so are images of another size than its own.
        settings: how many images at most, and which share is held out.
        model_name: of the registered model: labels on predictions of others may index other classes.
        believed: which labels may be learnt, and which are trusted enough for the gate.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the images cannot be read.
    """
    known = {image_store.digest(image) for split in dataset.splits.values() for image in split.images}
    labels, left_out = _latest_labels(
        rows,
        known,
        model_name=model_name,
        num_classes=len(data.class_names),
        max_rows=settings.max_rows,
        believed=believed,
    )
    by_part: dict[bool, list[tuple[Images, int]]] = {True: [], False: []}
    for sha256, (label, is_trusted) in labels.items():
        held_out = is_held_out(sha256, settings.holdout)
        if held_out and not is_trusted:
            left_out["held out, by sources that no review has proven: the gate does not judge by them"] += 1
            continue
        try:
            image = image_store.get(store, sha256)
        except BlobNotFound:
            left_out["whose pictures were not stored (serve.log.images=true stores them)"] += 1
            continue
        except DamagedImage:
            left_out["whose pictures are damaged"] += 1
            continue
        if image.shape != dataset.train.images.shape[1:]:
            left_out["of another size"] += 1
            continue
        by_part[held_out].append((image, label))
    return LabelledFeedback(_split(by_part[False], dataset), _split(by_part[True], dataset), dict(left_out))


def _latest_labels(
    rows: Iterable[LoggedPrediction],
    known: set[str],
    *,
    model_name: str,
    num_classes: int,
    max_rows: int,
    believed: Believed,
) -> tuple[dict[str, tuple[int, bool]], Counter[str]]:
    """Return what images that are not in `known` are, and reason -> number of rows that are left out.

    Returns:
        sha256 -> label, and whether it is trusted; a trusted label outranks others that contradict it.
    """
    left_out: Counter[str] = Counter()
    labels: dict[str, tuple[int, bool]] = {}
    conflicting: set[str] = set()
    for row in rows:
        label, sha256 = row.true_label, row.record.image_sha256
        if label is None:
            continue
        why_not = why_unusable(row, model_name=model_name, num_classes=num_classes)
        use = Use(False, False, why_not) if why_not else believed.use(row)
        if not use.learn:
            left_out[use.why_not] += 1
        elif sha256 in known:
            left_out["on pictures of the data set"] += 1
        elif sha256 in labels:
            left_out["on a picture that was sent before"] += 1
            first, was_trusted = labels[sha256]
            if use.judge and not was_trusted:
                labels[sha256] = (label, True)
                conflicting.discard(sha256)
            elif first != label and use.judge == was_trusted:
                conflicting.add(sha256)
        elif len(labels) < max_rows:
            labels[sha256] = (label, use.judge)
        else:
            left_out["beyond feedback.max_rows"] += 1
    if conflicting:
        left_out["whose labels contradict each other"] = len(conflicting)
    return {sha256: found for sha256, found in labels.items() if sha256 not in conflicting}, left_out


def why_unusable(row: LoggedPrediction, *, model_name: str, num_classes: int | None) -> str:
    """Why a row with feedback is of no use to a model, whoever gave it; empty where it is.

    Args:
        row: with feedback that counts.
        model_name: of the registered model.
        num_classes: of the model; None where that is not known.
    """
    if row.record.model_name is None:
        return "on predictions that do not name their model (`fashion log assign` names it)"
    if row.record.model_name != model_name:
        return "on predictions of other models"
    if num_classes is None:
        return ""
    if len(row.record.probabilities) != num_classes:
        return "on predictions of a version with other classes"
    return "" if 0 <= (row.true_label or 0) < num_classes else "of an unknown class"


def require_something(collected: LabelledFeedback, remarks: Sequence[str] = ()) -> LabelledFeedback:
    """Return what was collected.

    Args:
        collected: of all feedback that counts.
        remarks: what else a person should know, such as which sources are quarantined.

    Raises:
        NothingToLearn: no picture of it can be trained on: the same model would be trained again.
    """
    if len(collected.train) == 0:
        raise NothingToLearn(
            f"nothing is trained, for there is nothing new to learn: {'; '.join([collected.summary, *remarks])}. "
            "feedback.use=false trains on the data set alone"
        )
    return collected


def is_held_out(sha256: str, share: float) -> bool:
    """Return True if an image belongs to the share that is held out; depends on its pixels' sha256 only."""
    digest = hashlib.blake2b(sha256.encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


def with_feedback(train: Split, feedback: Split, repeat: int) -> Split:
    """Return training rows followed by copies of the feedback.

    Args:
        train: the training split.
        feedback: labelled pictures of users.
        repeat: how many copies, since there are few of them beside the data set.
    """
    if len(feedback) == 0:
        return train
    return Split(
        np.concatenate([train.images, *[feedback.images] * repeat]),
        np.concatenate([train.labels, *[feedback.labels] * repeat]),
    )


def _split(labelled_images: list[tuple[Images, int]], dataset: Dataset) -> Split:
    images = [image for image, _ in labelled_images]
    empty = np.empty((0, *dataset.train.images.shape[1:]), np.uint8)
    return Split(np.stack(images) if images else empty, np.array([label for _, label in labelled_images], np.int64))
