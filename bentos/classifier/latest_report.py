"""Looks for the latest drift report now and then, for the metrics. Knows the store of the reports, no metrics."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fashion.drift import reports
from fashion.storage.blobs import Store, StoreUnavailable

SECONDS = 60.0
"""Looks are at least this far apart: the reports may lie in a bucket."""
MOST = 5
"""Reports of one run of the drift flow that are read: one for each version in its window, the newest version first."""

_logger = logging.getLogger(__name__)


class LatestReport:
    """Reads in a thread of its own: a store that hangs must not hang a scrape of the metrics."""

    def __init__(
        self, store: Store, on_report: Callable[[Mapping[str, Any] | None], None], *, model_name: str, digest: str
    ) -> None:
        """
        Args:
            store: of the reports.
            model_name: of the registered model: reports on others are passed over.
            digest: of the served version's package.
            on_report: called with the served version's report of the latest run of the drift flow; where the run
                reports on other versions alone, without their rows and conditions. None if there is no report.
        """
        self._store, self._on_report, self._model_name, self._digest = store, on_report, model_name, digest
        self._looked = -SECONDS
        self._lock = threading.Lock()

    def look(self) -> None:
        """Start to look, unless a look has begun within `SECONDS`; returns at once."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked < SECONDS:
                return
            self._looked = now
        threading.Thread(target=self._read, name="latest report", daemon=True).start()

    def _read(self) -> None:
        try:
            found = reports.latest(self._store, MOST, model_name=self._model_name)
            self._on_report(_of_package(found, self._digest))
        except (StoreUnavailable, OSError) as error:
            _logger.warning("the latest drift report cannot be read: %s", error)


def _of_package(found: Sequence[Mapping[str, Any]], digest: str) -> Mapping[str, Any] | None:
    """The latest run's report on a package, or on no particular one; else what the run says beside its versions.

    Args:
        found: reports, newest first.
        digest: of the package. Version numbers begin anew where a registry was lost.
    """
    if not found:
        return None
    run = [each for each in found if reports.time_of(each["id"]) == reports.time_of(found[0]["id"])]
    of_package = [each for each in run if each.get("model_digest") and digest.startswith(str(each["model_digest"]))]
    of_none = [each for each in run if not each.get("model_digest")]  # no traffic, or an older report
    return next(iter([*of_package, *of_none]), {**found[0], "rows": 0, "conditions": []})
