"""What was accepted of an earlier version, predicted anew by a later one: the new normal outlives a training.

Only pictures can be predicted anew, so that this needs those of the accepted rows (`serve.log.images`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fashion.drift import accepted
from fashion.drift.accepted import Accepted
from fashion.images import image_store
from fashion.images.image_store import DamagedImage
from fashion.images.threads import in_threads
from fashion.images.transform import Images
from fashion.model.package import Package
from fashion.model.predictor import Predictions, Predictor
from fashion.predictions.record import ModelId
from fashion.storage.blobs import BlobNotFound, Store

MIN_SHARE = 0.9
"""Share of the accepted pictures that must be stored: those of some days alone are another sample of the traffic."""
AT_ONCE = 500
"""Pictures that are read and predicted at once."""


class CarriedOver(NamedTuple):
    """Which rows that were accepted before a version was trained count for it."""

    rows: Accepted | None
    """The version's accepted rows; None where there are none."""
    note: str = ""
    """A sentence for people, where something was carried over or could not be; empty where there was nothing to do."""


def load(reports: Store, images: Store, model: ModelId, package: Package, earlier: Sequence[ModelId]) -> CarriedOver:
    """What was accepted of a version, after carrying over to it what was accepted of an earlier one.

    That happens once: a version of which rows were accepted, or of which that was undone, stays as it is.

    Args:
        reports: store of the reports.
        images: store of users' pictures.
        model: the version.
        package: its package, in a folder.
        earlier: earlier versions, the latest first.

    Raises:
        fashion.drift.accepted.DamagedRows: accepted rows cannot be read.
        fashion.storage.blobs.StoreUnavailable: a store cannot be used.
    """
    if accepted.is_decided(reports, model):
        return CarriedOver(accepted.load(reports, model))
    origin = next((each for each in earlier if accepted.is_decided(reports, each)), None)
    before = None if origin is None else accepted.load(reports, origin)
    if origin is None or before is None:
        return CarriedOver(None)
    rows, predictions = _predict(package, images, before.images.tolist())
    if predictions is None or len(rows) < MIN_SHARE * len(before.keys):
        return CarriedOver(
            None,
            f"what was accepted of version {origin.version} is not the reference of version {model.version}, for only "
            f"{len(rows):,} of its {len(before.keys):,} pictures are stored (serve.log.images=true stores them): "
            f"accept a report of version {model.version} again with `fashion drift accept`",
        )
    carried = accepted.carry(reports, before[np.array(rows)], predictions, origin=origin, model=model)
    return CarriedOver(
        carried,
        f"version {model.version} is compared with {len(rows):,} rows that were accepted of version {origin.version}, "
        "predicted anew",
    )


def _predict(package: Package, images: Store, digests: Sequence[str]) -> tuple[list[int], Predictions | None]:
    """The rows whose pictures are stored in the package's size, and what it says of them; None without any."""
    shape = (package.size, package.size, *([package.channels] if package.channels > 1 else []))

    def read(sha256: str) -> Images | None:
        try:
            image = image_store.get(images, sha256) if sha256 else None
        except (BlobNotFound, DamagedImage):
            return None
        return image if image is not None and image.shape == shape else None

    predictor = Predictor(package)
    rows, parts = list[int](), list[Predictions]()
    for start in range(0, len(digests), AT_ONCE):
        found = list(enumerate(in_threads(read, digests[start : start + AT_ONCE]), start))
        usable = [(row, image) for row, image in found if image is not None]
        if usable:
            rows += [row for row, _ in usable]
            parts.append(predictor.predict(np.stack([image for _, image in usable])))
    if not parts:
        return rows, None
    columns = ([getattr(part, field) for part in parts] for field in accepted.FIELDS)
    return rows, Predictions(*map(np.concatenate, columns))
