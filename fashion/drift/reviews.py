"""What reviews say of pictures, whichever of their rows they were given on. Knows no page and no arrays.

The review page shows each picture once. So a review counts for every row of its picture, and a picture of which
somebody could not tell what it shows is not asked for again.
"""

import contextlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fashion.images import image_store
from fashion.predictions.record import REVIEW, LogUnavailable, UnknownPrediction
from fashion.predictions.windows import Source
from fashion.storage.blobs import Store, StoreUnavailable

NEWEST = 50_000
"""Labelled rows that are looked at: the latest ones."""
SKIPPED = 500
"""Pictures that somebody could not label: the latest ones."""


@dataclass(frozen=True)
class Reviews:
    """Reviews of a log, by picture."""

    labels: Mapping[tuple[str | None, str], int] = field(default_factory=dict)
    """Name of a registered model and sha256 of a picture -> its class by the latest review."""
    skipped: frozenset[str] = frozenset()
    """sha256 of pictures that somebody could not label."""
    is_stored: Callable[[str], bool] = lambda sha256: True
    """Whether the picture of a sha256 is stored: others are not shown to anybody."""

    @classmethod
    def read(cls, source: Source, images: Store) -> "Reviews":
        """Read those of a log; none where one of its rows cannot be read.

        Args:
            source: the log; an export holds no skipped pictures.
            images: where pictures are stored; where that cannot be asked, they count as stored.
        """
        with contextlib.suppress(LogUnavailable):  # who reads the window, or checks the sources, tells it
            return cls._read(source, images)
        return cls()

    @classmethod
    def _read(cls, source: Source, images: Store) -> "Reviews":
        labels: dict[tuple[str | None, str], tuple[int, int]] = {}
        for row in itertools.islice(source.labelled(), NEWEST):
            said, key = row.judgement, (row.record.model_name, row.record.image_sha256)
            if said is not None and said.source == REVIEW:
                labels[key] = max(labels.get(key, (-1, 0)), (said.time_us, said.true_label))
        skipped = set[str]()
        for prediction_id in source.decisions().skipped()[-SKIPPED:]:
            with contextlib.suppress(UnknownPrediction):  # old predictions are dropped
                skipped.add(source.get(prediction_id).record.image_sha256)

        def is_stored(sha256: str) -> bool:
            try:
                return image_store.is_stored(images, sha256)
            except StoreUnavailable:
                return True

        return cls({key: label for key, (_, label) in labels.items()}, frozenset(skipped), is_stored)
