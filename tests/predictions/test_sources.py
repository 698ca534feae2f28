"""Who is believed: wrong labels by one source or by many are found out, right ones and reviews are learnt."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from support.log_rows import record as logged

from fashion.config.schema import DataConfig
from fashion.config.train import FeedbackConfig
from fashion.data.dataset import Dataset
from fashion.images import image_store
from fashion.images.corruptions import corrupt
from fashion.model.package import Package
from fashion.model.predictor import Predictor
from fashion.predictions import labelled, sources
from fashion.predictions.labelled import Believed, LabelledFeedback, Unlearnt
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import FOREVER_US, REVIEW, Feedback, ModelId
from fashion.predictions.sources import Outlook, Trust
from fashion.predictions.withdrawal import Decision, Decisions
from fashion.storage.address import open_store

ROWS = 400
NAME = "fashion-classifier"
Labels = Callable[[np.ndarray], np.ndarray]


class Traffic:
    """Test pictures a shade brighter, answered by a model, in a real log."""

    def __init__(
        self, package: Package, data: Dataset, folder: Path, *, brightness: float = 0.04, rows: int = ROWS
    ) -> None:
        self.log, self.store = PredictionLog(folder / "log.db"), open_store(str(folder / "images"))
        self.package, self.data = package, data
        self.labels = data.test.labels[:rows]
        images = corrupt(data.test.images[:rows], "brightness", brightness)
        self.predictions = Predictor(package).predict(images)
        self.model = ModelId.of(NAME, 1, package.digest)
        self.records = [
            logged(
                model_version="1",
                model_digest=self.model.digest,
                label=int(self.predictions.labels[row]),
                confidence=float(self.predictions.confidences[row]),
                probabilities=tuple(map(float, self.predictions.probabilities[row])),
                statistics=tuple(map(float, self.predictions.statistics[row])),
                embedding=tuple(map(float, self.predictions.embeddings[row])),
                image_sha256=image_store.digest(image),
            )
            for row, image in enumerate(images)
        ]
        self.log.append(self.records)
        for image, record in zip(images, self.records, strict=True):
            image_store.put(self.store, image, record.image_sha256)

    def label(self, rows: Sequence[int], labels: np.ndarray, source: str | Callable[[int], str]) -> None:
        """Give feedback on rows, a microsecond after each other."""
        self.log.append_feedback(
            Feedback(
                self.records[row].prediction_id,
                int(label),
                source if isinstance(source, str) else source(row),
                self.records[row].time_us + 1 + row,
            )
            for row, label in zip(rows, labels[rows], strict=True)
        )

    def trust(self) -> Trust:
        rows = self.log.latest(10_000, role="champion", with_feedback=True, withdrawn=True)
        decisions = self.log.decisions()
        return sources.assess(rows, lambda model: Outlook.of(self.package), decisions=decisions)

    def collect(self, data: DataConfig, *, unlearnt: dict[str, Unlearnt] | None = None) -> LabelledFeedback:
        settings = FeedbackConfig(use=True, holdout=0.3, max_rows=10_000, repeat=3, rolled_back="block")
        rows = self.log.latest(10_000, role="champion", with_feedback=True)
        believed = Believed(self.trust(), unlearnt or {})
        return labelled.collect(rows, self.store, data, self.data, settings, model_name=NAME, believed=believed)


@pytest.fixture
def traffic(tiny_package: Package, small_dataset: Dataset, tmp_path: Path) -> Traffic:
    return Traffic(tiny_package, small_dataset, tmp_path)


def wrong(labels: np.ndarray) -> np.ndarray:
    return (labels + 1) % 10


@pytest.mark.fault("wrong labels by one source")
def test_a_source_of_wrong_labels_is_quarantined_and_teaches_nothing(traffic: Traffic, data_config: DataConfig) -> None:
    traffic.label(range(ROWS), wrong(traffic.labels), "mallory")
    trust = traffic.trust()
    assert trust.standing("mallory") == "refuted"
    assert "contradict sure answers on usual pictures" in trust.quarantined()["mallory"]
    collected = traffic.collect(data_config)
    assert (len(collected.train), len(collected.held_out)) == (0, 0)
    assert collected.left_out == {"of quarantined sources": ROWS}


@pytest.mark.fault("wrong labels by many sources")
@pytest.mark.parametrize("names", [10, ROWS])
def test_many_names_are_no_way_out(names: int, traffic: Traffic, data_config: DataConfig) -> None:
    traffic.label(range(ROWS), wrong(traffic.labels), lambda row: f"mallory {row % names}")
    assert len(traffic.trust().quarantined()) == names
    assert len(traffic.collect(data_config).train) == 0


def test_right_labels_of_an_unknown_source_are_learnt_and_do_not_judge(
    traffic: Traffic, data_config: DataConfig
) -> None:
    traffic.label(range(ROWS), traffic.labels, "page")
    assert traffic.trust().standing("page") == "unproven"
    collected = traffic.collect(data_config)
    assert len(collected.train) > 200
    assert len(collected.held_out) == 0


def test_who_judges_wrong_answers_five_times_as_often_is_not_taken_for_a_liar(traffic: Traffic) -> None:
    is_wrong = traffic.predictions.labels != traffic.labels
    rows = [row for row in range(ROWS) if is_wrong[row] or row % 5 == 0]
    traffic.label(rows, traffic.labels, "page")
    assert traffic.trust().standing("page") == "unproven"


def test_reviews_prove_a_source_and_then_its_labels_judge(traffic: Traffic, data_config: DataConfig) -> None:
    traffic.label(range(ROWS), traffic.labels, "page")
    traffic.label(range(16), traffic.labels, REVIEW)
    assert traffic.trust().standing("page") == "proven"
    collected = traffic.collect(data_config)
    assert len(collected.train) + len(collected.held_out) == ROWS
    assert len(collected.held_out) > 80


@pytest.fixture
def long_traffic(sound_package: Package, whole_dataset: Dataset, tmp_path: Path) -> Traffic:
    return Traffic(sound_package, whole_dataset, tmp_path, rows=2016)


@pytest.mark.fault("wrong labels by a source that reviews had proven")
@pytest.mark.parametrize("reviewed", [range(16), range(2000, 2016)], ids=["before it lies", "while it lies"])
def test_right_reviews_do_not_cover_lies_about_sure_answers(
    reviewed: range, long_traffic: Traffic, data_config: DataConfig
) -> None:
    traffic = long_traffic
    lies = [row for row in range(2016) if row not in reviewed]
    traffic.label(reviewed, traffic.labels, "mallory")
    traffic.label(reviewed, traffic.labels, REVIEW)
    assert traffic.trust().standing("mallory") == "proven"
    traffic.label(lies, wrong(traffic.labels), "mallory")
    trust = traffic.trust()
    assert trust.standing("mallory") == "refuted"
    assert "contradict sure answers on usual pictures" in trust.quarantined()["mallory"]
    collected = traffic.collect(data_config)
    assert len(collected.train) + len(collected.held_out) == 16  # what was reviewed


def renamed(labels: np.ndarray) -> np.ndarray:
    """What pictures show after a change that the model knows nothing of: two classes have each other's name."""
    return np.where(labels == 7, 9, np.where(labels == 9, 7, labels))


