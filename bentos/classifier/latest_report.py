"""Looks for the latest drift report now and then, for the metrics. Knows the store of the reports, no metrics."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from fashion.drift import reports
from fashion.storage.blobs import Store, StoreUnavailable

SECONDS = 60.0
"""Looks are at least this far apart: the reports may lie in a bucket."""

_logger = logging.getLogger(__name__)


class LatestReport:
    """Reads in a thread of its own: a store that hangs must not hang a scrape of the metrics."""

    def __init__(self, store: Store, on_report: Callable[[Mapping[str, Any] | None], None], *, model_name: str) -> None:
        """
        Args:
            store: of the reports.
            model_name: of the registered model: reports on others are passed over.
            on_report: called with the latest report, or None if there is none.
        """
        self._store, self._on_report, self._model_name = store, on_report, model_name
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
            self._on_report(next(iter(reports.latest(self._store, 1, model_name=self._model_name)), None))
        except (StoreUnavailable, OSError) as error:
            _logger.warning("the latest drift report cannot be read: %s", error)
