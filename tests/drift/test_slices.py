"""Which part of the traffic changed."""

import numpy as np
import pytest
from support.imagined import CLASSES, HARMLESS, SETTINGS, sample_predictions

from fashion.drift.decision import WindowStats
from fashion.drift.distinct import Origins
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.report_traffic import slices_section
from fashion.drift.result import DriftResult, Slice
from fashion.drift.slices import HOUR_US, MAX_SLICES
from fashion.model.reference import Reference
from fashion.predictions.record import UNLABELLED

COUNT = 1200
CLIENTS = [f"shop {number % 6}" for number in range(COUNT)]
HOURS = np.arange(COUNT) // 6 % 8
TIMES = 1_800_000_000_000_000 // HOUR_US // 24 * 24 * HOUR_US + HOURS * HOUR_US + np.arange(COUNT)


@pytest.fixture(scope="module")
def reference_stats() -> ReferenceStats:
    rows = sample_predictions(2000, seed=1)
    return ReferenceStats(Reference(rows.labels, rows), HARMLESS, CLASSES)


def decide(
    reference: ReferenceStats,
    changed: np.ndarray,
    *,
    seed: int = 5,
    wrong: np.ndarray | None = None,
    clients: list[str] = CLIENTS,
) -> DriftResult:
    """A window in which some rows have moved statistics, and feedback contradicts some predictions."""
    window = sample_predictions(COUNT, seed=seed)
    window.statistics[changed] += 2
    truth = np.full(COUNT, UNLABELLED) if wrong is None else np.where(wrong, (window.labels + 1) % 3, window.labels)
    ids = [str(number) for number in range(COUNT)]
    stats = WindowStats(reference)
    stats.add(window, truth, TIMES, Origins.of(ids, ids, clients))
    return stats.decide(SETTINGS, model_version="1")


def unusual(found: DriftResult) -> list[tuple[str, str]]:
    return [(each.kind, each.name) for each in found.slices if each.is_unusual]


NOTHING = np.zeros(COUNT, np.bool_)


def test_every_slice_is_compared(reference_stats: ReferenceStats) -> None:
    found = decide(reference_stats, NOTHING).slices
    kinds = [each.kind for each in found]
    assert [kinds.count(kind) for kind in ("client", "hour", "predicted class")] == [6, 8, 3]
    assert sum(each.pictures for each in found) == 3 * COUNT


def test_a_client_that_changed_is_named(reference_stats: ReferenceStats) -> None:
    found = decide(reference_stats, np.array([client == "shop 3" for client in CLIENTS]))
    assert found.slices[0].kind == "client"
    assert found.slices[0].name == "shop 3"
    assert found.slices[0].changed
    assert len(found.slices[0].columns) == 3
    assert not any(each.changed for each in found.slices if each.kind == "client" and each.name != "shop 3")
    page = "".join(slices_section(found))
    assert "client shop 3" in page
    assert "changed" in page


def test_an_hour_that_changed_is_named(reference_stats: ReferenceStats) -> None:
    found = decide(reference_stats, HOURS == 5)
    assert [name for kind, name in unusual(found) if kind == "hour"] == ["05:00"]


def test_a_class_that_changed_is_named_and_no_other(reference_stats: ReferenceStats) -> None:
    found = decide(reference_stats, sample_predictions(COUNT, seed=5).labels == 1, clients=[""] * COUNT)
    assert [name for kind, name in unusual(found) if kind == "predicted class"] == ["dog"]


def test_a_client_that_lost_accuracy_is_named(reference_stats: ReferenceStats) -> None:
    wrong = np.array([client == "shop 2" for client in CLIENTS]) & (np.arange(COUNT) % 4 < 2)
    found = decide(reference_stats, NOTHING, wrong=wrong)
    (client,) = [each for each in found.slices if each.kind == "client" and each.declined]
    assert (client.name, client.labelled, client.changed) == ("shop 2", 200, False)
    assert client.accuracy == pytest.approx(0.5)


def test_slices_of_windows_without_a_change_are_seldom_called_changed(reference_stats: ReferenceStats) -> None:
    called = sum(bool(unusual(decide(reference_stats, NOTHING, seed=seed))) for seed in range(100, 120))
    assert called <= 1


def test_many_clients_have_few_slices(reference_stats: ReferenceStats) -> None:
    many = [f"client {number % 300}" for number in range(COUNT)]
    assert not [each for each in decide(reference_stats, NOTHING, clients=many).slices if each.kind == "client"]
    assert MAX_SLICES >= 24  # all hours


def test_a_page_shows_a_client_without_its_markup() -> None:
    one = Slice("client", "<b>" * 30, 60, 1e-9, True, ("p(<i>)",), 0, float("nan"), float("nan"), False)
    result = DriftResult.__new__(DriftResult)
    object.__setattr__(result, "slices", (one,))
    object.__setattr__(result, "alpha", 0.01)
    page = "".join(slices_section(result))
    assert "<b><b>" not in page
    assert "<i>" not in page
    assert "…" in page
