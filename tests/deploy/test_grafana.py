"""The Grafana board and BentoML's documented queries, evaluated by a real Prometheus that scrapes the served bento."""

import json
import math
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support import prometheus
from support.forms import form
from support.prometheus import Prometheus
from support.served import Served

from fashion.home import REPOSITORY

DEPLOY = REPOSITORY / "configs" / "deploy"
BOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "fashion.json").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
PROVIDED = {"up", "ALERTS"}
"""Metrics that Prometheus itself makes."""
BENTOML = {
    # As documented: docs.bentoml.com, "Metrics", and the panels of the board of Yatai, BentoML's own platform.
    "p99 of an endpoint": "histogram_quantile(0.99, rate(bentoml_service_request_duration_seconds_bucket"
    '{endpoint="/predict"}[1m]))',
    "requests a second": 'round(sum by (endpoint) (irate(bentoml_service_request_total{endpoint!="/"}[2m])), 0.001)',
    "successes": 'sum(rate(bentoml_service_request_total{http_response_code!~"[4-5].*"}[2m]))'
    " / sum(rate(bentoml_service_request_total[2m]))",
    "in progress": "sum by (endpoint) (bentoml_service_request_in_progress)",
    "batch size": "histogram_quantile(0.9, sum by (le, method_name) (rate("
    "bentoml_service_adaptive_batch_size_bucket[2m])))",
    "by version": "sum by (service_name, service_version, runner_name) (bentoml_service_request_total)",
    "since the last request": "time() - max(bentoml_service_last_request_timestamp_seconds)",
}


def expression(query: str) -> str:
    """A query of the board with Grafana's variables filled in."""
    return query.replace("$job", "fashion-classifier").replace("$__rate_interval", "1m")


@pytest.fixture(scope="module")
def scraped(
    service: Served, pngs: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Prometheus, str]]:
    """Prometheus with the repository's configuration, after some scrapes; and the text of /metrics."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "fashion-classifier"
    job["static_configs"][0]["targets"] = [f"127.0.0.1:{service.port}"]
    folder = tmp_path_factory.mktemp("prometheus") / "files"
    with prometheus.serve(config, folder, [DEPLOY / "prometheus" / "rules.yml"]) as server:
        deadline = time.monotonic() + 90
        rounds = 0
        while rounds < 5 or not server.query("job:slow_predictions:ratio_rate5m >= 0"):
            for png in pngs[:5]:
                service.predict(png)
            body, headers = form(*[("images", "a.png", png) for png in pngs[:3]])
            assert service.request("POST", "/predict/batch", body, headers)[0] == 200
            assert service.request("POST", "/predict", b"not a picture", {"content-type": "image/png"})[0] == 415
            assert time.monotonic() < deadline, folder.joinpath("log").read_text()
            rounds += 1
            time.sleep(1)
        yield server, service.request("GET", "/metrics")[2].decode()


def numbers(series: list[dict[str, Any]]) -> list[float]:
    return [float(each["value"][1]) for each in series]


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_every_query_of_the_board_has_data(scraped: tuple[Prometheus, str], title: str, query: str) -> None:
    found = numbers(scraped[0].query(expression(query)))
    assert found, title
    assert any(math.isfinite(each) for each in found), title


def test_every_metric_and_label_of_the_board_is_served(scraped: tuple[Prometheus, str]) -> None:
    """A misspelt label makes some expressions match everything: data alone does not show it."""
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(scraped[1]):
        for sample in family.samples:
            labels.setdefault(sample.name, {"job", "instance"}).update(sample.labels)
    recorded = {
        rule["record"]: {"job"}
        for group in yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    known = {**labels, **recorded, **{name: {"job", "instance", "alertstate"} for name in PROVIDED}}
    for title, query in QUERIES:
        used = re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", query)
        assert used, title
        grouped = [name.strip() for names in re.findall(r"by \(([^)]*)\)", query) for name in names.split(",")]
        for metric, selector in used:
            assert metric in known, f"{title}: {metric}"
            matched = re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selector)
            assert {*matched, *grouped} <= known[metric], f"{title}: {metric}"


@pytest.mark.parametrize("name", BENTOML)
def test_bentomls_documented_queries_have_data(scraped: tuple[Prometheus, str], name: str) -> None:
    found = numbers(scraped[0].query(BENTOML[name]))
    assert found
    assert any(math.isfinite(each) and each >= 0 for each in found)


def test_a_busy_sound_service_raises_no_alert(scraped: tuple[Prometheus, str]) -> None:
    firing = {each["metric"]["alertname"] for each in scraped[0].query('ALERTS{alertstate="firing"}')}
    assert not firing - {"LatencyBudgetBurn"}  # of how fast the machine of the tests is
    health = scraped[0].get("/api/v1/rules")["data"]["groups"]
    assert {rule["health"] for group in health for rule in group["rules"]} == {"ok"}


def test_the_board_is_what_grafana_is_told_to_read() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    assert {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]} == {"${datasource}"}
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
