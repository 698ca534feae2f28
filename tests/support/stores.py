"""An empty bucket of each kind, in an emulator. Knows which emulator serves which kind."""

import contextlib
import itertools
import json
import urllib.request
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest
from support import azure, bucket, s3


class Server(Protocol):
    """An emulator of one kind of bucket."""

    environment: dict[str, str]
    """Variables with which clients find it."""

    def create(self, bucket: str) -> str:
        """Create a bucket and return its address."""


class GoogleServer:
    """The address of a Google Cloud Storage emulator."""

    def __init__(self, url: str) -> None:
        self.environment = {"STORAGE_EMULATOR_HOST": url}

    def create(self, bucket: str) -> str:
        """Create a bucket and return its address."""
        url = f"{self.environment['STORAGE_EMULATOR_HOST']}/storage/v1/b?project=x"
        request = urllib.request.Request(
            url, json.dumps({"name": bucket}).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20):
            return f"gs://{bucket}"


@contextlib.contextmanager
def _serve_google() -> Iterator[GoogleServer]:
    with bucket.serve() as url:
        yield GoogleServer(url)


SERVERS: dict[str, Callable[[], contextlib.AbstractContextManager[Server]]] = {
    "gs": _serve_google,
    "s3": s3.serve,
    "az": azure.serve,
}
"""Scheme of an address -> what serves it."""
KINDS = [kind if kind == "gs" else pytest.param(kind, marks=pytest.mark.slow) for kind in SERVERS]
"""To parametrise a test with: Google's emulator runs in the test's process, the others start one."""


class Clouds:
    """One emulator of each kind, started when it is first asked for."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack, self._servers, self._numbers = stack, dict[str, Server](), itertools.count()

    def server(self, kind: str) -> Server:
        """The emulator of a kind of bucket."""
        if kind not in self._servers:
            self._servers[kind] = self._stack.enter_context(SERVERS[kind]())
        return self._servers[kind]

    def bucket(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> str:
        """Create a bucket, set the variables that lead to it, and return its address."""
        server = self.server(kind)
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        return server.create(f"bucket-{next(self._numbers)}")
