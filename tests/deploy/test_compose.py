"""A team's server by Docker Compose: valid, pinned, closed to other machines, and consistent with files and code."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.manifests import DEPLOY, load, project_variables, variables_of_the_code

SERVICES = ("postgres", "mlflow", "service", "drift", "prometheus", "grafana")
OURS = ("mlflow", "service", "drift")
MERGES = re.compile(r"\$\{(\w+)")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = load("compose.yaml")["services"]
    return found


def test_it_is_valid() -> None:
    program = Path(sys.executable).parent / "check-jsonschema"
    command = [str(program), "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_it_has_what_a_team_needs(services: dict[str, Any]) -> None:
    assert set(services) == set(SERVICES)


def test_official_images_are_pinned_by_digest_and_ours_are_named_outside(services: dict[str, Any]) -> None:
    for name, service in services.items():
        pinned = r"\$\{FASHION_\w+_IMAGE:\?.+\}" if name in OURS else r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}"
        assert re.fullmatch(pinned, service["image"]), service["image"]


def test_no_port_is_open_to_other_machines(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 5
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert len({port.split(":")[1] for port in ports}) == len(ports)


@pytest.mark.parametrize("name", OURS)
def test_ours_run_with_a_read_only_root_and_no_capabilities(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_one_waits_for_the_health_of_another(services: dict[str, Any]) -> None:
    for service in services.values():
        for name, wait in service.get("depends_on", {}).items():
            assert wait["condition"] == ("service_healthy" if "healthcheck" in services[name] else "service_started")
    assert [name for name, service in services.items() if "healthcheck" not in service] == ["drift"]


def test_what_is_mounted_exists(services: dict[str, Any]) -> None:
    volumes = load("compose.yaml")["volumes"]
    sources = [volume.split(":")[0] for service in services.values() for volume in service["volumes"]]
    assert {source for source in sources if not source.startswith(".")} == set(volumes)
    assert [source for source in sources if source.startswith(".") and not (DEPLOY / source).exists()] == []


def test_the_code_reads_every_variable(services: dict[str, Any]) -> None:
    names = project_variables({name for service in services.values() for name in service.get("environment", {})})
    assert {"FASHION_LOG", "FASHION_REPORTS", "FASHION_ALERTS", "HYDRA_ARGS"} <= names
    assert names <= variables_of_the_code()


def test_the_env_file_names_what_is_asked_for_and_gives_no_secret() -> None:
    lines = [x for x in (DEPLOY / "compose.env").read_text().splitlines() if x and not x.startswith("#")]
    given = dict(line.split("=", 1) for line in lines)
    assert set(given) == set(MERGES.findall((DEPLOY / "compose.yaml").read_text()))
    assert [name for name, value in given.items() if value and re.search("PASSWORD|KEYS", name)] == []


def test_databases_are_created_for_the_addresses_that_name_them() -> None:
    created = {*re.findall(r"CREATE DATABASE (\w+);", (DEPLOY / "postgres.sql").read_text()), "fashion"}
    text = (DEPLOY / "compose.yaml").read_text()
    assert set(re.findall(r"@postgres/(\w+)", text)) | set(re.findall(r"--dbname=(\w+)", text)) == created
