"""A control plane of Cloud Run on loopback, and programs that stand for two revisions."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from support import cloudrun, revision
from support.cloudrun import PROJECT, REGION, SERVICE, FakeCloudRun
from support.revision import RevisionServer

from fashion.deployment.cloudrun import CloudRun

OLD_IMAGE, NEW_IMAGE = "registry.example/classifier:1", "registry.example/classifier:2"


@dataclass
class Cloud:
    """Cloud Run with a service whose first version is served, and an image of the second."""

    state: FakeCloudRun
    address: str
    old: RevisionServer
    new: RevisionServer

    def client(self, *, project: str = PROJECT, region: str = REGION, operation_seconds: float = 10.0) -> CloudRun:
        """A client of the service."""
        return CloudRun(
            project,
            region,
            SERVICE,
            operation_seconds=operation_seconds,
            poll_seconds=0.01,
            emulator=self.address,
        )


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    state = FakeCloudRun()
    with (
        cloudrun.serve(state) as address,
        revision.serve(RevisionServer(version="1")) as old,
        revision.serve(RevisionServer(version="2")) as new,
    ):
        state.urls = {OLD_IMAGE: old.url, NEW_IMAGE: new.url}
        state.create(OLD_IMAGE)
        yield Cloud(state, address, old, new)
