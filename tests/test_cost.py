"""The cost page: arithmetic from billed units to dollars, the price list, sizes in Firestore, and the page itself."""

import dataclasses
import math
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fashion.home import REPOSITORY
from tests.benchmarks.costs import account, firestore_size, model, page, prices, quantities
from tests.benchmarks.costs.model import Assumptions, Price, Service
from tests.benchmarks.costs.quantities import Measurement, Quantities

UNITS = st.floats(0, 1e12)
LISTED = prices.read()
USAGES = st.dictionaries(st.sampled_from(sorted(LISTED.prices)), UNITS)
RATES = st.floats(0, 5000)
WAYS = st.builds(
    Service,
    instance_based=st.booleans(),
    log=st.sampled_from(["firestore", "postgresql"]),
    pictures=st.booleans(),
    request_log=st.booleans(),
)
FOUND = Quantities(**{each.name: 1.0 for each in fields(Quantities)} | {"cloud_request_cpu_64": 0.001})


def dollars(used: model.Usage, *, free_tier: bool = False) -> float:
    return sum(model.bill(used, LISTED.prices, free_tier=free_tier).values())


def test_googles_own_example_of_cloud_storage() -> None:
    # cloud.google.com/storage/pricing-examples, "Simple example": $1.00 + $0.05 + $0.02 + $0.12, no free units.
    used = {"storage": 50, "storage_class_a": 10_000, "storage_class_b": 50_000, "egress": 1}
    found = model.bill(used, LISTED.prices, free_tier=False)
    assert found == pytest.approx({"storage": 1.00, "storage_class_a": 0.05, "storage_class_b": 0.02, "egress": 0.12})
    assert sum(found.values()) == pytest.approx(1.19)


def test_googles_own_example_of_firestore() -> None:
    # 2 million reads and as many writes an hour in us-central1: $0.60 + $1.80, and $1,752 a month of 730 hours.
    used = {"firestore_reads": 2e6 * 730, "firestore_writes": 2e6 * 730}
    assert dollars(used) == pytest.approx(1752)


def test_an_instance_that_is_always_there() -> None:
    # 730 hours of 1 vCPU and 1 GiB: 2,628,000 x (0.000018 + 0.000002).
    used = model.serving(0.1, Service(log="postgresql", pictures=False), FOUND, Assumptions())
    assert dollars({name: used[name] for name in ("run_cpu", "run_memory")}) == pytest.approx(52.56)


def test_requests_alone_are_billed_a_tenth_of_a_second_each() -> None:
    found = dataclasses.replace(FOUND, cloud_request_seconds=0.02)
    used = model.serving(1e-4, Service(instance_based=False), found, Assumptions())
    assert used["run_request_cpu"] == pytest.approx(1e-4 * model.MONTH * 0.1, rel=1e-4)
    slower = model.serving(
        1e-4, Service(instance_based=False), dataclasses.replace(found, cloud_request_seconds=0.11), Assumptions()
    )
    assert slower["run_request_cpu"] == pytest.approx(2 * used["run_request_cpu"], rel=1e-4)


@given(USAGES, USAGES)
def test_without_free_units_bills_add_up(one: dict[str, float], other: dict[str, float]) -> None:
    assert dollars(model.add(one, other)) == pytest.approx(dollars(one) + dollars(other))


@given(USAGES, USAGES, st.booleans())
def test_more_units_never_cost_less(one: dict[str, float], other: dict[str, float], free_tier: bool) -> None:
    assert dollars(model.add(one, other), free_tier=free_tier) >= dollars(one, free_tier=free_tier) * (1 - 1e-12)


@given(USAGES)
def test_free_units_never_cost(used: dict[str, float]) -> None:
    assert 0 <= dollars(used, free_tier=True) <= dollars(used)


@given(RATES, RATES, WAYS)
def test_more_requests_never_cost_less(one: float, other: float, way: Service) -> None:
    low, high = sorted((one, other))
    sums = [dollars(model.serving(rate, way, FOUND, Assumptions())) for rate in (low, high)]
    assert sums[0] <= sums[1] * (1 + 1e-9)


@given(WAYS)
def test_no_requests_cost_nothing(way: Service) -> None:
    assert dollars(model.serving(0, way, FOUND, Assumptions())) == 0


@given(RATES)
def test_what_is_left_out_is_cheaper(rate: float) -> None:
    def found(way: Service) -> float:
        return dollars(model.serving(rate, way, FOUND, Assumptions()))

    assert found(Service(pictures=False)) <= found(Service())
    assert found(Service(request_log=False)) <= found(Service())


@given(st.floats(1, 1e8), st.sampled_from(["firestore", "postgresql", "parquet"]))
def test_drift_grows_with_the_rows(daily: float, source: str) -> None:
    few, many = (dollars(model.drift(rows, source, FOUND, Assumptions())) for rows in (daily, 2 * daily))
    assert 0 < few < many < 2 * few * (1 + 1e-9)


