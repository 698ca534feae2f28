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
PROJECT = "soak"
DOCUMENTS_AT_ONCE = 500


@dataclass(frozen=True)
class Destination:
    """Where the service ships its rows to."""

    kind: str
    wire: proxy.Proxy
    """Between the service and the log."""
    variables: dict[str, str]
    """Of the service, which lead to the log through the wire."""

    def missing(self, prediction_ids: set[str]) -> set[str]:
        """Those predictions that have not arrived.

        By their ids: the emulator sorts a whole collection anew for each page of a window.
        """
        if self.kind == "postgresql":
            with contextlib.closing(open_shared_log(self.variables["FASHION_LOG"], timeout_s=600.0)) as log:
                return prediction_ids - {each.record.prediction_id for each in log.read_window(0, FOREVER_US)}
        from google.cloud import firestore as google

        with mock.patch.dict(os.environ, self.variables):
            client = google.Client(project=PROJECT)
        arrived: set[str] = set()
        ordered = sorted(prediction_ids)
        for start in range(0, len(ordered), DOCUMENTS_AT_ONCE):
            ids = ordered[start : start + DOCUMENTS_AT_ONCE]
            documents = client.get_all([client.document(f"predictions/{each}") for each in ids], field_paths=["role"])
            arrived |= {document.id for document in documents if document.exists}
        return prediction_ids - arrived


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
        yield Destination(kind, wire, {"FASHION_LOG": f"firestore://{PROJECT}", EMULATOR: wire.address})


def waiting(folder: Path) -> int:
    """How many rows a machine's log has not shipped yet."""
    with contextlib.closing(PredictionLog(folder / "predictions.db")) as log:
        return log.outbox.backlog().rows
