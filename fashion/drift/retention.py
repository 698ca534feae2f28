"""Retention: predictions older than a limit go, and with them their pictures and the reports. Knows no schedule."""

from collections.abc import Callable
from dataclasses import dataclass

from fashion.drift import reports
from fashion.images import image_store
from fashion.predictions import removal
from fashion.predictions.log import PredictionLog
from fashion.predictions.shared_log import SharedLog
from fashion.storage.blobs import Store

DAY_S = 86_400.0


@dataclass(frozen=True)
class PruneCounts:
    """What was deleted."""

    predictions: int
    pictures: int
    reports: int


def prune(
    log: PredictionLog,
    days: float,
    *,
    images: Store,
    report_store: Store,
    shared: SharedLog | None,
    clock: Callable[[], int],
    unlisted: bool = False,
) -> PruneCounts:
    """Delete predictions older than `days`, pictures that no remaining prediction is on, and reports as old.

    Killed half-way, it completes when it is called again.

    Args:
        log: of this machine.
        days: the age from which things are deleted.
        images: where pictures are.
        report_store: where drift reports are.
        shared: the log that machines share: a picture stays while a prediction there is on it; None without one.
        clock: returns nanoseconds since 1970.
        unlisted: also delete pictures that this log never had a row of, as older versions left behind. Ignored where
            machines share a log, for they may share the pictures too.

    Raises:
        fashion.predictions.record.LogUnavailable: a log cannot be used.
        fashion.storage.blobs.StoreUnavailable: a store cannot be used.
    """
    predictions = removal.prune(log, days, clock)
    unused, used = removal.dropped_pictures(log)
    removal.settle_pictures(log, used)
    if shared is not None:
        needed = [each for each in unused if shared.has_picture(each)]
        removal.settle_pictures(log, needed)
        unused = sorted(set(unused) - set(needed))
    for sha256 in unused:
        image_store.delete(images, sha256)
    removal.settle_pictures(log, unused)
    pictures = len(unused)
    if unlisted and shared is None:
        left = removal.unreferred(log, image_store.stored(images))
        for sha256 in left:
            image_store.delete(images, sha256)
        pictures += len(left)
    return PruneCounts(predictions, pictures, reports.delete_before(report_store, clock() / 1e9 - DAY_S * days))
