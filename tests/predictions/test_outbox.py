"""The outbox: what waits, what is due, and why."""

import dataclasses
import time

import pytest
from support.log_rows import (
    LATER,
    outgoing,
    record,
    ship,
)

from fashion.predictions.log import PredictionLog
from fashion.predictions.outbox import Backlog
from fashion.predictions.record import (
    Feedback,
)


def test_the_outbox_returns_due_rows_in_order(log: PredictionLog) -> None:
    rows = [record() for _ in range(4)]
    before = time.time_ns() // 1000
    log.append(rows)
    waiting = log.outbox.due(3, 0)
    assert [each.item for each in waiting] == rows[:3]
    assert all(before - 2000 <= each.queued_us <= time.time_ns() // 1000 + 2000 for each in waiting)
    log.outbox.settle(shipped=[waiting[0].sequence], deferred=[(waiting[1].sequence, 1000)])
    assert [each.item for each in log.outbox.due(9, 999)] == rows[2:]
    assert [each.item for each in log.outbox.due(9, 1000)] == rows[1:]


def test_the_backlog_has_counts_age_and_reasons(log: PredictionLog) -> None:
    rows = [record() for _ in range(4)]
    log.outbox.ship_to(None)
    log.append(rows)
    assert log.outbox.backlog() == Backlog(None, 0, 0.0, 0, (), None)  # it ships nowhere
    log.outbox.ship_to("firestore://p")
    queued = log.outbox.due(1, LATER)[0].queued_us
    found = log.outbox.backlog(clock=lambda: (queued + 5_000_000) * 1000)
    assert (found.destination, found.rows, found.refused, found.reasons) == ("firestore://p", 4, 0, ())
    assert found.age_s == pytest.approx(5)
    sequences = [each.sequence for each in log.outbox.due(9, LATER)]
    log.outbox.settle(refused=[(sequences[0], "too large"), (sequences[1], "too large"), (sequences[2], "odd")])
    log.outbox.report("no route to host")
    with PredictionLog(log.path) as other:  # what one process knows, all know
        found = other.outbox.backlog()
    assert (found.rows, found.refused, found.reasons) == (1, 3, ("odd", "too large"))
    assert found.problem == "no route to host"
    log.outbox.report(None)
    log.outbox.settle([sequences[3]])
    assert log.outbox.backlog() == Backlog("firestore://p", 0, 0.0, 3, ("odd", "too large"), None)
    assert log.outbox.retry_refused() == 3
    assert outgoing(log) == rows[:3]
    log.outbox.ship_to(None)
    assert log.outbox.backlog().destination is None


def test_a_new_destination_is_sent_all_rows_from_the_start(log: PredictionLog) -> None:
    log.outbox.ship_to(None)
    rows = [record(time_us=each) for each in (2, 1)]
    log.append(rows)
    said_so = Feedback(rows[0].prediction_id, 1, "page", 3)
    log.append_feedback([said_so])
    assert outgoing(log) == []
    log.outbox.ship_to("firestore://p")
    assert outgoing(log) == [rows[1], rows[0], said_so]
    ship(log)
    with PredictionLog(log.path) as other:  # a worker that starts later
        other.outbox.ship_to("firestore://p")
    assert outgoing(log) == []
    log.outbox.ship_to("firestore://q")
    assert outgoing(log) == [rows[1], rows[0], said_so]


def test_a_prediction_is_shipped_once_no_row_of_it_waits(log: PredictionLog) -> None:
    first, second = record(), record()
    log.append([first, second])
    log.append_feedback([Feedback(second.prediction_id, 1, "page", 1)])
    sequences = [each.sequence for each in log.outbox.due(9, LATER)]
    log.outbox.settle(sequences[:2])
    assert log.outbox.is_shipped([first.prediction_id])
    assert not log.outbox.is_shipped([first.prediction_id, second.prediction_id])
    log.outbox.settle(refused=[(sequences[2], "odd")])
    assert not log.outbox.is_shipped([second.prediction_id])
    assert not log.outbox.is_refused(second.prediction_id)  # its feedback was, and not itself


def test_a_refused_shadow_leaves_the_champion_alone(log: PredictionLog) -> None:
    champion = record()
    log.append([champion, dataclasses.replace(champion, role="shadow")])
    sequences = [each.sequence for each in log.outbox.due(9, LATER)]
    log.outbox.settle(refused=[(sequences[1], "too large")])
    assert not log.outbox.is_refused(champion.prediction_id)
    log.outbox.settle(refused=[(sequences[0], "too large")])
    assert log.outbox.is_refused(champion.prediction_id)
