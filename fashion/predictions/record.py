"""One prediction, feedback on it, and what can go wrong with a log. Knows no database."""

import os
import re
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fashion.images.statistics import STATISTICS

FOREVER_US = 253_402_300_800_000_000
"""The year 10000."""

UNLABELLED = -1
"""True label of a row on which there is no feedback."""

ROLES = ("champion", "shadow")

TAG_BYTES = 200
"""Longest model version, client and source, in UTF-8."""

FLOAT32 = 3.4e38
"""Beyond this a number does not fit."""

FLOAT16 = 65520.0
"""Likewise."""

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

_SHA256 = re.compile(r"[0-9a-f]{64}")


class LogUnavailable(OSError):
    """The log cannot be read or written now. The message is one sentence with the file and what to do."""


class DamagedLog(LogUnavailable):
    """The file is no readable database. Nothing was deleted."""


class UnknownPrediction(LookupError):
    """The log holds no such prediction."""


@dataclass(frozen=True)
class PredictionRecord:
    """One prediction, as it was answered (champion), or as another model would have answered (shadow)."""

    prediction_id: str
    """A uuid7, see `new_prediction_id`. A shadow's record bears the id of the champion's: the same request."""
    time_us: int
    """Microseconds since 1970, UTC."""
    model_version: str
    role: str
    """'champion' or 'shadow'."""
    label: int
    """Index of the most probable class."""
    confidence: float
    """Its calibrated probability."""
    probabilities: tuple[float, ...]
    """One a class, calibrated; kept as float32."""
    statistics: tuple[float, ...]
    """Eight, as `fashion.images.statistics.STATISTICS` names them; kept as float32."""
    embedding: tuple[float, ...]
    """16 principal components; kept as float16."""
    image_sha256: str
    latency_ms: float
    client: str | None = None
    """An opaque tag of who asked."""

    def __post_init__(self) -> None:
        if not is_prediction_id(self.prediction_id):
            raise ValueError(f"prediction_id must be a uuid7 in lower case, got {self.prediction_id!r}")
        if self.role not in ROLES:
            raise ValueError(f"role must be one of {ROLES}, got {self.role!r}")
        if not 0 <= self.label < len(self.probabilities):
            raise ValueError(f"label must be one of {len(self.probabilities)} classes, got {self.label}")
        if len(self.statistics) != len(STATISTICS):
            raise ValueError(f"statistics must be {len(STATISTICS)} numbers, got {len(self.statistics)}")
        if not _SHA256.fullmatch(self.image_sha256):
            raise ValueError(f"image_sha256 must be 64 hexadecimal digits, got {self.image_sha256!r}")
        for name, numbers, limit in (
            ("confidence", (self.confidence,), FLOAT32),
            ("latency_ms", (self.latency_ms,), FLOAT32),
            ("probabilities", self.probabilities, FLOAT32),
            ("statistics", self.statistics, FLOAT32),
            ("embedding", self.embedding, FLOAT16),
        ):
            for number in numbers:
                if not abs(number) < limit:
                    raise ValueError(f"{name} must be finite and less than {limit:g}, got {number}")
        _check_time(self.time_us)
        _check_tag("model_version", self.model_version)
        if self.client is not None:
            _check_tag("client", self.client)


@dataclass(frozen=True)
class Feedback:
    """What a prediction should have been, by somebody's word. Given again, the latest counts and all are kept."""

    prediction_id: str
    true_label: int
    source: str
    """Who says so: 'page', 'csv', a person."""
    time_us: int
    """Microseconds since 1970, UTC."""

    def __post_init__(self) -> None:
        if not 0 <= self.true_label < 2**31:
            raise ValueError(f"true_label must be a class, got {self.true_label}")
        _check_time(self.time_us)
        _check_tag("source", self.source)


@dataclass(frozen=True)
class LoggedPrediction:
    """A record and what was said about it."""

    record: PredictionRecord
    feedback: tuple[Feedback, ...] = ()
    """By time. A shadow's is empty: people judge what was answered."""

    @property
    def true_label(self) -> int | None:
        """The latest word, or None."""
        return self.feedback[-1].true_label if self.feedback else None


def is_prediction_id(text: str) -> bool:
    """Tell whether a text can be a prediction's id: a uuid7 in lower case."""
    return _ID.fullmatch(text) is not None


_last_id = 0

_id_lock = threading.Lock()


def new_prediction_id(
    clock: Callable[[], int] = time.time_ns, random_bytes: Callable[[int], bytes] = os.urandom
) -> str:
    """A uuid7 (RFC 9562): sorted by time, greater than any before it in this process, not to be guessed.

    Args:
        clock: nanoseconds since 1970. One that goes back does not take the ids back.
        random_bytes: gives that many.
    """
    global _last_id
    value = (clock() // 1_000_000) << 74 | int.from_bytes(random_bytes(10)) >> 6
    with _id_lock:
        if value <= _last_id:
            value = _last_id + 1 + int.from_bytes(random_bytes(4))
        _last_id = value
    milliseconds, high, low = value >> 74, value >> 62 & 0xFFF, value & (1 << 62) - 1
    return str(uuid.UUID(int=(milliseconds & (1 << 48) - 1) << 80 | 7 << 76 | high << 64 | 2 << 62 | low))


def _check_time(time_us: int) -> None:
    if not 0 <= time_us < FOREVER_US:
        raise ValueError(f"time_us must be microseconds since 1970, got {time_us}")


def _check_tag(name: str, value: str) -> None:
    # Encoding refuses halves of surrogate pairs, which neither SQLite nor Firestore takes: a ValueError too.
    if not 0 < len(value.encode()) <= TAG_BYTES:
        raise ValueError(f"{name} must be 1 to {TAG_BYTES} bytes long, got {value[:40]!r}")


def pack(kind: str, values: Sequence[float]) -> bytes:
    """Numbers as little-endian float32 ('f') or float16 ('e')."""
    return struct.pack(f"<{len(values)}{kind}", *values)


def unpack(kind: str, data: bytes) -> tuple[float, ...]:
    """What `pack` packed."""
    return struct.unpack(f"<{len(data) // struct.calcsize(kind)}{kind}", data)


def pages(rows: Iterator[LoggedPrediction], size: int) -> Iterator[list[LoggedPrediction]]:
    """Rows, so many at a time."""
    page: list[LoggedPrediction] = []
    for row in rows:
        page.append(row)
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page
