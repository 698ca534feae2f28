"""Pictures whose class is known, in a bento: some are shown among those to review. Knows no log and no page.

Each is shown under an id that looks like that of a prediction: a uuid7 whose random bits are a nonce and 48 bits of a
keyed hash. The key is in the bento, so each worker on each machine knows such an id again and which picture it stands
for, and whoever has no key can neither make one nor tell one from a prediction's. Who can ask `/predictions/ID` can
tell it, and so can who knows the data set's pictures by heart.
"""

import functools
import hashlib
import io
import logging
import os
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bentos.classifier.deployment import KNOWN_PICTURES
from fashion.images import image_store, preparation
from fashion.images.transform import Images
from fashion.model.package import Package
from fashion.model.predictor import Predictor

COUNT = 200
"""Pictures of a bento, of all classes alike as far as there are."""
LEAST = 20
"""Fewer would soon be known by sight: then there are none."""
CANDIDATES = 5
"""Times as many pictures are predicted to choose from."""
EARLIER_MS = 10_000
"""An id is up to so much older than the prediction that it goes with."""
TRIES = 16
"""Ids that are tried until one stands for a picture that may be shown."""
NONCE_BITS, TAG_BITS = 26, 48
"""Of the 74 random bits of a uuid7."""
BATCH = 100
DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises where a file is not what it wrote."""

_logger = logging.getLogger(__name__)


class Showing(NamedTuple):
    """A known picture that is to be shown."""

    picture_id: str
    """Under which it is shown."""
    picture: int
    """Its index."""
    beside: str
    """sha256 of the predicted picture that it goes with: it is shown only while that one waits for a label."""


@dataclass(frozen=True, eq=False)
class KnownPictures:
    """N pictures as the network sees them, their classes, and the key of the ids under which they are shown."""

    images: Images
    labels: NDArray[np.int64]
    """(N,) indices of the classes."""
    key: bytes

    def to_npz(self) -> bytes:
        """The content of `KNOWN_PICTURES`."""
        buffer = io.BytesIO()
        key = np.frombuffer(self.key, np.uint8)
        np.savez_compressed(buffer, images=self.images, labels=self.labels, key=key)
        return buffer.getvalue()

    @classmethod
    def read(cls, folder: Path) -> "KnownPictures | None":
        """Read those of a bento; None where it has none, as bentos of earlier versions, or its file is damaged.

        Args:
            folder: of the bento.
        """
        try:
            with np.load(folder / KNOWN_PICTURES, allow_pickle=False) as stored:
                return cls(stored["images"], stored["labels"], stored["key"].tobytes())
        except FileNotFoundError:
            return None
        except DAMAGED as error:  # who reviews is not checked then, and can review
            path = folder / KNOWN_PICTURES
            _logger.warning("no known pictures check the reviews: %s cannot be read: %s", path, error)
            return None

    @functools.cached_property
    def sha256(self) -> tuple[str, ...]:
        """Of the pixels of each picture."""
        return tuple(map(image_store.digest, self.images))

    def picture_of(self, picture_id: str) -> int | None:
        """The index of the picture that is shown under an id; None for an id of anything else.

        Args:
            picture_id: any text.
        """
        try:
            value = uuid.UUID(picture_id)
        except ValueError:
            return None
        tail = (value.int >> 64 & 0xFFF) << 62 | value.int & (1 << 62) - 1
        made, picture = self._make(value.int >> 80, tail >> TAG_BITS)
        return picture if made == picture_id else None

    def showings(
        self, beside: Mapping[str, int], odds: float, *, used: AbstractSet[str], may_show: Callable[[int], bool]
    ) -> Iterator[Showing]:
        """Choose what is shown, at random and yet the same in each worker.

        Args:
            beside: sha256 of a predicted picture that waits for a label -> when its id was made, in microseconds.
            odds: known pictures for each of them, at most 1.
            used: ids that were shown and labelled or skipped.
            may_show: whether a picture may be shown, by its index.
        """
        for sha256, time_us in beside.items():
            chance, *tries = np.frombuffer(self._hash(b"showing", sha256.encode()), ">u4").tolist()
            if chance >= odds * 2**32:
                continue
            milliseconds = max(0, time_us // 1000 - tries[0] % EARLIER_MS)
            for attempt in range(TRIES):
                picture_id, picture = self._make(milliseconds, (tries[1] + attempt * tries[2]) % 2**NONCE_BITS)
                if picture_id in used:
                    break
                if may_show(picture):
                    yield Showing(picture_id, picture, sha256)
                    break

    def _make(self, milliseconds: int, nonce: int) -> tuple[str, int]:
        """The id of a time and a nonce, and the index of the picture that it stands for."""
        found = self._hash(b"id", milliseconds.to_bytes(6) + nonce.to_bytes(4))
        tail = nonce << TAG_BITS | int.from_bytes(found[: TAG_BITS // 8])
        high, low = tail >> 62, tail & (1 << 62) - 1
        picture_id = str(uuid.UUID(int=milliseconds << 80 | 7 << 76 | high << 64 | 2 << 62 | low))
        return picture_id, int.from_bytes(found[TAG_BITS // 8 :]) % len(self.labels)

    def _hash(self, purpose: bytes, content: bytes) -> bytes:
        return hashlib.blake2b(content, key=self.key, person=purpose, digest_size=16).digest()


def choose(
    package: Package, pictures: Sequence[bytes], labels: Sequence[int], *, count: int = COUNT
) -> KnownPictures | None:
    """Choose pictures of which the label of the data set is hardly wrong: the model says it too, and rather surely.

    Args:
        package: of the model.
        pictures: N files of pictures that the model was not trained on.
        labels: N, their classes by the index in the package.
        count: how many, of all classes alike as far as there are.

    Returns:
        None where there are fewer than `LEAST`.
    """
    if len(pictures) == 0:
        return None
    prepare = functools.partial(
        preparation.prepare, size=package.size, channels=package.channels, preparation=package.preparation
    )
    images = np.stack([prepare(each).image for each in pictures])
    predictor = Predictor(package)
    found = [predictor.predict(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    said = np.concatenate([each.labels for each in found])
    confidences = np.concatenate([each.confidences for each in found])
    rng = np.random.default_rng()
    truth, chosen = np.array(labels, np.int64), list[int]()
    for label in range(len(package.class_names)):
        right = np.flatnonzero((truth == label) & (said == label))
        surer = right[np.argsort(-confidences[right], kind="stable")][: (len(right) + 1) // 2]
        chosen += rng.permutation(surer)[: count // len(package.class_names)].tolist()
    if len(chosen) < LEAST:
        return None
    rows = np.array(chosen)
    return KnownPictures(images[rows], truth[rows], os.urandom(32))
