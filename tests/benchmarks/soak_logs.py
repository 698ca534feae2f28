"""The shared log of the soak behind a wire that can hang: the Firestore emulator, or PostgreSQL."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from fashion.predictions.address import open_shared_log
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import FOREVER_US
from tests.support import firestore, postgres, proxy

EMULATOR = "FIRESTORE_EMULATOR_HOST"


@dataclass(frozen=True)
class Destination:
    """Where the service ships its rows to."""

    kind: str
    wire: proxy.Proxy
    """Between the service and the log."""
    variables: dict[str, str]
    """Of the service, which lead to the log through the wire."""

    def shipped(self) -> set[str]:
        """Ids of the predictions that have arrived."""
        with mock.patch.dict(os.environ, self.variables):
            log = open_shared_log(self.variables["FASHION_LOG"], timeout_s=600.0)
            with contextlib.closing(log):
                return {each.record.prediction_id for each in log.read_window(0, FOREVER_US)}


@contextlib.contextmanager
def destination(kind: str) -> Iterator[Destination]:
    """Start a server of a kind, `firestore` or `postgresql`, with an empty log.

    Raises:
        SystemExit: it is not installed.
    """
    if kind == "postgresql":
        if postgres.programs() is None:
            raise SystemExit("error: soak needs PostgreSQL: apt-get install postgresql")
        with postgres.serve() as cluster:
            database = postgres.create_database(cluster, "soak")
            host = cluster.rpartition("@")[2]
            with proxy.between(host) as wire:
                yield Destination(kind, wire, {"FASHION_LOG": database.replace(host, wire.address)})
        return
    if firestore.find() is None:
        raise SystemExit("error: soak needs Firestore's emulator: apt-get install google-cloud-cli-firestore-emulator")
    with firestore.serve() as host, proxy.between(host) as wire:
        yield Destination(kind, wire, {"FASHION_LOG": "firestore://soak", EMULATOR: wire.address})


def waiting(folder: Path) -> int:
    """How many rows a machine's log has not shipped yet."""
    with contextlib.closing(PredictionLog(folder / "predictions.db")) as log:
        return log.outbox.backlog().rows
