"""The prediction log's way to Firestore: ships it, and waits for it where answers must. Knows no models and no HTTP."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Literal

from fashion.config.serve import LogConfig
from fashion.home import Home
from fashion.predictions.log import PredictionLog

POLL_SECONDS = 0.01

_logger = logging.getLogger(__name__)


class Shipping:
    """Ships the log to Firestore, if the environment names one."""

    def __init__(self, log: PredictionLog, home: Home, settings: LogConfig) -> None:
        """Start to ship.

        Args:
            log: what is shipped.
            home: names Firestore, as `project` or `project/database`.
            settings: whether answers wait for Firestore, and for how long.

        Raises:
            ValueError: answers must wait for Firestore, and FASHION_FIRESTORE is not set.
        """
        self._log, self._settings = log, settings
        self.remote = self._shipper = None
        if home.firestore is None:
            if settings.acknowledge == "remote":
                raise ValueError("serve.log.acknowledge=remote needs FASHION_FIRESTORE=project[/database] to be set")
            return
        from fashion.predictions.firestore import FirestoreLog
        from fashion.predictions.shipper import Shipper

        project, _, database = home.firestore.partition("/")
        self.remote = FirestoreLog(project, database=database or "(default)", expire_days=settings.retention_days)
        self._shipper = Shipper(log, self.remote)
        self._shipper.start()

    async def stored_in(self, ids: Sequence[str]) -> Literal["firestore", "disk"] | None:
        """With `acknowledge: remote`, wait until Firestore has these predictions, and say where they are.

        After `remote_seconds` they are on the disk alone, and the outbox ships them later. None without waiting.
        """
        if self._settings.acknowledge != "remote" or self._shipper is None or not ids:
            return None
        self._shipper.wake()
        deadline = time.monotonic() + self._settings.remote_seconds
        while time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
            if await asyncio.to_thread(self._log.outbox.is_shipped, ids):
                return "firestore"
        return "disk"

    def close(self) -> None:
        """Ship what waits, for at most `drain_seconds`."""
        if self._shipper is None:
            return
        backlog = self._shipper.drain(self._settings.drain_seconds)
        if backlog.rows:
            _logger.warning("%d rows stay in %s until they can be shipped", backlog.rows, self._log.path)
