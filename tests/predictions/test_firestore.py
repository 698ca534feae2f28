"""Firestore and the shipper: everything acknowledged is stored once, through kills, outages and rejected documents."""

import contextlib
import dataclasses
import re
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import proxy
from support.log_rows import LATER, at, bits, mixed, outgoing, output_of, python, record, records, requests, tags

from fashion.predictions.firestore import FirestoreLog, FirestoreUnavailable, Outcome
from fashion.predictions.log import PredictionLog
from fashion.predictions.outbox import Outgoing
from fashion.predictions.record import (
    Feedback,
    LoggedPrediction,
    PredictionRecord,
    UnknownPrediction,
    new_prediction_id,
)
from fashion.predictions.shipper import Shipper

TOO_LARGE = (0.5,) * 600_000
"""An embedding with which a document is more than Firestore takes."""


@pytest.fixture
def wire(emulator: str) -> Iterator[proxy.Proxy]:
    """A proxy between the client and the emulator."""
    with proxy.between(emulator) as wire:
        yield wire


@pytest.fixture
def project() -> str:
    """A project that no other test uses."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def remote(emulator: str, project: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FirestoreLog]:
    """A client that is connected to the emulator directly."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", emulator)
    with contextlib.closing(FirestoreLog(project)) as remote:
        list(remote.read_window(0, LATER))  # connects, before a test has the environment name another address
        yield remote


