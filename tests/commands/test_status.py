"""`fashion status`: what it shows of an empty home and of one in use, and which command it names next."""

import dataclasses
import datetime
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from mlflow import MlflowClient
from support import canaries
from support.log_rows import DAY_US, record
from support.served import free_port

from fashion.commands import overview, systemd
from fashion.commands.main import main
from fashion.commands.overview import (
    DriftPart,
    Failure,
    LogPart,
    ModelsPart,
    ModelVersion,
    Overview,
    ServicePart,
    choose_next,
)
from fashion.commands.status import format_brief, format_overview
from fashion.config.names import MODEL_NAME
from fashion.config.next_command import of_data
from fashion.config.times import next_time
from fashion.drift import reports
from fashion.home import Home
from fashion.model.package import Package
from fashion.predictions.log import PredictionLog
from fashion.registry import champions, versions
from fashion.storage.address import open_store

SUMMARY = "test accuracy 91.20% (90.60% to 91.80%), without duplicates 91.10%, calibration error 0.80%"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable is set but those of the test."""
    for name in [name for name in os.environ if name.startswith(("FASHION", "MLFLOW", "BENTOML"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def nowhere() -> str:
    """An address at which nothing listens."""
    return f"http://127.0.0.1:{free_port()}"


class StandIn(ThreadingHTTPServer):
    """A service that has loaded version 1."""

    daemon_threads = True


class Handler(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, Any]] = {
        "/model": {"version": "1"},
        "/readyz": {"ready": True, "log": {"problem": None}},
    }

    def do_GET(self) -> None:
        body = json.dumps(self.answers[self.path]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def service() -> Iterator[str]:
    """Address of a service."""
    with StandIn(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def register(number: int, package: Package, *, promote: str | None = None, reject: str | None = None) -> None:
    """Register a version of a package."""
    client = MlflowClient()
    if number == 1:
        client.create_registered_model(MODEL_NAME)
    client.create_model_version(MODEL_NAME, str(package.folder), tags={"summary": SUMMARY})
    client.set_registered_model_alias(MODEL_NAME, versions.CHALLENGER, str(number))
    if promote:
        champions.promote(versions.get(str(number)), reason=promote)
    if reject:
        client.set_model_version_tag(MODEL_NAME, str(number), "refused.reason", reject)


def publish(home: Home, time_us: int, **result: Any) -> None:
    content = {"decision": "drift", "level": "harmful", "reason": "brightness changed", "rows": 300} | result
    reports.publish(
        open_store(home.reports), reports.make_id(time_us, "fashion-classifier", "1"), "<p>page</p>", content
    )


def show(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["status", *options]) == 0
    return capsys.readouterr().out


def show_json(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(show(capsys, "--json", *options))
    return content


class TestEmptyHome:
    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("FASHION_HOME", str(tmp_path / "var"))
        monkeypatch.chdir(tmp_path)
        return tmp_path / "var"

    def test_the_next_thing_is_to_train_and_nothing_is_created(
        self, home: Path, tmp_path: Path, nowhere: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shown = show(capsys, "--url", nowhere)
        assert "not on this machine yet" in shown
        assert "champion      none" in shown
        assert f"service       not up on {nowhere}" in shown
        assert shown.splitlines()[-2:] == ["next          make train", " " * 14 + "no model is trained yet"]
        assert list(tmp_path.iterdir()) == []

    def test_json_has_every_part(self, nowhere: str, capsys: pytest.CaptureFixture[str]) -> None:
        content = show_json(capsys, "--url", nowhere)
        assert set(content) == {field.name for field in dataclasses.fields(Overview)} | {"failures"}
        assert content["next_command"] == "make train"
        assert content["failures"] == {}
        assert content["disk"] == {}

    def test_brief_is_a_few_lines(self, nowhere: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert 3 <= len(show(capsys, "--brief", "--url", nowhere).splitlines()) <= 6


class TestHomeInUse:
    def test_versions_are_shown_with_accuracy_and_reason(
        self, mlflow_home: Home, service: str, tiny_package: Package, capsys: pytest.CaptureFixture[str]
    ) -> None:
        register(1, tiny_package, promote="there is no champion yet")
        register(2, tiny_package, reject="Shirt loses 9 points")
        shown = " ".join(show(capsys, "--url", service).split())
        assert f"champion version 1: {SUMMARY} since 20" in shown
        assert "UTC: there is no champion yet" in shown
        assert f"challenger version 2: {SUMMARY} registered 20" in shown
        assert "UTC, not promoted: Shirt loses 9 points" in shown
        assert f"up on {service}, version 1" in shown
        assert "models " in shown
        content = show_json(capsys, "--url", service)
        assert content["models"]["champion"]["number"] == 1
        assert content["models"]["champion"]["reason"] == "there is no champion yet"
        assert content["models"]["challenger"]["number"] == 2
        assert content["service"] == {"url": service, "up": True, "version": "1", "problem": None}
        assert content["next_command"] == "fashion traffic --rows 500"

    def test_what_becomes_of_a_canary_is_said(
        self, mlflow_home: Home, service: str, tiny_package: Package, capsys: pytest.CaptureFixture[str]
    ) -> None:
        canaries.begin(tiny_package)
        shown = " ".join(show(capsys, "--url", service, "--brief").split())
        assert "canary version 2 answers 50% of the clients beside version 1: fashion canary status" in shown
        champions.reject(versions.get("2"), reason="8 of 10 right")
        shown = " ".join(show(capsys, "--url", service).split())
        assert "canary canary 2 is refused, and version 1 stays champion: 8 of 10 right; running services stop" in shown
        champions.promote(versions.get("2"), reason="all the same")
        assert show_json(capsys, "--url", service)["models"]["canary"] is None

    def test_predictions_are_counted_and_call_for_a_drift_report(
        self, mlflow_home: Home, service: str, tiny_package: Package, capsys: pytest.CaptureFixture[str]
    ) -> None:
        register(1, tiny_package, promote="first")
        now = time.time_ns() // 1000
        with PredictionLog(mlflow_home.predictions) as log:
            log.append([record(time_us=now - 2 * DAY_US), *(record(time_us=now - 1000 * n) for n in range(3))])
            log.append([record(role="shadow")])
        publish(mlflow_home, now - DAY_US)
        content = show_json(capsys, "--url", service)
        assert content["log"]["predictions"] == 4
        assert content["log"]["last_day"] == 3
        assert content["log"]["since_report"] == 3
        assert content["drift"]["decision"] == "drift"
        assert content["next_command"] == "make drift"
        assert content["disk"]["log"] > 0
        shown = show(capsys, "--url", service)
        assert "predictions   3 in the last 24 hours, 4 in all" in shown
        assert "drift         drift, harmful in the report of 20" in shown
        assert "3 predictions have come in since the last drift report" in shown

    def test_the_backlog_is_shown(
        self, mlflow_home: Home, service: str, tiny_package: Package, capsys: pytest.CaptureFixture[str]
    ) -> None:
        register(1, tiny_package, promote="first")
        with PredictionLog(mlflow_home.predictions) as log:
            log.outbox.ship_to("firestore://project")
            log.append([record(), record()])
            first = log.outbox.due(1, 2**62)[0]
            log.outbox.settle(refused=[(first.sequence, "too large")])
        shown = show(capsys, "--url", service)
        assert "1 rows wait for firestore://project, 1 were refused" in shown
        assert shown.splitlines()[-2] == "next          fashion log status"

    def test_the_next_run_is_shown_where_a_timer_was_written(
        self, mlflow_home: Home, service: str, tiny_package: Package, capsys: pytest.CaptureFixture[str]
    ) -> None:
        register(1, tiny_package, promote="first")
        with PredictionLog(mlflow_home.predictions) as log:
            log.append([record()])
        publish(mlflow_home, time.time_ns() // 1000 + 2_000_000, decision="no_drift", level="none")
        content = show_json(capsys, "--url", service)
        assert content["drift"]["next_run"] is None
        assert content["next_command"] == "make schedule"
        systemd.write_units(mlflow_home, ["cron=30 8 * * 1"])
        content = show_json(capsys, "--url", service)
        moment = datetime.datetime.fromisoformat(content["drift"]["next_run"])
        assert (moment.weekday(), moment.hour, moment.minute) == (0, 8, 30)
        assert content["next_command"] is None
        assert show(capsys, "--url", service).splitlines()[-1] == "next          nothing to do"

    def test_looking_changes_no_file(
        self, mlflow_home: Home, nowhere: str, tiny_package: Package, capsys: pytest.CaptureFixture[str]
    ) -> None:
        register(1, tiny_package, promote="first")
        with PredictionLog(mlflow_home.predictions) as log:
            log.append([record()])
        before = set(mlflow_home.root.rglob("*"))
        show(capsys, "--url", nowhere)
        assert set(mlflow_home.root.rglob("*")) == before

    @pytest.mark.parametrize(
        ("name", "part"), [("mlflow.db", "models"), ("predictions.db", "log"), ("reports", "drift")]
    )
    def test_a_part_that_cannot_be_read_is_one_line_and_the_others_are_shown(
        self, name: str, part: str, mlflow_home: Home, nowhere: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (mlflow_home.root / name).write_bytes(b"no database, no folder" * 100)
        assert main(["status", "--json", "--url", nowhere]) == 1
        content = json.loads(capsys.readouterr().out)
        assert set(content["failures"]) == {part}
        assert content["next_command"] is None
        assert main(["status", "--url", nowhere]) == 1
        shown = capsys.readouterr().out
        assert shown.count("cannot be read:") == 1
        assert "Traceback" not in shown
        assert max(map(len, shown.splitlines())) < 400

    def test_a_server_that_is_down_does_not_hold_it_up(
        self, tmp_path: Path, nowhere: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("FASHION_HOME", str(tmp_path))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", nowhere)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        assert main(["status", "--json", "--url", nowhere]) == 1
        content = json.loads(capsys.readouterr().out)
        assert content["models"]["error"].startswith(
            f"MLflow at {nowhere} cannot be reached: the connection was refused"
        )


@pytest.mark.fault("server that hangs under `fashion status`")
@pytest.mark.slow
def test_a_part_that_hangs_is_reported_after_the_deadline(
    tmp_path: Path, nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path))
    release = threading.Event()
    monkeypatch.setattr(overview, "read_models", lambda *_: release.wait(60))
    from fashion.home import current_home

    started = time.monotonic()
    found = overview.collect(current_home(), nowhere, deadline_s=5)
    release.set()
    assert found.failures == {"models": "no answer within 5 s"}
    assert time.monotonic() - started < 15


def test_another_program_at_the_address_is_not_the_service(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "answers", {"/model": ["hello"]})
    assert overview.read_service(service) == ServicePart(service, up=False, problem="another program answers there")


def test_a_service_that_hangs_is_not_one_that_was_never_started(monkeypatch: pytest.MonkeyPatch, nowhere: str) -> None:
    monkeypatch.setattr(overview, "SERVICE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert overview.read_service(url) == ServicePart(url, up=False, problem="no answer in 0.2 s")
    assert overview.read_service(nowhere) == ServicePart(nowhere, up=False)


CHAMPION = ModelVersion(2, ("champion",), "2026-11-01T00:00:00+00:00", SUMMARY, "2026-11-02T00:00:00+00:00", "better")
NEWER = dataclasses.replace(CHAMPION, number=3, aliases=(), promoted=None, reason=None, rejected="worse")
CALM = Overview(
    home="/home",
    data=Failure("no manifest"),
    models=ModelsPart(CHAMPION, None, NEWER),
    service=ServicePart("http://127.0.0.1:3000", up=True, version="2"),
    log=LogPart(predictions=10),
    drift=DriftPart(
        "20261126T060000Z-v2", "2026-11-26T06:00:00+00:00", "no_drift", "none", "all is as usual", "fashion", "2", 10
    ),
    disk={"data": 55_000_000, "log": 900},
)


@pytest.mark.parametrize(
    ("change", "command"),
    [
        ({"models": ModelsPart()}, "make train"),
        ({"models": ModelsPart(None, None, NEWER)}, 'fashion registry promote 3 --reason "..."'),
        ({"service": ServicePart("http://127.0.0.1:3000", up=False)}, "make serve"),
        ({"service": ServicePart("http://127.0.0.1:3000", up=True, version="1")}, "make bento"),
        ({"log": LogPart(predictions=10, refused_rows=1, ships_to="firestore://p")}, "fashion log status"),
        ({"log": LogPart()}, "fashion traffic --rows 500"),
        ({"log": LogPart(predictions=10, since_report=4)}, "make drift"),
        ({"drift": DriftPart(level="harmful", decision="drift")}, 'make drift ARGS="retrain.enabled=true"'),
        ({}, "make schedule"),
        ({"drift": DriftPart(decision="no_drift", next_run="2026-11-27T06:00:00+00:00")}, None),
        ({"models": Failure("broken")}, None),
    ],
)
def test_the_next_command_follows_from_what_there_is(change: dict[str, Any], command: str | None) -> None:
    assert choose_next(dataclasses.replace(CALM, **change))[0] == command


def test_the_screen_is_aligned_and_not_wide() -> None:
    shown = format_overview(dataclasses.replace(CALM, next_command="make schedule", next_reason="no timer"))
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 100
    assert all(line[12:14] == "  " and line[14] != " " for line in lines if line)
    for expected in (
        "data          cannot be read: no manifest",
        "champion      version 2: test accuracy 91.20% (90.60% to 91.80%), without",
        "              since 2026-11-02 00:00 UTC: better",
        "newest        version 3: ",
        "drift         no drift in the report of 2026-11-26 06:00 UTC: all is as usual",
        "disk          data 55 MB, log 900 B",
        "next          make schedule",
    ):
        assert expected in shown


def test_brief_cuts_long_reasons_to_a_line() -> None:
    newest = dataclasses.replace(NEWER, rejected="too many points are lost " * 20)
    lines = format_brief(dataclasses.replace(CALM, models=ModelsPart(CHAMPION, None, newest))).splitlines()
    assert len(lines) == 6
    assert lines[2].endswith(" ...")
    assert max(map(len, lines)) <= 100


def test_brief_names_the_newest_version_and_why_it_was_rejected() -> None:
    lines = format_brief(CALM).splitlines()
    assert lines[0] == "champion      version 2: test accuracy 91.20% (90.60% to 91.80%)"
    assert lines[1] == "newest        version 3: test accuracy 91.20% (90.60% to 91.80%)"
    assert lines[2].endswith("registered 2026-11-01 00:00 UTC, not promoted: worse")


class TestNextRun:
    NOW = datetime.datetime(2026, 6, 3, 6, 0, 30, tzinfo=datetime.UTC)  # a Wednesday

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("0 6 * * *", "2026-06-04 06:00"),
            ("*/15 * * * *", "2026-06-03 06:15"),
            ("1 6 * * *", "2026-06-03 06:01"),
            ("30 8 * * 1", "2026-06-08 08:30"),
            ("0 0 29 2 *", "2028-02-29 00:00"),
            ("0 6 1,15 * *", "2026-06-15 06:00"),
            ("0 6 15 * 1", "2026-06-08 06:00"),  # the 15th, and every Monday
            ("0 6 5 * 1", "2026-06-05 06:00"),
        ],
    )
    def test_it_is_the_first_after_now(self, line: str, expected: str) -> None:
        assert f"{next_time(line, self.NOW):%Y-%m-%d %H:%M}" == expected

    def test_a_day_that_does_not_exist_is_named(self) -> None:
        with pytest.raises(ValueError, match="never runs"):
            next_time("0 0 31 2 *", self.NOW)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("make serve", "make serve DATA=digits"),
        ("make schedule", 'make schedule ARGS="data=digits"'),
        ("fashion traffic --rows 500", "fashion traffic --rows 500 data=digits"),
        ("fashion log status", "fashion log status"),
        ("fashion registry list", "fashion registry list --name digits-classifier"),
    ],
)
def test_the_next_command_is_of_the_data_set_that_was_asked_for(command: str | None, expected: str | None) -> None:
    assert of_data(command, "digits", model="digits-classifier") == expected
    assert of_data(command, "", model="fashion-classifier") == command
