"""The shipper: everything acknowledged is stored once, through kills, outages and refused rows.

Every test runs on Firestore and on PostgreSQL.
"""

import dataclasses
import signal
import subprocess
import threading
import time

import pytest
from support import proxy
from support.log_rows import LATER, at, outcomes, outgoing, python, record, stored, until
from support.shared_logs import Backend

from fashion.predictions.log import PredictionLog
from fashion.predictions.record import Feedback, LoggedPrediction, new_prediction_id
from fashion.predictions.removal import prune
from fashion.predictions.shared_log import SharedLog, SharedLogUnavailable
from fashion.predictions.shipper import Shipper

# Shipping


def test_a_shipper_empties_the_outbox_in_the_background(plain_log: PredictionLog, remote: SharedLog) -> None:
    shipper = Shipper(plain_log, remote)
    shipper.start()
    sent = [record(time_us=i) for i in range(450)]
    plain_log.append(sent[:300])
    for row in sent[300:]:
        plain_log.append([row])
    plain_log.append_feedback([Feedback(row.prediction_id, 3, "page", 7) for row in sent[::50]])
    shipper.wake()
    until(lambda: plain_log.outbox.backlog().rows == 0)
    assert plain_log.outbox.backlog() == dataclasses.replace(
        plain_log.outbox.backlog(), destination=remote.address, refused=0, problem=None
    )
    assert plain_log.outbox.is_shipped([row.prediction_id for row in sent])
    assert stored(remote) == list(plain_log.window(0, LATER))
    assert shipper.drain(5).rows == 0


def test_feedback_waits_while_its_prediction_is_in_the_same_batch(plain_log: PredictionLog, remote: SharedLog) -> None:
    shipper, row = Shipper(plain_log, remote), record()
    plain_log.append([row])
    plain_log.append_feedback([Feedback(row.prediction_id, label, "page", label) for label in (1, 2)])
    assert shipper.ship() == 1
    assert shipper.ship() == 2
    assert stored(remote) == [plain_log.get(row.prediction_id)]


def test_large_rows_are_spread_over_requests(plain_log: PredictionLog, remote: SharedLog) -> None:
    shipper = Shipper(plain_log, remote)
    plain_log.append([record(embedding=(0.5,) * 450_000, time_us=i) for i in range(7)])
    assert [shipper.ship() for _ in range(4)] == [3, 3, 1, 0]
    assert stored(remote) == list(plain_log.window(0, LATER))


def test_a_refused_row_is_reported_and_does_not_block_others(
    plain_log: PredictionLog, backend: Backend, remote: SharedLog, caplog: pytest.LogCaptureFixture
) -> None:
    shipper = Shipper(plain_log, remote)
    good, poison = [record(time_us=i) for i in range(20)], backend.poison(time_us=30)
    plain_log.append([*good[:10], poison, *good[10:]])
    plain_log.append_feedback([Feedback(each.prediction_id, 1, "page", 1) for each in (poison, good[0])])
    left = shipper.drain(10)
    assert (left.rows, left.refused) == (0, 2)
    assert left.reasons[0] == "its prediction was refused"
    assert backend.reason in left.reasons[1]
    assert f"prediction {poison.prediction_id} cannot be shipped: " in caplog.text
    assert [each.record for each in stored(remote)] == good
    assert plain_log.outbox.is_refused(poison.prediction_id)
    assert prune(plain_log, 0) == 20  # what was refused is kept
    assert plain_log.get(poison.prediction_id).true_label == 1
    assert plain_log.outbox.retry_refused() == 2
    assert shipper.drain(10).refused == 2  # the cause is not fixed