@pytest.fixture
def shaky(
    remote: FirestoreLog, wire: proxy.Proxy, project: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FirestoreLog]:
    """A client of the same project, connected through the proxy."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", wire.address)
    with contextlib.closing(FirestoreLog(project, timeout_s=1.0)) as shaky:
        yield shaky


@pytest.fixture
def log(tmp_path: Path) -> Iterator[PredictionLog]:
    with PredictionLog(tmp_path / "log.db") as log:
        yield log


def rows(*items: PredictionRecord | Feedback) -> list[Outgoing]:
    """Items as rows of the outbox."""
    return [Outgoing(i, 0, item) for i, item in enumerate(items)]


def outcomes(remote: FirestoreLog, *items: PredictionRecord | Feedback) -> list[Outcome]:
    """Send items and return their outcomes, in the same order."""
    deliveries = sorted(remote.send(rows(*items)), key=lambda each: each.row.sequence)
    assert [each.row.item for each in deliveries] == list(items)
    return [each.outcome for each in deliveries]


def stored(remote: FirestoreLog) -> list[LoggedPrediction]:
    """Every prediction that is stored."""
    return list(remote.read_window(0, LATER, page_rows=1000))


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


# Sending


@settings(max_examples=10, deadline=None)
@given(sent=st.lists(records(), max_size=6), said=st.lists(st.tuples(st.integers(0, 9), tags, st.integers(0, 10**15))))
def test_predictions_come_back_bit_for_bit(
    emulator: str, sent: list[PredictionRecord], said: list[tuple[int, str, int]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRESTORE_EMULATOR_HOST", emulator)
        with contextlib.closing(FirestoreLog(f"test-{uuid.uuid4().hex[:12]}")) as remote:
            assert outcomes(remote, *sent) == [Outcome.SHIPPED] * len(sent)
            champions = [row for row in sent if row.role == "champion"]
            for row in champions:
                assert bits(remote.get(row.prediction_id).record) == bits(row)
            found = {(each.record.prediction_id, each.record.role): each.record for each in stored(remote)}
            assert len(found) == len(sent)
            assert all(bits(found[row.prediction_id, row.role]) == bits(row) for row in sent)
            if champions:
                given = [Feedback(champions[0].prediction_id, *each) for each in said]
                assert outcomes(remote, *given) == [Outcome.SHIPPED] * len(given)
                kept = remote.get(champions[0].prediction_id).feedback
                assert set(kept) == set(given)
                assert [each.time_us for each in kept] == sorted(each.time_us for each in set(given))


def test_a_prediction_sent_twice_is_stored_once(remote: FirestoreLog) -> None:
    first, second = record(time_us=1), record(time_us=2)
    once = Feedback(first.prediction_id, 3, "page", 5)
    assert outcomes(remote, first) == [Outcome.SHIPPED]
    assert outcomes(remote, once, once) == [Outcome.SHIPPED] * 2
    assert outcomes(remote, first, second) == [Outcome.SHIPPED] * 2  # and the feedback is not overwritten
    assert outcomes(remote, once) == [Outcome.SHIPPED]
    assert stored(remote) == [LoggedPrediction(first, (once,)), LoggedPrediction(second)]


def test_the_latest_feedback_counts_whenever_it_comes(remote: FirestoreLog) -> None:
    row = record()
    given = [Feedback(row.prediction_id, label, "page", at) for label, at in [(3, 200), (7, 300), (5, 100)]]
    outcomes(remote, row)
    for each in given:
        assert outcomes(remote, each) == [Outcome.SHIPPED]
    found = remote.get(row.prediction_id)
    assert found.feedback == (given[2], given[0], given[1])
    assert found.true_label == 7


def test_feedback_before_its_prediction_is_an_orphan_and_makes_no_document(remote: FirestoreLog) -> None:
    assert outcomes(remote, Feedback(new_prediction_id(), 1, "page", 1)) == [Outcome.ORPHAN]
    assert stored(remote) == []


def test_documents_expire_after_the_configured_days(emulator: str, remote: FirestoreLog, project: str) -> None:
    from google.cloud.firestore import Client

    keeps = contextlib.closing(FirestoreLog(project, expire_days=1.5, collection="brief"))
    row = record(time_us=1_000_000)
    with keeps as brief:
        outcomes(brief, row)
        assert brief.get(row.prediction_id).record == row
    document = Client(project).collection("brief").document(row.prediction_id).get().to_dict()
    assert document["expire_at"].timestamp() == 1 + 1.5 * 86_400


def test_a_document_that_is_too_large_is_refused_and_the_others_are_stored(remote: FirestoreLog) -> None:
    good = [record(time_us=i) for i in range(9)]
    large, huge = record(embedding=TOO_LARGE), record(embedding=10 * TOO_LARGE)  # more than a request may have
    odd = Feedback("a/b", 1, "page", 1)
    sent = [*good[:3], large, *good[3:6], odd, huge, *good[6:]]
    found = dict(zip(sent, outcomes(remote, *sent), strict=True))
    assert [found[row] for row in good] == [Outcome.SHIPPED] * 9
    assert [found[item] for item in (large, huge, odd)] == [Outcome.REFUSED] * 3
    assert [each.record for each in stored(remote)] == good
    reasons = {answer.row.item: answer.reason for answer in remote.send(rows(large, odd))}
    assert "longer than 1048487 bytes" in reasons[large]
    assert "cannot be a document" in reasons[odd]


# Reading


@settings(max_examples=10, deadline=None)
@given(
    sent=st.lists(requests, max_size=15).map(mixed),
    span=st.tuples(st.integers(-1, 6), st.integers(0, 6) | st.just(2**62)),
    model_version=st.sampled_from([None, "1", "2"]),
    page_rows=st.integers(1, 6),
)
def test_windows_are_complete_and_in_order_for_any_page_size(
    emulator: str, sent: list[PredictionRecord], span: tuple[int, int], model_version: str | None, page_rows: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRESTORE_EMULATOR_HOST", emulator)
        with contextlib.closing(FirestoreLog(f"test-{uuid.uuid4().hex[:12]}")) as remote:
            outcomes(remote, *sent)
            found = list(remote.read_window(*span, model_version=model_version, page_rows=page_rows))
    wanted = [row for row in sent if span[0] <= row.time_us < span[1] and model_version in (None, row.model_version)]
    assert [each.record for each in found] == sorted(wanted, key=lambda r: (r.time_us, r.prediction_id, r.role))


@pytest.mark.parametrize("wrong", ["", "7", "a/b", ".", "..", "__x__", "\ud800", "x" * 10_000])
def test_a_malformed_id_is_an_unknown_prediction(wrong: str, remote: FirestoreLog) -> None:
    with pytest.raises(UnknownPrediction, match="no prediction '"):
        remote.get(wrong)


def test_a_missing_prediction_is_unknown(remote: FirestoreLog) -> None:
    unknown = new_prediction_id()
    with pytest.raises(UnknownPrediction, match=f"no prediction {unknown} at {re.escape(remote.address)}"):
        remote.get(unknown)


@pytest.mark.parametrize(
    "changed",
    [{"label": "1"}, {"embedding": b"odd"}, {"embedding": None}, {"statistics": {}}, {"feedback": 3}, {"role": ""}],
)
def test_a_document_that_is_not_a_prediction_is_named(
    changed: dict[str, Any], remote: FirestoreLog, project: str
) -> None:
    from google.cloud.firestore import Client

    row = record()
    outcomes(remote, row)
    Client(project).collection("predictions").document(row.prediction_id).update(changed)
    for read in (lambda: remote.get(row.prediction_id), lambda: stored(remote)):
        with pytest.raises(ValueError, match=f"document {row.prediction_id} is not a prediction: "):
            read()


def test_reading_survives_a_short_break(remote: FirestoreLog, shaky: FirestoreLog, wire: proxy.Proxy) -> None:
    sent = [record(time_us=i // 3) for i in range(20)]
    outcomes(remote, *sent)
    reading = shaky.read_window(0, LATER, page_rows=6)
    found = [next(reading) for _ in range(6)]
    wire.cut()
    threading.Timer(0.3, wire.resume).start()
    found += reading
    assert found == stored(remote)


# A server that is not there


def test_a_dead_server_is_named_at_once_and_found_again(
    remote: FirestoreLog, shaky: FirestoreLog, wire: proxy.Proxy
) -> None:
    row = record()
    for _ in range(2):  # from the start, and after it was there
        wire.cut()
        start = time.monotonic()
        for use in (lambda: shaky.send(rows(row)), lambda: shaky.get(row.prediction_id), lambda: stored(shaky)):
            with pytest.raises(FirestoreUnavailable, match=re.escape(f"{shaky.address} cannot be used: ")):
                use()
        assert time.monotonic() - start < 5
        wire.resume()
        assert outcomes(shaky, row) == [Outcome.SHIPPED]
    assert [each.record for each in stored(remote)] == [row]


def test_a_hanging_server_is_given_up_after_the_timeout(shaky: FirestoreLog, wire: proxy.Proxy) -> None:
    row = record()
    outcomes(shaky, row)
    wire.stall()
    for use, seconds in (
        (lambda: shaky.send(rows(row)), 1.0),
        (lambda: shaky.send(rows(row), timeout_s=0.3), 0.3),
        (lambda: shaky.get(row.prediction_id), 1.0),
    ):
        start = time.monotonic()
        with pytest.raises(FirestoreUnavailable, match=re.escape(shaky.address)):
            use()
        assert 0.8 * seconds < time.monotonic() - start < seconds + 1
    wire.cut()
    wire.resume()
    assert shaky.get(row.prediction_id).record == row


def test_a_lost_response_stores_nothing_twice(remote: FirestoreLog, shaky: FirestoreLog, wire: proxy.Proxy) -> None:
    first, second = record(time_us=1), record(time_us=2)
    once = Feedback(first.prediction_id, 3, "page", 5)
    outcomes(shaky, first)
    wire.swallow_answers()
    with pytest.raises(FirestoreUnavailable):
        shaky.send(rows(once, second))
    until(lambda: len(stored(remote)) == 2)  # it did arrive
    wire.cut()
    wire.resume()
    assert outcomes(shaky, once, second) == [Outcome.SHIPPED] * 2
    assert stored(remote) == [LoggedPrediction(first, (once,)), LoggedPrediction(second)]


def test_closing_ends_a_request_that_hangs(emulator: str, remote: FirestoreLog, wire: proxy.Proxy) -> None:
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setenv("FIRESTORE_EMULATOR_HOST", wire.address)
        patient = FirestoreLog(remote.project, timeout_s=20)
        outcomes(patient, record())
        wire.stall()
        start = time.monotonic()
        hanging = [pool.submit(patient.send, rows(record())), pool.submit(stored, patient)]
        time.sleep(0.3)
        patient.close()
        with pytest.raises(FirestoreUnavailable, match=re.escape(patient.address)):
            hanging[0].result()
        assert time.monotonic() - start < 5
        wire.cut()
        wire.resume()
        assert len(hanging[1].result()) == 1
        patient.close()


def test_threads_may_share_it_while_its_server_comes_and_goes(shaky: FirestoreLog, wire: proxy.Proxy) -> None:
    row, stop = record(), threading.Event()
    outcomes(shaky, row)

    def read() -> int:
        read = 0
        while not stop.is_set():
            with contextlib.suppress(FirestoreUnavailable):
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


def without_google(script: str, home: Path) -> subprocess.Popen[str]:
    away = ("FIRESTORE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT", "GOOGLE_APPLICATION_CREDENTIALS")
    with pytest.MonkeyPatch.context() as patch:
        for name in away:
            patch.delenv(name, raising=False)
        for name, value in {"HOME": str(home), "CLOUDSDK_CONFIG": str(home), "NO_GCE_CHECK": "true"}.items():
            patch.setenv(name, value)
        return python(script)


def test_missing_credentials_name_the_remedy(tmp_path: Path) -> None:
    script = """
        from fashion.predictions.firestore import FirestoreLog, FirestoreUnavailable
        try:
            FirestoreLog("nobodys").get("01a210f9-adec-7a93-8180-2b2d71881f13")
        except FirestoreUnavailable as error:
            print(error)
    """
    output = output_of(without_google(script, tmp_path))
    assert "firestore://nobodys/(default)/predictions cannot be used without Google credentials" in output
    assert "gcloud auth application-default login" in output


def test_a_missing_package_names_the_extra(tmp_path: Path) -> None:
    script = """
        import sys
        sys.modules["google.cloud"] = sys.modules["google.cloud.firestore"] = None
        from fashion.predictions.firestore import FirestoreLog, FirestoreUnavailable
        try:
            FirestoreLog("p")
        except FirestoreUnavailable as error:
            print(error)
    """
    assert "install the extra `fashion[gcp]`" in output_of(without_google(script, tmp_path))


def test_google_libraries_are_imported_on_first_use(tmp_path: Path) -> None:
    script = """
        import sys
        from fashion.predictions.firestore import FirestoreLog
        FirestoreLog("p").close()
        print([name for name in ("grpc", "google.cloud.firestore", "google.api_core") if name in sys.modules])
    """
    assert output_of(without_google(script, tmp_path)) == "[]\n"


# Shipping


def test_a_shipper_empties_the_outbox_in_the_background(log: PredictionLog, remote: FirestoreLog) -> None:
    shipper = Shipper(log, remote)
    shipper.start()
    sent = [record(time_us=i) for i in range(450)]
    log.append(sent[:300])
    for row in sent[300:]:
        log.append([row])
    log.append_feedback([Feedback(row.prediction_id, 3, "page", 7) for row in sent[::50]])
    shipper.wake()
    until(lambda: log.outbox.backlog().rows == 0)
    assert log.outbox.backlog() == dataclasses.replace(
        log.outbox.backlog(), destination=remote.address, refused=0, problem=None
    )
    assert log.outbox.is_shipped([row.prediction_id for row in sent])
    assert stored(remote) == list(log.window(0, LATER))
    assert shipper.drain(5).rows == 0


def test_feedback_waits_while_its_prediction_is_in_the_same_batch(log: PredictionLog, remote: FirestoreLog) -> None:
    shipper, row = Shipper(log, remote), record()
    log.append([row])
    log.append_feedback([Feedback(row.prediction_id, label, "page", label) for label in (1, 2)])
    assert shipper.ship() == 1
    assert shipper.ship() == 2
    assert stored(remote) == [log.get(row.prediction_id)]


def test_large_documents_are_spread_over_requests(log: PredictionLog, remote: FirestoreLog) -> None:
    shipper = Shipper(log, remote)
    log.append([record(embedding=(0.5,) * 450_000, time_us=i) for i in range(7)])
    assert [shipper.ship() for _ in range(4)] == [3, 3, 1, 0]
    assert stored(remote) == list(log.window(0, LATER))


def test_a_refused_row_is_reported_and_does_not_block_others(
    log: PredictionLog, remote: FirestoreLog, caplog: pytest.LogCaptureFixture
) -> None:
    shipper = Shipper(log, remote)
    good, poison = [record(time_us=i) for i in range(20)], record(embedding=TOO_LARGE, time_us=30)
    log.append([*good[:10], poison, *good[10:]])
    log.append_feedback([Feedback(poison.prediction_id, 1, "page", 1), Feedback(good[0].prediction_id, 1, "page", 1)])
    left = shipper.drain(10)
    assert (left.rows, left.refused) == (0, 2)
    assert left.reasons[0] == "its prediction was refused"
    assert "longer than 1048487 bytes" in left.reasons[1]
    assert f"prediction {poison.prediction_id} cannot be shipped: " in caplog.text
    assert [each.record for each in stored(remote)] == good
    assert log.outbox.is_refused(poison.prediction_id)
    assert log.prune(0) == 20  # what was refused is kept
    assert log.get(poison.prediction_id).true_label == 1
    assert log.outbox.retry_refused() == 2
    assert shipper.drain(10).refused == 2  # the cause is not fixed


def test_feedback_waits_for_another_machines_prediction_and_not_for_ever(
    log: PredictionLog, remote: FirestoreLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipper, elsewhere = Shipper(log, remote), record()
    late = Feedback(elsewhere.prediction_id, 1, "page", 1)
    never = Feedback(new_prediction_id(), 1, "page", 1)
    log.append_feedback([late, never], known_elsewhere=True)
    assert shipper.ship() == 0
    assert shipper.ship() == 0  # both are put off
    assert log.outbox.backlog().rows == 2
    outcomes(remote, elsewhere)
    assert shipper.ship(all_due=True) == 1
    assert stored(remote) == [LoggedPrediction(elsewhere, (late,))]
    monkeypatch.setattr("fashion.predictions.shipper.PARENT_SECONDS", 0.001)
    assert shipper.ship(all_due=True) == 1
    assert log.outbox.backlog().reasons == ("its prediction is not there after 0 h",)


def test_a_log_keeps_what_its_shipper_could_not_ship(
    log: PredictionLog, remote: FirestoreLog, shaky: FirestoreLog, wire: proxy.Proxy
) -> None:
    wire.cut()
    shipper, sent = Shipper(log, shaky), [record(time_us=i) for i in range(5)]
    log.append(sent)
    with pytest.raises(FirestoreUnavailable):
        shipper.ship()
    assert log.prune(1, clock=at(100)) == 0
    wire.resume()
    assert shipper.drain(10).rows == 0
    assert log.prune(1, clock=at(100)) == 5
    assert [each.record for each in stored(remote)] == sent


def test_a_dead_server_is_reported_and_writers_do_not_notice(
    log: PredictionLog, remote: FirestoreLog, shaky: FirestoreLog, wire: proxy.Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    wire.cut()
    shipper = Shipper(log, shaky, longest_pause_s=0.2)
    shipper.start()
    sent = [record(time_us=i) for i in range(100)]
    start = time.monotonic()
    for row in sent:
        log.append([row])
    assert time.monotonic() - start < 5
    until(lambda: log.outbox.backlog().problem is not None)
    found = log.outbox.backlog()
    assert found.rows == 100
    assert found.problem is not None
    assert found.problem.startswith(f"{shaky.address} cannot be used: ")
    time.sleep(0.5)
    assert caplog.text.count(f"predictions stay in {log.path} until then") == 1  # and not for each attempt
    wire.resume()
    until(lambda: log.outbox.backlog().rows == 0)
    until(lambda: log.outbox.backlog().problem is None)
    assert [each.record for each in stored(remote)] == sent
    shipper.drain(5)


def test_a_shipper_survives_a_log_that_is_locked(
    log: PredictionLog, remote: FirestoreLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.log_rows import locked

    shipper, row = Shipper(log, remote, longest_pause_s=0.2), record()
    log.append([row])
    monkeypatch.setattr("fashion.predictions.database.LOCKED_SECONDS", 0.1)
    with locked(log):
        shipper.start()
        until(lambda: [each.record for each in stored(remote)] == [row])  # it was sent, and that not written down
        until(lambda: shipper._failures > 0)
    until(lambda: log.outbox.backlog().rows == 0)
    assert [each.record for each in stored(remote)] == [row]
    shipper.drain(5)


# The end of a process


def test_draining_stops_at_the_deadline_and_returns_the_backlog(
    log: PredictionLog, remote: FirestoreLog, shaky: FirestoreLog, wire: proxy.Proxy
) -> None:
    wire.cut()
    shipper, sent = Shipper(log, shaky), [record(time_us=i) for i in range(300)]
    log.append(sent)
    start = time.monotonic()
    left = shipper.drain(1.5)
    assert 1.4 < time.monotonic() - start < 4
    assert left.rows == 300
    assert left.problem is not None
    assert "cannot be used" in left.problem
    wire.resume()
    left = Shipper(log, shaky).drain(10)
    assert (left.rows, left.problem) == (0, None)
    assert [each.record for each in stored(remote)] == sent


def test_draining_ends_a_request_that_hangs(
    log: PredictionLog, remote: FirestoreLog, wire: proxy.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", wire.address)
    patient = FirestoreLog(remote.project, timeout_s=60)
    shipper = Shipper(log, patient)
    first, second = record(time_us=1), record(time_us=2)
    log.append([first])
    shipper.start()
    until(lambda: log.outbox.backlog().rows == 0)
    wire.stall()
    log.append([second])
    shipper.wake()
    time.sleep(0.5)
    start = time.monotonic()
    assert shipper.drain(3).rows == 1
    assert time.monotonic() - start < 5
    assert all(thread.name != "shipper" for thread in threading.enumerate())
    wire.cut()
    wire.resume()
    assert Shipper(log, patient).drain(10).rows == 0
    assert [each.record for each in stored(remote)] == [first, second]
    patient.close()


SHIPPER = """
    import sys, time
    from fashion.predictions.log import PredictionLog
    from support.log_rows import record
    from fashion.predictions.firestore import FirestoreLog
    from fashion.predictions.shipper import Shipper
    shipper = Shipper(PredictionLog(sys.argv[1]), FirestoreLog(sys.argv[2]))
    while not shipper.acquire():
        time.sleep(0.01)
    print("alone", flush=True)
    if len(sys.argv) > 3:
        time.sleep(float(sys.argv[3]))
        shipper.run()
    time.sleep(60)
