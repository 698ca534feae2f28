"""Labelled feedback of users: which pictures are trained on, which are held out, and which are left out."""

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from support.log_rows import MODEL_NAME
from support.log_rows import record as logged

from fashion.config.schema import DataConfig
from fashion.config.train import FeedbackConfig
from fashion.data.dataset import Dataset, Split
from fashion.images import image_store
from fashion.images.transform import Images
from fashion.predictions import labelled
from fashion.predictions.labelled import TEST_ROWS, Believed, LabelledFeedback
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import Feedback, LoggedPrediction
from fashion.predictions.sources import FeedbackSource, Trust
from fashion.storage.address import open_store
from fashion.storage.blobs import BlobNotFound, Store, StoreUnavailable

SETTINGS = FeedbackConfig(use=True, holdout=0.3, max_rows=1000, repeat=2, rolled_back="block")
PROVEN = Believed(Trust(tuple(FeedbackSource([name], reviewed=30) for name in ("page", TEST_ROWS, "csv"))))
"""Sources that reviews have proven."""
HASHES = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(2000)]


@dataclass
class Users:
    """Users who send pictures and label them, one a second."""

    log: PredictionLog
    store: Store
    data: DataConfig
    dataset: Dataset
    now_us: int = 1_800_000_000_000_000

    def send(self, image: Images, *labels: int, source: str = "page", keep: bool = True, **changed: object) -> str:
        """Send one picture, predicted as class 1, with feedback; return its sha256."""
        sha256 = image_store.digest(image)
        if keep:
            image_store.put(self.store, image, sha256)
        self.now_us += 1_000_000
        record = logged(time_us=self.now_us, image_sha256=sha256, **{"probabilities": (0.1,) * 10, **changed})
        self.log.append([record])
        feedback = [Feedback(record.prediction_id, label, source, self.now_us + i) for i, label in enumerate(labels)]
        self.log.append_feedback(feedback)
        return sha256

    def rows(self) -> list[LoggedPrediction]:
        """Rows with feedback, newest first."""
        return list(self.log.latest(10_000, role="champion", with_feedback=True))

    def collect(self, settings: FeedbackConfig = SETTINGS) -> LabelledFeedback:
        return labelled.collect(
            self.rows(), self.store, self.data, self.dataset, settings, model_name=MODEL_NAME, believed=PROVEN
        )


@pytest.fixture
def users(tmp_path: Path, data_config: DataConfig, small_dataset: Dataset) -> Iterator[Users]:
    with PredictionLog(tmp_path / "log.db") as log:
        yield Users(log, open_store(str(tmp_path / "images")), data_config, small_dataset)