def test_a_source_is_proven_where_reviews_confirm_that_the_model_is_surely_wrong(traffic: Traffic) -> None:
    traffic.label(range(ROWS), renamed(traffic.labels), "page")
    traffic.label(range(120), renamed(traffic.labels), REVIEW)
    (page,) = traffic.trust().sources
    assert page.sure_wrong > 0.2 * page.sure
    assert 5 <= page.confirmed < page.reviewed_sure
    assert page.standing == "proven"


def test_reviews_of_other_labels_do_not_confirm_what_contradicts_sure_answers(traffic: Traffic) -> None:
    traffic.label(range(ROWS), renamed(traffic.labels), "page")
    unchanged = [row for row in range(100) if traffic.labels[row] not in (7, 9)][:40]
    traffic.label(unchanged, traffic.labels, REVIEW)
    trust = traffic.trust()
    assert trust.standing("page") == "refuted"
    assert "reviews confirm 0 contradictions of " in trust.quarantined()["page"]


def test_confirmed_contradictions_cover_no_more_of_them(traffic: Traffic) -> None:
    traffic.label(range(120), renamed(traffic.labels), "mallory")
    traffic.label(range(120), renamed(traffic.labels), REVIEW)
    traffic.label(range(120, ROWS), wrong(renamed(traffic.labels)), "mallory")
    (mallory,) = traffic.trust().sources
    assert mallory.confirmed >= 5
    assert mallory.standing == "refuted"


def test_reviews_refute_a_source_whatever_the_model_is_sure_of(traffic: Traffic) -> None:
    rows = np.flatnonzero(traffic.predictions.confidences < sources.SURE)[:60].tolist()
    traffic.label(rows, wrong(traffic.labels), "mallory")
    assert traffic.trust().standing("mallory") == "unproven"
    traffic.label(rows[:20], traffic.labels, REVIEW)
    assert traffic.trust().standing("mallory") == "refuted"


