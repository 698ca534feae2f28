"""Fixtures of the log's tests."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support import proxy, shared_logs
from support.log_rows import LATER
from support.shared_logs import Backend

from fashion.predictions.log import PredictionLog
from fashion.predictions.shared_log import SharedLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[PredictionLog]:
    """A log that ships somewhere: one that does not queues nothing."""
    with PredictionLog(tmp_path / "log.db") as log:
        log.outbox.ship_to("firestore://p")
        yield log


@pytest.fixture
def plain_log(tmp_path: Path) -> Iterator[PredictionLog]:
    """A log that ships nowhere yet."""
    with PredictionLog(tmp_path / "log.db") as log:
        yield log


@pytest.fixture(scope="session", params=shared_logs.SERVERS)
def new_backend(request: pytest.FixtureRequest) -> Callable[[], Backend]:
    """Makes an empty one of each database that a shared log may be in."""
    server = request.getfixturevalue(shared_logs.SERVERS[request.param])
    return lambda: shared_logs.make(request.param, server)


@pytest.fixture
def backend(new_backend: Callable[[], Backend]) -> Backend:
    """An empty database."""
    return new_backend()


@pytest.fixture
def owner(backend: Backend) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the owner of a database of PostgreSQL."""
    with psycopg.connect(backend.address(), autocommit=True) as connection:
        yield connection


@pytest.fixture
def wire(backend: Backend) -> Iterator[proxy.Proxy]:
    """A proxy between a client and the database."""
    with proxy.between(backend.server) as wire:
        yield wire


@pytest.fixture
def remote(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedLog]:
    """A client that is connected to the database directly."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", backend.server)
    with contextlib.closing(backend.connect()) as remote:
        list(remote.read_window(0, LATER))  # connects, before a test has the environment name another address
        yield remote


@pytest.fixture
def shaky(
    remote: SharedLog, wire: proxy.Proxy, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SharedLog]:
    """A client of the same database, connected through the proxy."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", wire.address)
    with contextlib.closing(backend.connect(wire.address, timeout_s=1.0)) as shaky:
        yield shaky
