"""What the rows of a window are worth where clients send like pictures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fashion.drift.clusters import Clusters, Worth, widen


def names(sizes: list[int], nobody: int = 0) -> np.ndarray:
    owners = [f"client {number}" for number, size in enumerate(sizes) for _ in range(size)]
    return np.array([*owners, *[""] * nobody], object)


def worth(clients: np.ndarray, values: np.ndarray) -> tuple[Worth, Worth]:
    column, classes = Clusters(clients).worth([values], np.digitize(values, [-1, 0, 1]))
    return column, classes


@pytest.mark.parametrize("clients", [names([], 300), names([1] * 300), names([300])], ids=["nobody", "one each", "one"])
def test_rows_without_clusters_are_independent_exactly(clients: np.ndarray) -> None:
    for found in worth(clients, np.random.default_rng(0).normal(size=300)):
        assert (found.weights, found.rows, found.freedom) == (None, 300, np.inf)


@given(st.integers(0, 2**32 - 1), st.integers(12, 60), st.integers(2, 30))
@settings(max_examples=40, deadline=None)
def test_clients_that_repeat_one_value_are_worth_one_row_each(seed: int, clients: int, each: int) -> None:
    values = np.repeat(np.random.default_rng(seed).normal(size=clients), each)
    for found in worth(names([each] * clients), values):
        assert found.rows == pytest.approx(clients, rel=0.25)
        assert found.freedom == pytest.approx(clients - 1)


def test_clients_that_send_anything_are_worth_nearly_all_their_rows() -> None:
    rng = np.random.default_rng(0)
    columns, classes = zip(*(worth(names([50] * 20), rng.normal(size=1000)) for _ in range(50)), strict=True)
    assert np.median([found.rows for found in columns]) > 700
    assert np.median([found.rows for found in classes]) > 850


def test_the_burst_of_one_client_weighs_little_among_many() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(3, 0.1, 300), rng.normal(size=700)])
    for found in worth(names([300], 700), values):
        assert found.weights is not None
        assert found.weights[:300].sum() < 0.02
        assert found.rows > 500
        assert found.is_testable


def test_a_large_client_like_the_others_counts_fully() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    for found in worth(names([500], 500), values):
        assert found.weights is None
        assert found.rows == 1000


def test_few_clients_that_differ_cannot_be_tested() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(middle, 0.1, 250) for middle in (-2, -1, 1, 2)])
    assert [found.is_testable for found in worth(names([250] * 4), values)] == [False, False]


@pytest.mark.parametrize("p_value", [0.0, 1e-300, 1e-5, 0.5, 1.0])
def test_few_clients_widen_a_p_value(p_value: float) -> None:
    assert widen(p_value, np.inf) == p_value
    assert p_value <= widen(p_value, 19) <= 1 + 1e-12
    assert widen(p_value, 1e9) == pytest.approx(p_value, rel=1e-3, abs=1e-290)


class TestOneValue:
    """Of a column that is the same in all rows."""

    def test_it_is_worth_all_rows_where_clients_are_alike(self) -> None:
        rng = np.random.default_rng(0)
        constant, _, classes = Clusters(names([15] * 20)).worth(
            [np.zeros(300), rng.normal(size=300)], np.zeros(300, int)
        )
        assert constant.rows == classes.rows > 200
        assert constant.weights is not None
        assert constant.weights.sum() == pytest.approx(1)

    def test_it_is_worth_a_row_of_each_client_where_other_columns_show_them_to_differ(self) -> None:
        kinds = np.repeat(np.random.default_rng(0).normal(size=20), 15)
        _, classes = Clusters(names([15] * 20)).worth([kinds], np.zeros(300, int))
        assert classes.rows == pytest.approx(20, rel=0.1)

    @given(st.lists(st.integers(1, 40), min_size=2, max_size=40), st.integers(0, 20))
    @settings(max_examples=40, deadline=None)
    def test_worth_is_never_nothing(self, sizes: list[int], nobody: int) -> None:
        clients = names(sizes, nobody)
        for found in Clusters(clients).worth([np.ones(len(clients))], np.ones(len(clients), int)):
            assert 1 <= found.rows <= len(clients)
            assert found.dimensions >= 1
