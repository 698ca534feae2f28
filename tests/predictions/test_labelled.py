"""What users said of what they sent: which pictures are learnt from, which are judged by, and which are neither."""

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from support.log_rows import record as logged

from fashion.config.schema import DataConfig
from fashion.config.train import FeedbackConfig
from fashion.data.dataset import Dataset, Split
from fashion.images import image_store
from fashion.images.transform import Images
from fashion.predictions import labelled
from fashion.predictions.labelled import TEST_ROWS, LabelledFeedback
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import Feedback, LoggedPrediction
from fashion.storage.address import open_store
from fashion.storage.blobs import BlobNotFound, Store, StoreUnavailable

ASKED = FeedbackConfig(use=True, holdout=0.3, max_rows=1000, repeat=2)
HASHES = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(2000)]


@dataclass
class Users:
    """Those who send pictures and say what is on them, each a second after the one before."""

    log: PredictionLog
    store: Store
    data: DataConfig
    dataset: Dataset
    now_us: int = 1_800_000_000_000_000

    def send(self, image: Images, *labels: int, source: str = "page", keep: bool = True) -> str:
        """One picture, predicted as class 1, with what was said of it; its sha256."""
        sha256 = image_store.digest(image)
        if keep:
            image_store.put(self.store, image, sha256)
        self.now_us += 1_000_000
        record = logged(time_us=self.now_us, image_sha256=sha256)
        self.log.append([record])
        said = [Feedback(record.prediction_id, label, source, self.now_us + i) for i, label in enumerate(labels)]
        self.log.append_feedback(said)
        return sha256

    def rows(self) -> list[LoggedPrediction]:
        """Rows with feedback, newest first."""
        return list(self.log.latest(10_000, role="champion", with_feedback=True))

    def teach(self, asked: FeedbackConfig = ASKED) -> LabelledFeedback:
        return labelled.collect(self.rows(), self.store, self.data, self.dataset, asked)


@pytest.fixture
def users(tmp_path: Path, data_config: DataConfig, small_dataset: Dataset) -> Iterator[Users]:
    with PredictionLog(tmp_path / "log.db") as log:
        yield Users(log, open_store(str(tmp_path / "images")), data_config, small_dataset)


