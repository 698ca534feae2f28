"""When alerts are sent, how often, and what happens to those that a channel does not take."""

import json
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.alert_servers import FOUND, OTHER, SECRET, SETTINGS, MailServer, Runs, WebhookServer, status
from support.log_rows import MODEL_NAME

from fashion.config.drift import AlertsConfig
from fashion.drift import alerts
from fashion.drift.alert_channels import Console, Mail, Notice, Webhook
from fashion.drift.alerts import Alert
from fashion.drift.reports import state_of
from fashion.storage.address import open_store
from fashion.storage.blobs import Store


class Heard:
    """A channel that keeps what it is sent."""

    name = "heard"

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def send(self, notice: Notice) -> None:
        self.kinds.append(notice.kind)


# What is sent


def test_a_new_condition_is_sent(runs: Runs, webhook_server: WebhookServer) -> None:
    assert runs.notify(drift=FOUND, decline=None) == []
    assert [(each["title"], each["kind"]) for each in webhook_server.contents] == [(FOUND[0], "begun")]


def test_a_condition_is_not_repeated_within_the_cooldown(runs: Runs, webhook_server: WebhookServer) -> None:
    for hours in (0, 0, 12, 9.5):
        runs.notify(hours_later=hours, drift=FOUND)
    assert webhook_server.kinds == ["begun"]


def test_a_lasting_condition_is_repeated_after_each_cooldown(runs: Runs, webhook_server: WebhookServer) -> None:
    for hours in (0, 24, 21, 3, 0):
        runs.notify(hours_later=hours, drift=FOUND)
    assert webhook_server.kinds == ["begun", "lasts", "lasts"]
    assert webhook_server.titles[1:] == [f"Still: {FOUND[0]}"] * 2
    assert webhook_server.contents[-1]["text"].endswith("Since: 2027-01-15 08:00 UTC, 48.0 hours ago.")