def test_known_pictures_refute_a_source(traffic: Traffic) -> None:
    traffic.label(range(50), wrong(traffic.labels), "mallory")
    rows = list(traffic.log.latest(100, with_feedback=True, role="champion"))
    known = {traffic.records[row].image_sha256: int(traffic.labels[row]) for row in range(50)}
    trust = sources.assess(rows, lambda model: None, decisions=Decisions(), known=known)
    assert trust.quarantined() == {"mallory": "50 labels: 50 of 50 contradict the data set"}


def test_labels_on_unusual_pictures_wait_for_a_review(
    tiny_package: Package, small_dataset: Dataset, tmp_path: Path, data_config: DataConfig
) -> None:
    traffic = Traffic(tiny_package, small_dataset, tmp_path, brightness=0.5)
    traffic.label(range(ROWS), wrong(traffic.labels), "mallory")
    collected = traffic.collect(data_config)
    assert len(collected.train) < 0.05 * ROWS
    (why,) = [why for why in collected.left_out if why.startswith("on unusual pictures")]
    assert collected.left_out[why] > 0.9 * ROWS


def test_a_later_label_does_not_overrule_a_review(traffic: Traffic, data_config: DataConfig) -> None:
    traffic.label(range(100), traffic.labels, REVIEW)
    traffic.log.append_feedback(
        Feedback(each.prediction_id, int(label), "mallory", each.time_us + 10**9)
        for each, label in zip(traffic.records[:100], wrong(traffic.labels[:100]), strict=True)
    )
    truth = {each.image_sha256: int(label) for each, label in zip(traffic.records, traffic.labels, strict=True)}
    collected = traffic.collect(data_config)
    for split in (collected.train, collected.held_out):
        assert [truth[image_store.digest(image)] for image in split.images] == split.labels.tolist()
    assert len(collected.train) + len(collected.held_out) == 100
    for page in traffic.log.row_pages(0, FOREVER_US, role="champion"):
        assert [row[-2:] for row in page[:100]] == [(int(label), REVIEW) for label in traffic.labels[:100]]


def test_a_person_overrules_a_quarantine(traffic: Traffic, data_config: DataConfig) -> None:
    traffic.label(range(ROWS), wrong(traffic.labels), "ann")
    restored = Decision("restore", "ann", None, 0, FOREVER_US, 1, "bob", "the classes have changed")
    traffic.log.decide([restored])
    assert traffic.trust().quarantined() == {}
    assert len(traffic.collect(data_config).train) > 200


def test_a_restore_of_some_days_does_not_free_a_source_of_every_quarantine(traffic: Traffic) -> None:
    traffic.label(range(ROWS), wrong(traffic.labels), "ann")
    since = traffic.records[-20].time_us
    traffic.log.decide([Decision("restore", "ann", None, since, FOREVER_US, 1, "bob", "those are right")])
    assert set(traffic.trust().quarantined()) == {"ann"}
    traffic.log.decide([Decision("quarantine", "ann", None, 0, FOREVER_US, 2, "the flow", "lies")])
    assert traffic.trust().held() == {"ann"}
    counted = [row for row in traffic.log.latest(ROWS, with_feedback=True) if row.feedback]
    assert 0 < len(counted) < ROWS // 4  # what was restored counts
    traffic.log.decide([Decision("restore", "ann", None, since, FOREVER_US, 3, "bob", "again")])
    assert traffic.trust().held() == {"ann"}


def test_what_a_rolled_back_version_learnt_is_not_learnt_until_restored_or_reviewed(
    traffic: Traffic, data_config: DataConfig
) -> None:
    traffic.label(range(ROWS), traffic.labels, "page")
    later = traffic.records[-1].time_us + 10**9
    unlearnt = {each.image_sha256: Unlearnt(2, later) for each in traffic.records}
    collected = traffic.collect(data_config, unlearnt=unlearnt)
    assert len(collected.train) == 0
    assert "that version 2 had learnt, which was rolled back" in next(iter(collected.left_out))
    reviews = [Feedback(each.prediction_id, 1, REVIEW, later + 1) for each in traffic.records[:40]]
    traffic.log.append_feedback(reviews)
    collected = traffic.collect(data_config, unlearnt=unlearnt)
    assert len(collected.train) + len(collected.held_out) == 40
    traffic.log.decide([Decision("restore", "page", None, 0, FOREVER_US, later + 2, "bob", "the labels were right")])
    assert len(traffic.collect(data_config, unlearnt=unlearnt).train) > 200