"""


def test_a_machine_has_one_shipper_and_another_takes_over_when_it_is_killed(
    log: PredictionLog, remote: FirestoreLog
) -> None:
    process = python(SHIPPER, log.path, remote.project)
    assert process.stdout is not None
    assert process.stdout.readline() == "alone\n"
    shipper, row = Shipper(log, remote), record()
    log.append([row])
    assert shipper.ship() == 0
    assert outgoing(log) == [row]
    shipper.start()
    time.sleep(0.3)
    assert outgoing(log) == [row]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until(lambda: log.outbox.backlog().rows == 0)
    assert [each.record for each in stored(remote)] == [row]
    shipper.drain(5)
    after = Shipper(log, remote)  # nobody holds it now
    log.append([record()])
    assert after.ship() == 1
    after.drain(1)


def test_draining_waits_for_the_machines_shipper(log: PredictionLog, remote: FirestoreLog) -> None:
    process = python(SHIPPER, log.path, remote.project, 0.5)
    assert process.stdout is not None
    assert process.stdout.readline() == "alone\n"
    log.append([record()])
    assert Shipper(log, remote).drain(20).rows == 0
    assert len(stored(remote)) == 1
    process.send_signal(signal.SIGKILL)
    process.communicate()


# All of it at once

WORKER = """
    import os, sys, time
    from fashion.predictions.log import PredictionLog
    from fashion.predictions.record import Feedback; from support.log_rows import record
    from fashion.predictions.firestore import FirestoreLog
    from fashion.predictions.shipper import Shipper
    path, project, count, poisoned = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    log = PredictionLog(path)
    shipper = Shipper(log, FirestoreLog(project, timeout_s=1.5), longest_pause_s=0.5)
    shipper.start()
    for i in range(count):
        row = record(time_us=i, embedding=(0.5,) * (600_000 if i == poisoned else 16))
        log.append([row])
        print("prediction", row.prediction_id, flush=True)
        if i % 10 == 0:
            log.append_feedback([Feedback(row.prediction_id, 3, "page", i)])
            print("feedback", row.prediction_id, flush=True)
        time.sleep(0.001)
    shipper.drain(30)
