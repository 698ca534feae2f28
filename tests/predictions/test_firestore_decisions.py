"""Decisions of a collection that grows and shrinks elsewhere, read without reading all of it again."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from fashion.predictions import withdrawal
from fashion.predictions.firestore_decisions import OVERLAP_NS, Content, KnownDecisions, name_of, to_document
from fashion.predictions.record import new_prediction_id
from fashion.predictions.withdrawal import Decision


class Collection:
    """Documents by name, and the names from which on they were read."""

    def __init__(self) -> None:
        self.documents: dict[str, Content] = {}
        self.read_since: list[str] = []

    def write(self, *, seconds_ago: float = 0.0) -> Decision:
        decision = withdrawal.skip(new_prediction_id(), who="ann", now_us=5)
        self.documents[name_of(time.time_ns() - int(seconds_ago * 1e9), len(self.documents))] = to_document(decision)
        return decision

    def read(self, since: str) -> dict[str, Content]:
        self.read_since.append(since)
        return {name: content for name, content in self.documents.items() if name >= since}


def test_new_ones_are_found_also_those_of_a_clock_that_is_behind() -> None:
    collection, known = Collection(), KnownDecisions()
    first = collection.write(seconds_ago=3600)
    assert list(known.update(collection.read)) == [first]
    behind = collection.write(seconds_ago=OVERLAP_NS / 1e9 - 10)
    now = collection.write()
    assert list(known.update(collection.read)) == [first, behind, now]
    assert collection.read_since[0] == ""
    assert collection.read_since[1] > min(collection.documents)


def test_all_are_read_again_after_a_while() -> None:
    collection, known = Collection(), KnownDecisions(reread_seconds=0.2)
    deleted, kept = collection.write(seconds_ago=3600), collection.write(seconds_ago=3600)
    assert list(known.update(collection.read)) == [deleted, kept]
    del collection.documents[min(collection.documents)]
    behind = collection.write(seconds_ago=1800)
    assert list(known.update(collection.read)) == [deleted, kept]
    time.sleep(0.25)
    assert list(known.update(collection.read)) == [kept, behind]


def test_a_slow_reading_of_all_loses_nothing_that_another_thread_has_found() -> None:
    collection, known, has_read, may_end = Collection(), KnownDecisions(), threading.Event(), threading.Event()
    first = collection.write(seconds_ago=3600)

    def slow(since: str) -> dict[str, Content]:
        found = collection.read(since)
        has_read.set()
        assert may_end.wait(10)
        return found

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(known.update, slow)
        assert has_read.wait(10)
        second = collection.write()
        assert list(known.update(collection.read)) == [first, second]
        may_end.set()
        assert list(reading.result(10)) == [first, second]


def test_a_failed_reading_is_tried_again_as_a_whole() -> None:
    collection, known = Collection(), KnownDecisions()
    first = collection.write(seconds_ago=3600)

    def fail(since: str) -> dict[str, Content]:
        raise OSError(since)

    for _ in range(2):
        try:
            known.update(fail)
        except OSError as error:
            assert error.args == ("",)
    assert list(known.update(collection.read)) == [first]
