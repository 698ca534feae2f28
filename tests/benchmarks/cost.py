"""What costs money in a cloud, measured here: requests, start, logs, a training, drift; priced by docs/cost.md."""

from collections.abc import Iterator

from tests.benchmarks.costs import drift, service, training
from tests.benchmarks.costs.quantities import TITLE, Measurement, Quantities
from tests.benchmarks.measurement import ServingOptions, Table, circumstances, run_one

NOTE = (
    "CPU-seconds are of one core. Cloud: the service waits until Firestore has a prediction and stores each picture; "
    "Firestore is its emulator on loopback, and what the emulator uses is not counted. Drift: from a log in SQLite "
    "with rows like the reference's, by the difference of two sizes. PostgreSQL runs without fsync."
)


def tables(options: ServingOptions) -> Iterator[Table]:
    """Measure everything once."""
    conditions = circumstances()
    quantities = measure(options)
    if options.measurements is not None:
        conditions |= {"load average at the end": circumstances()["load average"]}
        Measurement(quantities, conditions | {"quick": "yes"} if options.quick else conditions).write(
            options.measurements
        )
    yield Table(TITLE, list(quantities.rows()), NOTE)


def measure(options: ServingOptions) -> Quantities:
    """Measure every quantity."""
    local, cloud = service.measure(options)
    logged = drift.measure(options)
    trained = training.measure(options.python, quick=options.quick)
    return Quantities(
        request_cpu_1=local.cpu_few,
        request_cpu_64=local.cpu_many,
        cloud_request_cpu_1=cloud.cpu_few,
        cloud_request_cpu_64=cloud.cpu_many,
        cloud_request_seconds=cloud.seconds,
        service_megabytes=cloud.megabytes,
        start_seconds=cloud.start_seconds,
        start_cpu=cloud.start_cpu,
        request_bytes=cloud.request_bytes,
        answer_bytes=cloud.answer_bytes,
        service_log_bytes=cloud.log_bytes,
        picture_bytes=cloud.picture_bytes,
        log_row_bytes=logged.row_bytes,
        document_bytes=logged.document_bytes,
        index_bytes=logged.index_bytes,
        default_index_bytes=logged.default_index_bytes,
        postgres_row_bytes=logged.postgres.row_bytes,
        postgres_write_cpu=logged.postgres.write_cpu,
        parquet_row_bytes=logged.parquet_bytes,
        train_cpu=trained.on_cpu.cpu_seconds,
        train_seconds=trained.on_cpu.wall_seconds,
        train_megabytes=trained.on_cpu.megabytes,
        drift_fixed_cpu=logged.fixed_cpu,
        drift_million_cpu=logged.million_cpu,
        drift_million_seconds=logged.million_seconds,
        drift_megabytes=logged.megabytes,
        firestore_read_cpu=logged.firestore_read_cpu,
        postgres_read_cpu=logged.postgres.read_cpu,
        parquet_read_cpu=logged.parquet_read_cpu,
        train_gpu_seconds=None if trained.on_gpu is None else trained.on_gpu.wall_seconds,
    )


if __name__ == "__main__":
    run_one("cost")