"""


def test_everything_acknowledged_is_stored_through_kills_and_outages(
    log: PredictionLog, remote: FirestoreLog, wire: proxy.Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", wire.address)
    wire.cut()  # the server is dead at first
    acknowledged: list[str] = []
    lines = threading.Lock()

    def listen(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith("\n"):  # a killed one may have been in the middle of a word
                with lines:
                    acknowledged.append(line.strip())

    listeners = []

    def start(count: int, poisoned: int = -1) -> subprocess.Popen[str]:
        process = python(WORKER, log.path, remote.project, count, poisoned)
        listeners.append(threading.Thread(target=listen, args=(process,)))
        listeners[-1].start()
        return process

    def heard(count: int) -> None:
        until(lambda: len(acknowledged) >= count, 60)

    def kill(process: subprocess.Popen[str]) -> None:
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()

    shipping = start(100_000)
    heard(1)  # the first is the machine's shipper
    others = [start(100_000), start(1100, 100), start(1100, 200)]
    heard(500)
    assert stored(remote) == []
    wire.resume()
    until(lambda: len(stored(remote)) > 100)
    kill(shipping)  # while it ships
    replacement = start(900)  # what the three that live acknowledge is more than 3,000
    heard(1200)
    wire.stall()  # the server hangs for longer than a request may take
    time.sleep(2)
    kill(others[0])
    wire.swallow_answers()
    wire.release()
    time.sleep(1)
    heard(2200)
    wire.swallow_answers()  # requests arrive, answers do not
    time.sleep(1.5)
    wire.cut()
    time.sleep(0.5)
    wire.resume()
    for process in (*others[1:], replacement):
        assert process.wait(90) == 0
    for each in listeners:
        each.join()
    left = Shipper(log, remote).drain(30)
    assert (left.rows, left.problem) == (0, None)

    predictions = {line.split()[1] for line in acknowledged if line.startswith("prediction ") and len(line) == 47}
    feedback = {line.split()[1] for line in acknowledged if line.startswith("feedback ")}
    refused = {each for each in predictions if log.outbox.is_refused(each)}
    documents = stored(remote)
    by_id = {each.record.prediction_id: each for each in documents}
    print(f"{len(predictions)} predictions acknowledged, {len(documents)} stored, {len(refused)} refused")
    print(f"{len(feedback)} with feedback")
    assert len(predictions) >= 3000
    assert len(by_id) == len(documents)
    assert set(by_id) >= predictions - refused
    assert {each for each in by_id if by_id[each].feedback} >= feedback - refused
    assert all(len(each.feedback) <= 1 for each in documents)
    assert len(refused) == 2  # the poison, set aside and reported; the log itself has all, and the same
    assert any("longer than 1048487 bytes" in reason for reason in left.reasons)
    kept = {each.record.prediction_id: each for each in log.window(0, LATER)}
    assert set(kept) >= predictions
    assert all(by_id[each] == kept[each] for each in by_id)
    assert set(kept) - set(by_id) == refused
