"""What was measured, with the meaning and the unit of each number. Knows no prices and measures nothing itself."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tests.benchmarks.measurement import Cell

TITLE = "Quantities that cost money"
"""Title of the table that `python -m tests.benchmarks cost --json FILE` writes them in."""


class UnreadableMeasurements(ValueError):
    """A file that does not hold what the benchmark `cost` writes. The message names the remedy."""


def _number(unit: str, meaning: str, default: Any = ...) -> Any:
    metadata = {"unit": unit, "meaning": meaning}
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Quantities:
    """One measurement of everything that is billed. CPU-seconds are of one core of the machine that measured."""

    request_cpu_1: float = _number("CPU-s", "a request at 1 connection, log on the disk")
    request_cpu_64: float = _number("CPU-s", "a request at 64 connections, log on the disk")
    cloud_request_cpu_1: float = _number("CPU-s", "a request at 1 connection, answered once Firestore has it")
    cloud_request_cpu_64: float = _number("CPU-s", "a request at 64 connections, answered once Firestore has it")
    cloud_request_seconds: float = _number("s", "median time of an answer at 1 connection, Firestore on loopback")
    service_megabytes: float = _number("MB", "all processes of the service after these loads, resident")
    start_seconds: float = _number("s", "start of the service to its first 200 of /readyz")
    start_cpu: float = _number("CPU-s", "that start")
    request_bytes: float = _number("bytes", "a request, a PNG of 28x28 as a form upload, without TCP and TLS")
    answer_bytes: float = _number("bytes", "its answer, headers included, without TCP and TLS")
    service_log_bytes: float = _number("bytes", "what the service prints for a request")
    picture_bytes: float = _number("bytes", "a stored picture")
    log_row_bytes: float = _number("bytes", "a prediction in this machine's SQLite log, indexes included")
    document_bytes: float = _number("bytes", "a prediction in Firestore, by its published rules of size")
    index_bytes: float = _number("bytes", "its index entries with the exemptions of configs/deploy/firestore")
    default_index_bytes: float = _number("bytes", "its index entries without these exemptions")
    postgres_row_bytes: float = _number("bytes", "a prediction in PostgreSQL, indexes included")
    postgres_write_cpu: float = _number("CPU-s", "PostgreSQL's server, to store a million predictions")
    parquet_row_bytes: float = _number("bytes", "a prediction in a file of export_parquet (zstd)")
    train_cpu: float = _number("CPU-s", "a whole TrainFlow with its defaults, all processes")
    train_seconds: float = _number("s", "the same, by the clock")
    train_megabytes: float = _number("MB", "its largest process, resident")
    drift_fixed_cpu: float = _number("CPU-s", "a drift decision and its report, however few rows")
    drift_million_cpu: float = _number("CPU-s", "each million rows of it, local log")
    drift_million_seconds: float = _number("s", "each million rows of it by the clock, one core")
    drift_megabytes: float = _number("MB", "the process that decides, at its largest")
    firestore_read_cpu: float = _number("CPU-s", "to read a million predictions from Firestore, client only")
    postgres_read_cpu: float = _number("CPU-s", "to read a million predictions from PostgreSQL, client only")
    parquet_read_cpu: float = _number("CPU-s", "to read a million predictions from Parquet")
    train_gpu_seconds: float | None = _number("s", "a whole TrainFlow on a GPU by the clock", None)

    def rows(self) -> Iterator[dict[str, Cell]]:
        """Yield a row of a table for each quantity."""
        for each in fields(self):
            value = getattr(self, each.name)
            yield {
                "name": each.name,
                "value": "not measured" if value is None else f"{value:,.6g}",
                "unit": each.metadata["unit"],
                "of": each.metadata["meaning"],
            }


@dataclass(frozen=True)
class Measurement:
    """Quantities, and what they depend on besides the code."""

    quantities: Quantities
    circumstances: Mapping[str, str]

    def write(self, file: Path) -> None:
        """Write what `read` reads."""
        values = {each.name: getattr(self.quantities, each.name) for each in fields(self.quantities)}
        content = {"circumstances": dict(self.circumstances), "quantities": values}
        file.write_text(json.dumps(content, indent=1) + "\n")


def read(file: Path) -> Measurement:
    """Read a measurement.

    Raises:
        UnreadableMeasurements: the file is missing, or lacks a quantity.
    """
    try:
        content = json.loads(file.read_text())
        values: dict[str, Any] = {name: _checked(name, value) for name, value in content["quantities"].items()}
        quantities = Quantities(**values)
        return Measurement(quantities, content["circumstances"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableMeasurements(
            f"{file} does not hold the quantities ({error}): measure them with "
            f'`make bench ARGS="cost --measurements {file}"`'
        ) from error


def _checked(name: str, value: Any) -> float | None:
    if value is None and name == "train_gpu_seconds":
        return None
    if not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a number that is not negative, got {value!r}")
    return float(value)