def test_feedback_waits_for_another_machines_prediction_and_not_for_ever(
    plain_log: PredictionLog, remote: SharedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipper, elsewhere = Shipper(plain_log, remote), record()
    late = Feedback(elsewhere.prediction_id, 1, "page", 1)
    never = Feedback(new_prediction_id(), 1, "page", 1)
    plain_log.append_feedback([late, never], known_elsewhere=True)
    assert shipper.ship() == 0
    assert shipper.ship() == 0  # both are put off
    assert plain_log.outbox.backlog().rows == 2
    outcomes(remote, elsewhere)
    assert shipper.ship(all_due=True) == 1
    assert stored(remote) == [LoggedPrediction(elsewhere, (late,))]
    monkeypatch.setattr("fashion.predictions.shipper.PARENT_SECONDS", 0.001)
    assert shipper.ship(all_due=True) == 1
    assert plain_log.outbox.backlog().reasons == ("its prediction is not there after 0 h",)


@pytest.mark.fault("shared log away when the service ends")
def test_a_log_keeps_what_its_shipper_could_not_ship(
    plain_log: PredictionLog, remote: SharedLog, shaky: SharedLog, wire: proxy.Proxy
) -> None:
    wire.cut()
    shipper, sent = Shipper(plain_log, shaky), [record(time_us=i) for i in range(5)]
    plain_log.append(sent)
    with pytest.raises(SharedLogUnavailable):
        shipper.ship()
    assert prune(plain_log, 1, clock=at(100)) == 0
    wire.resume()
    assert shipper.drain(10).rows == 0
    assert prune(plain_log, 1, clock=at(100)) == 5
    assert [each.record for each in stored(remote)] == sent


@pytest.mark.fault("dead server of the shared log, while writing")
def test_a_dead_server_is_reported_and_writers_do_not_notice(
    plain_log: PredictionLog, remote: SharedLog, shaky: SharedLog, wire: proxy.Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    wire.cut()
    shipper = Shipper(plain_log, shaky, longest_pause_s=0.2)
    shipper.start()
    sent = [record(time_us=i) for i in range(100)]
    start = time.monotonic()
    for row in sent:
        plain_log.append([row])
    assert time.monotonic() - start < 5
    until(lambda: plain_log.outbox.backlog().problem is not None)
    found = plain_log.outbox.backlog()
    assert found.rows == 100
    assert found.problem is not None
    assert found.problem.startswith(f"{shaky.address} cannot be used: ")
    time.sleep(0.5)
    assert caplog.text.count(f"predictions stay in {plain_log.path} until then") == 1  # and not for each attempt
    wire.resume()
    until(lambda: plain_log.outbox.backlog().rows == 0)
    until(lambda: plain_log.outbox.backlog().problem is None)
    assert [each.record for each in stored(remote)] == sent
    shipper.drain(5)


def test_a_shipper_survives_a_log_that_is_locked(
    plain_log: PredictionLog, remote: SharedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.log_rows import locked

    shipper, row = Shipper(plain_log, remote, longest_pause_s=0.2), record()
    plain_log.append([row])
    monkeypatch.setattr("fashion.predictions.database.LOCKED_SECONDS", 0.1)
    with locked(plain_log):
        shipper.start()
        until(lambda: [each.record for each in stored(remote)] == [row])  # it was sent, and that not written down
        until(lambda: shipper._failures > 0)
    until(lambda: plain_log.outbox.backlog().rows == 0)
    assert [each.record for each in stored(remote)] == [row]
    shipper.drain(5)


# The end of a process


@pytest.mark.fault("shared log away while draining")
def test_draining_stops_at_the_deadline_and_returns_the_backlog(
    plain_log: PredictionLog, remote: SharedLog, shaky: SharedLog, wire: proxy.Proxy
) -> None:
    wire.cut()
    shipper, sent = Shipper(plain_log, shaky), [record(time_us=i) for i in range(300)]
    plain_log.append(sent)
    start = time.monotonic()
    left = shipper.drain(1.5)
    assert 1.4 < time.monotonic() - start < 4
    assert left.rows == 300
    assert left.problem is not None
    assert "cannot be used" in left.problem
    wire.resume()
    left = Shipper(plain_log, shaky).drain(10)
    assert (left.rows, left.problem) == (0, None)
    assert [each.record for each in stored(remote)] == sent


@pytest.mark.fault("shared log hanging while draining")
def test_draining_ends_a_request_that_hangs(
    plain_log: PredictionLog,
    backend: Backend,
    remote: SharedLog,
    wire: proxy.Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", wire.address)
    patient = backend.connect(wire.address, timeout_s=60)
    shipper = Shipper(plain_log, patient)
    first, second = record(time_us=1), record(time_us=2)
    plain_log.append([first])
    shipper.start()
    until(lambda: plain_log.outbox.backlog().rows == 0)
    wire.stall()
    plain_log.append([second])
    shipper.wake()
    time.sleep(0.5)
    start = time.monotonic()
    assert shipper.drain(3).rows == 1
    assert time.monotonic() - start < 5
    assert all(thread.name != "shipper" for thread in threading.enumerate())
    wire.cut()
    wire.resume()
    assert Shipper(plain_log, patient).drain(10).rows == 0
    assert [each.record for each in stored(remote)] == [first, second]
    patient.close()


SHIPPER = """
    import sys, time
    from fashion.predictions.address import open_shared_log
    from fashion.predictions.log import PredictionLog
    from fashion.predictions.shipper import Shipper
    shipper = Shipper(PredictionLog(sys.argv[1]), open_shared_log(sys.argv[2]))
    while not shipper.acquire():
        time.sleep(0.01)
    print("alone", flush=True)
    if len(sys.argv) > 3:
        time.sleep(float(sys.argv[3]))
        shipper.run()
    time.sleep(60)
"""


@pytest.mark.fault("kill -9 of the shipper")
def test_a_machine_has_one_shipper_and_another_takes_over_when_it_is_killed(
    plain_log: PredictionLog, backend: Backend, remote: SharedLog
) -> None:
    process = python(SHIPPER, plain_log.path, backend.address())
    assert process.stdout is not None
    assert process.stdout.readline() == "alone\n"
    shipper, row = Shipper(plain_log, remote), record()
    plain_log.append([row])
    assert shipper.ship() == 0
    assert outgoing(plain_log) == [row]
    shipper.start()
    time.sleep(0.3)
    assert outgoing(plain_log) == [row]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until(lambda: plain_log.outbox.backlog().rows == 0)
    assert [each.record for each in stored(remote)] == [row]
    shipper.drain(5)
    after = Shipper(plain_log, remote)  # nobody holds it now
    plain_log.append([record()])
    assert after.ship() == 1
    after.drain(1)


def test_draining_waits_for_the_machines_shipper(plain_log: PredictionLog, backend: Backend, remote: SharedLog) -> None:
    process = python(SHIPPER, plain_log.path, backend.address(), 0.5)
    assert process.stdout is not None
    assert process.stdout.readline() == "alone\n"
    plain_log.append([record()])
    assert Shipper(plain_log, remote).drain(20).rows == 0
    assert len(stored(remote)) == 1
    process.send_signal(signal.SIGKILL)
    process.communicate()


# All of it at once

WORKER = """
    import sys, time
    from fashion.predictions.log import PredictionLog
    from fashion.predictions.record import Feedback
    from fashion.predictions.shipper import Shipper
    from support.log_rows import record
    from support.shared_logs import Backend
    path, kind, name, server = sys.argv[1:5]
    count, poisoned = map(int, sys.argv[5:])
    backend, log = Backend(kind, server, name), PredictionLog(path)
    shipper = Shipper(log, backend.connect(timeout_s=1.5), longest_pause_s=0.5)
    shipper.start()
    for i in range(count):
        row = backend.poison(time_us=i) if i == poisoned else record(time_us=i)
        log.append([row])
        print("prediction", row.prediction_id, flush=True)
        if i % 10 == 0:
            log.append_feedback([Feedback(row.prediction_id, 3, "page", i)])
            print("feedback", row.prediction_id, flush=True)
        time.sleep(0.001)
    shipper.drain(30)
"""


@pytest.mark.fault("kills and outages in turn")
def test_everything_acknowledged_is_stored_through_kills_and_outages(
    plain_log: PredictionLog,
    backend: Backend,
    remote: SharedLog,
    wire: proxy.Proxy,
    monkeypatch: pytest.MonkeyPatch,
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
        process = python(WORKER, plain_log.path, backend.kind, backend.name, wire.address, count, poisoned)
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
    left = Shipper(plain_log, remote).drain(30)
    assert (left.rows, left.problem) == (0, None)

    predictions = {line.split()[1] for line in acknowledged if line.startswith("prediction ") and len(line) == 47}
    feedback = {line.split()[1] for line in acknowledged if line.startswith("feedback ")}
    refused = {each for each in predictions if plain_log.outbox.is_refused(each)}
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
    assert any(backend.reason in reason for reason in left.reasons)
    kept = {each.record.prediction_id: each for each in plain_log.window(0, LATER)}
    assert set(kept) >= predictions
    assert all(by_id[each] == kept[each] for each in by_id)
    assert set(kept) - set(by_id) == refused