def pictures(count: int, shape: tuple[int, ...] = (28, 28), seed: int = 0) -> Images:
    """Noise, which is in no data set."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def labels_of(collected: LabelledFeedback) -> dict[str, int]:
    """Label of each picture, whichever part it is in."""
    found = [
        (image_store.digest(image), int(label))
        for split in (collected.train, collected.held_out)
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def parts_of(collected: LabelledFeedback) -> tuple[set[str], set[str]]:
    """sha256 of the pictures to train on and of those held out."""
    train, held_out = (set(map(image_store.digest, each.images)) for each in (collected.train, collected.held_out))
    return train, held_out


# What is combined


def test_each_labelled_picture_is_trained_on_or_held_out_unchanged(users: Users) -> None:
    sent = {users.send(image, number % 10): number % 10 for number, image in enumerate(pictures(60))}
    collected = users.collect()
    assert labels_of(collected) == sent
    assert len(collected.train) > 0
    assert len(collected.held_out) > 0
    assert collected.left_out == {}
    for split in (collected.train, collected.held_out):
        assert split.images.shape[1:] == (28, 28)
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int64)


def test_rows_without_feedback_are_ignored(users: Users) -> None:
    users.send(pictures(1)[0])
    rows = users.log.window(0, 2**62)
    collected = labelled.collect(
        rows, users.store, users.data, users.dataset, SETTINGS, model_name=MODEL_NAME, believed=PROVEN
    )
    assert (labels_of(collected), collected.left_out) == ({}, {})


def test_without_feedback_both_parts_are_empty_arrays_of_the_right_shape(users: Users) -> None:
    collected = users.collect()
    for split in (collected.train, collected.held_out):
        assert (split.images.shape, split.images.dtype) == ((0, 28, 28), np.uint8)
        assert (split.labels.shape, split.labels.dtype) == ((0,), np.int64)


def test_the_latest_feedback_on_a_prediction_counts(users: Users) -> None:
    sha256 = users.send(pictures(1)[0], 3, 7, 5)
    assert labels_of(users.collect()) == {sha256: 5}


def test_a_picture_that_was_sent_again_counts_once(users: Users) -> None:
    first, second = pictures(2)
    for _ in range(3):
        sha256 = users.send(first, 4)
    other = users.send(second, 4)
    collected = users.collect()
    assert labels_of(collected) == {sha256: 4, other: 4}
    assert collected.left_out == {"on a picture that was sent before": 2}


def test_pictures_with_contradicting_labels_are_left_out(users: Users) -> None:
    first, second = pictures(2)
    for label in (4, 5, 4):
        users.send(first, label)
    sha256 = users.send(second, 6)
    collected = users.collect()
    assert labels_of(collected) == {sha256: 6}
    assert collected.left_out == {
        "on a picture that was sent before": 2,
        "whose labels contradict each other": 1,
    }


# What is left out


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_pictures_of_the_data_set_are_left_out(name: str, users: Users) -> None:
    split = users.dataset.splits[name]
    for image, label in zip(split.images[:5], split.labels[:5], strict=True):
        users.send(image, int(label))
    collected = users.collect()
    assert labels_of(collected) == {}
    assert collected.left_out == {"on pictures of the data set": 5}


def test_pictures_reserved_for_traffic_are_collected(users: Users) -> None:
    images = pictures(4)
    users.dataset = dataclasses.replace(users.dataset, live=Split(images, np.arange(4)))
    sent = {users.send(image, label): label for label, image in enumerate(images)}
    assert labels_of(users.collect()) == sent


def test_altered_test_rows_are_left_out(users: Users) -> None:
    first, second = pictures(2)
    users.send(first, 3, source=TEST_ROWS)
    sha256 = users.send(second, 3)
    collected = users.collect()
    assert labels_of(collected) == {sha256: 3}
    assert collected.left_out == {"on altered test rows": 1}


def test_an_unknown_class_is_left_out(users: Users) -> None:
    last, beyond, far = pictures(3)
    classes = len(users.data.class_names)
    sha256 = users.send(last, classes - 1)
    users.send(beyond, classes)
    users.send(far, 2**31 - 1)
    collected = users.collect()
    assert labels_of(collected) == {sha256: classes - 1}
    assert collected.left_out == {"of an unknown class": 2}


@pytest.mark.fault("two models share a log")
def test_labels_on_predictions_of_other_models_are_left_out(users: Users) -> None:
    own, *others = pictures(4)
    sha256 = users.send(own, 3)
    users.send(others[0], 3, model_name="shirts")
    users.send(others[1], 3, model_name=None, model_digest=None)
    users.send(others[2], 3, probabilities=(0.5, 0.5))
    collected = users.collect()
    assert labels_of(collected) == {sha256: 3}
    assert collected.left_out == {
        "on predictions of other models": 1,
        "on predictions that do not name their model (`fashion log assign` names it)": 1,
        "on predictions of a version with other classes": 1,
    }


def test_pictures_that_were_not_stored_are_counted(users: Users) -> None:
    first, second = pictures(2)
    users.send(first, 3, keep=False)
    sha256 = users.send(second, 3)
    collected = users.collect()
    assert labels_of(collected) == {sha256: 3}
    assert collected.left_out == {"whose pictures were not stored (serve.log.images=true stores them)": 1}


def test_damaged_pictures_are_counted(users: Users) -> None:
    swapped, cut, whole = pictures(3)
    sha256 = image_store.digest(swapped)
    image_store.put(users.store, whole, sha256)
    users.send(swapped, 3, keep=False)
    sha256 = image_store.digest(cut)
    users.store.put(f"{image_store.PREFIX}{sha256[:2]}/{sha256}.png", image_store.to_png(cut)[:100])
    users.send(cut, 3, keep=False)
    sha256 = users.send(whole, 3)
    collected = users.collect()
    assert labels_of(collected) == {sha256: 3}
    assert collected.left_out == {"whose pictures are damaged": 2}


@pytest.mark.parametrize("shape", [(32, 32), (28, 28, 3), (28, 27)])
def test_pictures_of_another_size_are_counted(shape: tuple[int, ...], users: Users) -> None:
    users.send(pictures(1, shape)[0], 3)
    sha256 = users.send(pictures(1)[0], 3)
    collected = users.collect()
    assert labels_of(collected) == {sha256: 3}
    assert collected.left_out == {"of another size": 1}


def test_only_the_latest_max_rows_are_collected(users: Users) -> None:
    sent = [users.send(image, 3) for image in pictures(12)]
    collected = users.collect(dataclasses.replace(SETTINGS, max_rows=5))
    assert set(labels_of(collected)) == set(sent[-5:])
    assert collected.left_out == {"beyond feedback.max_rows": 7}


def test_a_contradiction_beyond_max_rows_counts_too(users: Users) -> None:
    image, *others = pictures(4)
    users.send(image, 4)
    for each in others:
        users.send(each, 3)
    users.send(image, 5)
    collected = users.collect(dataclasses.replace(SETTINGS, max_rows=1))
    assert labels_of(collected) == {}
    assert collected.left_out == {
        "beyond feedback.max_rows": 3,
        "on a picture that was sent before": 1,
        "whose labels contradict each other": 1,
    }


def test_every_row_with_feedback_is_accounted_for(users: Users) -> None:
    twice, contradicted, lost, strange, large, *others = pictures(15)
    for image, label in ((twice, 1), (twice, 1), (contradicted, 2), (contradicted, 3), (strange, 10)):
        users.send(image, label)
    users.send(lost, 1, keep=False)
    users.send(large, 1, source=TEST_ROWS)
    users.send(pictures(1, (32, 32))[0], 1)
    users.send(users.dataset.test.images[0], 1)
    for image in others:
        users.send(image, 2, 3)
    collected = users.collect()
    assert len(collected.train) + len(collected.held_out) == 11
    assert sum(collected.left_out.values()) == len(users.rows()) - 11


def test_an_unavailable_store_raises_instead_of_counting_missing_pictures(users: Users, tmp_path: Path) -> None:
    users.send(pictures(1)[0], 3)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    users.store = open_store(str(tmp_path / "loop"))
    with pytest.raises(StoreUnavailable) as caught:
        users.collect()
    assert not isinstance(caught.value, BlobNotFound)
    assert str(tmp_path / "loop") in str(caught.value)


# What is held out


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_about_the_share_is_held_out(share: float) -> None:
    held_out = sum(labelled.is_held_out(sha256, share) for sha256 in HASHES)
    assert abs(held_out / len(HASHES) - share) < 4 * (share * (1 - share) / len(HASHES)) ** 0.5


def test_the_same_pictures_are_held_out_in_every_process_and_version() -> None:
    held_out = [number for number in range(40) if labelled.is_held_out(HASHES[number], 0.3)]
    assert held_out == [1, 2, 3, 5, 7, 16, 32, 36]


def test_held_out_pictures_stay_held_out_when_the_share_grows() -> None:
    shares = (0.1, 0.2, 0.3, 0.5, 0.99)
    held_out = [{sha256 for sha256 in HASHES if labelled.is_held_out(sha256, share)} for share in shares]
    for i in range(1, len(shares)):
        assert held_out[i - 1] < held_out[i]


def test_the_parts_have_no_picture_in_common(users: Users) -> None:
    for label in (3, 3):
        for image in pictures(25):
            users.send(image, label)
    train, held_out = parts_of(users.collect())
    assert len(train | held_out) == 25
    assert not train & held_out


def test_the_parts_do_not_depend_on_order_or_other_pictures(users: Users) -> None:
    images = pictures(30)
    for image in images:
        users.send(image, 3)
    train, held_out = parts_of(users.collect())
    for image in [*pictures(30, seed=1), *images[::-1]]:
        users.send(image, 3)
    later_train, later_held_out = parts_of(users.collect())
    assert (train < later_train, held_out < later_held_out) == (True, True)


def test_the_parts_do_not_depend_on_the_label(users: Users) -> None:
    for image in pictures(30):
        users.send(image, 3)
    parts = parts_of(users.collect())
    for row in users.rows():
        users.log.append_feedback([Feedback(row.record.prediction_id, 8, "page", users.now_us + 1)])
    collected = users.collect()
    assert set(labels_of(collected).values()) == {8}
    assert parts_of(collected) == parts


# What a training makes of it


def test_feedback_is_repeated_after_the_training_rows(users: Users) -> None:
    train = users.dataset.train
    collected = Split(pictures(4), np.array([9, 8, 7, 6]))
    combined = labelled.with_feedback(train, collected, 3)
    assert len(combined) == len(combined.images) == len(train) + 12
    assert (combined.images[: len(train)] == train.images).all()
    assert (combined.labels[: len(train)] == train.labels).all()
    for start in range(len(train), len(combined), 4):
        assert (combined.images[start : start + 4] == collected.images).all()
        assert (combined.labels[start : start + 4] == collected.labels).all()
    assert (combined.images.dtype, combined.labels.dtype) == (train.images.dtype, train.labels.dtype)


def test_without_feedback_the_training_rows_are_returned_unchanged(users: Users) -> None:
    assert labelled.with_feedback(users.dataset.train, users.collect().train, 3) is users.dataset.train


def test_the_csv_names_each_picture_and_its_part(users: Users) -> None:
    sent = {users.send(image, number % 10): number % 10 for number, image in enumerate(pictures(20))}
    collected = users.collect()
    heading, *lines = collected.as_csv().decode().splitlines()
    assert heading == "sha256,label,part"
    parts = {sha256: "held out" if labelled.is_held_out(sha256, SETTINGS.holdout) else "train" for sha256 in sent}
    assert set(parts.values()) == {"train", "held out"}
    assert sorted(lines) == sorted(f"{sha256},{sent[sha256]},{parts[sha256]}" for sha256 in sent)


def test_the_csv_without_feedback_is_a_heading(users: Users) -> None:
    assert users.collect().as_csv() == b"sha256,label,part\n"


def test_the_summary_counts_each_part_and_what_is_left_out() -> None:
    train, held_out = (Split(np.zeros((count, 28, 28), np.uint8), np.zeros(count, np.int64)) for count in (1200, 3))
    sentence = "1,200 labelled pictures of users to train on, 3 held out"
    assert LabelledFeedback(train, held_out).summary == sentence
    assert LabelledFeedback(train, held_out, {"of another size": 1500, "beyond feedback.max_rows": 2}).summary == (
        f"{sentence}; 1,500 of another size; 2 beyond feedback.max_rows"
    )


def test_a_package_can_say_what_it_learnt_from(users: Users) -> None:
    for number, image in enumerate(pictures(20)):
        users.send(image, number % 10)
    collected = users.collect()
    described = collected.describe()
    assert (described["trained_on"], described["held_out"]) == (len(collected.train), len(collected.held_out))
    assert described["sha256"] == hashlib.sha256(collected.as_csv()).hexdigest()
