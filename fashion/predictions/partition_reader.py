"""Reads a partitioned export in batches, without an object for each row. Knows no decisions.

Reads the files that a window touches, by their names, and of these the row groups that it touches, by their statistics.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from fashion.images.statistics import STATISTICS
from fashion.model.predictor import EMBEDDING_SIZE, Predictions
from fashion.predictions.batch import Batch
from fashion.predictions.partitions import Part, parts_of
from fashion.predictions.record import (
    FOREVER_US,
    UNLABELLED,
    DamagedLog,
    Feedback,
    LoggedPrediction,
    LogUnavailable,
    ModelId,
    PredictionRecord,
)
from fashion.storage.blobs import BlobNotFound, Store

_NUMBERS = ("predicted", "confidence", *STATISTICS)
_TEXTS = ("prediction_id", "image_sha256", "model_version")
_MODEL = ("model_name", "model_digest")
"""Columns that files of older versions lack, and that are null in rows of before there were names."""
_COLUMNS = (*_TEXTS, *_MODEL, "client", "time", "label", *_NUMBERS, "probabilities", "embedding")


class Export:
    """Rows of the role champion in a partitioned export.

    Every method raises StoreUnavailable where the store cannot be read, LogUnavailable where there is no export, and
    DamagedLog where a file is not one that `partition_writer` wrote.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.address = store.address

    def batches(self, since_us: int, until_us: int, *, newest: int | None = None) -> Iterator[Batch]:
        """Yield rows of since <= time < until, newest row group first.

        Args:
            since_us: microseconds since 1970, UTC.
            until_us: microseconds since 1970, UTC.
            newest: only this many rows, the latest ones; equal times by id.
        """
        left = newest
        for name, table in self._tables(since_us, until_us, _COLUMNS):
            if left is not None:
                table = table.slice(max(0, len(table) - left))  # rows of a file are in the order of the log
                left -= len(table)
            with self._translate_errors(name):
                batches = list(_to_batches(table))
            yield from batches
            if left == 0:
                return

    def span(self, since_us: int, until_us: int) -> tuple[int, int] | None:
        """Return the times of the first and last row of since <= time < until, None without one.

        Args:
            since_us: microseconds since 1970, UTC.
            until_us: microseconds since 1970, UTC.
        """
        ends = []
        for reverse in (False, True):
            tables = self._tables(since_us, until_us, ("time",), reverse=reverse)
            times = next((_times(table) for _, table in tables if len(table)), None)
            if times is None:
                return None
            ends.append(int(times.max() if reverse else times.min()))
        return ends[0], ends[1]

    def count(self, since_us: int) -> int:
        """Return how many rows there are from a moment on.

        Args:
            since_us: microseconds since 1970, UTC.
        """
        return sum(len(table) for _, table in self._tables(since_us, FOREVER_US, ("time",)))

    def labelled(self) -> Iterator[LoggedPrediction]:
        """Yield rows with feedback, newest first."""
        import pyarrow.compute as pc

        columns = (*_COLUMNS, "role", "latency_ms", "feedback")
        for name, table in self._tables(0, FOREVER_US, columns, labelled=True):
            with self._translate_errors(name):
                rows = table.filter(pc.is_valid(table["label"]))
                times = _times(rows).tolist()
                found = [_to_logged(row, time) for row, time in zip(rows.to_pylist(), times, strict=True)]
            yield from reversed(found)

    def _tables(
        self, since_us: int, until_us: int, columns: tuple[str, ...], *, labelled: bool = False, reverse: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """Yield the name of a file and the rows of one of its row groups that are in a window.

        Args:
            since_us: microseconds since 1970, UTC.
            until_us: microseconds since 1970, UTC.
            columns: what to read besides what selects rows.
            labelled: leave out row groups without feedback.
            reverse: newest first.
        """
        parts = parts_of(self._store.list("date="))
        if not parts:
            raise LogUnavailable(f"there is no export in {self.address}: `fashion log export {self.address}` writes it")
        for part in reversed(parts) if reverse else parts:
            since, until = max(since_us, part.since_us), min(until_us, part.until_us)
            if since < until:
                yield from self._tables_of(part, (since, until), columns, labelled=labelled, reverse=reverse)

    def _tables_of(
        self, part: Part, window: tuple[int, int], columns: tuple[str, ...], *, labelled: bool, reverse: bool
    ) -> Iterator[tuple[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            data = self._store.get(part.name)
        except BlobNotFound:
            return  # deleted since it was listed
        with self._translate_errors(part.name):
            file = pq.ParquetFile(pa.BufferReader(data))
            present = set(file.schema_arrow.names)
            missing = [name for name in columns if name not in present and name not in _MODEL]
            if missing:
                raise ValueError(f"it has no column {missing[0]}")
            groups = [
                group
                for group in range(file.num_row_groups)
                if _touches(file.metadata.row_group(group), window, labelled=labelled)
            ]
        for group in reversed(groups) if reverse else groups:
            with self._translate_errors(part.name):
                table = file.read_row_group(group, columns=sorted({*columns, "time", "role"} & present))
                for name in set(columns) - present:
                    table = table.append_column(name, pa.nulls(len(table), pa.string()))
                rows = _select(table, window)
            yield part.name, rows

    @contextlib.contextmanager
    def _translate_errors(self, name: str) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DamagedLog(
                f"{self.address}/{name} is damaged: {reason}; delete it and export its day again (--since)"
            ) from None


def _touches(group: Any, window: tuple[int, int], *, labelled: bool) -> bool:
    """Whether a row group may have rows of a window, by its statistics; True where it has none."""
    for index in range(group.num_columns):
        column = group.column(index)
        statistics = column.statistics
        if statistics is None:
            continue
        if column.path_in_schema == "time" and statistics.has_min_max:
            first, last = statistics.min_raw, statistics.max_raw
            if last < window[0] or first >= window[1]:
                return False
        if labelled and column.path_in_schema == "label" and statistics.has_null_count:
            return bool(statistics.null_count < group.num_rows)
    return True


def _select(table: Any, window: tuple[int, int]) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    times = table["time"].cast(pa.int64())
    inside = pc.and_(pc.greater_equal(times, window[0]), pc.less(times, window[1]))
    selected = pc.and_(inside, pc.equal(table["role"], "champion"))
    return table if pc.all(selected).as_py() else table.filter(selected)


def _to_batches(table: Any) -> Iterator[Batch]:
    """Convert rows: a batch for each number of classes.

    Raises:
        ValueError: a value is missing, or embeddings have another length than this version writes.
    """
    import pyarrow.compute as pc

    for name in _COLUMNS:
        if name not in ("label", "client", *_MODEL) and table[name].null_count:
            raise ValueError(f"column {name} lacks values")
    if len(table) and pc.unique(pc.list_value_length(table["embedding"])).to_pylist() != [EMBEDDING_SIZE]:
        raise ValueError("it has other embeddings than this version writes")
    classes = pc.list_value_length(table["probabilities"])
    for count in sorted(pc.unique(classes).to_pylist()):
        rows = table.filter(pc.equal(classes, count))
        predictions = Predictions(
            _numbers(rows["predicted"], np.int64),
            _numbers(rows["confidence"], np.float32),
            _numbers(pc.list_flatten(rows["probabilities"]), np.float32).reshape(len(rows), -1),
            np.stack([_numbers(rows[name], np.float32) for name in STATISTICS], axis=1),
            _numbers(pc.list_flatten(rows["embedding"]), np.float32).reshape(len(rows), -1).astype(np.float16),
        )
        labels = _numbers(pc.fill_null(rows["label"], UNLABELLED), np.int64)
        texts = (*_TEXTS, *_MODEL, "client")
        ids, sha256, versions, names, digests, clients = (rows[name].to_pylist() for name in texts)
        models = list(map(ModelId, names, versions, digests))
        yield Batch(predictions, labels, _times(rows), ids, sha256, models, clients)


def _numbers(column: Any, kind: type[Any]) -> Any:
    if column.null_count:
        raise ValueError("a number is missing")
    return column.to_numpy().astype(kind, casting="safe", copy=False)


def _times(table: Any) -> Any:
    import pyarrow as pa

    return table["time"].cast(pa.int64()).to_numpy()


def _to_logged(row: dict[str, Any], time_us: int) -> LoggedPrediction:
    prediction_id = row["prediction_id"]
    record = PredictionRecord(
        prediction_id=prediction_id,
        time_us=time_us,
        label=row["predicted"],
        probabilities=tuple(row["probabilities"]),
        statistics=tuple(row[name] for name in STATISTICS),
        embedding=tuple(row["embedding"]),
        **{
            name: row[name]
            for name in ("model_version", *_MODEL, "role", "confidence", "image_sha256", "latency_ms", "client")
        },
    )
    return LoggedPrediction(
        record,
        tuple(
            Feedback(prediction_id, each["true_label"], each["source"], _microseconds(each["time"]))
            for each in row["feedback"]
        ),
    )


def _microseconds(moment: Any) -> int:
    import datetime

    return int((moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(microseconds=1))
