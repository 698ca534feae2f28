"""A prediction, feedback on it, and the errors of a log. Knows no database."""

import os
import re
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from fashion.images.statistics import STATISTICS

T = TypeVar("T")

FOREVER_US = 253_402_300_800_000_000
"""The start of the year 10000, after every time of a log; microseconds since 1970, UTC."""

UNLABELLED = -1
"""True label of a row on which there is no feedback."""

OWN_CLIENTS = CHECK, ROLLOUT, SAMPLES = ("fashion-check", "fashion-rollout", "fashion-samples")
"""Clients of this project's own requests, which are no traffic: they try a new bento or revision, or send one of the
page's sample pictures. bentos/classifier/page/page.js knows the last name, too."""

REVIEW = "review"
"""Source of labels that were given with a key for it, on `/review` or by `fashion log feedback --reviewed`."""

ROLES = ("champion", "shadow")

TAG_BYTES = 200
"""The longest model name, model version, client or source, in bytes of UTF-8."""

DIGEST_DIGITS = 16
"""Hexadecimal digits of a package's digest in a row: 64 bits tell any two packages apart, at a quarter of the bytes."""

MAX_FLOAT32 = 3.4e38
"""Numbers stored as float32 must be smaller."""

MAX_FLOAT16 = 65520.0
"""Numbers stored as float16 must be smaller."""

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

_SHA256 = re.compile(r"[0-9a-f]{64}")

_DIGEST = re.compile(rf"[0-9a-f]{{{DIGEST_DIGITS},64}}")


class LogUnavailable(OSError):
    """The log cannot be read or written now. The message is one sentence with the file and the remedy."""


class DamagedLog(LogUnavailable):
    """The log holds something that cannot be read. Nothing was deleted."""


class UnknownPrediction(LookupError):
    """The log has no prediction of this id."""


class ModelId(NamedTuple):
    """Which model a row is of. Version numbers begin at 1 for each name, and again where a registry was lost."""

    name: str | None
    """Of the registered model; None in rows of before logs held names."""
    version: str
    """The registered version."""
    digest: str | None
    """Of the version's package, the first DIGEST_DIGITS digits or more; None as for the name."""

    @classmethod
    def of(cls, name: str, version: str | int, digest: str) -> "ModelId":
        """The identity of a registered version.

        Args:
            name: of the registered model.
            version: its number.
            digest: `fashion.model.package.Package.digest`.
        """
        return cls(name, str(version), digest[:DIGEST_DIGITS])

    @property
    def order(self) -> tuple[str, str, str]:
        """A key to sort by, for None has no order."""
        return self.name or "", self.version, self.digest or ""

    def has_digest(self, digest: str) -> bool:
        """Return True if the row is of the package with this digest."""
        return self.digest is not None and digest.startswith(self.digest)

    def __str__(self) -> str:
        name = "a model without a name," if self.name is None else self.name
        return f"{name} version {self.version}{'' if self.digest is None else f' ({self.digest[:8]})'}"


@dataclass(frozen=True)
class KnownModel:
    """A registered version, and what a row must have to be of it."""

    model: ModelId
    created_us: int
    """Microseconds since 1970, UTC: a row of before is of another version of this number."""
    num_classes: int

    def may_be(self, time_us: int, num_classes: int) -> bool:
        """Return True if a row of this version number may be of this version.

        Args:
            time_us: of the row, microseconds since 1970, UTC.
            num_classes: that the row has probabilities of.
        """
        return time_us >= self.created_us and num_classes == self.num_classes


