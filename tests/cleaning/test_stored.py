"""Old checkpoints and archives of bentos in buckets: what is found, and that it goes."""

import time

import pytest
from support.stores import KINDS, Clouds

from fashion.cleaning import candidates, stored
from fashion.config.compose import compose, load_as
from fashion.config.gc import GcConfig
from fashion.storage.address import open_store
from fashion.storage.blobs import Store

DAY = 86_400


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> Store:
    return open_store(f"{clouds.bucket(request.param, monkeypatch)}/team")


@pytest.fixture
def settings() -> GcConfig:
    return load_as(GcConfig, compose(["bentos_kept=1"], root=GcConfig.root))


def test_checkpoints_of_a_run_go_together_once_they_are_old(store: Store, settings: GcConfig) -> None:
    for name in ("TrainFlow/8/a.pt", "TrainFlow/8/rank-1/b.pt", "TrainFlow/9/a.pt", "notes.txt"):
        store.put(name, b"1234")
    now = time.time()
    assert list(stored.checkpoints(store, settings, now=now + 29 * DAY)) == []
    found = list(stored.checkpoints(store, settings, now=now + 31 * DAY))
    assert [(each.name, each.num_bytes, round(each.age_days)) for each in found] == [
        ("TrainFlow/8", 8, 31),
        ("TrainFlow/9", 4, 31),
    ]
    candidates.remove(found[0])
    assert set(store.list()) == {"TrainFlow/9/a.pt", "notes.txt"}


def test_archives_of_needed_versions_and_the_newest_stay(store: Store, settings: GcConfig) -> None:
    for number in (7, 8, 9):
        store.put(f"fashion-classifier-v{number}-0a1b2c3d.bento", b"1234")
        time.sleep(1.1)  # emulators count whole seconds
    now = time.time() + 31 * DAY
    needed = [("fashion-classifier", 7), ("shoes", 8)]  # version 8 of another model
    found = list(stored.archives(store, settings, versions=needed, now=now))
    assert [each.name for each in found] == ["fashion-classifier-v8-0a1b2c3d.bento"]
    candidates.remove(found[0])
    assert len(list(store.list())) == 2