def pictures(count: int, shape: tuple[int, ...] = (28, 28), seed: int = 0) -> Images:
    """Noise: no data set has these."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def labels_of(lessons: LabelledFeedback) -> dict[str, int]:
    """Label of each picture, whichever part it is in."""
    found = [
        (image_store.digest(image), int(label))
        for split in (lessons.train, lessons.held_out)
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def parts_of(lessons: LabelledFeedback) -> tuple[set[str], set[str]]:
    """Pictures to learn from, and held out."""
    train, held_out = (set(map(image_store.digest, each.images)) for each in (lessons.train, lessons.held_out))
    return train, held_out


# What is taught


def test_each_labelled_picture_is_learnt_from_or_held_out_as_it_was_sent(users: Users) -> None:
    sent = {users.send(image, number % 10): number % 10 for number, image in enumerate(pictures(60))}
    lessons = users.teach()
    assert labels_of(lessons) == sent
    assert len(lessons.train) > 0
    assert len(lessons.held_out) > 0
    assert lessons.left_out == {}
    for split in (lessons.train, lessons.held_out):
        assert split.images.shape[1:] == (28, 28)
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int64)


def test_what_nobody_judged_teaches_nothing(users: Users) -> None:
    users.send(pictures(1)[0])
    rows = users.log.window(0, 2**62)
    lessons = labelled.collect(rows, users.store, users.data, users.dataset, ASKED)
    assert (labels_of(lessons), lessons.left_out) == ({}, {})


def test_without_lessons_there_are_parts_of_the_right_shape(users: Users) -> None:
    lessons = users.teach()
    for split in (lessons.train, lessons.held_out):
        assert (split.images.shape, split.images.dtype) == ((0, 28, 28), np.uint8)
        assert (split.labels.shape, split.labels.dtype) == ((0,), np.int64)


def test_the_latest_word_on_a_prediction_counts(users: Users) -> None:
    sha256 = users.send(pictures(1)[0], 3, 7, 5)
    assert labels_of(users.teach()) == {sha256: 5}


def test_a_picture_that_was_sent_again_counts_once(users: Users) -> None:
    first, second = pictures(2)
    for _ in range(3):
        sha256 = users.send(first, 4)
    other = users.send(second, 4)
    lessons = users.teach()
    assert labels_of(lessons) == {sha256: 4, other: 4}
    assert lessons.left_out == {"on a picture that was sent before": 2}


def test_labels_that_contradict_each_other_teach_nothing(users: Users) -> None:
    first, second = pictures(2)
    for label in (4, 5, 4):
        users.send(first, label)
    sha256 = users.send(second, 6)
    lessons = users.teach()
    assert labels_of(lessons) == {sha256: 6}
    assert lessons.left_out == {
        "on a picture that was sent before": 2,
        "whose labels contradict each other": 1,
    }


# What is left out


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_pictures_of_the_data_set_are_never_learnt_from(name: str, users: Users) -> None:
    split = users.dataset.splits[name]
    for image, label in zip(split.images[:5], split.labels[:5], strict=True):
        users.send(image, int(label))
    lessons = users.teach()
    assert labels_of(lessons) == {}
    assert lessons.left_out == {"on pictures of the data set": 5}


def test_pictures_that_are_set_aside_for_traffic_are_news(users: Users) -> None:
    images = pictures(4)
    users.dataset = dataclasses.replace(users.dataset, live=Split(images, np.arange(4)))
    sent = {users.send(image, label): label for label, image in enumerate(images)}
    assert labels_of(users.teach()) == sent


def test_changed_test_rows_are_never_learnt_from(users: Users) -> None:
    first, second = pictures(2)
    users.send(first, 3, source=TEST_ROWS)
    sha256 = users.send(second, 3)
    lessons = users.teach()
    assert labels_of(lessons) == {sha256: 3}
    assert lessons.left_out == {"on altered test rows": 1}


def test_a_class_that_is_not_known_teaches_nothing(users: Users) -> None:
    last, beyond, far = pictures(3)
    classes = len(users.data.class_names)
    sha256 = users.send(last, classes - 1)
    users.send(beyond, classes)
    users.send(far, 2**31 - 1)
    lessons = users.teach()
    assert labels_of(lessons) == {sha256: classes - 1}
    assert lessons.left_out == {"of an unknown class": 2}


def test_pictures_that_were_not_kept_are_counted(users: Users) -> None:
    first, second = pictures(2)
    users.send(first, 3, keep=False)
    sha256 = users.send(second, 3)
    lessons = users.teach()
    assert labels_of(lessons) == {sha256: 3}
    assert lessons.left_out == {"whose pictures were not stored (serve.log.images=true stores them)": 1}


def test_damaged_pictures_are_counted(users: Users) -> None:
    swapped, cut, whole = pictures(3)
    sha256 = image_store.digest(swapped)
    image_store.put(users.store, whole, sha256)
    users.send(swapped, 3, keep=False)
    sha256 = image_store.digest(cut)
    users.store.put(f"{image_store.PREFIX}{sha256[:2]}/{sha256}.png", image_store.to_png(cut)[:100])
    users.send(cut, 3, keep=False)
    sha256 = users.send(whole, 3)
    lessons = users.teach()
    assert labels_of(lessons) == {sha256: 3}
    assert lessons.left_out == {"whose pictures are damaged": 2}


@pytest.mark.parametrize("shape", [(32, 32), (28, 28, 3), (28, 27)])
def test_pictures_of_another_size_are_counted(shape: tuple[int, ...], users: Users) -> None:
    users.send(pictures(1, shape)[0], 3)
    sha256 = users.send(pictures(1)[0], 3)
    lessons = users.teach()
    assert labels_of(lessons) == {sha256: 3}
    assert lessons.left_out == {"of another size": 1}


def test_only_the_latest_so_many_are_taken(users: Users) -> None:
    sent = [users.send(image, 3) for image in pictures(12)]
    lessons = users.teach(dataclasses.replace(ASKED, max_rows=5))
    assert set(labels_of(lessons)) == set(sent[-5:])
    assert lessons.left_out == {"beyond feedback.max_rows": 7}


def test_a_contradiction_counts_also_beyond_the_latest_so_many(users: Users) -> None:
    image, *others = pictures(4)
    users.send(image, 4)
    for each in others:
        users.send(each, 3)
    users.send(image, 5)
    lessons = users.teach(dataclasses.replace(ASKED, max_rows=1))
    assert labels_of(lessons) == {}
    assert lessons.left_out == {
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
    lessons = users.teach()
    assert len(lessons.train) + len(lessons.held_out) == 11
    assert sum(lessons.left_out.values()) == len(users.rows()) - 11


def test_a_store_that_cannot_be_reached_is_no_lack_of_pictures(users: Users, tmp_path: Path) -> None:
    users.send(pictures(1)[0], 3)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    users.store = open_store(str(tmp_path / "loop"))
    with pytest.raises(StoreUnavailable) as caught:
        users.teach()
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


def test_what_is_held_out_stays_so_when_the_share_grows() -> None:
    shares = (0.1, 0.2, 0.3, 0.5, 0.99)
    held_out = [{sha256 for sha256 in HASHES if labelled.is_held_out(sha256, share)} for share in shares]
    for i in range(1, len(shares)):
        assert held_out[i - 1] < held_out[i]


def test_the_parts_have_no_picture_in_common(users: Users) -> None:
    for label in (3, 3):
        for image in pictures(25):
            users.send(image, label)
    train, held_out = parts_of(users.teach())
    assert len(train | held_out) == 25
    assert not train & held_out


def test_the_parts_are_the_same_whatever_else_was_sent_and_when(users: Users) -> None:
    images = pictures(30)
    for image in images:
        users.send(image, 3)
    train, held_out = parts_of(users.teach())
    for image in [*pictures(30, seed=1), *images[::-1]]:
        users.send(image, 3)
    later_train, later_held_out = parts_of(users.teach())
    assert (train < later_train, held_out < later_held_out) == (True, True)


def test_the_parts_do_not_depend_on_the_label(users: Users) -> None:
    for image in pictures(30):
        users.send(image, 3)
    parts = parts_of(users.teach())
    for row in users.rows():
        users.log.append_feedback([Feedback(row.record.prediction_id, 8, "page", users.now_us + 1)])
    lessons = users.teach()
    assert set(labels_of(lessons).values()) == {8}
    assert parts_of(lessons) == parts


# What a training makes of it


def test_each_lesson_is_repeated_among_the_training_rows(users: Users) -> None:
    train = users.dataset.train
    lessons = Split(pictures(4), np.array([9, 8, 7, 6]))
    taught = labelled.with_feedback(train, lessons, 3)
    assert len(taught) == len(taught.images) == len(train) + 12
    assert (taught.images[: len(train)] == train.images).all()
    assert (taught.labels[: len(train)] == train.labels).all()
    for start in range(len(train), len(taught), 4):
        assert (taught.images[start : start + 4] == lessons.images).all()
        assert (taught.labels[start : start + 4] == lessons.labels).all()
    assert (taught.images.dtype, taught.labels.dtype) == (train.images.dtype, train.labels.dtype)


def test_without_lessons_the_training_rows_stay_as_they_are(users: Users) -> None:
    assert labelled.with_feedback(users.dataset.train, users.teach().train, 3) is users.dataset.train


def test_a_table_names_each_picture_and_its_part(users: Users) -> None:
    sent = {users.send(image, number % 10): number % 10 for number, image in enumerate(pictures(20))}
    lessons = users.teach()
    heading, *lines = lessons.as_csv().decode().splitlines()
    assert heading == "sha256,label,part"
    parts = {sha256: "held out" if labelled.is_held_out(sha256, ASKED.holdout) else "train" for sha256 in sent}
    assert set(parts.values()) == {"train", "held out"}
    assert sorted(lines) == sorted(f"{sha256},{sent[sha256]},{parts[sha256]}" for sha256 in sent)


def test_a_table_of_nothing_is_a_heading(users: Users) -> None:
    assert users.teach().as_csv() == b"sha256,label,part\n"


def test_a_sentence_says_what_was_found_and_left_out() -> None:
    train, held_out = (Split(np.zeros((count, 28, 28), np.uint8), np.zeros(count, np.int64)) for count in (1200, 3))
    sentence = "1,200 labelled pictures of users to train on, 3 held out"
    assert LabelledFeedback(train, held_out).summary == sentence
    assert LabelledFeedback(train, held_out, {"of another size": 1500, "beyond feedback.max_rows": 2}).summary == (
        f"{sentence}; 1,500 of another size; 2 beyond feedback.max_rows"
    )
