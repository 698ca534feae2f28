"""The page docs/cost.md: quantities that were measured times prices. Measures nothing and asks no network.

`python -m tests.benchmarks.costs.page` renders it from docs/cost.json and configs/deploy/prices.yaml.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path

from fashion.home import REPOSITORY
from tests.benchmarks.costs import model, prices, quantities
from tests.benchmarks.costs.model import Assumptions, Service, Usage
from tests.benchmarks.costs.prices import PriceList
from tests.benchmarks.costs.quantities import Measurement
from tests.benchmarks.measurement import Table

MEASUREMENTS = REPOSITORY / "docs" / "cost.json"
PAGE = REPOSITORY / "docs" / "cost.md"
RATES = (0.1, 10.0, 1000.0)
"""Requests a second."""
DAILY = 10_000_000
"""Predictions a day that drift is reckoned for."""
READING = ("firestore_reads", "storage_class_b")
"""Prices that a drift decision pays for reading its window."""
FIRESTORE_WRITES = 500
"""Writes a second that Firestore recommends at most, with an index on a field that only grows."""
RATIOS = (0.5, 1.0, 2.0)
"""vCPU-seconds of the cloud for a CPU-second here."""

GROUPS = {
    "run": "Cloud Run",
    "firestore": "Firestore",
    "sql": "Cloud SQL",
    "storage": "bucket",
    "logging": "Cloud Logging",
    "egress": "egress",
    "vm": "machines",
}
DEPLOYED = "as configs/deploy/cloudrun.yaml says"
WAYS = {
    DEPLOYED: Service(),
    "request-based billing": Service(instance_based=False),
    "log in Cloud SQL": Service(log="postgresql"),
    "no pictures": Service(pictures=False),
    "no log of requests": Service(request_log=False),
    "log in Cloud SQL, no pictures, no log of requests": Service(log="postgresql", pictures=False, request_log=False),
}
ADVICE = {
    "Cloud Run": "An instance that exists is paid for, busy or not. Where requests are rare, request-based billing "
    '(`run.googleapis.com/cpu-throttling: "true"`) is cheaper; it needs `serve.log.acknowledge=remote`, since nothing '
    "is shipped between requests then. Where they are many, a commitment or a Kubernetes node is.",
    "Firestore": "Each prediction is a write, and later a delete. "
    "`FASHION_LOG=postgresql://...` is a fixed sum instead.",
    "Cloud SQL": "The smallest instance is paid for all month: below some writes a second Firestore is cheaper.",
    "bucket": "Each picture is a paid write, which costs far more than its bytes. "
    "`serve.log.images=false` stores none; "
    "a drift report then shows no examples, and feedback cannot be trained on.",
    "Cloud Logging": "Cloud Run writes an entry for each request; the service itself prints "
    "none. An exclusion filter of "
    "the sink `_Default` on `run.googleapis.com/requests` drops them; metrics and alerts do not need them.",
    "egress": "Answers leave the cloud. Callers in the same region cost nothing.",
}


def render(measured: Measurement, listed: PriceList, assumed: Assumptions) -> str:
    """Return the page.

    Args:
        measured: what `cost` has measured.
        listed: prices.
        assumed: what is neither.
    """
    parts = [_head(measured, listed)]
    parts += [_serving(rate, measured, listed, assumed) for rate in RATES]
    parts += [_training(measured, listed, assumed), _drift(measured, listed, assumed)]
    parts += [_limits(measured, listed, assumed), _assumptions(assumed), _measured(measured), _prices(listed)]
    return "\n".join(parts)


def _head(measured: Measurement, listed: PriceList) -> str:
    quick = ["**Measured with --quick: no figure on this page means anything.**", ""] if _is_quick(measured) else []
    return "\n".join(
        [
            "# What it costs",
            "",
            *quick,
            "This page is made by a script: what was measured on one machine, times list prices of "
            f"{listed.region}, in {listed.currency}, without tax. Nobody has been billed these sums. A month has 730 "
            "hours. Both inputs can be changed:",
            "```sh",
            'make bench ARGS="cost --measurements docs/cost.json"   # measure again, on a quiet machine; 15 minutes',
            ".venv/bin/python -m tests.benchmarks.costs.page        # write this "
            "page anew; after a change of prices too",
            "```",
            "Prices, their dates and their sources are in [prices.yaml](../configs/deploy/prices.yaml) and at the end.",
            "",
        ]
    )


def _serving(rate: float, measured: Measurement, listed: PriceList, assumed: Assumptions) -> str:
    bills = {name: _groups(_bill(rate, way, measured, listed, assumed)) for name, way in WAYS.items()}
    free = _bill(rate, Service(), measured, listed, assumed, free_tier=True)
    used = {name for groups in bills.values() for name, dollars in groups.items() if dollars >= 0.005}
    shown = [name for name in GROUPS.values() if name in used]
    rows = [
        {"a month, dollars": name, **{each: _money(groups.get(each, 0.0)) for each in shown}}
        | {"sum": _money(sum(groups.values()))}
        for name, groups in bills.items()
    ]
    first, dominant = bills[DEPLOYED], max(bills[DEPLOYED], key=lambda name: bills[DEPLOYED][name])
    number = model.instances(rate, measured.quantities, assumed)
    lines = [
        f"{rate * model.MONTH:,.0f} requests a month keep {number} instance{'s' if number > 1 else ''} of "
        f"{assumed.vcpus:g} vCPU busy. With the free units of each price, the "
        f"first row is {_money(sum(free.values()))}.",
        f"{dominant} is {first[dominant] / sum(first.values()):.0%} of the first row. {ADVICE[dominant]}",
    ]
    if number > assumed.max_instances:
        lines.append(
            f"cloudrun.yaml allows {assumed.max_instances} instances: raise `maxScale`, or requests are refused."
        )
    if rate > FIRESTORE_WRITES:
        lines.append(
            f"Firestore's guidance is {FIRESTORE_WRITES} writes a second where a field only grows, as `time` does: at "
            "this rate the log belongs in PostgreSQL."
        )
    return f"## {rate:g} requests a second\n\n{_table(rows)}\n\n" + "\n\n".join(lines) + "\n"


def _training(measured: Measurement, listed: PriceList, assumed: Assumptions) -> str:
    found, ratio = measured.quantities, model.break_even(listed.prices)
    least = _dollars(model.training(found, assumed, by_clock=False), listed)
    clock = _dollars(model.training(found, assumed, by_clock=True), listed)
    vm, gpu_vm, cluster = (listed.prices[name] for name in ("vm", "gpu_vm", "gke_cluster"))
    seconds = found.train_cpu / assumed.vm_vcpus
    lines = [
        f"A whole TrainFlow with its defaults took {found.train_cpu:,.0f} CPU-seconds and {found.train_seconds:,.0f} s "
        f"by the clock, {found.train_megabytes:,.0f} MB in its largest process. On {vm.note.split(',')[0]} that is "
        f"{_money(least)} if both vCPUs are always busy, {_money(clock)} by the clock of this machine.",
        f"A GKE cluster costs {_money(cluster.dollars(model.MONTH / model.HOUR, free_tier=False))} a month whether "
        "anything runs or not, which the free tier covers for one cluster. One training a day is less than that: what "
        "dominates is what stays on between trainings. Let the node pool scale to zero.",
    ]
    machine = gpu_vm.note.split(" on demand")[0].rstrip(",")
    if found.train_gpu_seconds is None:
        lines.append(
            f"**There was no GPU here, so a GPU run is not measured.** Break-even: "
            f"{machine} costs {ratio:.1f} times as "
            f"much an hour, so a run on it must be {ratio:.1f} times faster, {seconds / ratio:,.0f} s instead of "
            f"{seconds:,.0f} s, imports, cards and evaluation included, to cost the same. The default network is made "
            "for a CPU; a GPU buys time, or a larger network."
        )
    else:
        dollars = gpu_vm.dollars(found.train_gpu_seconds / model.HOUR, free_tier=False)
        lines.append(
            f"On this machine's GPU it took {found.train_gpu_seconds:,.0f} s, which "
            f"is {_money(dollars)} on {machine} if "
            f"that is as fast. Break-even is {ratio:.1f} times faster than without."
        )
    return "## A training\n\n" + "\n\n".join(lines) + "\n"


def _drift(measured: Measurement, listed: PriceList, assumed: Assumptions) -> str:
    found, month = measured.quantities, DAILY * model.DAYS
    rows = []
    for source in ("firestore", "postgresql", "parquet"):
        used = model.drift(DAILY, source, found, assumed)
        kept = model.storing(month, source, found, assumed) if source != "parquet" else {}
        machine, reading, keeping = (
            _dollars({name: units for name, units in model.add(used, kept).items() if name in names}, listed)
            for names in (("vm",), READING, listed.prices.keys() - {"vm", *READING})
        )
        size = {
            "firestore": found.document_bytes + found.index_bytes,
            "postgresql": found.postgres_row_bytes,
            "parquet": found.parquet_row_bytes,
        }[source]
        rows.append(
            {
                "log in": {"firestore": "Firestore", "postgresql": "Cloud SQL", "parquet": "Parquet in a bucket"}[
                    source
                ],
                "CPU-hours a day": f"{used['vm'] * assumed.vm_vcpus / model.DAYS:.2f}",
                "rows read a day": f"{DAILY:,}",
                "GiB added a day": f"{DAILY * size / model.GIB:.1f}",
                "machine": _money(machine),
                "reading": _money(reading),
                "writing and keeping": _money(keeping),
                "sum": _money(machine + reading + keeping),
            }
        )
    reads = listed.prices["firestore_reads"].value * month
    return "\n".join(
        [
            f"## Drift at {DAILY:,} predictions a day",
            "",
            "One decision a day on all of the day's predictions, dollars a month:",
            "",
            _table(rows),
            "",
            f"A million rows take {found.drift_million_cpu:.1f} CPU-seconds to decide on; the process took "
            f"{found.drift_megabytes:,.0f} MB with a million. The machine hardly "
            f"matters: Firestore's price of each write "
            f"and each read does. {_money(reads)} a month are its reads alone, once more for every second look at the "
            "same day, an export to Parquet included. Where that is too much, keep the log in PostgreSQL; or have "
            "drift read the latest million alone, a tenth, with `rows=1000000`. Parquet's row holds no copy "
            "to write from: a log is still kept somewhere.",
            "",
            f"Without the exemptions of configs/deploy/firestore a prediction's index entries would take "
            f"{found.default_index_bytes:,.0f} bytes instead of {found.index_bytes:,.0f}: deploy them first.",
            "",
        ]
    )


def _limits(measured: Measurement, listed: PriceList, assumed: Assumptions) -> str:
    rows = []
    for ratio in RATIOS:
        changed = Assumptions(vcpu_seconds=ratio)
        row = {"vCPU-seconds for a CPU-second here": f"{ratio:g}"}
        for rate in RATES:
            row[f"{rate:g} requests/s"] = _money(sum(_bill(rate, Service(), measured, listed, changed).values()))
        rows.append(
            row | {"training": _money(_dollars(model.training(measured.quantities, changed, by_clock=False), listed))}
        )
    machine = measured.circumstances.get("CPU", "unknown")
    return "\n".join(
        [
            "## Limits",
            "",
            f"- A core of the machine that measured ({machine}) is not a vCPU of a cloud. The tables take "
            f"{assumed.vcpu_seconds:g} vCPU-second for a CPU-second; with others the first rows would be:",
            "",
            _table(rows),
            "",
            f"- The load of this machine was "
            f"{measured.circumstances.get('load average', 'unknown')} (1, 5, 15 minutes) "
            f"when it began and {measured.circumstances.get('load average at the end', 'unknown')} at the end. "
            "CPU-seconds hardly change with it; times by the clock do.",
            "- List prices of one region, first tier of each; no discounts, "
            "commitments, support or tax. MLflow's server, "
            "its database, the registry of images, Secret Manager, backups and people are left out.",
            "- Firestore is its emulator on loopback: a real one answers later, "
            "which request-based billing would bill if "
            "an answer took more than 100 ms. Requests come evenly; a real day has peaks, which need more instances.",
            "- Google serves no prices to this script: they are copied by hand, some from copies of the list.",
            "",
        ]
    )


def _assumptions(assumed: Assumptions) -> str:
    meanings = {
        "vcpu_seconds": "vCPU-seconds of the cloud for one CPU-second here",
        "utilisation": "share of its CPU that an instance or a database is filled to",
        "vcpus": "vCPUs of an instance (cloudrun.yaml)",
        "memory_gib": "GiB of an instance (cloudrun.yaml)",
        "max_instances": "most instances (cloudrun.yaml)",
        "retention_days": "days that predictions and pictures are kept",
        "request_log_bytes": "bytes of Cloud Run's own log entry for a request; cannot be measured without an account",
        "database_gib_per_vcpu": "GiB of a Cloud SQL instance beside each vCPU",
        "vm_vcpus": "vCPUs of the machine that trains and looks for drift",
    }
    rows = [{"assumed": meanings[each.name], "value": f"{getattr(assumed, each.name):g}"} for each in fields(assumed)]
    return f"## What is assumed\n\n{_table(rows)}\n\nThey are `Assumptions` in tests/benchmarks/costs/model.py.\n"


def _measured(measured: Measurement) -> str:
    rows = [{name: str(cell) for name, cell in row.items() if name != "name"} for row in measured.quantities.rows()]
    facts = [f"- {name}: {value}" for name, value in measured.circumstances.items()]
    return f"## What was measured\n\n{_table(rows)}\n\n" + "\n".join(facts) + "\n"


def _prices(listed: PriceList) -> str:
    rows = [
        {
            "price": name,
            "dollars": f"{each.value:.10f}".rstrip("0"),
            "for a": each.unit,
            "free": f"{each.free:,g} a month"
            if each.free
            else f"{each.free_per_day:,.0f} a day"
            if each.free_per_day
            else "",
            "seen": each.seen,
            "of": each.note,
            "source": each.source,
        }
        for name, each in listed.prices.items()
    ]
    return f"## Prices\n\n{_table(rows)}\n"


def _bill(
    rate: float,
    way: Service,
    measured: Measurement,
    listed: PriceList,
    assumed: Assumptions,
    *,
    free_tier: bool = False,
) -> dict[str, float]:
    used = model.serving(rate, way, measured.quantities, assumed)
    return model.bill(used, listed.prices, free_tier=free_tier)


def _dollars(used: Usage, listed: PriceList) -> float:
    return sum(model.bill(used, listed.prices, free_tier=False).values())


def _groups(bill: Mapping[str, float]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, dollars in bill.items():
        group = GROUPS[name.partition("_")[0]]
        found[group] = found.get(group, 0.0) + dollars
    return found


def _money(dollars: float) -> str:
    if dollars >= 100:
        return f"${dollars:,.0f}"
    return f"${dollars:,.2f}" if dollars >= 0.1 or dollars == 0 else f"${dollars:.2g}"


def _table(rows: Iterable[Mapping[str, str]]) -> str:
    return "\n".join(Table("", list(rows), "").markdown().splitlines()[2:-2])


def _is_quick(measured: Measurement) -> bool:
    return measured.circumstances.get("quick") == "yes"


def main(argv: list[str] | None = None) -> int:
    """Write the page, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.costs.page", description="Write docs/cost.md.")
    parser.add_argument("--measurements", type=Path, default=MEASUREMENTS, help="what the benchmark `cost` wrote")
    parser.add_argument("--prices", type=Path, default=prices.FILE, help="the price list")
    parser.add_argument("--write", type=Path, default=PAGE, metavar="FILE", help="the page")
    options = parser.parse_args(argv)
    try:
        page = render(quantities.read(options.measurements), prices.read(options.prices), Assumptions())
    except (quantities.UnreadableMeasurements, prices.BadPrices) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    options.write.write_text(page)
    print(f"{options.write} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
