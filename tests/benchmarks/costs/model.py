"""Billed units to dollars, and what a scenario bills. Pure arithmetic: knows no files and no clock."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tests.benchmarks.costs.quantities import Quantities

GIB = 2**30
HOUR = 3600.0
DAYS = 365 / 12
"""Days of a month."""
MONTH = 86_400 * DAYS
"""Seconds of a month: 730 hours."""
BILLING_STEP = 0.1
"""Cloud Run rounds the time of an instance up to this many seconds."""

Usage = Mapping[str, float]
"""Units of a month, by the name of the price that bills them."""


@dataclass(frozen=True)
class Price:
    """What a unit costs."""

    value: float
    """Dollars for one unit."""
    unit: str
    """What is counted, in the singular."""
    seen: str
    """Date of the copy that it was read in, as far as known."""
    source: str
    """Address of the price list."""
    free: float = 0.0
    """Units of each month that are free."""
    free_per_day: float = 0.0
    """Units of each day that are free; use is taken to be even."""
    note: str = ""
    """What a reader must know besides."""

    def __post_init__(self) -> None:
        for name in ("value", "free", "free_per_day"):
            number = getattr(self, name)
            if not 0 <= number < math.inf:
                raise ValueError(f"{name} must be a number that is not negative, got {number}")

    def dollars(self, units: float, *, free_tier: bool) -> float:
        """Return what these units cost.

        Args:
            units: of a month.
            free_tier: leave the free units out.
        """
        free = self.free + self.free_per_day * DAYS if free_tier else 0.0
        return self.value * max(0.0, units - free)


def bill(usage: Usage, prices: Mapping[str, Price], *, free_tier: bool) -> dict[str, float]:
    """Return dollars by the name of the price.

    Args:
        usage: units of a month.
        prices: by name.
        free_tier: apply each price's free units, as if nothing else of the billing account used them.

    Raises:
        KeyError: a price is missing.
        ValueError: units are negative.
    """
    if negative := [name for name, units in usage.items() if not units >= 0]:
        raise ValueError(f"units of {negative[0]} must not be negative, got {usage[negative[0]]}")
    return {name: prices[name].dollars(units, free_tier=free_tier) for name, units in usage.items()}


def add(*usages: Usage) -> dict[str, float]:
    """Return the sum of several usages."""
    total: dict[str, float] = {}
    for name, units in (pair for usage in usages for pair in usage.items()):
        total[name] = total.get(name, 0.0) + units
    return total


@dataclass(frozen=True)
class Assumptions:
    """What is neither measured nor a price. The page prints each."""

    vcpu_seconds: float = 1.0
    """vCPU-seconds of the cloud for one CPU-second of the machine that measured."""
    utilisation: float = 0.6
    """Share of its CPU at which Cloud Run adds an instance; the same is left free on a database."""
    vcpus: float = 1.0
    """Of an instance: `limits.cpu` of cloudrun.yaml."""
    memory_gib: float = 1.0
    """Of an instance: `limits.memory` of cloudrun.yaml."""
    max_instances: int = 10
    """`maxScale` of cloudrun.yaml."""
    retention_days: float = 30.0
    """Days that predictions and pictures are kept; what is older is deleted, and deletes are billed."""
    request_log_bytes: float = 1000.0
    """Cloud Run's own entry in Cloud Logging for a request. Nobody could measure it here."""
    database_gib_per_vcpu: float = 3.75
    """Memory of a Cloud SQL instance beside each vCPU."""
    vm_vcpus: int = 2
    """Of the machine that trains and looks for drift: e2-standard-2."""


@dataclass(frozen=True)
class Service:
    """A way to run the service."""

    instance_based: bool = True
    """CPU is billed as long as an instance exists; else while it answers, and each request."""
    log: str = "firestore"
    """`firestore` or `postgresql`."""
    pictures: bool = True
    """Each picture is stored, under its sha256."""
    request_log: bool = True
    """Cloud Run's own log of requests is kept: an exclusion filter drops it."""


def instances(rate: float, quantities: Quantities, assumed: Assumptions) -> int:
    """Return how many instances a rate of requests per second keeps busy; one at least, for any."""
    if rate == 0:
        return 0
    vcpus = rate * quantities.cloud_request_cpu_64 * assumed.vcpu_seconds
    return max(1, math.ceil(vcpus / (assumed.utilisation * assumed.vcpus)))


