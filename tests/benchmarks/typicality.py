"""How well pictures of other things are told from test pictures, and what it costs beside the prediction."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from fashion.model.predictor import Predictor
from fashion.model.reference import Reference
from fashion.model.typicality import Typicality
from tests.benchmarks import champion
from tests.benchmarks.measurement import ServingOptions, Table, fashion_mnist, measured
from tests.support.foreign import FOREIGN

COUNT = 1000
"""Pictures of each kind."""
CALLS = 2000
"""Predictions of one picture that are timed."""
SHARE = 0.01


def tables(options: ServingOptions) -> Iterator[Table]:
    """Measure each kind of foreign pictures, then the time of one."""
    data = fashion_mnist(3000 if options.quick else None)
    predictor = Predictor(champion.load_package(options.home, data, quick=options.quick))
    typicality = Typicality.fit(Reference.of(predictor.package))
    test = data.test.images
    usual = predictor.predict(test)
    distances = typicality.distances(usual)
    rng = np.random.default_rng(0)
    kinds = {name: make(COUNT, rng) for name, make in sorted(FOREIGN.items())}
    kinds |= {
        "negatives": 255 - test[:COUNT],
        "upside down": test[:COUNT, ::-1],
        "transposed": test[:COUNT].swapaxes(1, 2),
    }
    rows: list[dict[str, Any]] = [_row("test pictures", distances, np.empty(0), 1 - usual.confidences, typicality)]
    for name, images in kinds.items():
        foreign = predictor.predict(images)
        doubts = np.concatenate([1 - usual.confidences, 1 - foreign.confidences])
        rows.append(_row(name, distances, typicality.distances(foreign), doubts, typicality))
    formats = {"AUROC": ".3f", "AUROC of 1 - confidence": ".3f", f"below {SHARE}": ".1%"}
    note = f"{COUNT:,} pictures of each kind (tests/support/foreign.py), {len(distances):,} test pictures."
    yield Table("Pictures unlike anything learnt", rows, note, formats)
    yield _times(predictor, typicality, test[:1], 50 if options.quick else CALLS)


def _row(
    name: str, usual: np.ndarray, foreign: np.ndarray, doubts: np.ndarray, typicality: Typicality
) -> dict[str, Any]:
    row: dict[str, Any] = {"pictures": name, "AUROC": None, "AUROC of 1 - confidence": None}
    if len(foreign):
        is_foreign = np.repeat([0, 1], [len(usual), len(foreign)])
        row["AUROC"] = roc_auc_score(is_foreign, np.concatenate([usual, foreign]))
        row["AUROC of 1 - confidence"] = roc_auc_score(is_foreign, doubts)
    shown = foreign if len(foreign) else usual
    return row | {f"below {SHARE}": float((typicality.shares(shown) < SHARE).mean())}


def _times(predictor: Predictor, typicality: Typicality, picture: np.ndarray, calls: int) -> Table:
    predictions = predictor.predict(picture)

    def predict() -> None:
        for _ in range(calls):
            predictor.predict(picture)

    def judge() -> None:
        for _ in range(calls):
            typicality.shares(typicality.distances(predictions))

    rows: list[dict[str, Any]] = [
        {"work": name, "CPU-microseconds": 1e6 * measured(work).cpu / calls}
        for name, work in (("prediction", predict), ("typicality", judge))
    ]
    return Table(
        "Time of one picture", rows, f"{calls:,} calls of each, one after the other.", {"CPU-microseconds": ".1f"}
    )
