"""What a drift decision takes for each million logged rows, and what reading and storing them takes."""

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion.home import REPOSITORY
from fashion.model.package import Package
from fashion.predictions.export import export_parquet
from fashion.predictions.firestore_documents import document_name, from_document, to_document
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import FOREVER_US, PredictionRecord
from tests.benchmarks import champion
from tests.benchmarks.costs import account, firestore_size, postgres
from tests.benchmarks.costs.account import Account
from tests.benchmarks.drift_scale import INSPECTION, fill
from tests.benchmarks.measurement import ServingOptions, fashion_mnist, measured, say
from tests.support import firestore

EXEMPTIONS = REPOSITORY / "configs" / "deploy" / "firestore" / "firestore.indexes.json"
PAGE_ROWS = 500
EXPIRE_DAYS = 30.0


@dataclass(frozen=True)
class LogCost:
    """Bytes of a logged prediction wherever it may be stored, and CPU-seconds to read and to decide on a million."""

    fixed_cpu: float
    million_cpu: float
    million_seconds: float
    megabytes: float
    row_bytes: float
    document_bytes: float
    index_bytes: float
    default_index_bytes: float
    parquet_bytes: float
    parquet_read_cpu: float
    firestore_read_cpu: float
    postgres: postgres.PostgresCost


def measure(options: ServingOptions) -> LogCost:
    """Fill logs with rows like the reference's, decide on them, and copy some of them elsewhere."""
    packed = champion.load_package(options.home, fashion_mnist(3000 if options.quick else None), quick=options.quick)
    few, many, copied = (500, 2000, 500) if options.quick else (100_000, 1_000_000, 20_000)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        small, large = (_inspected(root / f"{rows}.db", packed, rows) for rows in (few, many))
        row_bytes = (root / f"{many}.db").stat().st_size / many
        with PredictionLog(root / f"{few}.db") as log:
            parquet_bytes, parquet_read_cpu = _parquet(log, root / "log.parquet")
            records = [each.record for each, _ in zip(log.window(0, FOREVER_US), range(copied), strict=False)]
    millions = (many - few) / 1e6
    million_cpu = max(0.0, (large.cpu_seconds - small.cpu_seconds) / millions)
    record = records[0]
    name, document = document_name(record), to_document(record, expire_days=EXPIRE_DAYS)
    return LogCost(
        fixed_cpu=max(0.0, large.cpu_seconds - million_cpu * many / 1e6),
        million_cpu=million_cpu,
        million_seconds=max(0.0, (large.wall_seconds - small.wall_seconds) / millions),
        megabytes=large.megabytes,
        row_bytes=row_bytes,
        document_bytes=firestore_size.document_bytes(name, document),
        index_bytes=firestore_size.index_bytes(name, document, exempt_fields()),
        default_index_bytes=firestore_size.index_bytes(name, document),
        parquet_bytes=parquet_bytes,
        parquet_read_cpu=parquet_read_cpu,
        firestore_read_cpu=_firestore_read(records),
        postgres=postgres.measure(records, expire_days=EXPIRE_DAYS),
    )


def exempt_fields() -> set[str]:
    """Return the fields of predictions that configs/deploy/firestore takes out of the automatic indexes."""
    overrides = json.loads(EXEMPTIONS.read_text())["fieldOverrides"]
    return {each["fieldPath"] for each in overrides if not each["indexes"]}


def _inspected(log: Path, packed: Package, rows: int) -> Account:
    fill(log, packed, rows)
    pinned = ["taskset", "-c", "0"] if Path("/usr/bin/taskset").exists() else []
    command = [*pinned, sys.executable, "-m", INSPECTION, str(packed.folder), str(log)]
    took, printed = account.run(command, folder=REPOSITORY)
    found = json.loads(printed.splitlines()[-1])
    if found["rows"] != rows:
        raise RuntimeError(f"{found['rows']} of {rows} rows were read")
    say(f"{rows:,} rows decided in {took.cpu_seconds:.1f} CPU-s")
    return took


def _parquet(log: PredictionLog, file: Path) -> tuple[float, float]:
    """Bytes of a row in a file, and CPU-seconds to read a million of them back."""
    import pyarrow.parquet as pq

    rows = export_parquet(log, file)
    took = measured(lambda: pq.read_table(file, use_threads=False))
    return file.stat().st_size / rows, took.cpu / rows * 1e6


def _firestore_read(records: list[PredictionRecord]) -> float:
    """CPU-seconds of the client to read a million predictions from the emulator, page by page."""
    with _emulated(records) as collection:

        def read() -> None:
            count, last = 0, None
            while True:
                query = collection.order_by("time").order_by("__name__").limit(PAGE_ROWS)
                page = list((query if last is None else query.start_after(last)).stream())
                count += len([from_document(each.id, each.to_dict()) for each in page])
                if len(page) < PAGE_ROWS:
                    break
                last = page[-1]
            if count != len(records):
                raise RuntimeError(f"{count} of {len(records)} documents were read")

        started = time.process_time()
        read()
        return (time.process_time() - started) / len(records) * 1e6


@contextlib.contextmanager
def _emulated(records: list[PredictionRecord]) -> Iterator[Any]:
    """A collection of an emulator that holds these predictions."""
    import grpc
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import firestore as client_library
    from google.cloud.firestore_v1.services.firestore.client import FirestoreClient
    from google.cloud.firestore_v1.services.firestore.transports.grpc import FirestoreGrpcTransport

    with firestore.serve() as address:
        client = client_library.Client(project="cost", credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
        transport = FirestoreGrpcTransport(channel=grpc.insecure_channel(address))
        client._firestore_api_internal = FirestoreClient(transport=transport)
        collection = client.collection(firestore_size.COLLECTION)
        for start in range(0, len(records), PAGE_ROWS):
            batch = client.batch()
            for record in records[start : start + PAGE_ROWS]:
                batch.create(collection.document(document_name(record)), to_document(record, expire_days=EXPIRE_DAYS))
            batch.commit()
        yield collection