def serving(rate: float, way: Service, quantities: Quantities, assumed: Assumptions) -> dict[str, float]:
    """Return what a month of requests uses.

    Requests come at random at an even rate. One instance at least then stays up: Cloud Run keeps an idle one for
    minutes.

    Args:
        rate: requests per second.
        way: how the service runs.
        quantities: what was measured.
        assumed: what was not.
    """
    requests = rate * MONTH
    log_bytes = quantities.service_log_bytes + (assumed.request_log_bytes if way.request_log else 0.0)
    kept = assumed.retention_days / DAYS
    parts = [
        _compute(rate, way, quantities, assumed),
        {"egress": requests * quantities.answer_bytes / GIB, "logging": requests * log_bytes / GIB},
        storing(requests, way.log, quantities, assumed),
    ]
    if way.pictures:
        stored = requests * quantities.picture_bytes * kept / GIB
        parts.append({"storage_class_a": requests, "storage": stored})
    return add(*parts)


def _compute(rate: float, way: Service, quantities: Quantities, assumed: Assumptions) -> dict[str, float]:
    number = instances(rate, quantities, assumed)
    if number == 0:
        return {}
    if way.instance_based:
        seconds = number * MONTH
        return {"run_cpu": seconds * assumed.vcpus, "run_memory": seconds * assumed.memory_gib}
    # Requests that overlap share an instance's time: it is busy unless none came within the time of one.
    time = math.ceil(max(quantities.cloud_request_seconds, 1e-9) / BILLING_STEP - 1e-9) * BILLING_STEP
    seconds = number * MONTH * -math.expm1(-rate / number * time)
    return {
        "run_request_cpu": seconds * assumed.vcpus,
        "run_request_memory": seconds * assumed.memory_gib,
        "run_requests": rate * MONTH,
    }


def storing(predictions: float, log: str, quantities: Quantities, assumed: Assumptions) -> dict[str, float]:
    """Return what a log of predictions uses in a month.

    Args:
        predictions: of a month.
        log: `firestore` or `postgresql`.
        quantities: what was measured.
        assumed: what was not.
    """
    kept = predictions * assumed.retention_days / DAYS
    if log == "firestore":
        size = quantities.document_bytes + quantities.index_bytes
        return {
            "firestore_writes": predictions,
            "firestore_deletes": predictions,
            "firestore_storage": kept * size / GIB,
        }
    if predictions == 0:
        return {}
    # A database that is there has one vCPU at least; it writes a row and deletes it again later.
    cpu = 2 * predictions / 1e6 * quantities.postgres_write_cpu * assumed.vcpu_seconds / MONTH
    vcpus = max(1, math.ceil(cpu / assumed.utilisation))
    return {
        "sql_cpu": vcpus * MONTH / HOUR,
        "sql_memory": vcpus * assumed.database_gib_per_vcpu * MONTH / HOUR,
        "sql_storage": kept * quantities.postgres_row_bytes / GIB,
    }


def training(quantities: Quantities, assumed: Assumptions, *, by_clock: bool) -> dict[str, float]:
    """Return what one training uses of a virtual machine without a GPU.

    Args:
        quantities: what was measured.
        assumed: what was not.
        by_clock: as long as it took here; else as if all vCPUs were always busy, the least that it can be.
    """
    seconds = quantities.train_seconds if by_clock else quantities.train_cpu / assumed.vm_vcpus
    return {"vm": seconds * assumed.vcpu_seconds / HOUR}


def break_even(prices: Mapping[str, Price]) -> float:
    """Return how many times faster a run on the GPU's machine must be to cost what it costs without one."""
    return prices["gpu_vm"].value / prices["vm"].value


def drift(daily: float, source: str, quantities: Quantities, assumed: Assumptions) -> dict[str, float]:
    """Return what a daily drift decision uses in a month, the log itself left out.

    Args:
        daily: predictions a day, each of which is read once.
        source: `firestore`, `postgresql`, or `parquet` for files in a bucket.
        quantities: what was measured.
        assumed: what was not.
    """
    reading = {
        "firestore": quantities.firestore_read_cpu,
        "postgresql": quantities.postgres_read_cpu,
        "parquet": quantities.parquet_read_cpu,
    }[source]
    million = quantities.drift_million_cpu + reading
    seconds = (quantities.drift_fixed_cpu + daily / 1e6 * million) * assumed.vcpu_seconds
    # A pod of one CPU on a machine that others share.
    used = {"vm": seconds / assumed.vm_vcpus / HOUR * DAYS}
    if source == "firestore":
        used["firestore_reads"] = daily * DAYS
    if source == "parquet":
        files = 24 * DAYS  # a file an hour
        size = daily * assumed.retention_days * quantities.parquet_row_bytes / GIB
        used |= {"storage_class_a": files, "storage_class_b": files, "storage": size}
    return used
