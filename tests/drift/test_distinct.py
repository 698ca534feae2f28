"""Bottom-k samples of distinct pictures: exact for few, uniform for many, the same in any order."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.imagined import sample_predictions

from fashion.drift.distinct import DistinctKeys, DistinctPictures, Origins, Rows, num_pictures
from fashion.predictions.hashing import hash_few, hash_texts
from fashion.predictions.record import UNLABELLED


def rows_of(pictures: list[int], *, start: int = 0) -> Rows:
    count = len(pictures)
    ids = [f"id {number}" for number in range(start, start + count)]
    origins = Origins.of(ids, [f"picture {each}" for each in pictures], [None] * count)
    return Rows(sample_predictions(count, seed=1), np.full(count, UNLABELLED), np.arange(count), origins)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=300), st.integers(1, 5), st.integers(5, 40), st.randoms())
@settings(max_examples=60, deadline=None)
def test_any_order_and_division_keeps_the_same_rows(
    pictures: list[int], num_parts: int, size: int, random: random.Random
) -> None:
    rows = rows_of(pictures)
    whole = DistinctPictures(size)
    whole.add(rows)
    order = list(range(len(pictures)))
    random.shuffle(order)
    parts = []
    for numbers in np.array_split(order, num_parts):
        part = DistinctPictures(size)
        for number in numbers:
            part.add(rows[[number]])
        parts.append(part)
    joined = DistinctPictures(size)
    for part in parts:
        joined.merge(part)
    kept, again = whole.rows(), joined.rows()
    assert kept is not None
    assert again is not None
    assert kept.origins.rows.tolist() == again.origins.rows.tolist()
    assert kept.predictions.probabilities.tobytes() == again.predictions.probabilities.tobytes()
    assert (whole.count, whole.is_sample) == (joined.count, joined.is_sample)
    assert whole.is_sample == (len(set(pictures)) > size)
    if not whole.is_sample:
        assert sorted(kept.origins.pictures) == sorted(set(rows.origins.pictures))
        assert whole.count == len(set(pictures))


def test_pictures_beyond_a_full_sample_show_that_it_is_one() -> None:
    pictures = sorted(range(8), key=lambda each: int(hash_texts([f"picture {each}"])[0]))
    sample = DistinctPictures(4)
    sample.add(rows_of(pictures[:4]))
    assert (sample.rows() is not None, sample.is_sample) == (True, False)
    sample.add(rows_of(pictures[4:], start=4))
    assert sample.is_sample
    assert sample.count != 4


def test_many_pictures_are_sampled_uniformly_and_their_number_is_estimated() -> None:
    sample = DistinctPictures(1000)
    for start in range(0, 20_000, 1000):
        sample.add(rows_of(list(range(start, start + 1000)) * 2, start=2 * start))
    kept = sample.rows()
    assert kept is not None
    assert len(kept) == 1000
    assert sample.count == pytest.approx(20_000, rel=0.1)
    first_half = np.isin(kept.origins.pictures, hash_texts([f"picture {each}" for each in range(10_000)]))
    assert 440 < first_half.sum() < 560


def test_distinct_keys_are_counted_exactly_up_to_a_size() -> None:
    keys = DistinctKeys(100)
    for _ in range(3):
        keys.add(hash_texts([str(number) for number in range(100)]))
    assert keys.count == 100
    keys.add(hash_texts([str(number) for number in range(5000)]))
    assert keys.count == pytest.approx(5000, rel=0.3)


def test_rows_without_a_hash_are_pictures_of_their_own() -> None:
    origins = Origins.of(["a", "b", "c", "d"], ["", "", "x", "x"], [None, "", "shop", None])
    assert len(set(origins.pictures)) == 3
    assert origins.clients.tolist() == ["", "", "shop", ""]


@pytest.mark.parametrize(("classes", "pictures"), [(3, 65_536), (256, 65_536), (1000, 16_777), (10**6, 1000)])
def test_memory_is_bounded_for_many_classes(classes: int, pictures: int) -> None:
    assert num_pictures(classes) == pictures


def test_hashes_that_are_remembered_are_the_same() -> None:
    texts = ["client 1", "client 2", "ü", "client 1"]
    assert hash_few(texts).tolist() == hash_texts(texts).tolist()
    assert hash_few([]).dtype == hash_texts([]).dtype
