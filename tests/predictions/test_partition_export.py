"""The log as files by day: which rows are in which file, whatever happens between two exports."""

import dataclasses
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import shared_logs
from support.log_rows import DAY_US, outcomes, record
from support.shared_logs import SERVERS
from support.stores import KINDS, Clouds

from fashion.commands.main import main
from fashion.home import REPOSITORY
from fashion.images.statistics import STATISTICS
from fashion.predictions import parquet_rows
from fashion.predictions.log import PredictionLog
from fashion.predictions.partition_writer import ExportedDay, export_days, first_day
from fashion.predictions.partitions import Part, parts_of
from fashion.predictions.record import Feedback, LoggedPrediction, PredictionRecord
from fashion.predictions.removal import prune
from fashion.storage.address import open_store
from fashion.storage.blobs import Store

DAY = 20_000
"""2024-10-04."""
START = DAY * DAY_US
DAYS = range(DAY - 1, DAY + 5)
SECOND = 1_000_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "exported"))


def at(*times_us: int) -> list[PredictionRecord]:
    """Rows at times since START."""
    return [record(time_us=START + each) for each in times_us]


def times(store: Store) -> dict[str, list[int]]:
    """Name of each file -> microseconds since START of its rows."""
    return {
        name: (pq.read_table(pa.BufferReader(store.get(name)))["time"].cast(pa.int64()).to_numpy() - START).tolist()
        for name in sorted(store.list())
    }


def export(log: PredictionLog, store: Store, days: range = DAYS, **sizes: int) -> list[ExportedDay]:
    return export_days(log.window, store, days, **sizes)


def test_each_day_is_a_partition(plain_log: PredictionLog, store: Store) -> None:
    plain_log.append(at(-1, 0, DAY_US - 1, DAY_US, 3 * DAY_US))
    said: list[ExportedDay] = []
    days = export_days(plain_log.window, store, range(DAY, DAY + 3), on_day=said.append)
    assert times(store) == {
        "date=2024-10-04/part-000000.parquet": [0, DAY_US - 1],
        "date=2024-10-05/part-000000.parquet": [DAY_US],
    }
    assert [(day.date, day.rows, day.files) for day in days] == [("2024-10-04", 2, 1), ("2024-10-05", 1, 1)]
    assert said == days
    assert sum(day.bytes for day in days) == sum(len(store.get(name)) for name in store.list())


