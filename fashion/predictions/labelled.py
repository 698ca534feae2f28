"""Labelled pictures out of the log: what users said of what they sent, to learn from and to be judged by.

Whether a picture is learnt from or judged by depends on its pixels alone, so that it is the same in every training;
the model's own predictions are never taken for labels.
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
"""Source of feedback on pictures that are known to be test rows, changed: see `fashion.commands.traffic`."""


@dataclass(frozen=True, eq=False)
class LabelledFeedback:
    """Labelled pictures of users."""

    train: Split
    held_out: Split
    """Never trained on; the gate judges by them."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Why -> rows with feedback that are in neither."""

    @property
    def summary(self) -> str:
        """One sentence."""
        left = "".join(f"; {count:,} {why}" for why, count in self.left_out.items())
        return f"{len(self.train):,} labelled pictures of users to learn from, {len(self.held_out):,} held out{left}"

    def as_csv(self) -> bytes:
        """Which pictures these are, by their pixels: sha256, label, and which part each is in."""
        lines = ["sha256,label,part"]
        for name, split in (("train", self.train), ("held out", self.held_out)):
            digests = map(image_store.digest, split.images)
            lines += [f"{sha256},{label},{name}" for sha256, label in zip(digests, split.labels, strict=True)]
        return ("\n".join(lines) + "\n").encode()


def collect(
    rows: Iterable[LoggedPrediction], store: Store, data: DataConfig, dataset: Dataset, asked: FeedbackConfig
) -> LabelledFeedback:
    """Gather the latest labelled pictures.

    Args:
        rows: newest first.
        store: where pictures are kept.
        data: what a picture must look like.
        dataset: whose rows are no news, and whose test rows must not be learnt from.
        asked: how many, and which share is held out.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the pictures cannot be reached.
    """
    known = {image_store.digest(image) for split in dataset.splits.values() for image in split.images}
    left_out: Counter[str] = Counter()
    labels: dict[str, int] = {}
    conflicting: set[str] = set()
    for row in rows:
        label, sha256 = row.true_label, row.record.image_sha256
        if label is None:
            continue
        if row.feedback[-1].source == TEST_ROWS:
            left_out["on changed test rows"] += 1
        elif not 0 <= label < len(data.class_names):
            left_out["of a class that is not known"] += 1
        elif sha256 in known:
            left_out["on pictures of the data set"] += 1
        elif sha256 in labels:
            left_out["on a picture that was sent before"] += 1
            if labels[sha256] != label:
                conflicting.add(sha256)
        elif len(labels) < asked.max_rows:
            labels[sha256] = label
        else:
            left_out["beyond feedback.max_rows"] += 1
    if conflicting:
        left_out["whose labels contradict each other"] = len(conflicting)
    taken: dict[bool, list[tuple[Images, int]]] = {True: [], False: []}
    for sha256, label in labels.items():
        if sha256 in conflicting:
            continue
        try:
            image = image_store.get(store, sha256)
        except BlobNotFound:
            left_out["whose pictures were not kept (serve.log.images=true keeps them)"] += 1
            continue
        except DamagedImage:
            left_out["whose pictures are damaged"] += 1
            continue
        if image.shape != dataset.train.images.shape[1:]:
            left_out["of another size"] += 1
            continue
        taken[is_held_out(sha256, asked.holdout)].append((image, label))
    return LabelledFeedback(_split(taken[False], dataset), _split(taken[True], dataset), dict(left_out))


def is_held_out(sha256: str, share: float) -> bool:
    """Whether a picture is held out: by its name alone, which is by its pixels."""
    digest = hashlib.blake2b(sha256.encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


def with_feedback(train: Split, lessons: Split, repeat: int) -> Split:
    """Training rows, and each lesson as many times."""
    if len(lessons) == 0:
        return train
    return Split(
        np.concatenate([train.images, *[lessons.images] * repeat]),
        np.concatenate([train.labels, *[lessons.labels] * repeat]),
    )


def _split(taken: list[tuple[Images, int]], dataset: Dataset) -> Split:
    images = [image for image, _ in taken]
    empty = np.empty((0, *dataset.train.images.shape[1:]), np.uint8)
    return Split(np.stack(images) if images else empty, np.array([label for _, label in taken], np.int64))
