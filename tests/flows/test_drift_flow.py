"""The loop closes: the demo's story told once with real parts, and what the drift flow does when something is wrong."""

import contextlib
import dataclasses
import fcntl
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import browser, shared_logs
from support.answers import answered
from support.log_rows import record
from support.machine import Machine, twin
from support.served import Served, free_port
from support.shared_logs import SERVERS
from support.web import QuietHandler, serving

from fashion.data.dataset import Dataset
from fashion.drift import reports
from fashion.home import current_home
from fashion.images import image_store
from fashion.images.corruptions import corrupt
from fashion.model.package import Package
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import Feedback, PredictionRecord, new_prediction_id
from fashion.predictions.shipper import Shipper
from fashion.registry import champions, tracking, versions
from fashion.storage.address import open_store

SECONDS_OF_STORY = 1500


@pytest.fixture(scope="session")
def story(small_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, str]:
    """A machine on which the short demo has run, and what it said."""
    told = Machine(tmp_path_factory.mktemp("story") / "var")
    (told.root / "data").unlink()
    shutil.rmtree(told.root)
    command = [sys.executable, "-m", "fashion", "demo", "--short", "--home", str(told.root)]
    environment = {name: value for name, value in told.environment.items() if name != "FASHION_HOME"}
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=SECONDS_OF_STORY)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return told, done.stdout


@pytest.fixture(scope="session")
def results(story: tuple[Machine, str]) -> list[dict[str, Any]]:
    """Results of its four drift flows, oldest first."""
    return reports.latest(open_store(str(story[0].root / "reports")), 10)[::-1]


@pytest.fixture(scope="session")
def page(story: tuple[Machine, str], results: list[dict[str, Any]]) -> Path:
    """The report on drift that feedback confirmed."""
    return story[0].root / "reports" / results[2]["id"] / "report.html"


class TestStory:
    def test_usual_pictures_are_no_drift(self, results: list[dict[str, Any]]) -> None:
        assert results[0]["decision"] == "no_drift"
        assert results[0]["conditions"] == []
        estimated = results[0]["estimated"]
        assert estimated["low"] <= estimated["accuracy"] <= estimated["high"]
        assert estimated["reliable"] in (True, False)
        assert results[0]["false_alarms"]["resplits"] == 200

    def test_changed_ones_are_harmful_drift(self, results: list[dict[str, Any]]) -> None:
        assert results[1]["conditions"] == ["drift", "harmful"]
        assert max(results[1]["p_values"].values()) < 0.001

    def test_feedback_shows_the_decline(self, results: list[dict[str, Any]]) -> None:
        judged = results[2]["feedback"]
        assert judged["declined"]
        assert judged["low"] <= judged["accuracy"] <= judged["high"] < results[2]["reference_accuracy"] - 0.1
        assert sum(map(sum, judged["confusion"])) == judged["rows"]

    def test_the_new_champion_copes(self, results: list[dict[str, Any]]) -> None:
        assert (results[3]["model_version"], results[3]["level"]) == ("2", "harmless")

    def test_the_recovery_is_printed(self, story: tuple[Machine, str]) -> None:
        found = re.search(r"brightness=0\.4 +([\d.]+)% +([\d.]+)% +\+([\d.]+) points", story[1])
        assert found is not None
        before, after, gained = map(float, found.groups())
        assert gained == pytest.approx(after - before, abs=0.11)
        assert gained > 15

    def test_the_gate_judged_by_feedback_too(self, story: tuple[Machine, str]) -> None:
        trained = story[0].runs()[-1].data
        assert trained.promoted
        assert {check["name"].split(":")[0] for check in trained.verdict["checks"]} == {
            *("test", "feedback", "shifted copies", "latency"),
        }
        assert len(trained.feedback.train) > len(trained.feedback.held_out) > 50

    def test_what_was_learnt_from_is_on_the_run(self, story: tuple[Machine, str]) -> None:
        client = story[0].connect()
        version = versions.get("2")
        path = client.download_artifacts(version.mlflow_run_id, "data/feedback.csv")
        lines = Path(path).read_text().splitlines()
        assert lines[0] == "sha256,label,part"
        assert len(lines) == 1 + int(re.search(r"train on, (\d+) held out", story[1])[1]) + int(  # type: ignore[index]
            re.search(r"(\d+) labelled pictures of users", story[1])[1]  # type: ignore[index]
        )

    def test_rollback_restores_the_first_champion(self, story: tuple[Machine, str]) -> None:
        story[0].connect()
        champion = versions.champion()
        assert champion is not None
        assert champion.number == 1
        assert re.search(r"20 predicted by version 1", story[1])

    def test_it_ends_with_a_table_and_links_that_lead_somewhere(self, story: tuple[Machine, str]) -> None:
        links = re.findall(r"file://(\S+)", story[1])
        assert len(links) == 4
        assert all(Path(link).is_file() for link in links)

    def test_each_condition_is_told_once_and_so_is_what_becomes_of_it(self, story: tuple[Machine, str]) -> None:
        told = re.findall(r"ALERT (.*)", story[1])
        assert told == [
            "Harmful drift: fashion-classifier version 1, 300 predictions",
            "Prediction sets miss the truth: fashion-classifier version 1, 900 predictions",
            "Accuracy is down: fashion-classifier version 1, 900 predictions",
            "A new champion: fashion-classifier",
            "Harmless drift: fashion-classifier version 2, 600 predictions",
            "Over: Harmful drift: fashion-classifier version 1, 300 predictions",
        ]
        (state,) = (story[0].root / "reports/state").glob("alerts-fashion-classifier-*.json")
        assert json.loads(state.read_text())["waiting"] == []

    def test_a_second_training_waits(self, story: tuple[Machine, str]) -> None:
        said = drift(story[0], "rows=900", "retrain.enabled=true", "report.examples=0")
        assert re.search(r"training not due: .*the last training began 0\.\d hours ago", said)


