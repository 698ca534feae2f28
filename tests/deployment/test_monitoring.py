"""The files that describe what watches the service, and the command that applies them to a project."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support import gcloud_messages, google_apis, google_credentials
from support.google_apis import GoogleApis
from support.log_rows import record
from support.served import free_port

from fashion.commands.main import main
from fashion.deployment.resource_files import FOLDER, WrongFile, read_files
from fashion.predictions.firestore import FirestoreLog
from fashion.predictions.log import PredictionLog
from fashion.predictions.shipper import Shipper

VALUES = {
    "project": "shop",
    "project_number": "4711",
    "region": "europe-west1",
    "service": "fashion-classifier",
    "email": "team@example.com",
    "amount": "50",
    "currency": "EUR",
    "channel_email": "projects/shop/notificationChannels/1",
    "slo_availability": "projects/shop/services/fashion-classifier/serviceLevelObjectives/slo-availability",
    "slo_latency": "projects/shop/services/fashion-classifier/serviceLevelObjectives/slo-latency",
}
CLASSES = {
    "channel": ("monitoring.v3.monitoring_v3_messages", "NotificationChannel"),
    "service": ("monitoring.v3.monitoring_v3_messages", "Service"),
    "slo": ("monitoring.v3.monitoring_v3_messages", "ServiceLevelObjective"),
    "alert": ("monitoring.v3.monitoring_v3_messages", "AlertPolicy"),
    "budget": ("billingbudgets.v1.billingbudgets_v1_messages", "GoogleCloudBillingBudgetsV1Budget"),
}
WORDS = ["cloud", "monitoring", "--project", "shop", "--region", "europe-west1", "--email", "team@example.com"]
BUDGET = ["--billing-account", "A1-B2", "--budget", "50", "--currency", "EUR"]


class TestFiles:
    def test_each_is_what_its_api_takes(self) -> None:
        files = read_files()
        assert {file.kind for file in files} == set(CLASSES)
        bodies = [(*CLASSES[file.kind], file.fill(VALUES)) for file in files]
        found = dict(zip([file.name for file in files], gcloud_messages.problems(bodies), strict=True))
        assert {name: wrong for name, wrong in found.items() if wrong} == {}

    def test_a_wrong_field_and_a_wrong_value_would_be_noticed(self) -> None:
        policy = next(file for file in read_files() if file.name == "alert_errors").fill(VALUES)
        wrong = [{**policy, "combine": "OR"}, {**policy, "combiner": "NAND"}, {**policy, "conditions": "x"}]
        assert all(gcloud_messages.problems([(*CLASSES["alert"], body) for body in wrong]))

    def test_the_objectives_are_those_of_the_readme(self) -> None:
        bodies = {file.name: file.fill(VALUES) for file in read_files()}
        assert bodies["slo_availability"]["goal"] == bodies["slo_latency"]["goal"] == 0.95
        latency = bodies["slo_latency"]["serviceLevelIndicator"]["basicSli"]["latency"]
        assert latency["threshold"] == "0.070s"
        thresholds = {
            name: body["conditions"][0]["conditionThreshold"]["thresholdValue"]
            for name, body in bodies.items()
            if "conditionThreshold" in body.get("conditions", [{}])[0]
        }
        assert thresholds["alert_billable_time"] == 0.5
        assert thresholds["alert_request_rate"] == 5

    def test_each_alert_reaches_the_channel_and_says_what_to_do(self) -> None:
        for file in read_files():
            if file.kind == "alert":
                body = file.fill(VALUES)
                assert body["notificationChannels"] == [VALUES["channel_email"]]
                assert len(body["documentation"]["content"]) > 80

    def test_the_log_filters_match_what_the_code_logs(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        from fashion.drift.alert_channels import Console, Notice

        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", f"127.0.0.1:{free_port()}")
        with PredictionLog(tmp_path / "log.db") as log:
            shipper = Shipper(log, FirestoreLog("away", timeout_s=0.2))
            log.append([record()])
            shipper.start()
            for _ in range(100):
                if _matches("alert_log_backlog", caplog.text):
                    break
                time.sleep(0.1)
            shipper.drain(0.1)
        assert _matches("alert_log_backlog", caplog.text)
        titles = {"Prediction sets miss the truth": True, "No traffic": True, "Over: No traffic": False}
        for title, expected in titles.items():
            Console().send(Notice(title, "why", "begun", 0))
            assert _matches("alert_drift", capsys.readouterr().out) is expected, title

    @pytest.mark.parametrize(
        ("name", "text", "sentence"),
        [
            ("alert_x", "displayName: ${nobody}", "alert_x.yaml needs a value for nobody; it has "),
            ("alert_x", "a: $", r"alert_x.yaml has a `\$` that begins no placeholder"),
            ("alert_x", "a: [", "alert_x.yaml is not YAML: "),
            ("alert_x", "just words", "alert_x.yaml must describe one resource"),
            ("alarm", "a: b", r"alarm.yaml must begin with the kind of its resource: channel, service, slo, alert"),
        ],
    )
    def test_a_wrong_file_is_one_sentence(self, tmp_path: Path, name: str, text: str, sentence: str) -> None:
        (tmp_path / f"{name}.yaml").write_text(text)
        with pytest.raises(WrongFile, match=sentence):
            read_files(tmp_path)[0].fill(VALUES)


@pytest.fixture
def apis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleApis]:
    """Google's APIs on loopback, which the command finds by gcloud's own variables."""
    with google_apis.serve() as apis, google_credentials.serve(tmp_path) as key:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
        for api in ("MONITORING", "BILLINGBUDGETS", "CLOUDRESOURCEMANAGER"):
            monkeypatch.setenv(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api}", f"{apis.url}/")
        yield apis


class TestCommand:
    def test_it_prints_first_and_changes_nothing(self, apis: GoogleApis, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([*WORDS, *BUDGET]) == 0
        said = capsys.readouterr().out.splitlines()
        names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
        assert sorted(line.removeprefix("would create").split()[0] for line in said[:-1]) == names
        assert said[-1] == f"{len(names)} changes in shop; the same command with --apply makes them"
        assert {method for method, _ in apis.requests} == {"GET"}
        assert apis.resources == {}

    def test_applied_twice_nothing_is_left_to_change(
        self, apis: GoogleApis, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([*WORDS, *BUDGET, "--apply"]) == 0
        made = dict(apis.resources)
        assert len(made) == len(list(FOLDER.glob("*.yaml")))
        capsys.readouterr()
        apis.requests.clear()
        assert main([*WORDS, *BUDGET, "--apply"]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "nothing to change in shop"
        assert {method for method, _ in apis.requests} == {"GET"}
        assert apis.resources == made

    def test_resources_name_one_another(self, apis: GoogleApis) -> None:
        assert main([*WORDS, *BUDGET, "--apply"]) == 0
        (channel,) = (name for name in apis.resources if "/notificationChannels/" in name)
        policies = [each for name, each in apis.resources.items() if "/alertPolicies/" in name]
        assert all(each["notificationChannels"] == [channel] for each in policies)
        slo = "projects/shop/services/fashion-classifier-europe-west1/serviceLevelObjectives/slo-latency"
        assert slo in apis.resources
        filters = re.findall(r'service_name = "([^"]*)"', str(policies))
        assert len(filters) >= 4
        assert set(filters) == {"fashion-classifier"}
        assert all(each["displayName"].startswith("fashion-classifier: ") for each in policies)
        assert any(f'select_slo_burn_rate("{slo}"' in str(each) for each in policies)
        (budget,) = (each for name, each in apis.resources.items() if name.startswith("billingAccounts/A1-B2/"))
        assert budget["budgetFilter"]["projects"] == ["projects/4711"]
        assert budget["amount"]["specifiedAmount"] == {"currencyCode": "EUR", "units": "50"}

    def test_what_was_changed_by_hand_is_said_and_put_back(
        self, apis: GoogleApis, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([*WORDS, "--apply"]) == 0
        policy = next(each for each in apis.resources.values() if each["userLabels"]["fashion_file"] == "alert_errors")
        policy["conditions"][0]["conditionThreshold"]["thresholdValue"] = 0.9
        capsys.readouterr()
        assert main([*WORDS]) == 0
        said = capsys.readouterr().out
        assert re.search(r"would update +alert_errors .*\(conditions\[0\]\.conditionThreshold\.thresholdValue\)", said)
        assert main([*WORDS, "--apply"]) == 0
        assert apis.resources[policy["name"]]["conditions"][0]["conditionThreshold"]["thresholdValue"] == 0.05

    def test_what_no_file_describes_is_listed_and_left(
        self, apis: GoogleApis, capsys: pytest.CaptureFixture[str]
    ) -> None:
        policies = "projects/shop/alertPolicies"
        old = {"name": f"{policies}/7", "displayName": "old", "userLabels": {"fashion_file": "alert_old"}}
        apis.resources |= {f"{policies}/7": old, f"{policies}/8": {"name": f"{policies}/8", "displayName": "theirs"}}
        assert main([*WORDS, "--apply"]) == 0
        said = capsys.readouterr().out
        assert re.search(r"in no file +projects/shop/alertPolicies/7 +old", said)
        assert "theirs" not in said
        assert {f"{policies}/7", f"{policies}/8"} <= set(apis.resources)

    def test_without_a_billing_account_there_is_no_budget(
        self, apis: GoogleApis, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([*WORDS, "--apply"]) == 0
        assert re.search(r"left out +budget_month +give --billing-account and --budget", capsys.readouterr().out)
        assert not any("billing" in path for _, path in apis.requests)

    def test_a_refusal_is_one_sentence_and_what_was_made_stays(
        self, apis: GoogleApis, capsys: pytest.CaptureFixture[str]
    ) -> None:
        apis.refuse["alertPolicies"] = (403, "Permission monitoring.alertPolicies.list denied")
        assert main([*WORDS, "--apply"]) == 1
        said = capsys.readouterr().err
        assert re.fullmatch(
            r"error: GET http://\S+/alertPolicies answered 403: Permission \S+ denied; does the account have the roles "
            r"in docs/how-to/cloud.md\?\n",
            said,
        )
        assert len(apis.resources) == 4
        apis.refuse.clear()
        assert main([*WORDS, "--apply"]) == 0
        assert len(apis.resources) == len(list(FOLDER.glob("*.yaml"))) - 1

    def test_a_file_cannot_take_the_name_of_a_value(
        self, apis: GoogleApis, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "service.yaml").write_text("displayName: x")
        monkeypatch.setattr("fashion.deployment.resource_files.read_files", lambda: read_files(tmp_path))
        assert main(WORDS) == 1
        assert "service.yaml has the name of a value: call it service_something.yaml" in capsys.readouterr().err

    def test_no_credentials_are_one_sentence(
        self, apis: GoogleApis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "no.json"))
        assert main(WORDS) == 1
        assert capsys.readouterr().err.startswith("error: there are no Google credentials: run `gcloud auth")
        assert apis.requests == []

    def test_an_api_that_is_away_is_one_sentence(
        self, apis: GoogleApis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_MONITORING", "http://127.0.0.1:9/")
        assert main(WORDS) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: http://127.0.0.1:9/v3/projects/shop/notificationChannels cannot be used: ")


def _matches(name: str, text: str) -> bool:
    """Whether the filter of an alert takes a log line."""
    condition = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["conditions"][0]["conditionMatchedLog"]
    terms = re.findall(r'(NOT )?textPayload =~ "([^"]+)"', condition["filter"])
    assert terms
    return all(bool(re.search(pattern, text)) is not bool(negated) for negated, pattern in terms)