@settings(deadline=None)
@given(late=st.lists(st.floats(0, 2), min_size=2, max_size=30))
def test_a_daily_timer_repeats_a_lasting_condition_daily_whatever_its_jitter(late: list[float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        channel = Heard()
        runs = Runs(open_store(folder), [channel])
        for day, hours in enumerate(late):
            runs.now = 1_800_000_000 + 3600 * (24 * day + hours)
            runs.notify(drift=FOUND)
    assert channel.kinds == ["begun"] + ["lasts"] * (len(late) - 1)


def test_what_becomes_worse_is_sent_at_once_and_what_becomes_better_is_not(
    runs: Runs, webhook_server: WebhookServer
) -> None:
    for rank in (1, 2, 1, 2, 3):
        runs.notify(hours_later=1, drift=FOUND._replace(rank=rank))
    assert webhook_server.kinds == ["begun", "worse", "worse"]
    assert webhook_server.titles[1:] == [f"Worse: {FOUND.title}"] * 2
    assert "Since: 2027-01-15 09:00 UTC, 1.0 hours ago." in webhook_server.contents[1]["text"]


def test_another_matter_is_sent_at_once_and_each_one_once_a_cooldown(runs: Runs, webhook_server: WebhookServer) -> None:
    for matter in ("disk", "network", "disk", "network", "registry"):
        runs.notify(hours_later=1, problem=Alert("Problem", matter, matter=matter))
    assert [each["text"].splitlines()[-1] for each in webhook_server.contents] == ["disk", "network", "registry"]
    runs.notify(hours_later=24, problem=Alert("Problem", "disk", matter="disk"))
    assert webhook_server.kinds == ["begun", "begun", "begun", "lasts"]


def test_an_event_is_sent_once(runs: Runs, webhook_server: WebhookServer) -> None:
    runs.run({}, events=[OTHER])
    runs.run({})
    assert [(each["title"], each["kind"]) for each in webhook_server.contents] == [(OTHER.title, "event")]


# Versions


def test_each_version_has_conditions_of_its_own(runs: Runs, webhook_server: WebhookServer) -> None:
    runs.run({"drift:1": FOUND}, present=["1"])
    runs.run({"drift:1": FOUND, "drift:2": OTHER}, present=["1", "2"], hours_later=1)
    runs.run({"drift:1": None, "drift:2": OTHER}, present=["1", "2"], hours_later=1)
    assert webhook_server.titles == [FOUND.title, OTHER.title, f"Over: {FOUND.title}"]


def test_a_version_with_too_few_rows_ends_nothing_and_one_that_answers_no_more_does(
    runs: Runs, webhook_server: WebhookServer
) -> None:
    runs.run({"drift:1": FOUND}, present=["1"])
    runs.run({}, present=["2"])  # which was not tested yet
    runs.run({"drift:2": None}, present=["1", "2"])  # 1 has too few rows
    assert webhook_server.kinds == ["begun"]
    runs.run({"drift:2": None}, present=["2"], hours_later=1)
    assert webhook_server.titles[1:] == [f"Over: {FOUND.title}"]
    assert webhook_server.contents[-1]["text"].endswith("Version 1 answers no more. It lasted 1.0 hours.")


def test_a_condition_of_an_earlier_release_goes_on_as_that_of_a_version(
    runs: Runs, webhook_server: WebhookServer
) -> None:
    runs.notify(drift=FOUND)
    runs.run({"drift:3": FOUND}, present=["3"], hours_later=1)
    runs.run({"drift:3": None}, present=["3"], hours_later=1)
    assert webhook_server.kinds == ["begun", "over"]


def test_a_condition_of_a_version_whose_digest_was_not_stored_goes_on(
    runs: Runs, webhook_server: WebhookServer
) -> None:
    runs.run({"drift:3": FOUND}, present=["3"])
    runs.run({"drift:4:4d": None}, present=["3:0a1b2c3d", "4:4d"], hours_later=1)  # 3 has too few rows
    runs.run({"drift:3:0a1b2c3d": FOUND}, present=["3:0a1b2c3d"], hours_later=1)
    runs.run({"drift:3:0a1b2c3d": None}, present=["3:0a1b2c3d"], hours_later=1)
    assert webhook_server.kinds == ["begun", "over"]


@pytest.mark.fault("a registry was lost, and version numbers began anew")
def test_an_open_alert_on_the_former_version_of_a_number_silences_none_on_the_new_one(
    runs: Runs, webhook_server: WebhookServer
) -> None:
    before, after = (alerts.version_key("2", digest * 8) for digest in ("0a1b2c3d", "4e5f6a7b"))
    runs.run({alerts.key("drift", before): FOUND}, present=[before])
    runs.run({alerts.key("drift", after): OTHER}, present=[after], hours_later=1)
    assert webhook_server.titles == [FOUND.title, OTHER.title, f"Over: {FOUND.title}"]
    assert "Version 2 (0a1b2c3d) answers no more" in webhook_server.contents[-1]["text"]


def test_without_a_cooldown_each_run_sends(store: Store, webhook_server: WebhookServer) -> None:
    settings = AlertsConfig(on=("drift",), cooldown_hours=0, attempts=1, timeout_s=5)
    runs = Runs(store, [Webhook(webhook_server.url, timeout_s=5)], settings)
    for _ in range(3):
        runs.notify(drift=FOUND)
    assert webhook_server.kinds == ["begun", "lasts", "lasts"]


def test_the_end_is_sent_once_with_the_duration(runs: Runs, webhook_server: WebhookServer) -> None:
    runs.notify(drift=FOUND)
    runs.notify(hours_later=30, drift=FOUND)
    runs.notify(hours_later=1.5, drift=None)
    runs.notify(drift=None)
    assert webhook_server.kinds == ["begun", "lasts", "over"]
    assert webhook_server.titles[-1] == f"Over: {FOUND[0]}"
    assert "It lasted 31.5 hours." in webhook_server.contents[-1]["text"]


def test_a_condition_that_never_held_does_not_end(runs: Runs, webhook_server: WebhookServer) -> None:
    runs.notify(drift=None)
    assert webhook_server.contents == []


def test_a_condition_that_returns_within_the_cooldown_is_new(runs: Runs, webhook_server: WebhookServer) -> None:
    for found in (FOUND, None, FOUND):
        runs.notify(hours_later=1, drift=found)
    assert webhook_server.kinds == ["begun", "over", "begun"]


def test_a_condition_that_was_not_tested_stays_open(runs: Runs, webhook_server: WebhookServer) -> None:
    runs.notify(drift=FOUND)
    runs.notify(hours_later=1, decline=None)
    runs.notify(hours_later=1, drift=FOUND)
    runs.notify(hours_later=1)
    assert webhook_server.kinds == ["begun"]
    runs.notify(hours_later=1, drift=None)
    assert "It lasted 4.0 hours." in webhook_server.contents[-1]["text"]


def test_each_condition_has_a_cooldown_of_its_own(runs: Runs, webhook_server: WebhookServer) -> None:
    runs.notify(drift=FOUND)
    runs.notify(hours_later=20, drift=FOUND, decline=OTHER)
    runs.notify(hours_later=20, drift=None, decline=OTHER)
    assert webhook_server.titles == [FOUND[0], OTHER[0], f"Over: {FOUND[0]}"]


def test_a_clock_that_was_set_back_does_not_silence_alerts(runs: Runs, webhook_server: WebhookServer) -> None:
    runs.notify(drift=FOUND)
    runs.notify(hours_later=-1000, drift=FOUND)
    runs.notify(hours_later=1, drift=FOUND)
    assert webhook_server.kinds == ["begun", "lasts"]
    runs.notify(hours_later=1, drift=None)
    assert "It lasted 0.0 hours." in webhook_server.contents[-1]["text"]


def test_a_channel_is_tried_a_few_times_with_growing_pauses(runs: Runs, webhook_server: WebhookServer) -> None:
    webhook_server.answer = status(503)
    runs.settings = AlertsConfig(on=("drift",), cooldown_hours=24, attempts=8, timeout_s=5)
    runs.notify(drift=FOUND)
    assert len(webhook_server.requests) == 8
    assert runs.pauses == [1, 2, 4, 8, 16, 30, 30]


def test_a_delivered_alert_costs_no_pause(runs: Runs, webhook_server: WebhookServer) -> None:
    runs.notify(drift=FOUND, decline=OTHER)
    assert (len(webhook_server.requests), runs.pauses) == (2, [])


def test_a_failed_channel_is_not_tried_again_in_the_same_run(runs: Runs, webhook_server: WebhookServer) -> None:
    webhook_server.answer = status(503)
    assert len(runs.notify(drift=FOUND, decline=OTHER)) == 1
    assert len(webhook_server.requests) == SETTINGS.attempts


def test_undelivered_alerts_are_sent_in_order_by_the_next_run(runs: Runs, webhook_server: WebhookServer) -> None:
    webhook_server.answer = status(503)
    runs.notify(drift=FOUND, decline=OTHER)
    runs.notify(hours_later=1, drift=None)
    assert webhook_server.contents == []
    webhook_server.answer = status(200)
    assert runs.notify(hours_later=1, decline=None) == []
    assert webhook_server.titles == [FOUND[0], OTHER[0], f"Over: {FOUND[0]}", f"Over: {OTHER[0]}"]
    assert [each["time"] - 1_800_000_000 for each in webhook_server.contents] == [0, 0, 3600, 7200]
    runs.notify()
    assert len(webhook_server.contents) == 4


@pytest.mark.fault("alert channel that fails")
def test_one_failing_channel_does_not_stop_the_others(
    store: Store,
    unused_url: str,
    webhook_server: WebhookServer,
    mail_server: MailServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = Webhook(unused_url, timeout_s=5)
    runs = Runs(store, [broken, Mail(mail_server.address(), timeout_s=5), Console()])
    assert len(runs.notify(drift=FOUND)) == 1
    assert [mail.message["subject"] for mail in mail_server.mails] == [FOUND[0]]
    assert FOUND[0] in capsys.readouterr().out
    runs.channels = [Webhook(webhook_server.url, timeout_s=5), *runs.channels[1:]]
    assert runs.notify(drift=FOUND) == []
    assert webhook_server.titles == [FOUND[0]]
    assert len(mail_server.mails) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.fault("alert channel whose library fails")
def test_a_channel_that_fails_in_its_own_way_does_not_stop_the_others(
    store: Store, webhook_server: WebhookServer
) -> None:
    class Broken:
        name = "broken"

        def send(self, _: Notice) -> None:
            raise RuntimeError(SECRET)

    runs = Runs(store, [Broken(), Webhook(webhook_server.url, timeout_s=5)])
    assert runs.notify(drift=FOUND) == ["the channel broken failed (RuntimeError); it is tried again in the next run"]
    assert webhook_server.titles == [FOUND.title]


def test_only_the_latest_undelivered_alerts_are_stored(runs: Runs, webhook_server: WebhookServer) -> None:
    webhook_server.answer = status(503)
    more = alerts.MAX_WAITING + 20
    runs.notify(**{f"condition {number}": Alert(str(number), "Text.") for number in range(more)})
    webhook_server.answer = status(200)
    runs.notify()
    assert webhook_server.titles == [str(number) for number in range(20, more)]


def test_alerts_for_a_removed_channel_are_dropped(runs: Runs, webhook_server: WebhookServer) -> None:
    webhook_server.answer = status(503)
    runs.notify(drift=FOUND)
    webhook, runs.channels = runs.channels, []
    assert runs.notify() == []
    webhook_server.answer, runs.channels = status(200), webhook
    runs.notify()
    assert webhook_server.contents == []


# The stored state


@pytest.mark.fault("damaged state of alerts")
@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff\xfe",
        b'{"open": {"drift"',
        b"null",
        b"[]",
        b"{}",
        b'{"open": {}}',
        b'{"open": [], "waiting": []}',
        b'{"open": {}, "waiting": {}}',
        b'{"open": {"drift": 5}, "waiting": []}',
        b'{"open": {"drift": {}}, "waiting": []}',
        b'{"open": {"drift": {"since": "x", "notified": "x", "title": "x"}}, "waiting": []}',
        b'{"open": {"drift": {"since": "x", "told": "x", "title": "x"}}, "waiting": []}',
        b'{"open": {"drift": {"since": 1, "notified": 1, "title": "x", "rank": "x"}}, "waiting": []}',
        b'{"open": {"drift": {"since": 1, "notified": 1, "title": "x", "sent": {"": "x"}}}, "waiting": []}',
        b'{"open": {}, "waiting": [5]}',
        b'{"open": {}, "waiting": [{"channel": "webhook"}]}',
    ],
)
def test_a_damaged_state_is_reported_and_replaced(
    damage: bytes, runs: Runs, webhook_server: WebhookServer, store: Store
) -> None:
    store.put(state_of(alerts.STATE, MODEL_NAME), damage)
    (problem,) = runs.notify(drift=FOUND)
    assert re.fullmatch(r"the state of alerts cannot be read \(.+\), so they may be sent again", problem, re.DOTALL)
    assert webhook_server.kinds == ["begun"]
    assert runs.notify(drift=FOUND) == []
    assert webhook_server.kinds == ["begun"]


def test_a_store_that_cannot_be_written_stops_no_alert(
    tmp_path: Path, runs: Runs, webhook_server: WebhookServer
) -> None:
    (tmp_path / "file").write_bytes(b"")
    runs.store = open_store(str(tmp_path / "file"))
    for _ in range(2):
        (problem,) = runs.notify(drift=FOUND)
        assert problem.startswith("the state of alerts cannot be stored, so they may be sent again: ")
        assert str(tmp_path / "file") in problem
    assert webhook_server.kinds == ["begun", "begun"]


def test_a_store_that_cannot_be_read_stops_no_alert(tmp_path: Path, runs: Runs, webhook_server: WebhookServer) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    runs.store = open_store(str(tmp_path / "loop"))
    problems = runs.notify(drift=FOUND)
    assert [problem.split(" (")[0].split(",")[0] for problem in problems] == [
        "the state of alerts cannot be read",
        "the state of alerts cannot be stored",
    ]
    assert webhook_server.kinds == ["begun"]


def test_the_state_holds_no_secret(runs: Runs, webhook_server: WebhookServer, store: Store) -> None:
    webhook_server.answer = status(503)
    runs.notify(drift=FOUND)
    state = store.get(state_of(alerts.STATE, MODEL_NAME)).decode()
    assert FOUND[0] in state
    assert SECRET not in state


def test_a_state_of_an_earlier_release_is_read(runs: Runs, webhook_server: WebhookServer, store: Store) -> None:
    then = runs.now
    state = {"open": {"drift": {"since": then, "told": then, "title": FOUND[0]}}, "waiting": []}
    store.put(state_of(alerts.STATE, MODEL_NAME), json.dumps(state).encode())
    assert runs.notify(hours_later=21, drift=FOUND) == []
    assert webhook_server.kinds == []
    runs.notify(hours_later=3, drift=FOUND)
    assert webhook_server.kinds == ["lasts"]
    assert json.loads(store.get(state_of(alerts.STATE, MODEL_NAME)))["open"]["drift"] == {
        "since": then,
        "notified": runs.now,
        "title": FOUND[0],
        "rank": 0,
        "sent": {"": runs.now},
    }
