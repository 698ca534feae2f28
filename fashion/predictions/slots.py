"""Counts of the prediction log by time: five minutes each, added up to the periods of a page. Knows no files."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fashion.metrics.classification import wilson_interval
from fashion.predictions.record import ModelId

SLOT_US = 300_000_000
"""A slot is five minutes: it is what is counted anew where a row was added, labelled or deleted."""
FIRST_MS = 0.1
"""Upper bound of the first bucket of latencies; faster answers are counted there."""
PER_OCTAVE = 8
"""Buckets from one latency to twice of it: a quantile is at most 2 ** (1 / 8), 9 %, off."""
BUCKETS = 160
"""From 0.1 ms to 105 s; slower answers are counted in the last one."""

_PACKED = np.dtype([("bucket", "<u2"), ("rows", "<u4")])

Histogram = NDArray[np.int64]
"""(BUCKETS,) rows by latency."""


class Version(NamedTuple):
    """What answered, or scored beside what answered."""

    role: str
    """'champion' or 'shadow'."""
    model: ModelId


@dataclass
class Traffic:
    """What is known of any number of rows. Two can be added; nothing is lost."""

    rows: int = 0
    confidence: float = 0.0
    """Sum of all rows."""
    latency: Histogram = field(default_factory=lambda: np.zeros(BUCKETS, np.int64))
    judged: int = 0
    """Rows of which it is known whether they are like anything that the model has learnt."""
    untypical: int = 0
    """Of these, those that are not."""
    labelled: int = 0
    """Rows with feedback that counts."""
    right: int = 0
    """Of these, those that were answered right."""

    def add(self, other: "Traffic") -> None:
        """Add the rows of another one."""
        for each in dataclasses.fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def mean_confidence(self) -> float | None:
        """In [0, 1]; None without rows."""
        return self.confidence / self.rows if self.rows else None

    @property
    def untypical_share(self) -> float | None:
        """In [0, 1]; None where it is not known of any row."""
        return self.untypical / self.judged if self.judged else None

    @property
    def accuracy(self) -> float | None:
        """Share of the labelled rows that were answered right; None without labels."""
        return self.right / self.labelled if self.labelled else None

    @property
    def accuracy_interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the accuracy; None without labels."""
        return wilson_interval(self.right, self.labelled) if self.labelled else None

    def latency_ms(self, quantile: float) -> float | None:
        """Milliseconds that a share of the rows took at most; None without rows.

        Args:
            quantile: the share, in [0, 1].
        """
        total = int(self.latency.sum())
        if not total:
            return None
        reached = np.cumsum(self.latency)
        bucket = int(np.searchsorted(reached, max(quantile * total, 1)))
        before = int(reached[bucket - 1]) if bucket else 0
        inside = (quantile * total - before) / int(self.latency[bucket])
        return FIRST_MS * float(2 ** ((bucket + min(1.0, max(0.0, inside))) / PER_OCTAVE))


@dataclass
class Period:
    """A part of a span: since <= time < until, microseconds since 1970, UTC."""

    since_us: int
    until_us: int
    versions: dict[Version, Traffic] = field(default_factory=dict)
    requests: dict[int, int] = field(default_factory=dict)
    """HTTP status -> requests for predictions that were answered with it by services of this machine."""

    def of(self, version: Version) -> Traffic:
        """The traffic of a version, to be added to."""
        return self.versions.setdefault(version, Traffic())

    def total(self, role: str = "champion") -> Traffic:
        """All traffic of a role.

        Args:
            role: 'champion' or 'shadow'.
        """
        found = Traffic()
        for version, traffic in self.versions.items():
            if version.role == role:
                found.add(traffic)
        return found


@dataclass(frozen=True)
class Span:
    """How much time a page shows, and in which steps."""

    name: str
    step_us: int
    steps: int

    def periods(self, now_us: int) -> list[Period]:
        """Empty periods up to now, the oldest first; the last one is under way.

        Args:
            now_us: microseconds since 1970, UTC.
        """
        last = now_us // self.step_us
        starts = range(last - self.steps + 1, last + 1)
        return [Period(each * self.step_us, (each + 1) * self.step_us) for each in starts]


_HOUR_US = 3_600_000_000
SPANS: Mapping[str, Span] = {
    each.name: each
    for each in (Span("day", _HOUR_US, 24), Span("week", 6 * _HOUR_US, 28), Span("month", 24 * _HOUR_US, 30))
}
"""Steps are multiples of a slot, and begin where a day of UTC does."""
KEEP_US = 32 * 24 * _HOUR_US
"""Older slots are in no span."""


def latency_histogram(latencies_ms: Iterable[float]) -> Histogram:
    """Count latencies by bucket.

    Args:
        latencies_ms: milliseconds.
    """
    values = np.fromiter(latencies_ms, np.float64)
    with np.errstate(invalid="ignore"):
        octaves = np.log2(np.maximum(np.nan_to_num(values), FIRST_MS) / FIRST_MS)
    buckets = np.minimum((PER_OCTAVE * octaves).astype(np.int64), BUCKETS - 1)
    return np.bincount(buckets, minlength=BUCKETS)


def pack_histogram(histogram: Histogram) -> bytes:
    """Encode the buckets that are not empty."""
    filled = np.flatnonzero(histogram)
    packed = np.empty(len(filled), _PACKED)
    packed["bucket"], packed["rows"] = filled, histogram[filled]
    return packed.tobytes()


def unpack_histogram(data: bytes) -> Histogram:
    """Decode what `pack_histogram` encoded; of several after each other, their sum."""
    packed = np.frombuffer(data, _PACKED)
    return np.bincount(packed["bucket"], weights=packed["rows"], minlength=BUCKETS).astype(np.int64)
