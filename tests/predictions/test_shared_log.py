"""A shared log, whichever database holds it: stored once, read in order, given up in time.

Every test runs on Firestore and on PostgreSQL.
"""

import contextlib
import dataclasses
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import proxy
from support.log_rows import (
    LATER,
    bits,
    mixed,
    outcomes,
    record,
    records,
    requests,
    rows,
    stored,
    tags,
    until,
)
from support.shared_logs import Backend

from fashion.predictions.record import (
    FOREVER_US,
    Feedback,
    KnownModel,
    LoggedPrediction,
    ModelId,
    PredictionRecord,
    UnknownPrediction,
    new_prediction_id,
)
from fashion.predictions.shared_log import Outcome, SharedLog, SharedLogUnavailable
from fashion.predictions.withdrawal import Action, Decision, Decisions


@contextlib.contextmanager
def connected(backend: Backend) -> Iterator[tuple[Backend, SharedLog]]:
    """A database and a client of it, for tests that need one for each example."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRESTORE_EMULATOR_HOST", backend.server)
        with contextlib.closing(backend.connect()) as remote:
            yield backend, remote


# Sending


def test_a_refused_row_does_not_keep_others_from_being_stored(backend: Backend, remote: SharedLog) -> None:
    good = [record(time_us=i) for i in range(9)]
    odd = Feedback("a/b", 1, "page", 1)
    fine = Feedback(good[0].prediction_id, 1, "page", 1)
    outcomes(remote, good[0])
    sent = [*good[1:3], backend.poison(), *good[3:6], odd, backend.poison(time_us=7), fine, *good[6:]]
    found = dict(zip(sent, outcomes(remote, *sent), strict=True))
    assert [found[row] for row in (*good[1:], fine)] == [Outcome.SHIPPED] * 9
    assert list(found.values()).count(Outcome.REFUSED) == 3
    assert [each.record for each in stored(remote)] == good
    assert remote.get(good[0].prediction_id).feedback == (fine,)
    reasons = {answer.row.item: answer.reason for answer in remote.send(rows(sent[2], odd))}
    assert backend.reason in reasons[sent[2]]
    assert "cannot be a " in reasons[odd]


@settings(max_examples=10, deadline=None)
@given(sent=st.lists(records(), max_size=6), said=st.lists(st.tuples(st.integers(0, 9), tags, st.integers(0, 10**15))))
def test_predictions_come_back_bit_for_bit(
    new_backend: Callable[[], Backend], sent: list[PredictionRecord], said: list[tuple[int, str, int]]
) -> None:
    with connected(new_backend()) as (backend, remote):

        def wanted(items: Sequence[PredictionRecord | Feedback]) -> list[Outcome]:
            return [Outcome.REFUSED if backend.refuses(item) else Outcome.SHIPPED for item in items]

        assert outcomes(remote, *sent) == wanted(sent)
        sent = [row for row in sent if not backend.refuses(row)]
        champions = [row for row in sent if row.role == "champion"]
        for row in champions:
            assert bits(remote.get(row.prediction_id).record) == bits(row)
        found = {(each.record.prediction_id, each.record.role): each.record for each in stored(remote)}
        assert len(found) == len(sent)
        assert all(bits(found[row.prediction_id, row.role]) == bits(row) for row in sent)
        if champions:
            given = [Feedback(champions[0].prediction_id, *each) for each in said]
            assert outcomes(remote, *given) == wanted(given)
            kept = remote.get(champions[0].prediction_id).feedback
            assert set(kept) == {each for each in given if not backend.refuses(each)}
            assert [each.time_us for each in kept] == sorted(each.time_us for each in kept)


def test_a_prediction_sent_twice_is_stored_once(remote: SharedLog) -> None:
    first, second = record(time_us=1), record(time_us=2)
    once = Feedback(first.prediction_id, 3, "page", 5)
    assert outcomes(remote, first) == [Outcome.SHIPPED]
    assert outcomes(remote, once, once) == [Outcome.SHIPPED] * 2
    assert outcomes(remote, first, second) == [Outcome.SHIPPED] * 2  # and the feedback is not overwritten
    assert outcomes(remote, once) == [Outcome.SHIPPED]
    assert stored(remote) == [LoggedPrediction(first, (once,)), LoggedPrediction(second)]


def test_the_latest_feedback_counts_whenever_it_comes(remote: SharedLog) -> None:
    row = record()
    given = [Feedback(row.prediction_id, label, "page", at) for label, at in [(3, 200), (7, 300), (5, 100)]]
    outcomes(remote, row)
    for each in given:
        assert outcomes(remote, each) == [Outcome.SHIPPED]
    found = remote.get(row.prediction_id)
    assert found.feedback == (given[2], given[0], given[1])
    assert found.true_label == 7


def test_python_and_the_database_agree_on_what_counts_and_persons_overrule_flows(remote: SharedLog) -> None:
    kept, first, second = (record(time_us=number) for number in range(3))
    said = [Feedback(each.prediction_id, 1, name, 5) for each in (kept, first, second) for name in ("ann", "bob")]
    outcomes(remote, kept, first, second)
    outcomes(remote, *said)

    def decision(action: Action, source: str | None, prediction_id: str | None = None) -> Decision:
        return Decision(action, source, prediction_id, 0, FOREVER_US, 1, "who", "why")

    decisions = [
        decision("restore", None, kept.prediction_id),
        decision("discard", "ann", first.prediction_id),
        decision("quarantine", "ann"),
        decision("quarantine", "bob"),
        decision("release", "bob"),
    ]
    remote.decide(decisions)
    assert list(remote.decisions()) == decisions
    counted = {each.feedback for each in stored(remote)}
    assert counted == {tuple(said[:2]), (said[3],), (said[5],)}
    assert {each for row in remote.labelled() for each in row.feedback} == set(Decisions(decisions).counted(said))
    assert remote.get(kept.prediction_id, timeout_s=5).feedback == tuple(said[:2])


def test_feedback_before_its_prediction_is_an_orphan_and_makes_no_document(remote: SharedLog) -> None:
    assert outcomes(remote, Feedback(new_prediction_id(), 1, "page", 1)) == [Outcome.ORPHAN]
    assert stored(remote) == []


# Reading


@settings(max_examples=10, deadline=None)
@given(
    sent=st.lists(requests, max_size=15).map(mixed),
    span=st.tuples(st.integers(-1, 6), st.integers(0, 6) | st.just(2**62)),
    page_rows=st.integers(1, 6),
)
def test_windows_are_complete_and_in_order_for_any_page_size(
    new_backend: Callable[[], Backend], sent: list[PredictionRecord], span: tuple[int, int], page_rows: int
) -> None:
    with connected(new_backend()) as (_, remote):
        outcomes(remote, *sent)
        found = list(remote.read_window(*span, page_rows=page_rows))
        newest = [row for row in sent if row.role == "champion"]
        newest.sort(key=lambda row: (row.time_us, row.prediction_id), reverse=True)
        assert [each.record for each in remote.latest(5, page_rows=page_rows)] == newest[:5]
        given = [Feedback(row.prediction_id, 1, "page", 1) for row in newest[::2]]
        outcomes(remote, *given)
        assert [each.record for each in remote.labelled(page_rows=page_rows)] == newest[::2]
        later = sum(row.time_us >= 3 for row in newest)
        assert remote.count_after(3, most=1000) == later
        assert remote.count_after(FOREVER_US, most=1000) == 0
    wanted = [row for row in sent if span[0] <= row.time_us < span[1]]
    assert [each.record for each in found] == sorted(wanted, key=lambda r: (r.time_us, r.prediction_id, r.role))


def test_no_more_is_counted_than_wanted(remote: SharedLog) -> None:
    outcomes(remote, *(record(time_us=10 + i) for i in range(9)))
    assert [remote.count_after(10, most=most) for most in (4, 9, 100)] == [4, 9, 9]


@pytest.mark.parametrize("wrong", ["", "7", "a/b", ".", "..", "__x__", "\ud800", "x" * 10_000])
def test_a_malformed_id_is_an_unknown_prediction(wrong: str, remote: SharedLog) -> None:
    with pytest.raises(UnknownPrediction, match="no prediction '"):
        remote.get(wrong)


def test_a_missing_prediction_is_unknown(remote: SharedLog) -> None:
    unknown = new_prediction_id()
    with pytest.raises(UnknownPrediction, match=f"no prediction {unknown} at {re.escape(remote.address)}"):
        remote.get(unknown)


@pytest.mark.fault("shared log away for a moment")
def test_reading_survives_a_short_break(remote: SharedLog, shaky: SharedLog, wire: proxy.Proxy) -> None:
    sent = [record(time_us=i // 3) for i in range(20)]
    outcomes(remote, *sent)
    reading = shaky.read_window(0, LATER, page_rows=6)
    found = [next(reading) for _ in range(6)]
    wire.cut()
    threading.Timer(0.3, wire.resume).start()
    found += reading
    assert found == stored(remote)


# A server that is not there


@pytest.mark.fault("dead server of the shared log")
def test_a_dead_server_is_named_at_once_and_found_again(remote: SharedLog, shaky: SharedLog, wire: proxy.Proxy) -> None:
    row = record()
    for _ in range(2):  # from the start, and after it was there
        wire.cut()
        start = time.monotonic()
        for use in (lambda: shaky.send(rows(row)), lambda: shaky.get(row.prediction_id), lambda: stored(shaky)):
            with pytest.raises(SharedLogUnavailable, match=re.escape(f"{shaky.address} cannot be used: ")):
                use()
        assert time.monotonic() - start < 5
        wire.resume()
        assert outcomes_soon(shaky, row) == [Outcome.SHIPPED]
    assert [each.record for each in stored(remote)] == [row]


def outcomes_soon(log: SharedLog, row: PredictionRecord) -> list[Outcome]:
    """Send a row, again and again for some seconds: gRPC waits a moment before it looks for a lost server."""
    until = time.monotonic() + 10
    while True:
        try:
            return list(outcomes(log, row))
        except SharedLogUnavailable:
            assert time.monotonic() < until
            time.sleep(0.1)


@pytest.mark.fault("hanging server of the shared log")
def test_a_hanging_server_is_given_up_after_the_timeout(shaky: SharedLog, wire: proxy.Proxy) -> None:
    row = record()
    outcomes(shaky, row)
    wire.stall()
    for use, seconds in (
        (lambda: shaky.send(rows(row)), 1.0),
        (lambda: shaky.send(rows(row), timeout_s=0.3), 0.3),
        (lambda: shaky.get(row.prediction_id), 1.0),
        (lambda: shaky.decisions(timeout_s=0.3), 0.3),
    ):
        start = time.monotonic()
        with pytest.raises(SharedLogUnavailable, match=re.escape(shaky.address)):
            use()
        assert 0.8 * seconds < time.monotonic() - start < seconds + 1
    wire.cut()
    wire.resume()
    assert shaky.get(row.prediction_id).record == row


@pytest.mark.fault("lost answer of the shared log")
def test_a_lost_response_stores_nothing_twice(remote: SharedLog, shaky: SharedLog, wire: proxy.Proxy) -> None:
    first, second = record(time_us=1), record(time_us=2)
    once = Feedback(first.prediction_id, 3, "page", 5)
    outcomes(shaky, first)
    wire.swallow_answers()
    with pytest.raises(SharedLogUnavailable):
        shaky.send(rows(once, second))
    until(lambda: len(stored(remote)) == 2)  # it did arrive
    wire.cut()
    wire.resume()
    assert outcomes(shaky, once, second) == [Outcome.SHIPPED] * 2
    assert stored(remote) == [LoggedPrediction(first, (once,)), LoggedPrediction(second)]


@pytest.mark.fault("hanging server while the service ends")
def test_closing_ends_a_request_that_hangs(
    backend: Backend, remote: SharedLog, wire: proxy.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", wire.address)
    patient = backend.connect(wire.address, timeout_s=20)
    outcomes(patient, record())
    wire.stall()
    start = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        hanging = [pool.submit(patient.send, rows(record())), pool.submit(stored, patient)]
        time.sleep(0.3)
        patient.close()
        with pytest.raises(SharedLogUnavailable, match=re.escape(patient.address)):
            hanging[0].result()
        assert time.monotonic() - start < 5
        wire.cut()
        wire.resume()
        assert len(hanging[1].result()) == 1
        patient.close()


@pytest.mark.fault("server that comes and goes")
def test_threads_may_share_it_while_its_server_comes_and_goes(shaky: SharedLog, wire: proxy.Proxy) -> None:
    row, stop = record(), threading.Event()
    outcomes(shaky, row)

    def read() -> int:
        read = 0
        while not stop.is_set():
            with contextlib.suppress(SharedLogUnavailable):
                assert shaky.get(row.prediction_id).record == row
                assert len(list(shaky.read_window(0, LATER))) == 1
                read += 1
        return read

    with ThreadPoolExecutor(3) as pool:
        reading = [pool.submit(read) for _ in range(3)]
        for _ in range(4):
            time.sleep(0.2)
            wire.cut()
            time.sleep(0.1)
            wire.resume()
            shaky.close()
        time.sleep(0.3)
        stop.set()
        assert all(each.result() > 0 for each in reading)


def test_a_forgotten_prediction_is_gone_and_its_picture_is_free(remote: SharedLog) -> None:
    mine, other, alone = record(), record(), record(image_sha256="f" * 64)
    outcomes(remote, mine, dataclasses.replace(mine, role="shadow"), other, alone)
    outcomes(remote, Feedback(mine.prediction_id, 1, "page", 1))
    assert remote.has_picture(mine.image_sha256, besides=mine.prediction_id)
    assert not remote.has_picture(alone.image_sha256, besides=alone.prediction_id)
    assert remote.has_picture(alone.image_sha256)
    assert remote.forget(mine.prediction_id) == 2
    assert remote.forget(mine.prediction_id) == 0
    assert {each.record for each in stored(remote)} == {other, alone}
    assert list(remote.labelled()) == []


def test_rows_without_a_name_are_given_that_of_the_version_that_they_can_only_be_of(remote: SharedLog) -> None:
    nobody = {"model_name": None, "model_digest": None, "model_version": "1"}
    mine, too_old, unknown, two_classes = (
        record(**{"time_us": 100, "probabilities": (0.25,) * 4} | nobody | changed)
        for changed in ({}, {"time_us": 9}, {"model_version": "9"}, {"probabilities": (0.5, 0.5)})
    )
    named = record(time_us=100, model_version="1", model_name="bags", probabilities=(0.25,) * 4)
    outcomes(remote, mine, too_old, unknown, two_classes, named)
    known = KnownModel(ModelId.of("shoes", 1, "f" * 64), created_us=50, num_classes=4)
    assert remote.name_rows([known]) == 1
    assert remote.get(mine.prediction_id).record.model == known.model
    assert {each.record for each in stored(remote)} >= {too_old, unknown, two_classes, named}
