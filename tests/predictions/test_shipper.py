"""The shipper: everything acknowledged is stored once, through kills, outages and refused rows.

Every test runs on Firestore and on PostgreSQL.
"""

import dataclasses
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from support import proxy
from support.log_rows import LATER, at, outcomes, outgoing, python, record, stored, until
from support.shared_logs import Backend

from fashion.predictions.log import PredictionLog
from fashion.predictions.record import Feedback, LoggedPrediction, new_prediction_id
from fashion.predictions.shared_log import SharedLog, SharedLogUnavailable
from fashion.predictions.shipper import Shipper

# Shipping


def test_a_shipper_empties_the_outbox_in_the_background(plain_log: PredictionLog, remote: SharedLog) -> None:
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


def test_feedback_waits_while_its_prediction_is_in_the_same_batch(plain_log: PredictionLog, remote: SharedLog) -> None:
    shipper, row = Shipper(log, remote), record()
    log.append([row])
    log.append_feedback([Feedback(row.prediction_id, label, "page", label) for label in (1, 2)])
    assert shipper.ship() == 1
    assert shipper.ship() == 2
    assert stored(remote) == [log.get(row.prediction_id)]


def test_large_documents_are_spread_over_requests(plain_log: PredictionLog, remote: SharedLog) -> None:
    shipper = Shipper(log, remote)
    log.append([record(embedding=(0.5,) * 450_000, time_us=i) for i in range(7)])
    assert [shipper.ship() for _ in range(4)] == [3, 3, 1, 0]
    assert stored(remote) == list(log.window(0, LATER))


def test_a_refused_row_is_reported_and_does_not_block_others(
    plain_log: PredictionLog, remote: SharedLog, caplog: pytest.LogCaptureFixture
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
    plain_log: PredictionLog, remote: SharedLog, monkeypatch: pytest.MonkeyPatch
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
    plain_log: PredictionLog, remote: SharedLog, shaky: SharedLog, wire: proxy.Proxy
) -> None:
    wire.cut()
    shipper, sent = Shipper(log, shaky), [record(time_us=i) for i in range(5)]
    log.append(sent)
    with pytest.raises(SharedLogUnavailable):
        shipper.ship()
    assert log.prune(1, clock=at(100)) == 0
    wire.resume()
    assert shipper.drain(10).rows == 0
    assert log.prune(1, clock=at(100)) == 5
    assert [each.record for each in stored(remote)] == sent


def test_a_dead_server_is_reported_and_writers_do_not_notice(
    plain_log: PredictionLog, remote: SharedLog, shaky: SharedLog, wire: proxy.Proxy, caplog: pytest.LogCaptureFixture
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
    plain_log: PredictionLog, remote: SharedLog, monkeypatch: pytest.MonkeyPatch
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
    plain_log: PredictionLog, remote: SharedLog, shaky: SharedLog, wire: proxy.Proxy
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
    plain_log: PredictionLog, remote: SharedLog, wire: proxy.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", wire.address)
    patient = SharedLog(remote.project, timeout_s=60)
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
    from fashion.predictions.firestore import SharedLog
    from fashion.predictions.shipper import Shipper
    shipper = Shipper(PredictionLog(sys.argv[1]), SharedLog(sys.argv[2]))
    while not shipper.acquire():
        time.sleep(0.01)
    print("alone", flush=True)
    if len(sys.argv) > 3:
        time.sleep(float(sys.argv[3]))
        shipper.run()
    time.sleep(60)
"""


def test_a_machine_has_one_shipper_and_another_takes_over_when_it_is_killed(
    plain_log: PredictionLog, remote: SharedLog
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


def test_draining_waits_for_the_machines_shipper(plain_log: PredictionLog, remote: SharedLog) -> None:
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
    from fashion.predictions.firestore import SharedLog
    from fashion.predictions.shipper import Shipper
    path, project, count, poisoned = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    log = PredictionLog(path)
    shipper = Shipper(log, SharedLog(project, timeout_s=1.5), longest_pause_s=0.5)
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
    plain_log: PredictionLog, remote: SharedLog, wire: proxy.Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
