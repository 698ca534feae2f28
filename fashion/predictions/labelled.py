"""Labelled feedback: images that users sent and labelled, for training and for the gate.

A hash of an image's pixels decides whether it is trained on or held out, so it is the same in every training. Labels
are users' alone; a prediction never becomes a label.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from fashion.config.schema import DataConfig
from fashion.config.train import FeedbackConfig
from fashion.data.dataset import Dataset, Split
from fashion.images import image_store
from fashion.images.image_store import DamagedImage
from fashion.images.transform import Images
from fashion.predictions.record import LoggedPrediction
from fashion.storage.blobs import BlobNotFound, Store

TEST_ROWS = "test rows"
"""Source of feedback on altered test rows, which `fashion traffic` sends; they must not be trained on."""


@dataclass(frozen=True, eq=False)
class LabelledFeedback:
    """Images of users with the labels that users gave."""

    train: Split
    """Images to train on."""
    held_out: Split
    """Images that are never trained on; the gate compares models on them."""
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
) -> LabelledFeedback:
    """Collect the latest labelled images.

    Args:
        rows: the log, newest first.
        store: where images are stored.
        data: the class names.
        dataset: images that are in it are left out, and so are images of another size than its own.
        settings: how many images at most, and which share is held out.
        model_name: of the registered model: labels on predictions of others may index other classes.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the images cannot be read.
    """
    known = {image_store.digest(image) for split in dataset.splits.values() for image in split.images}
    labels, left_out = _latest_labels(
        rows, known, model_name=model_name, num_classes=len(data.class_names), max_rows=settings.max_rows
    )
    by_part: dict[bool, list[tuple[Images, int]]] = {True: [], False: []}
    for sha256, label in labels.items():
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
        by_part[is_held_out(sha256, settings.holdout)].append((image, label))
    return LabelledFeedback(_split(by_part[False], dataset), _split(by_part[True], dataset), dict(left_out))


def _latest_labels(
    rows: Iterable[LoggedPrediction], known: set[str], *, model_name: str, num_classes: int, max_rows: int
) -> tuple[dict[str, int], Counter[str]]:
    """Return sha256 -> label of images that are not in `known`, and reason -> number of rows that are left out."""
    left_out: Counter[str] = Counter()
    labels: dict[str, int] = {}
    conflicting: set[str] = set()
    for row in rows:
        label, sha256 = row.true_label, row.record.image_sha256
        if label is None:
            continue
        if row.feedback[-1].source == TEST_ROWS:
            left_out["on altered test rows"] += 1
        elif row.record.model_name is None:
            left_out["on predictions that do not name their model (`fashion log assign` names it)"] += 1
        elif row.record.model_name != model_name:
            left_out["on predictions of other models"] += 1
        elif len(row.record.probabilities) != num_classes:
            left_out["on predictions of a version with other classes"] += 1
        elif not 0 <= label < num_classes:
            left_out["of an unknown class"] += 1
        elif sha256 in known:
            left_out["on pictures of the data set"] += 1
        elif sha256 in labels:
            left_out["on a picture that was sent before"] += 1
            if labels[sha256] != label:
                conflicting.add(sha256)
        elif len(labels) < max_rows:
            labels[sha256] = label
        else:
            left_out["beyond feedback.max_rows"] += 1
    if conflicting:
        left_out["whose labels contradict each other"] = len(conflicting)
    return {sha256: label for sha256, label in labels.items() if sha256 not in conflicting}, left_out


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
