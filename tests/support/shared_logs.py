"""The databases that a shared log may be in, each behind what tests need of it: an address, and a row it refuses."""

import dataclasses
import uuid
from dataclasses import dataclass
from typing import Any

from support import postgres
from support.log_rows import record

from fashion.predictions.address import open_shared_log
from fashion.predictions.firestore import FirestoreLog
from fashion.predictions.postgres import PostgresLog
from fashion.predictions.record import Feedback, PredictionRecord
from fashion.predictions.shared_log import SharedLog

SERVERS = {"firestore": "emulator", "postgresql": "postgres_server"}
"""Kind -> the fixture that serves it."""

PASSWORD = "sesame"
"""Of PostgreSQL, which asks for none in tests: no message or page may show it."""

TOO_LARGE = (0.5,) * 600_000
"""An embedding with which a document is more than Firestore takes."""


@dataclass(frozen=True)
class Backend:
    """A server, and a name that no other test uses: of a project or a database."""

    kind: str
    server: str
    """host:port"""
    name: str

    def address(self, server: str | None = None) -> str:
        """The value of FASHION_LOG.

        Args:
            server: of a proxy in front of the server.
        """
        if self.kind == "firestore":
            return f"firestore://{self.name}"
        return f"postgresql://fashion:{PASSWORD}@{server or self.server}/{self.name}"

    def environment(self, server: str | None = None) -> dict[str, str]:
        """The variables with which a process uses it.

        Args:
            server: of a proxy in front of the server.
        """
        emulator = {"FIRESTORE_EMULATOR_HOST": server or self.server} if self.kind == "firestore" else {}
        return {"FASHION_LOG": self.address(server), **emulator}

    def connect(self, server: str | None = None, *, timeout_s: float = 10.0) -> SharedLog:
        """A client; Firestore's reads FIRESTORE_EMULATOR_HOST when it connects."""
        log: Any = open_shared_log(self.address(server))
        if isinstance(log, FirestoreLog):
            log.timeout_s = timeout_s
        elif isinstance(log, PostgresLog):
            log._connections.timeout_s = timeout_s
        found: SharedLog = log
        return found

    def refuses(self, item: PredictionRecord | Feedback) -> bool:
        """Whether an item of ordinary size is one that it cannot store: PostgreSQL has no NUL in texts."""
        texts = [str(value) for value in dataclasses.asdict(item).values()]
        return self.kind == "postgresql" and any("\0" in text for text in texts)

    def poison(self, **changed: Any) -> PredictionRecord:
        """A prediction that it refuses."""
        wrong = {"embedding": TOO_LARGE} if self.kind == "firestore" else {"client": "a\0b"}
        return record(**wrong | changed)

    @property
    def reason(self) -> str:
        """A part of why."""
        return "longer than 1048487 bytes" if self.kind == "firestore" else "NUL"


def make(kind: str, server: str) -> Backend:
    """A backend that is empty.

    Args:
        kind: a key of SERVERS.
        server: host:port, or what `postgres.serve` yields.
    """
    name = f"test{uuid.uuid4().hex[:12]}"
    if kind == "postgresql":
        postgres.create_database(server, name)
        server = server.rpartition("@")[2]
    return Backend(kind, server, name)
