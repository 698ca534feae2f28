"""Traffic that is like what a model was trained on, but whose rows are not independent: pictures and clients repeat."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fashion.drift.distinct import Origins

Ints = NDArray[np.int64]


class Traffic(NamedTuple):
    """A window."""

    rows: Ints
    """(N,) which picture each row is of."""
    clients: list[str]
    """(N,) who sent it; empty for nobody."""

    @property
    def origins(self) -> Origins:
        """As the log would tell them."""
        numbers = range(len(self.rows))
        return Origins.of([f"id {each}" for each in numbers], [f"picture {each}" for each in self.rows], self.clients)


class Pictures(NamedTuple):
    """What clients choose from."""

    labels: Ints
    """(M,) classes."""
    statistic: NDArray[np.float32]
    """(M,) what tells kinds of pictures apart."""


Scenario = Callable[[Pictures, np.random.Generator], Traffic]


def independent(count: int) -> Scenario:
    """Each row of another picture, of nobody."""
    return lambda pictures, rng: Traffic(_some(pictures, count, rng), [""] * count)


def repeated(count: int, times: int) -> Scenario:
    """Each picture comes a number of times."""
    return lambda pictures, rng: Traffic(np.repeat(_some(pictures, count, rng), times), [""] * count * times)


def retried(count: int) -> Scenario:
    """A tenth of the rows is sent three times more."""

    def draw(pictures: Pictures, rng: np.random.Generator) -> Traffic:
        rows = _some(pictures, count, rng)
        rows = np.concatenate([rows, np.repeat(rows[: count // 10], 3)])
        return Traffic(rows, [""] * len(rows))

    return draw


def gallery(count: int, size: int = 20) -> Scenario:
    """Half of the traffic is of a few pictures."""

    def draw(pictures: Pictures, rng: np.random.Generator) -> Traffic:
        rows = _some(pictures, count // 2 + size, rng)
        rows = np.concatenate([rows[size:], rng.choice(rows[:size], count - count // 2)])
        return Traffic(rows, [""] * count)

    return draw


def stuck(count: int) -> Scenario:
    """Half of the rows are of one picture."""
    return gallery(2 * count, size=1)


def bursts(clients: int, each: int, kind: str, *, others: int = 0) -> Scenario:
    """Clients of which each sends what is like its other pictures.

    Args:
        clients: how many.
        each: pictures of a client.
        kind: `class` for pictures of one class, `kind` for pictures of one fifth of the statistic, `any`.
        others: rows of nobody, besides.
    """

    def draw(pictures: Pictures, rng: np.random.Generator) -> Traffic:
        rows = [_some(pictures, others, rng)]
        for _ in range(clients):
            rows.append(rng.choice(_alike(pictures, kind, rng), each, replace=False))
        names = [f"client {number}" for number in range(clients) for _ in range(each)]
        return Traffic(np.concatenate(rows), [""] * others + names)

    return draw


SCENARIOS: dict[str, Scenario] = {
    "each picture once": independent(1000),
    "each picture 2 times": repeated(1000, 2),
    "each picture 4 times": repeated(1000, 4),
    "each picture 10 times": repeated(1000, 10),
    "a tenth retried three times": retried(1000),
    "half from a gallery of 20": gallery(1000),
    "half one picture": stuck(200),
    "20 clients, 50 of one class each": bursts(20, 50, "class"),
    "20 clients, 50 of one kind each": bursts(20, 50, "kind"),
    "20 clients, 50 of any each": bursts(20, 50, "any"),
    "200 clients, 5 of one class each": bursts(200, 5, "class"),
    "one client, 100 of one class, among 900": bursts(1, 100, "class", others=900),
    "4 clients, 250 of one class each": bursts(4, 250, "class"),
    "4 clients, 250 of any each": bursts(4, 250, "any"),
}
"""Name -> windows without a shift."""


def _some(pictures: Pictures, count: int, rng: np.random.Generator) -> Ints:
    return rng.choice(len(pictures.labels), count, replace=False)


def _alike(pictures: Pictures, kind: str, rng: np.random.Generator) -> Ints:
    if kind == "class":
        return np.flatnonzero(pictures.labels == rng.choice(np.unique(pictures.labels)))
    if kind == "kind":
        order = np.argsort(pictures.statistic, kind="stable")
        return np.array_split(order, 5)[rng.integers(5)]
    return np.arange(len(pictures.labels))
