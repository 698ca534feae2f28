"""The log as a Parquet file."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.log_rows import (
    record,
)

from fashion.predictions.export import export_parquet
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import (
    Feedback,
    LogUnavailable,
)


def test_an_export_has_the_column_names_of_reference_rows(log: PredictionLog, tmp_path: Path) -> None:
    row, silent, late = record(time_us=1_000_001), record(time_us=2_000_000, client="me"), record(time_us=3_000_000)
    log.append([row, silent, late])
    log.append_feedback([Feedback(row.prediction_id, label, "page", label) for label in (7, 3)])
    assert export_parquet(log, tmp_path / "new" / "log.parquet", 1_000_001, 3_000_000) == 2
    first, second = pq.read_table(tmp_path / "new" / "log.parquet").to_pylist()
    assert (first["label"], first["predicted"], first["brightness"]) == (7, 1, 0.5)
    assert [(each["true_label"], each["source"]) for each in first["feedback"]] == [(3, "page"), (7, "page")]
    assert first["time"].isoformat() == "1970-01-01T00:00:01.000001+00:00"
    assert (second["label"], second["feedback"], second["client"]) == (None, [], "me")
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["log.parquet"]


def test_an_export_may_have_many_pages_or_none(log: PredictionLog, tmp_path: Path) -> None:
    rows = [record(time_us=i) for i in range(45)]
    log.append(rows)
    assert export_parquet(log, tmp_path / "all.parquet", page_rows=20) == 45
    found = pq.read_table(tmp_path / "all.parquet")
    assert found["prediction_id"].to_pylist() == [row.prediction_id for row in rows]
    assert export_parquet(log, tmp_path / "none.parquet", 45) == 0
    assert pq.read_table(tmp_path / "none.parquet").schema == found.schema


def test_an_export_that_fails_leaves_the_old_file(log: PredictionLog, tmp_path: Path) -> None:
    log.append([record()])
    export_parquet(log, tmp_path / "log.parquet")
    log.close()
    with pytest.raises(LogUnavailable):
        export_parquet(log, tmp_path / "log.parquet")
    assert pq.read_table(tmp_path / "log.parquet").num_rows == 1
    assert list(tmp_path.glob(".*")) == []