class TestReport:
    def test_it_needs_no_connection(self, page: Path) -> None:
        with_addresses = re.findall(r"(?:src|href)=['\"]?(?:https?:)?//[^'\" >]+", page.read_text())
        assert with_addresses == []

    def test_a_person_can_read_it(self, page: Path, tmp_path: Path) -> None:
        with browser.start(tmp_path) as driver:
            driver.get(page.as_uri())
            text = driver.find_element("tag name", "body").text
            for words in ("Harmful drift: accuracy is down", "Why", "How bad", "What changed"):
                assert words in text
            assert "windows of 900 rows, drawn from the model's own held-out data, were called drift" in text
            pictures = driver.find_elements("css selector", ".examples img")
            assert len(pictures) == 20
            assert all(int(each.get_property("naturalWidth")) == 28 for each in pictures)
            assert len(driver.find_elements("css selector", ".charts svg")) == 6
            assert "No drift" in text  # of the windows before
            driver.find_element("css selector", "details summary").click()
            columns = driver.find_elements("css selector", "details:not(:has(iframe)) tr")
            assert len(columns) == 1 + 8 + 10 + 1
            assert columns[1].text.endswith("drift")
            for part in driver.find_elements("css selector", "details:has(iframe)"):
                part.find_element("tag name", "summary").click()
                driver.switch_to.frame(part.find_element("tag name", "iframe"))
                assert shown(driver, "predicted label") or shown(driver, "Accuracy")
                driver.switch_to.default_content()
            assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []

    def test_evidently_draws_every_column_that_decides(self, page: Path, results: list[dict[str, Any]]) -> None:
        import base64
        import gzip

        packed = re.findall(r"<script type='application/gzip'>(.*?)</script>", page.read_text())
        drawn = [gzip.decompress(base64.b64decode(each)).decode() for each in packed]
        assert len(drawn) == 2
        for column in results[2]["columns"]:
            assert column["name"] in drawn[0]

    def test_it_is_in_mlflow(self, story: tuple[Machine, str], results: list[dict[str, Any]], page: Path) -> None:
        client = story[0].connect()
        experiment = client.get_experiment_by_name("fashion-drift")
        runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
        assert {result["id"] for result in results} <= set(runs)
        run = runs[results[2]["id"]]
        assert run.info.status == "FINISHED"
        assert run.data.tags["decision"] == "drift"
        version, digest = run.data.tags["model_version"], run.data.tags["model_digest"]
        assert f"fashion-classifier version {version} ({digest[:8]}) over time" in runs
        described = client.get_model_version("fashion-classifier", version).description
        assert f"- `{results[2]['id']}`: Harmful drift: accuracy is down: " in described
        assert len(run.data.tags["data.digest"]) == 64
        assert run.data.metrics["accuracy/feedback"] == pytest.approx(results[2]["feedback"]["accuracy"])
        logged = Path(client.download_artifacts(run.info.run_id, "drift"))
        copy = (logged / "report.html").read_text()
        # Nothing prunes or forgets users' pictures there, so it holds none.
        assert [text.count("data:image/png") for text in (page.read_text(), copy)] == [20, 0]
        assert "Harmful drift: accuracy is down" in copy
        assert json.loads((logged / "result.json").read_text())["rows"] == 900

    def test_it_is_in_the_card(self, story: tuple[Machine, str]) -> None:
        path = story[0].root / "drift.html"
        run = story[0].runs("DriftFlow")[0]
        story[0].flow("card", "get", f"{run.id}/report", str(path), "--id", "drift", name="drift_flow")
        assert "iframe" in path.read_text()

    def test_monitoring_lists_and_shows_it(
        self, story: tuple[Machine, str], results: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        served = Served("fashion-classifier:latest", story[0].serving(), tmp_path / "service.log")
        try:
            listed = served.json("GET", "/monitoring/reports")["reports"]
            assert [each["id"] for each in listed if each["rows"] in (300, 900, 600)][-4:] == [
                each["id"] for each in results[::-1]
            ]
            with browser.start(tmp_path / "profile") as driver:
                driver.get(f"{served.url}/monitoring")
                link = driver.find_element("link text", results[2]["id"])
                driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", link)
                link.click()
                assert shown(driver, "accuracy is down")
                summary = driver.find_element("css selector", "details:has(iframe) summary")
                driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", summary)
                summary.click()
                driver.switch_to.frame(driver.find_element("css selector", "details iframe"))
                assert shown(driver, "predicted label")
        finally:
            assert served.stop() == 0


@pytest.fixture(scope="session")
def watched(
    tiny_package: Package, small_dataset: Dataset, migrated_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Machine:
    """A machine with two versions, which have answered 600 usual pictures and then, rolled back, 400 bright ones."""
    machine = Machine(tmp_path_factory.mktemp("watched") / "var")
    shutil.copy(migrated_database, machine.root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASHION_HOME", str(machine.root))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{machine.root / 'mlflow.db'}")
        tracking.connect(current_home())
        experiment = tracking.get_or_create_experiment(current_home(), "fashion")
        assert tiny_package.folder is not None
        for _ in range(2):
            run = tracking.start_run(experiment, "tiny", {})
            address = versions.log_package(run, tiny_package.folder)
            champions.promote(versions.register(address, run_id=run, tags={}), reason="to be watched")
        champions.rollback(reason="to be watched")
    test, images = small_dataset.test, open_store(str(machine.root / "images"))
    with PredictionLog(machine.root / "predictions.db") as log:
        for version, rows, brightness in (("2", slice(0, 600), 0.0), ("1", slice(600, 1000), 0.4)):
            shown_pictures = corrupt(test.images[rows], "brightness", brightness, seed=1)
            found = answered(tiny_package, version, shown_pictures)
            log.append(found)
            log.append_feedback(
                [
                    Feedback(each.prediction_id, int(label), "page", time.time_ns() // 1000)
                    for each, label in zip(found, test.labels[rows], strict=True)
                ]
            )
            for each, image in zip(found, shown_pictures, strict=True):
                image_store.put(images, image, each.image_sha256)
    return machine


@pytest.fixture(scope="session")
def bad_day(watched: Machine, tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, str]:
    """A machine with rows of all kinds that should not be, and what the drift flow said of them."""
    machine = twin(watched, tmp_path_factory.mktemp("bad_day"))
    with contextlib.closing(sqlite3.connect(machine.root / "predictions.db")) as connection, connection:
        # The log refuses numbers that are none; a row that was damaged on the disk may still hold one.
        nan = bytes.fromhex("0000c07f") * 8
        connection.execute(
            "UPDATE predictions SET statistics = ? WHERE prediction_id IN "
            "(SELECT prediction_id FROM predictions ORDER BY time_us DESC LIMIT 3)",
            (nan,),
        )
    now_us = time.time_ns() // 1000
    with PredictionLog(machine.root / "predictions.db") as log:
        log.append([made(now_us, version="77") for _ in range(30)])
        log.append([made(now_us) for _ in range(20)])
        other = made(now_us)
        log.append(
            [
                dataclasses.replace(
                    other,
                    prediction_id=new_prediction_id(),
                    model_name="bags",
                    label=0,
                    probabilities=(0.5, 0.5),
                )
                for _ in range(40)
            ]
        )
        log.append([made(now_us + 10**12) for _ in range(5)])
    return machine, drift(machine, "window=7d", "report.examples=0")


class TestBadDay:
    """Each kind of row costs itself only."""

    @pytest.mark.fault("the registry was lost, or two models share a log")
    def test_rows_of_other_models_and_packages_are_reported_and_not_judged(self, bad_day: tuple[Machine, str]) -> None:
        machine, said = bad_day
        sentence = (
            "Rows of this window that are not judged: 40 are of another model, bags version 1 (01234567); "
            "20 are of fashion-classifier version 1 (01234567), but the registry's version 1 is another package "
        )
        assert sentence in said
        assert "30 are of fashion-classifier version 77 (01234567), which the registry does not hold" in said
        results = latest(machine)
        assert {result["model_version"]: result["rows"] for result in results} == {"1": 397, "2": 600}
        assert all("unjudged" in result["conditions"] and sentence in result["unjudged"] for result in results)
        page = next((machine.root / "reports").glob("2*/report.html")).read_text()
        assert "40 are of another model, bags version 1" in page

    def test_rows_from_the_future_are_told_and_wait(self, bad_day: tuple[Machine, str]) -> None:
        page = next((bad_day[0].root / "reports").glob("2*/report.html")).read_text()
        assert "5 predictions are dated after this window, in the future: a clock was set back" in page

    def test_numbers_that_are_none_cost_their_rows_only(self, bad_day: tuple[Machine, str]) -> None:
        unreadable = {result["model_version"]: result["unreadable"] for result in latest(bad_day[0])}
        assert unreadable == {"1": 3, "2": 0}


class TestElsewhere:
    """Several workers count the same window where else its rows are, and find what one finds in the local log."""

    @pytest.fixture(scope="class")
    def expected(self, watched: Machine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
        home = twin(watched, tmp_path_factory.mktemp("here"))
        drift(home, "since=2000-01-01", "report.examples=0")
        return by_version(home)

    @pytest.mark.ci
    @pytest.mark.parametrize("kind", SERVERS)
    def test_in_a_log_that_machines_share(
        self,
        kind: str,
        watched: Machine,
        expected: dict[str, dict[str, Any]],
        tmp_path: Path,
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        home = twin(watched, tmp_path)
        backend = shared_logs.make(kind, request.getfixturevalue(SERVERS[kind]))
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", backend.server)
        with PredictionLog(home.root / "predictions.db") as log:
            remote = backend.connect()
            assert Shipper(log, remote).drain(120).rows == 0
            remote.close()
        home.environment |= backend.environment()
        assert counted_apart(home) == expected

    def test_in_an_export(self, watched: Machine, expected: dict[str, dict[str, Any]], tmp_path: Path) -> None:
        home = twin(watched, tmp_path)
        done = home.python("-m", "fashion", "log", "export", str(tmp_path / "export"), "--today")
        assert done.returncode == 0, done.stderr
        assert counted_apart(home, f"source={tmp_path / 'export'}") == expected


def counted_apart(home: Machine, *overrides: str) -> dict[str, dict[str, Any]]:
    """Results by version of three workers that do not have the local log."""
    (home.root / "predictions.db").rename(home.root / "moved.db")
    drift(home, "since=2000-01-01", "workers=3", "report.examples=0", *overrides)
    parts = [task.data.part for task in home.runs("DriftFlow")[-1]["count"]]
    assert len(parts) == 3
    assert sum(bool(part) for part in parts) > 1, "one worker counted all"
    return by_version(home)


def by_version(home: Machine) -> dict[str, dict[str, Any]]:
    """Results of a home's only drift run, without the ids of their reports."""
    return {
        result["model_version"]: {key: value for key, value in result.items() if key != "id"} for result in latest(home)
    }


class TestTrouble:
    """Each on a machine of its own, with the registry and the log of the one that is watched."""

    @pytest.fixture
    def home(self, watched: Machine, tmp_path: Path) -> Machine:
        return twin(watched, tmp_path)

    def test_no_log_is_told_and_is_an_alert_that_ends(self, home: Machine) -> None:
        moved = home.root / "moved.db"
        (home.root / "predictions.db").rename(moved)
        with sink() as (url, received):
            home.environment["FASHION_WEBHOOK"] = f"{url}/secret"
            said = failing(home)
            assert re.search(r"error: there is no prediction log .*: `make serve` begins one", said)
            assert "Traceback" not in said
            assert [each["title"] for each in received] == ["The drift flow cannot do its work"]
            moved.rename(home.root / "predictions.db")
            drift(home, "rows=10")
            assert received[-1]["title"] == "Over: The drift flow cannot do its work"

    @pytest.mark.fault("damaged prediction log under DriftFlow")
    def test_a_damaged_log_is_named_and_left_as_it_is(self, home: Machine) -> None:
        log = home.root / "predictions.db"
        content = bytearray(log.read_bytes())
        content[4096 * 3 : 4096 * 9] = b"\xff" * (4096 * 6)
        log.write_bytes(content)
        said = failing(home, "since=2000-01-01")
        assert re.search(r"error: .*predictions\.db is damaged .*nothing was deleted", said)
        assert log.read_bytes() == content

    def test_a_firestore_that_is_away_is_one_sentence(self, home: Machine) -> None:
        home.environment |= {"FASHION_FIRESTORE": "away", "FIRESTORE_EMULATOR_HOST": f"127.0.0.1:{free_port()}"}
        said = failing(home, "rows=10")
        assert re.search(r"error: firestore://away/\(default\)/predictions cannot be used: 503 ", said)
        assert "ALERT The drift flow cannot do its work" in said
        assert "Traceback" not in said

    def test_a_database_that_is_away_is_one_sentence_without_its_password(self, home: Machine) -> None:
        home.environment["FASHION_LOG"] = f"postgresql://me:sesame@127.0.0.1:{free_port()}/away"
        said = failing(home, "rows=10")
        assert re.search(r"error: postgresql://127.0.0.1:\d+/away cannot be used: .*Connection refused", said)
        assert "Traceback" not in said
        assert "sesame" not in said

    def test_an_empty_window_is_too_little_and_no_error(self, home: Machine) -> None:
        assert "insufficient_data: nothing was predicted in this window" in drift(home, "since=2100-01-01")
        (result,) = latest(home)
        assert (result["decision"], result["rows"]) == ("insufficient_data", 0)

    def test_silence_after_traffic_is_an_alert(self, home: Machine) -> None:
        with sqlite3.connect(home.root / "predictions.db") as connection:
            connection.execute("UPDATE predictions SET time_us = time_us - 3 * 86400000000")
        connection.close()
        said = drift(home)
        assert "ALERT No traffic: fashion-classifier" in said
        assert "Next: Look whether the service is up, and asked: fashion status" in said
        assert "from 1970" not in said
        # Their feedback is of today: it counts now, for both versions.
        found = {result["model_version"]: result["conditions"] for result in latest(home)}
        assert found == {"1": ["decline", "no_traffic"], "2": ["no_traffic"]}

    @pytest.mark.fault("alert address that cannot be used")
    def test_every_version_is_told_by_every_channel_that_works_and_what_is_accepted_is_over(
        self, home: Machine
    ) -> None:
        log = PredictionLog(home.root / "predictions.db")
        newest = next(log.latest(1)).record
        log.append([dataclasses.replace(newest, prediction_id=new_prediction_id(), model_version="2")])
        log.close()
        words = ("since=2000-01-01", "report.examples=0", "retrain.enabled=true", "retrain.min_new_labels=100000")
        with sink() as (url, received):
            home.environment |= {"FASHION_WEBHOOK": "example.org", "FASHION_ALERTS": url.replace("http", "json")}
            home.environment["FASHION_URL"] = "https://shoes.example.org"
            said = drift(home, *words)
            assert "Traceback" not in said
            titles = [each["title"] for each in received]
            of_the_first = [title for title in titles if "fashion-classifier version 1, 400 predictions" in title]
            assert len(of_the_first) == 3
            assert "An address of alerts cannot be used" in titles
            report = next(each["id"] for each in latest(home) if each["model_version"] == "1")
            assert any(f"https://shoes.example.org/monitoring/reports/{report}" in each["message"] for each in received)
            accepting = home.python("-m", "fashion", "drift", "accept", report)
            assert accepting.returncode == 0, accepting.stderr
            assert "compared with 400 rows of 1 accepted windows" in accepting.stdout
            said = drift(home, *words)
            assert "version 1 is not the reference of version 2, for only 0 of its 400 pictures are stored" in said
            found = {each["model_version"]: each for each in latest(home)[:2]}
            assert found["1"]["decision"] == "no_drift"
            assert found["1"]["conditions"] == ["coverage", "decline"]
            assert [each["title"] for each in received if each["title"].startswith("Over: ")]

    @pytest.mark.fault("a training that drift started fails")
    @pytest.mark.parametrize(
        ("overrides", "command"),
        [
            ("architecture.name=no_such_network", "run tuning=off architecture.name=no_such_network feedback.use=true"),
            ("optimizer.learning_rate=1e30", r"resume --origin-run-id \d+"),  # its training step fails: it diverges
        ],
    )
    def test_a_training_that_fails_is_told(self, home: Machine, watched: Machine, overrides: str, command: str) -> None:
        shutil.copytree(watched.root / "images", home.root / "images")
        words = ["since=2000-01-01", "report.examples=0", "retrain.enabled=true"]
        said = drift(home, *words, f"retrain.overrides='tuning=off {overrides}'")
        assert "ALERT A training that drift started failed: fashion-classifier" in said
        assert re.search(f"Next: python flows/train_flow.py {command}", said)

    @pytest.mark.fault("reports that cannot be stored")
    def test_half_a_report_does_not_exist(self, home: Machine) -> None:
        half = home.root / "reports" / "20200101T000000Z-v1"
        half.mkdir(parents=True)
        (half / "report.html").write_text("half")
        damaged = home.root / "reports" / "20200102T000000Z-v1"
        damaged.mkdir()
        (damaged / "result.json").write_text('{"decision": ')
        assert "insufficient_data: 10 rows are too few to judge: 200 are needed" in drift(home, "rows=10")
        assert [result["decision"] for result in latest(home)] == ["insufficient_data", "unreadable"]

    def test_a_second_flow_at_once_leaves_it_to_the_first(self, home: Machine) -> None:
        with (home.root / "drift.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write("process 4711")
            lock.flush()
            said = drift(home, "rows=10")
        assert said.strip() == "another drift flow is running (process 4711): this one ends"
        assert not (home.root / "reports").exists()

    @pytest.mark.fault("wrong labels by one source")
    def test_wrong_labels_are_quarantined_and_start_no_training(self, home: Machine, watched: Machine) -> None:
        shutil.copytree(watched.root / "images", home.root / "images")
        with PredictionLog(home.root / "predictions.db") as log:
            rows = [row for row in log.latest(1000, role="champion") if row.record.model_version == "2"]
            now_us = time.time_ns() // 1000
            log.append_feedback(
                Feedback(row.record.prediction_id, (row.true_label or 0) + 1, "mallory", now_us)
                for row in rows
                if row.true_label != 9
            )
        said = drift(home, "since=2000-01-01", "retrain.enabled=true", "report.examples=0", "decision.resplits=0")
        assert "ALERT Feedback is quarantined" in said
        assert re.search(r"feedback of 'mallory' is quarantined \(\d+ labels: \d+ of \d+ contradict sure answers", said)
        (of_version_2,) = [each for each in latest(home) if each["model_version"] == "2"]
        assert of_version_2["feedback"]["accuracy"] > 0.5  # by the labels of before
        with PredictionLog(home.root / "predictions.db") as log:
            assert {row.feedback[-1].source for row in log.latest(1000, with_feedback=True)} == {"page"}

    def test_a_cluster_is_asked_by_an_event(self, home: Machine, watched: Machine) -> None:
        shutil.copytree(watched.root / "images", home.root / "images")
        with sink() as (url, received):
            home.environment |= {"METAFLOW_ARGO_EVENTS_WEBHOOK_URL": url, "METAFLOW_KUBERNETES_WORKLOAD": "1"}
            said = drift(home, "since=2000-01-01", "retrain.enabled=true", "report.examples=0")
        name = "mfns.fashion.user.fashion.fashion-retrain"  # of this project and the user's own branch
        assert f"event {name} published" in said
        assert received[0]["payload"]["name"] == name
        [of_the_champion] = [each["id"] for each in latest(home) if each["model_version"] == "1"]  # rolled back to
        assert (
            received[0]["payload"]
            | {
                "report": of_the_champion,
                "overrides": "tuning=off feedback.use=true tracking.registered_model=fashion-classifier",
                "deploy": True,
                "deploy_overrides": "",
            }
            == received[0]["payload"]
        )
        assert not (home.root / "metaflow/.metaflow/TrainFlow").exists()

    @pytest.mark.parametrize(
        ("word", "sentence"),
        [
            ("windw=3h", "there is no key 'windw'"),
            ("window=3x", "window must be a number of minutes, hours or days such as 90m, 24h or 7d, got 3x"),
            ("decision.alpha=2", "decision: alpha must be in \\(0, 0.5\\), got 2"),
            ("since=yesterday", "since must be a time such as 2026-11-25"),
        ],
    )
    def test_a_wrong_word_is_one_sentence(self, home: Machine, word: str, sentence: str) -> None:
        said = failing(home, word)
        assert re.search(sentence, said)
        assert len(said.strip().splitlines()) == 1


def drift(machine: Machine, *words: str) -> str:
    return machine.flow("run", *words, name="drift_flow")


def failing(machine: Machine, *words: str) -> str:
    process = machine.start("run", *words, name="drift_flow")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    return said


def latest(machine: Machine) -> list[dict[str, Any]]:
    return reports.latest(open_store(str(machine.root / "reports")), 100)


def made(time_us: int, version: str = "1") -> PredictionRecord:
    return record(time_us=time_us, model_version=version, label=1, probabilities=(0.05, 0.55, *[0.05] * 8))


def shown(driver: Any, text: str) -> bool:
    until = time.monotonic() + browser.SECONDS
    while time.monotonic() < until:
        if text in driver.find_element("tag name", "body").text:
            return True
        time.sleep(0.1)
    return False


@contextlib.contextmanager
def sink() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that keeps the JSON it is sent."""
    received: list[dict[str, Any]] = []

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.read_body()))
            self.respond(200)

    with serving(Handler) as url:
        yield url, received
