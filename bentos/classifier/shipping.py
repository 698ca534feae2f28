"""The way of predictions to the shared log: ships them, and waits where answers must. Knows no models and no HTTP."""

import asyncio
import logging
import time
from collections.abc import Sequence

from fashion.config.serve import LogConfig
from fashion.home import Home
from fashion.predictions.address import FORMS, open_shared_log
from fashion.predictions.log import PredictionLog
from fashion.predictions.shared_log import SharedLog
from fashion.predictions.shipper import Shipper

POLL_SECONDS = 0.01
REQUEST_SECONDS = 10.0
"""How long the shared log may take: a request of a client or a shutdown may wait for it."""

_logger = logging.getLogger(__name__)


class Shipping:
    """Ships the log to the one that machines share, if the environment names one."""

    def __init__(self, log: PredictionLog, home: Home, settings: LogConfig) -> None:
        """Start to ship.

        Args:
            log: what is shipped.
            home: names the shared log.
            settings: whether answers wait for it, and for how long.

        Raises:
            ValueError: answers must wait for the shared log, and none is named.
            fashion.predictions.record.LogUnavailable: its address is malformed, or its library is missing.
        """
        self._log, self._settings = log, settings
        self.remote: SharedLog | None = None
        self._shipper: Shipper | None = None
        if home.shared_log is None:
            if settings.acknowledge == "remote":
                raise ValueError(f"serve.log.acknowledge=remote needs FASHION_LOG to be set: {FORMS}")
            return
        self.remote = open_shared_log(home.shared_log, expire_days=settings.retention_days, timeout_s=REQUEST_SECONDS)
        self._shipper = Shipper(log, self.remote)
        self._shipper.start()

    async def stored_in(self, ids: Sequence[str]) -> str | None:
        """With `acknowledge: remote`, wait until the shared log has these predictions, and say where they are.

        That is its kind, or `disk` after `remote_seconds`: then the outbox ships them later. None without waiting.
        """
        if self._settings.acknowledge != "remote" or self.remote is None or self._shipper is None or not ids:
            return None
        self._shipper.wake()
        deadline = time.monotonic() + self._settings.remote_seconds
        while time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
            if await asyncio.to_thread(self._log.outbox.is_shipped, ids):
                return self.remote.kind
        return "disk"

    def close(self) -> None:
        """Ship what waits, for at most `drain_seconds`."""
        if self._shipper is None:
            return
        backlog = self._shipper.drain(self._settings.drain_seconds)
        if backlog.rows:
            _logger.warning("%d rows stay in %s until they can be shipped", backlog.rows, self._log.path)