def test_a_large_day_is_several_files_of_row_groups(plain_log: PredictionLog, store: Store) -> None:
    plain_log.append(at(*range(0, 40 * SECOND, SECOND // 2), *[50 * SECOND] * 7))
    (day,) = export(plain_log, store, file_rows=25, group_rows=10)
    found = times(store)
    assert [name[-14:-8] for name in found] == ["000000", "000013", "000026", "000039"]
    assert [len(each) for each in found.values()] == [26, 26, 26, 9]
    assert (day.rows, day.files) == (87, 4)
    first = pq.ParquetFile(pa.BufferReader(store.get(next(iter(found)))))
    assert [first.metadata.row_group(group).num_rows for group in range(3)] == [10, 10, 6]


def test_a_day_that_is_exported_again_has_its_later_feedback_and_no_row_twice(
    plain_log: PredictionLog, store: Store
) -> None:
    rows = at(*range(0, 40 * SECOND, SECOND))
    plain_log.append(rows)
    export(plain_log, store, file_rows=15)
    names = sorted(store.list())
    before = {name: store.get(name) for name in names}
    export(plain_log, store, file_rows=15)
    assert {name: store.get(name) for name in store.list()} == before
    plain_log.append_feedback([Feedback(rows[20].prediction_id, 7, "page", START + DAY_US)])
    plain_log.append(at(*[SECOND // 2] * 3))  # shipped late
    export(plain_log, store, file_rows=15)
    assert sorted(store.list()) == names
    assert sorted(each for part in times(store).values() for each in part) == sorted(
        [*range(0, 40 * SECOND, SECOND), *[SECOND // 2] * 3]
    )
    table = pq.read_table(pa.BufferReader(store.get(names[1])))
    assert [row["prediction_id"] for row in table.to_pylist() if row["label"] == 7] == [rows[20].prediction_id]


def test_a_day_that_grows_is_divided_and_no_row_is_twice_in_it(plain_log: PredictionLog, store: Store) -> None:
    seconds = list(range(60))
    for until in (10, 35, 60):  # `--today`, three times
        plain_log.append(at(*(SECOND * each for each in seconds[until - 25 if until > 10 else 0 : until])))
        export(plain_log, store, file_rows=20)
        found = [each for part in times(store).values() for each in part]
        assert found == [SECOND * each for each in range(until)]
    assert len(times(store)) > 2


def test_what_a_pruned_log_lacks_stays_exported(plain_log: PredictionLog, store: Store) -> None:
    plain_log.append(at(*range(0, 40 * SECOND, SECOND)))
    export(plain_log, store, file_rows=15)
    before = times(store)
    prune(plain_log, 1, clock=lambda: (START + DAY_US + 20 * SECOND) * 1000)
    (day,) = export(plain_log, store, file_rows=15)
    assert times(store) == before
    assert (day.kept_rows, day.rows, day.files) == (30, 10, 1)  # the middle file holds more than the log too


@pytest.mark.fault("damaged file of an export, exported again")
def test_a_damaged_file_is_replaced(plain_log: PredictionLog, store: Store) -> None:
    plain_log.append(at(5))
    store.put(Part(START, START).name, b"no Parquet")
    export(plain_log, store)
    assert list(times(store).values()) == [[5]]


def test_an_export_that_was_stopped_goes_on(plain_log: PredictionLog, store: Store) -> None:
    plain_log.append(at(*range(0, 4 * DAY_US, DAY_US // 40)))

    def stopped(since_us: int, until_us: int) -> Iterator[LoggedPrediction]:
        for number, row in enumerate(plain_log.window(since_us, until_us)):
            if number == 70:
                raise KeyboardInterrupt
            yield row

    assert first_day(store) == 0
    with pytest.raises(KeyboardInterrupt):
        export_days(stopped, store, DAYS, file_rows=15)
    assert first_day(store) == DAY + 1
    export(plain_log, store, range(first_day(store), DAY + 5), file_rows=15)
    found = [each for part in times(store).values() for each in part]
    assert found == list(range(0, 4 * DAY_US, DAY_US // 40))


def test_two_exports_at_once_do_no_harm(plain_log: PredictionLog, store: Store) -> None:
    offsets = sorted(random.Random(0).choices(range(DAY_US), k=300))
    plain_log.append(at(*offsets))
    threads = [threading.Thread(target=export, args=(plain_log, store), kwargs={"file_rows": 50}) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each for part in times(store).values() for each in part] == offsets


def test_parts_end_where_the_next_begins() -> None:
    names = ["date=2024-10-05/part-000000.parquet", Part(START + 61 * SECOND, 0).name, Part(START, 0).name]
    foreign = [
        "date=2024-13-05/part-000000.parquet",
        "date=2024-10-04/part-240000.parquet",
        "date=2024-10-04/x.parquet",
    ]
    assert parts_of(names + foreign) == [
        Part(START, START + 61 * SECOND),
        Part(START + 61 * SECOND, START + DAY_US),
        Part(START + DAY_US, START + 2 * DAY_US),
    ]
    assert parts_of([]) == []


class TestCommand:
    @pytest.fixture
    def logged(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[PredictionRecord]:
        """Rows of three days ago, of yesterday and of today."""
        monkeypatch.setenv("FASHION_HOME", str(tmp_path))
        monkeypatch.delenv("FASHION_LOG", raising=False)
        today = time.time_ns() // 1000 // DAY_US * DAY_US
        rows = [record(time_us=today + each * DAY_US) for each in (-3, -1, 0)]
        with PredictionLog(tmp_path / "predictions.db") as log:
            log.append(rows)
        return rows

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_bucket_has_the_days_that_are_complete(
        self,
        kind: str,
        logged: list[PredictionRecord],
        clouds: Clouds,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        address = f"{clouds.bucket(kind, monkeypatch)}/predictions"
        dates = [time.strftime("%Y-%m-%d", time.gmtime(row.time_us / 1e6)) for row in logged]
        assert main(["log", "export", address]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.partition(",")[0] for line in lines] == [
            *(f"{date}: 1 predictions in 1 files" for date in dates[:2]),
            f"2 predictions of 2 days in {address}",
        ]
        assert main(["log", "export", address, "--json", "--today"]) == 0
        content = json.loads(capsys.readouterr().out)
        assert content["address"] == address
        assert [(day["date"], day["rows"]) for day in content["days"]] == [(date, 1) for date in dates[1:]]
        assert sorted(open_store(address).list()) == [f"date={date}/part-000000.parquet" for date in dates]
        assert main(["log", "export", address, "--since", dates[0]]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 3

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["ftp://host/x"], "'ftp://host/x' is not the address of a store: give a folder,"),
            (["x", "--since", "monday"], "since must be"),
            (["x", "--since", "2026-11-01", "--days", "3"], "give either --days or --since, got 3 and 2026-11-01"),
            (["x", "--source", "cloud"], "--source must be auto, local or shared, got cloud"),
            (["x", "--source", "shared"], "FASHION_LOG names no shared log: set it to"),
            (["/proc/nowhere"], "/proc/nowhere cannot be used: "),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_what_cannot_be_done_is_one_sentence(
        self,
        words: list[str],
        sentence: str,
        logged: list[PredictionRecord],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert main(["log", "export", *words]) == 1
        printed = capsys.readouterr().err
        assert printed.startswith(f"error: {sentence}")
        assert printed.count("\n") == 1

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", SERVERS)
    def test_the_shared_log_is_exported_where_there_is_one(
        self,
        kind: str,
        logged: list[PredictionRecord],
        tmp_path: Path,
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        backend = shared_logs.make(kind, request.getfixturevalue(SERVERS[kind]))
        for name, value in backend.environment().items():
            monkeypatch.setenv(name, value)
        elsewhere = [dataclasses.replace(logged[0], prediction_id=each.prediction_id) for each in at(0, 0)]
        remote = backend.connect()
        outcomes(remote, *elsewhere)
        remote.close()
        assert main(["log", "export", str(tmp_path / "all")]) == 0
        assert main(["log", "export", str(tmp_path / "here"), "--source", "local"]) == 0
        ids: Callable[[str], set[str]] = lambda folder: {  # noqa: E731
            each for path in (tmp_path / folder).rglob("*.parquet") for each in pq.read_table(path)[0].to_pylist()
        }
        assert ids("all") == {each.prediction_id for each in elsewhere}
        assert ids("here") == {each.prediction_id for each in logged[:2]}


class TestSql:
    @pytest.fixture
    def exported(self, plain_log: PredictionLog, store: Store) -> str:
        rows = [record(time_us=START + each * DAY_US // 10, label=each % 2) for each in range(20)]
        plain_log.append(rows)
        plain_log.append_feedback([Feedback(row.prediction_id, 1, "page", START) for row in rows[:15]])
        export(plain_log, store, file_rows=4)
        return store.address

    def test_duckdb_counts_by_day_and_finds_the_accuracy(self, exported: str) -> None:
        duckdb = pytest.importorskip("duckdb", reason="duckdb is installed with the extra dev")
        table = f"read_parquet('{exported}/*/*.parquet', hive_partitioning = true)"
        counts = duckdb.sql(f"SELECT date, predicted, count(*) FROM {table} GROUP BY ALL ORDER BY ALL").fetchall()
        assert [(str(date), label, count) for date, label, count in counts] == [
            ("2024-10-04", 0, 5),
            ("2024-10-04", 1, 5),
            ("2024-10-05", 0, 5),
            ("2024-10-05", 1, 5),
        ]
        accuracy = duckdb.sql(
            f"SELECT date, count(label), avg((label = predicted)::INT) FROM {table} GROUP BY date ORDER BY date"
        ).fetchall()
        assert [(count, round(value, 3)) for _, count, value in accuracy] == [(10, 0.5), (5, 0.4)]
        (sums,) = duckdb.sql(f"SELECT sum(list_sum(embedding)), sum(feedback[1].true_label) FROM {table}").fetchall()
        assert sums == (20 * 16 * 1.5, 15)

    def test_the_table_of_bigquery_has_the_columns_of_a_file(self) -> None:
        sql = Path(REPOSITORY, "configs", "deploy", "bigquery", "predictions.sql").read_text()
        body = re.search(r"EXTERNAL TABLE \S+ \(\n(.*?)\n\)\n", sql, re.DOTALL)
        assert body is not None
        declared = [line.strip().rstrip(",").split(" ", 1) for line in body[1].splitlines()]
        assert declared == [[field.name, _bigquery(field.type)] for field in parquet_rows.schema(half_floats=False)]
        assert [name for name, _ in declared if name in STATISTICS] == list(STATISTICS)


def _bigquery(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"ARRAY<{_bigquery(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"STRUCT<{', '.join(f'{field.name} {_bigquery(field.type)}' for field in kind)}>"
    names = {pa.string(): "STRING", pa.int64(): "INT64", pa.float32(): "FLOAT64", pa.float64(): "FLOAT64"}
    return "TIMESTAMP" if pa.types.is_timestamp(kind) else names[kind]
