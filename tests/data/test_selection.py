"""Which pictures become rows: deterministic, by class, and never one group or its copies in two splits."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from fashion.data import dividing, selection, similar
from fashion.data.layout import Entry
from fashion.data.manifest import DataError, SplitName
from fashion.data.selection import Pictures, select

BOTH = {"val": None, "test": None}


def random_pictures(counts: dict[str, int], *, seed: int = 0) -> Pictures:
    labels = [name for name, count in counts.items() for _ in range(count)]
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), 16, 16), dtype=np.uint8)
    return Pictures([Entry(f"{name}/{row}.png", name, None, None) for row, name in enumerate(labels)], images)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(3, 40), min_size=2, max_size=8), st.integers(0, 5))
def test_every_class_is_in_every_split_once(counts: list[int], seed: int) -> None:
    pictures = random_pictures({f"c{row}": count for row, count in enumerate(counts)}, seed=seed)
    made, names, chosen = select(pictures, [f"c{row}" for row in range(len(counts))], seed=seed, fractions=BOTH)
    assert len(names) == len(counts)
    assert list(made) == ["train", "val", "test"]
    assert all(min(row) >= 1 for row in chosen.num_rows.values())
    assert np.sum(list(chosen.num_rows.values()), axis=0).tolist() == counts
    keys = [key for part in made.values() for key in similar.content_keys(part.images)]
    assert len(set(keys)) == sum(counts)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 14), min_size=60, max_size=60), st.integers(0, 3))
def test_groups_are_never_divided(groups: list[int], seed: int) -> None:
    labels = np.arange(60) % 2
    keys = [bytes([row]) * 16 for row in range(60)]
    splits = dividing.divide(labels, np.array(groups), keys, {"val": 0.2, "test": 0.2}, seed=seed)
    assert all(len(set(splits[np.array(groups) == group])) == 1 for group in set(groups))


def division(pictures: Pictures, classes: int, *, seed: int = 42) -> dict[bytes, str]:
    """The split of each picture, by its pixels."""
    made, _, _ = select(pictures, [f"c{label}" for label in range(classes)], seed=seed, fractions=BOTH)
    return {key: name for name, part in made.items() for key in similar.content_keys(part.images)}


def first_of_each(pictures: Pictures, counts: list[int]) -> Pictures:
    """As many of each class, the first ones."""
    rows = [
        row
        for label, count in enumerate(counts)
        for row in [row for row, entry in enumerate(pictures.entries) if entry.label == f"c{label}"][:count]
    ]
    return Pictures([pictures.entries[row] for row in rows], pictures.images[rows])


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("count", [10, 29, 59, 60, 149, 150, 200])
def test_a_picture_more_moves_few_others(classes: int, count: int) -> None:
    whole = random_pictures({f"c{label}": count + 1 for label in range(classes)}, seed=count)
    before = division(first_of_each(whole, [count] * classes), classes)
    for label in range(classes):
        more = [count + (label == other) for other in range(classes)]
        after = division(first_of_each(whole, more), classes)
        moved = sum(after[key] != name for key, name in before.items())
        assert moved <= max(2, 0.03 * len(before))


@pytest.mark.parametrize("name", ["val", "test"])
def test_held_out_rows_grow_one_by_one(name: SplitName) -> None:
    counts = np.concatenate([np.arange(3, 1000), np.arange(49_000, 51_000)])
    rows = np.array([selection._fraction(name, None, int(count)) * count for count in counts])
    steps = np.diff(rows)[np.diff(counts) == 1]
    assert steps.min() > -1e-6
    assert steps.max() < 0.31


@pytest.mark.parametrize("seed", range(5))
def test_of_pictures_that_grow_by_a_quarter_few_training_rows_come_into_the_test(seed: int) -> None:
    whole = random_pictures({"c0": 250, "c1": 250}, seed=seed)
    before, after = (division(first_of_each(whole, [count] * 2), 2, seed=seed) for count in (200, 250))
    test = [key for key, name in after.items() if name == "test"]
    assert sum(before.get(key) == "train" for key in test) <= 0.1 * len(test)
    assert sum(after[key] != name for key, name in before.items()) <= 0.06 * len(before)
    assert not [key for key in test if before.get(key) == "val"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(0, 3), st.sampled_from([0.2, 0.5, 0.8]))
def test_each_split_has_a_group_where_there_are_three(sizes: list[int], seed: int, fraction: float) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    keys = [bytes([group]) * 15 + bytes([row % 256]) for row, group in enumerate(groups)]
    labels = np.zeros(len(groups), np.int64)
    splits = dividing.divide(labels, groups, keys, {"val": 0.1, "test": fraction}, seed=seed)
    expected = {1: {"train"}, 2: {"train", "test"}}.get(len(sizes), {"train", "val", "test"})
    assert set(splits) == expected


def test_one_group_of_half_the_class_is_for_training() -> None:
    groups = np.array([0] * 50 + list(range(1, 51)))
    keys = [bytes([row]) * 16 for row in range(100)]
    for seed in range(20):
        splits = dividing.divide(np.zeros(100, np.int64), groups, keys, {"val": 0.2, "test": 0.2}, seed=seed)
        assert set(splits[:50]) == {"train"}
        assert [int((splits == name).sum()) for name in ("val", "test")] == [20, 20]


def test_the_division_depends_on_pixels_and_seed_alone() -> None:
    pictures = random_pictures({"a": 30, "b": 30})
    order = np.random.default_rng(1).permutation(60)
    shuffled = Pictures([pictures.entries[row] for row in order], pictures.images[order])
    parts = [select(each, ["a", "b"], seed=7, fractions=BOTH)[0]["test"].images for each in (pictures, shuffled)]
    assert set(similar.content_keys(parts[0])) == set(similar.content_keys(parts[1]))
    other = select(pictures, ["a", "b"], seed=8, fractions=BOTH)[0]["test"].images
    assert set(similar.content_keys(parts[0])) != set(similar.content_keys(other))


def test_copies_stay_in_one_split() -> None:
    pictures = random_pictures({"a": 30, "b": 30})
    pictures.images[20:30] = pictures.images[:10]
    made, _, chosen = select(pictures, ["a", "b"], seed=0, fractions=BOTH)
    assert chosen.copies == 10
    sets = [set(similar.content_keys(part.images)) for part in made.values()]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 50


@pytest.mark.parametrize("by", ["column", "name"])
def test_given_groups_stay_in_one_split(by: str) -> None:
    pictures = random_pictures({"a": 30, "b": 30})
    entries = [
        Entry(
            f"{entry.label}/patient{row % 12:02}_{row}.png",
            entry.label,
            None,
            f"{row % 12}" if by == "column" else None,
        )
        for row, entry in enumerate(pictures.entries)
    ]
    grouped = Pictures(entries, pictures.images)
    pattern = None if by == "column" else r"(patient\d+)_"
    made, _, chosen = select(grouped, ["a", "b"], seed=0, fractions=BOTH, group_by=pattern)
    assert chosen.groups == 12
    number = {key: row % 12 for row, key in enumerate(similar.content_keys(pictures.images))}
    found = [{number[key] for key in similar.content_keys(part.images)} for part in made.values()]
    assert sum(map(len, found)) == 12


def test_a_pattern_that_is_none_is_one_sentence() -> None:
    with pytest.raises(DataError, match=r"data.group_by=\( is not a regular expression"):
        select(random_pictures({"a": 5, "b": 5}), ["a", "b"], seed=0, fractions=BOTH, group_by="(")


def test_classes_with_too_few_pictures_are_left_out_and_named() -> None:
    pictures = random_pictures({"a": 5, "few": 2, "b": 5})
    made, names, chosen = select(pictures, ["a", "few", "b"], seed=0, fractions=BOTH)
    assert names == ("a", "b")
    assert chosen.too_few == {"few": 2}
    assert set(np.concatenate([part.labels for part in made.values()])) == {0, 1}
    with pytest.raises(DataError, match=r"at least 2 classes with 3 different pictures each are needed.*few \(2\)"):
        select(random_pictures({"a": 5, "few": 2}), ["a", "few"], seed=0, fractions=BOTH)


def test_given_splits_are_kept() -> None:
    pictures = random_pictures({"a": 20, "b": 20})
    entries = [
        Entry(e.path, e.label, "test" if row % 4 == 0 else "train", None) for row, e in enumerate(pictures.entries)
    ]
    made, _, chosen = select(Pictures(entries, pictures.images), ["a", "b"], seed=0, fractions=BOTH)
    assert chosen.divided == ("train", "val")
    assert set(similar.content_keys(made["test"].images)) == set(similar.content_keys(pictures.images[::4]))


@pytest.mark.parametrize("split", ["test", "val"])
def test_one_split_alone_is_divided(split: str) -> None:
    pictures = random_pictures({"a": 20, "b": 20})
    entries = [Entry(e.path, e.label, split, None) for e in pictures.entries]  # type: ignore[arg-type]
    assert list(select(Pictures(entries, pictures.images), ["a", "b"], seed=0, fractions=BOTH)[0]) == [
        "train",
        "val",
        "test",
    ]


def test_equal_pixels_of_two_classes_are_counted() -> None:
    pictures = random_pictures({"a": 10, "b": 10})
    pictures.images[10] = pictures.images[0]
    assert select(pictures, ["a", "b"], seed=0, fractions=BOTH)[2].contradictions == 1


def resized(picture: Image.Image, size: int) -> np.ndarray:
    return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS))


def photo_parts(count: int) -> list[Image.Image]:
    photos = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    rng = np.random.default_rng(0)

    def part(number: int) -> Image.Image:
        left, top = (int(each) for each in rng.integers(0, 200, 2))
        return photos[number % 2].crop((left, top, left + 200, top + 200))

    return [part(number) for number in range(count)]


def test_pictures_saved_anew_or_scaled_are_nearly_equal_and_others_are_not() -> None:
    parts = photo_parts(100)
    copies = []
    for number, part in enumerate(parts):
        buffer = io.BytesIO()
        scaled = part.resize((150, 150)) if number % 2 else part
        scaled.save(buffer, "JPEG", quality=60)
        copies.append(Image.open(buffer))
    images = np.stack(
        [np.asarray(each.convert("RGB").resize((64, 64), Image.Resampling.LANCZOS)) for each in [*parts, *copies]]
    )
    pairs = similar.near_pairs(images)
    found = {one for one, other in pairs if other == one + 100}
    assert len(found) >= 95
    assert len(pairs) - len(found) <= 2


def test_different_digits_are_not_nearly_equal() -> None:
    images = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
    large = np.stack(
        [np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.LANCZOS)) for image in images]
    )
    assert len(similar.near_pairs(large)) <= 10