@dataclass(frozen=True)
class PredictionRecord:
    """One prediction, as it was answered (champion), or as another model would have answered (shadow)."""

    prediction_id: str
    """A uuid7 in lower case. The records of one request, champion's and shadow's, share it."""
    time_us: int
    """Microseconds since 1970, UTC."""
    model_version: str
    """The registered version that predicted."""
    role: str
    """'champion' or 'shadow'."""
    label: int
    """Index of the most probable class."""
    confidence: float
    """Its calibrated probability."""
    probabilities: tuple[float, ...]
    """One for each class, calibrated; stored as float32."""
    statistics: tuple[float, ...]
    """Eight, in the order of `fashion.images.statistics.STATISTICS`; stored as float32."""
    embedding: tuple[float, ...]
    """16 principal components; stored as float16."""
    image_sha256: str
    """sha256 of the pixels, as `fashion.images.image_store.digest` computes it."""
    latency_ms: float
    """Milliseconds that the prediction took."""
    client: str | None = None
    """An opaque tag of the sender."""
    model_name: str | None = None
    """The registered model of the version; None in rows of before logs held names."""
    model_digest: str | None = None
    """Of the version's package, as in ModelId; None in rows of before logs held digests."""

    @property
    def model(self) -> ModelId:
        """Which model predicted."""
        return ModelId(self.model_name, self.model_version, self.model_digest)

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
            ("confidence", (self.confidence,), MAX_FLOAT32),
            ("latency_ms", (self.latency_ms,), MAX_FLOAT32),
            ("probabilities", self.probabilities, MAX_FLOAT32),
            ("statistics", self.statistics, MAX_FLOAT32),
            ("embedding", self.embedding, MAX_FLOAT16),
        ):
            for number in numbers:
                if not abs(number) < limit:
                    raise ValueError(f"{name} must be finite and less than {limit:g}, got {number}")
        _check_time(self.time_us)
        _check_tag("model_version", self.model_version)
        for name, value in (("client", self.client), ("model_name", self.model_name)):
            if value is not None:
                _check_tag(name, value)
        if self.model_digest is not None and not _DIGEST.fullmatch(self.model_digest):
            raise ValueError(
                f"model_digest must be {DIGEST_DIGITS} to 64 hexadecimal digits, got {self.model_digest!r}"
            )


@dataclass(frozen=True)
class Feedback:
    """The true label of a prediction. Of several the latest counts, or the latest of a review; all are stored."""

    prediction_id: str
    true_label: int
    """Index of the class."""
    source: str
    """Where the label is from: 'page', 'csv', a person."""
    time_us: int
    """Microseconds since 1970, UTC."""

    def __post_init__(self) -> None:
        if not 0 <= self.true_label < 2**31:
            raise ValueError(f"true_label must be a class, got {self.true_label}")
        _check_time(self.time_us)
        _check_tag("source", self.source)


@dataclass(frozen=True)
class LoggedPrediction:
    """A record and its feedback."""

    record: PredictionRecord
    feedback: tuple[Feedback, ...] = ()
    """Oldest first. Empty for a shadow: feedback is on what the champion answered."""

    @property
    def judgement(self) -> Feedback | None:
        """The feedback that counts: the latest of a review, or else the latest; None without any."""
        return max(reversed(self.feedback), key=lambda each: (each.source == REVIEW, each.time_us), default=None)

    @property
    def true_label(self) -> int | None:
        """The label of the feedback that counts, or None."""
        found = self.judgement
        return None if found is None else found.true_label


def is_prediction_id(text: str) -> bool:
    """Return True if a text is a uuid7 in lower case."""
    return _ID.fullmatch(text) is not None


_last_id = 0
_id_lock = threading.Lock()


def new_prediction_id(
    clock: Callable[[], int] = time.time_ns, random_bytes: Callable[[int], bytes] = os.urandom
) -> str:
    """Return a uuid7 (RFC 9562) that cannot be guessed and is greater than any before it in this process.

    Args:
        clock: nanoseconds since 1970. Ids increase even if it goes back.
        random_bytes: takes a count and returns that many random bytes.
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
    # `encode` raises ValueError for lone surrogates, which neither SQLite nor Firestore stores.
    if not 0 < len(value.encode()) <= TAG_BYTES:
        raise ValueError(f"{name} must be 1 to {TAG_BYTES} bytes long, got {value[:40]!r}")


def request_bytes(item: PredictionRecord | Feedback) -> int:
    """Estimate how many bytes of a request an item takes, rather too many than too few."""
    # A probability takes 11 bytes, each of the embedding's numbers 2, all else less than 1,000.
    return 1000 + (11 * len(item.probabilities) + 2 * len(item.embedding) if isinstance(item, PredictionRecord) else 0)


def pack(kind: str, values: Sequence[float]) -> bytes:
    """Encode numbers as little-endian float32 ('f') or float16 ('e')."""
    return struct.pack(f"<{len(values)}{kind}", *values)


def unpack(kind: str, data: bytes) -> tuple[float, ...]:
    """Decode what `pack` encoded."""
    return struct.unpack(f"<{len(data) // struct.calcsize(kind)}{kind}", data)


def pages(rows: Iterator[T], size: int) -> Iterator[list[T]]:
    """Group rows into lists of `size`; the last may be shorter."""
    page: list[T] = []
    for row in rows:
        page.append(row)
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page
