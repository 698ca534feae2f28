"""What waits for people or for another machine is said, and no more once it is over."""

import datetime
from pathlib import Path

import pytest

from fashion.drift import retraining, waiting
from fashion.registry.versions import Version
from fashion.storage.address import open_store
from fashion.storage.blobs import Store

BEGAN = 1_800_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def version(number: int, created_s: float = BEGAN + 600, **tags: str) -> Version:
    created = datetime.datetime.fromtimestamp(created_s, datetime.UTC)
    return Version(number, (), created, "", "", {name.replace("_", "."): text for name, text in tags.items()})


def test_sources_that_are_quarantined_are_named_with_the_way_out() -> None:
    assert waiting.quarantine({}) is None
    found = waiting.quarantine({f"source {i}": "9 of 9 contradict" for i in range(7)})
    assert found is not None
    assert found.text.splitlines()[0] == "'source 0': 9 of 9 contradict."
    assert "2 more sources." in found.text
    assert "fashion log discard --source NAME" in found.text
    other = waiting.quarantine({"source 9": "9 of 9 contradict"})
    assert other is not None
    assert other.matter != found.matter


def test_the_newest_version_that_waits_is_said_until_somebody_decides() -> None:
    waits = version(3, approval_time="2027", approval_reason="it is better")
    found = waiting.approval([waits, version(2)], model="shoes")
    assert found is not None
    assert found.title == "A version waits for approval: shoes version 3"
    assert found.text == 'it is better.\nNext: fashion registry promote 3 --name shoes --reason "..."'
    decided = version(3, approval_time="2027", promoted_time="2027")
    for known in ([], [version(2)], [decided], [version(4), waits]):
        assert waiting.approval(known, model="shoes") is None


@pytest.mark.parametrize(
    ("tags", "title", "sentence"),
    [
        ({"promoted_time": "1", "promoted_reason": "better"}, "A new champion", "version 2 is the champion: better."),
        ({"refused_time": "1", "refused_reason": "worse"}, "A challenger was refused", "version 2 was refused: worse."),
        ({"approval_time": "1"}, "A challenger waits for approval", "version 2 waits for approval."),
    ],
)
def test_the_end_of_a_training_on_a_cluster_is_said_once(
    tags: dict[str, str], title: str, sentence: str, store: Store
) -> None:
    def told(*known: Version, hours: float = 1) -> str | None:
        found = waiting.training_elsewhere(known, store, model="shoes", now_s=BEGAN + 3600 * hours)
        return None if found is None else f"{found.title}\n{found.text}"

    assert told() is None
    retraining.record_start(store, model_name="shoes", elsewhere=True, clock=lambda: BEGAN)
    older, judged = version(1, BEGAN - 10, refused_time="1"), version(2)
    assert told(older) is None
    assert told(older, judged) is None  # not judged yet
    said = told(older, version(2, **tags), version(3))
    assert said is not None
    assert said.startswith(title)
    assert sentence in said
    retraining.record_told(store, model_name="shoes")
    assert told(version(2, **tags)) is None


def test_a_training_on_a_cluster_that_registers_nothing_is_said_to_have_failed(store: Store) -> None:
    retraining.record_start(store, model_name="shoes", elsewhere=True, clock=lambda: BEGAN)
    retraining.record_learnt(store, BEGAN - 5, model_name="shoes")  # of another training
    for hours, is_said in ((23, False), (25, True)):
        found = waiting.training_elsewhere([], store, model="shoes", now_s=BEGAN + 3600 * hours)
        assert (found is not None) is is_said
    assert found is not None
    assert found.title == "A training that drift started failed: shoes"


def test_a_training_that_the_flow_waited_for_is_not_said_again(store: Store) -> None:
    retraining.record_start(store, model_name="shoes", clock=lambda: BEGAN)
    assert waiting.training_elsewhere([version(2, promoted_time="1")], store, model="shoes", now_s=BEGAN) is None
