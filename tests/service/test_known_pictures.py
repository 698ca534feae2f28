"""Pictures of a known class in a bento: which are chosen, and the ids under which they are shown."""

import os
import uuid
from pathlib import Path

import numpy as np
import pytest

from bentos.classifier import known_pictures
from bentos.classifier.deployment import KNOWN_PICTURES
from bentos.classifier.known_pictures import EARLIER_MS, KnownPictures, Showing
from fashion.data.dataset import Dataset
from fashion.images import image_store
from fashion.model.package import Package
from fashion.model.predictor import Predictor
from fashion.predictions.record import new_prediction_id

NOW_US = 1_790_000_000_000_000


def some_known(count: int = 50) -> KnownPictures:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (count, 28, 28), np.uint8)
    return KnownPictures(images, np.arange(count, dtype=np.int64) % 10, os.urandom(32))


def beside(count: int) -> dict[str, int]:
    return {os.urandom(32).hex(): NOW_US + number * 1_000_000 for number in range(count)}


def shown(
    known: KnownPictures, waiting: dict[str, int], odds: float = 1.0, used: set[str] | None = None
) -> list[Showing]:
    return list(known.showings(waiting, odds, used=used or set(), may_show=lambda picture: True))


def test_each_worker_knows_an_id_by_the_key_alone(tmp_path: Path) -> None:
    known = some_known()
    (tmp_path / KNOWN_PICTURES).write_bytes(known.to_npz())
    read = KnownPictures.read(tmp_path)
    assert read is not None
    assert np.array_equal(read.images, known.images)
    assert np.array_equal(read.labels, known.labels)
    waiting = beside(1500)
    found = shown(known, waiting)
    assert shown(read, waiting) == found
    assert [read.picture_of(each.picture_id) for each in found] == [each.picture for each in found]
    assert {each.picture for each in found} == set(range(50))
    without = KnownPictures(known.images, known.labels, os.urandom(32))
    assert not any(without.picture_of(each.picture_id) is not None for each in found)
    assert not any(known.picture_of(new_prediction_id()) is not None for _ in range(1000))
    first = found[0].picture_id
    altered = [first.upper(), "", "x", f"{{{first}}}", "é" * 36, str(uuid.UUID(int=uuid.UUID(first).int ^ 1))]
    assert [known.picture_of(each) for each in altered] == [None] * 6


def test_an_id_looks_like_that_of_a_prediction() -> None:
    waiting = beside(1000)
    found = shown(some_known(), waiting)
    ids = [uuid.UUID(each.picture_id) for each in found]
    assert len(set(ids)) == 1000
    assert {(each.version, each.variant) for each in ids} == {(7, uuid.RFC_4122)}
    for each, of in zip(ids, found, strict=True):
        assert 0 <= waiting[of.beside] // 1000 - (each.int >> 80) < EARLIER_MS
    fixed = set(range(62, 64)) | set(range(76, 80))
    for bit in set(range(80)) - fixed:  # 5 standard deviations
        assert abs(sum(each.int >> bit & 1 for each in ids) - 500) < 80, bit


def test_as_many_are_shown_as_was_asked_for_and_none_again_that_was_labelled() -> None:
    known, waiting = some_known(), beside(2000)
    found = shown(known, waiting, 0.25)
    assert 400 < len(found) < 600
    assert shown(known, waiting, 0.0) == []
    used = {each.picture_id for each in found[:100]}
    assert shown(known, waiting, 0.25, used) == found[100:]
    few = list(known.showings(waiting, 0.25, used=set(), may_show=lambda picture: picture < 10))
    assert {each.picture for each in few} == set(range(10))
    assert len(few) > 400  # another id is tried where the first stands for a picture that is not shown


def test_those_are_chosen_of_which_the_model_says_what_the_data_set_says(
    tiny_package: Package, small_dataset: Dataset
) -> None:
    test = small_dataset.test
    said = Predictor(tiny_package).predict(test.images)
    files = [image_store.to_png(image) for image in test.images]
    known = known_pictures.choose(tiny_package, files, test.labels.tolist(), count=40)
    assert known is not None
    by_image = {image_store.digest(image): row for row, image in enumerate(test.images)}
    rows = [by_image[each] for each in known.sha256]
    assert len(set(rows)) == len(rows)
    assert known.labels.tolist() == test.labels[rows].tolist() == said.labels[rows].tolist()
    assert np.bincount(known.labels, minlength=10).tolist() == [4] * 10
    for label in range(10):
        right = (test.labels == label) & (said.labels == label)
        assert said.confidences[[row for row in rows if test.labels[row] == label]].min() >= np.median(
            said.confidences[right]
        )
    again = known_pictures.choose(tiny_package, files, test.labels.tolist(), count=40)
    assert again is not None
    assert again.key != known.key


def test_none_are_chosen_of_few(tiny_package: Package, small_dataset: Dataset) -> None:
    files, labels = [image_store.to_png(each) for each in small_dataset.test.images], small_dataset.test.labels
    assert known_pictures.choose(tiny_package, files[:30], labels[:30].tolist()) is None
    assert known_pictures.choose(tiny_package, [], []) is None
    wrong = ((labels + 1) % 10).tolist()
    assert known_pictures.choose(tiny_package, files[:50], wrong[:50]) is None


@pytest.mark.fault("damaged file of known pictures in a bento")
def test_a_bento_without_them_and_a_damaged_file_have_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert KnownPictures.read(tmp_path) is None
    assert caplog.messages == []
    whole = some_known().to_npz()
    for damaged in (b"", b"PK", whole[: len(whole) // 2], whole[:2000] + b"\0" * 500 + whole[2500:]):
        (tmp_path / KNOWN_PICTURES).write_bytes(damaged)
        caplog.clear()
        assert KnownPictures.read(tmp_path) is None
        assert "no known pictures check the reviews" in caplog.text
