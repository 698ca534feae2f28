"""Checkpoints, and archives of bentos, in a store of blobs such as a bucket. Knows the names of their blobs."""

import re
import time
from collections.abc import Collection, Iterator, Sequence

from fashion.cleaning.candidates import DAY_SECONDS, Candidate, is_due
from fashion.config.gc import GcConfig
from fashion.config.serve import bento_name
from fashion.storage.blobs import Blob, Store

ARCHIVE = re.compile(r"(.*)-v(\d+)-[^/]*\.bento")
"""An archive's name: that of the bento, and the number of the registered version that it is of."""


def checkpoints(store: Store, settings: GcConfig, *, now: float | None = None) -> Iterator[Candidate]:
    """Yield the checkpoints of old runs, each run's together.

    Args:
        store: of all checkpoints, `TrainFlow/8/...`. Other machines may write there: an age counts since the last one.
        settings: the age.
        now: seconds since 1970.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be listed.
    """
    runs: dict[str, list[Blob]] = {}
    for blob in store.entries():
        flow, _, rest = blob.name.partition("/")
        run, _, file = rest.partition("/")
        if file:
            runs.setdefault(f"{flow}/{run}", []).append(blob)
    for name, blobs in sorted(runs.items()):
        found = _candidate("checkpoint", name, store, blobs, now)
        if is_due(found, settings.checkpoints_days):
            yield found


def archives(
    store: Store, settings: GcConfig, *, versions: Collection[tuple[str, int]], now: float | None = None
) -> Iterator[Candidate]:
    """Yield old archives of bentos that no served or earlier champion needs.

    Args:
        store: of the archives; what has another name is none of them.
        settings: the age, and how many stay.
        versions: registered models and numbers of their versions of which the newest archive stays.
        now: seconds since 1970.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be listed.
    """
    named = [(blob, match) for blob in store.entries() if (match := ARCHIVE.fullmatch(blob.name))]
    needed = {(bento_name(model), number) for model, number in versions}
    covered: set[tuple[str, int]] = set()
    for place, (blob, match) in enumerate(sorted(named, key=lambda each: each[0].changed_s, reverse=True)):
        version = (match[1], int(match[2]))
        is_needed = version in needed and version not in covered
        covered.add(version)
        found = _candidate("bento archive", blob.name, store, [blob], now)
        if is_due(found, settings.bentos_days) and place >= settings.bentos_kept and not is_needed:
            yield found


def _candidate(kind: str, name: str, store: Store, blobs: Sequence[Blob], now: float | None) -> Candidate:
    moment = time.time() if now is None else now
    age_days = (moment - max(blob.changed_s for blob in blobs)) / DAY_SECONDS
    names = tuple(blob.name for blob in blobs)
    return Candidate(kind, name, (), sum(blob.num_bytes for blob in blobs), age_days, store.address, names)