def test_break_even_costs_the_same() -> None:
    vm, gpu = LISTED.prices["vm"], LISTED.prices["gpu_vm"]
    hours = 3.0
    faster = hours / model.break_even(LISTED.prices)
    assert gpu.dollars(faster, free_tier=False) == pytest.approx(vm.dollars(hours, free_tier=False))


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="units of egress must not be negative, got -1"):
        model.bill({"egress": -1}, LISTED.prices, free_tier=False)
    with pytest.raises(ValueError, match="value must be a number that is not negative, got nan"):
        Price(math.nan, "hour", "2026", "https://example.org")


def test_every_price_has_a_date_and_a_source(tmp_path: Path) -> None:
    content = yaml.safe_load(prices.FILE.read_text())
    for key, value in (("source", "hearsay"), ("seen", " "), ("value", -1), ("colour", "red")):
        changed = {**content, "prices": {"vm": content["prices"]["vm"] | {key: value}}}
        file = tmp_path / "prices.yaml"
        file.write_text(yaml.safe_dump(changed))
        with pytest.raises(prices.BadPrices, match="price vm: "):
            prices.read(file)
    with pytest.raises(prices.BadPrices, match="is no price list"):
        prices.read(tmp_path / "missing.yaml")


def test_sizes_of_documents_follow_the_published_example() -> None:
    # firebase.google.com/docs/firestore/storage-size: fields of 14 + 6 + 17 + 34 bytes.
    fields_of_it = {"type": "Personal", "done": False, "priority": 1, "description": "Learn Cloud Firestore"}
    name = len("predictions") + 1 + len("my_task_id") + 1 + 16
    assert firestore_size.document_bytes("my_task_id", fields_of_it) == name + 71 + 32


def test_an_exempt_field_has_no_entries() -> None:
    content = {"time": datetime.now(UTC), "statistics": {"mean": 0.5}, "probabilities": [0.25, 0.75]}
    all_of_them = firestore_size.index_bytes("id", content)
    without = firestore_size.index_bytes("id", content, {"statistics", "probabilities"})
    assert 0 < without == firestore_size.index_bytes("id", {"time": content["time"]}) < all_of_them
    assert firestore_size.index_bytes("id", content, set(content)) == 0


def test_assumptions_are_those_of_the_deployment() -> None:
    service = yaml.safe_load((REPOSITORY / "configs" / "deploy" / "cloudrun.yaml").read_text())["spec"]["template"]
    limits = service["spec"]["containers"][0]["resources"]["limits"]
    assumed = Assumptions()
    assert limits == {"cpu": f"{assumed.vcpus:g}", "memory": f"{assumed.memory_gib:g}Gi"}
    annotations = service["metadata"]["annotations"]
    assert annotations["autoscaling.knative.dev/maxScale"] == str(assumed.max_instances)
    assert annotations["run.googleapis.com/cpu-throttling"] == "false"


def test_the_page_is_what_its_inputs_give(tmp_path: Path) -> None:
    assert page.main(["--write", str(tmp_path / "cost.md")]) == 0
    assert page.PAGE.read_text() == (tmp_path / "cost.md").read_text(), "run python -m tests.benchmarks.costs.page"


def test_another_price_needs_no_new_measurement(tmp_path: Path) -> None:
    measured = quantities.read(page.MEASUREMENTS)
    dearer = {**LISTED.prices, "firestore_writes": dataclasses.replace(LISTED.prices["firestore_writes"], value=1.0)}
    changed = page.render(measured, dataclasses.replace(LISTED, prices=dearer), Assumptions())
    assert "Firestore is 100% of the first row" in changed
    assert changed != page.PAGE.read_text()


def test_measurements_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "cost.json"
    written = Measurement(dataclasses.replace(FOUND, train_gpu_seconds=None), {"CPU": "one"})
    written.write(file)
    assert quantities.read(file) == written
    file.write_text('{"circumstances": {}, "quantities": {"train_cpu": -1}}')
    with pytest.raises(quantities.UnreadableMeasurements, match="train_cpu must be a number .*make bench"):
        quantities.read(file)


def test_a_missing_measurement_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert page.main(["--measurements", str(tmp_path / "no.json"), "--write", str(tmp_path / "x.md")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_an_account_counts_the_command_alone() -> None:
    ballast = bytearray(200_000_000)  # memory of this process, which is not the command's
    took, printed = account.run(["sh", "-c", "echo done"], folder=REPOSITORY)
    assert printed == "done\n"
    assert len(ballast) > took.megabytes * 1e6
    with pytest.raises(SystemExit, match="error: false failed"):
        account.run(["false"], folder=REPOSITORY)
