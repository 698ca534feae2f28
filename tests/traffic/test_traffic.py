"""Simulated users: what is sent arrives, whatever a service goes through, and the summary counts it."""

import dataclasses
import itertools
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from support.machine import Machine
from support.served import Served, free_port

from fashion.commands.main import main
from fashion.config.schema import DataConfig
from fashion.data import dataset
from fashion.data.dataset import Dataset, Split
from fashion.home import REPOSITORY
from fashion.images import image_store
from fashion.images.transform import Images
from fashion.predictions.labelled import TEST_ROWS
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import LoggedPrediction
from fashion.traffic import sending
from fashion.traffic.client import ServiceUnavailable
from fashion.traffic.sampling import apply_shifts, sample_rows
from fashion.traffic.sending import TrafficSummary

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")

NOTE = "These were test rows: no training will learn from their feedback. Set some aside with data.live_rows."
NO_JSON = "without JSON: it is not the classifier's service"
ALWAYS = "Shirt"
"""The label that the stand-in predicts for every picture."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer that is not a prediction."""

    status: int
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()


BUSY = Answer(503, b'{"error": "overloaded"}', (("retry-after", "0"),))
LIMITED = Answer(429, b'{"error": "too many"}', (("retry-after", "0"),))
DROP = Answer(0)
"""The connection is closed without a word."""


class StandIn(ThreadingHTTPServer):
    """A service on the loopback that gives the listed answers, one per request, and then predictions."""

    daemon_threads = True

    def __init__(self, events: Sequence[Answer | None] = (), then: Answer | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.events = itertools.chain(events, itertools.repeat(then))
        self.lock = threading.Lock()
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.pictures: list[bytes] = []
        """PNG files that were predicted; their places are the prediction ids."""
        self.feedback: list[dict[str, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer of two packets waits 40 ms otherwise
    server: StandIn

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.server.lock:
            self.server.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            event = next(self.server.events) or self._answer(body)
        if event is DROP:
            self.close_connection = True
            return
        self.send_response(event.status)
        for name, value in (("content-length", str(len(event.body))), *event.headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(event.body)

    def _answer(self, body: bytes) -> Answer:
        if self.path.endswith("/feedback"):
            self.server.feedback.append(json.loads(body))
            return Answer(201)
        self.server.pictures.append(body)
        prediction = {"prediction_id": str(len(self.server.pictures) - 1), "label": ALWAYS, "model": {"version": "7"}}
        return Answer(200, json.dumps(prediction).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def stand_in(request: pytest.FixtureRequest) -> Iterator[StandIn]:
    """A service that gives the answers of the test's parameter."""
    with StandIn(*getattr(request, "param", ())) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def rows(small_dataset: Dataset) -> Split:
    """30 pictures."""
    return Split(small_dataset.test.images[:30], small_dataset.test.labels[:30])


def send(rows: Split, url: str, data: DataConfig, **more: Any) -> TrafficSummary:
    return sending.send(rows.images, rows.labels, url=url, class_names=data.class_names, **more)


def pngs(images: Images) -> Counter[bytes]:
    return Counter(map(image_store.to_png, images))


class TestSend:
    @pytest.mark.parametrize("connections", [1, 4])
    def test_each_picture_is_sent_once_and_labelled_by_its_own_label(
        self, stand_in: StandIn, rows: Split, data_config: DataConfig, connections: int
    ) -> None:
        sent = send(rows, stand_in.url, data_config, label_share=1, source="somebody", connections=connections)
        assert Counter(stand_in.pictures) == pngs(rows.images)
        right = int(np.sum(rows.labels == data_config.class_names.index(ALWAYS)))
        assert 0 < right < len(rows)
        assert sent == TrafficSummary(len(rows), right, labelled=len(rows), rejected=0, versions=("7",))
        label_of = dict(zip(map(image_store.to_png, rows.images), rows.labels, strict=True))
        assert {each["prediction_id"] for each in stand_in.feedback} == {str(row) for row in range(len(rows))}
        for each in stand_in.feedback:
            label = label_of[stand_in.pictures[int(each["prediction_id"])]]
            assert (each["true_label"], each["source"]) == (data_config.class_names[label], "somebody")

    @pytest.mark.parametrize("connections", [1, 4])
    @pytest.mark.parametrize(
        "stand_in",
        [
            ([BUSY, BUSY],),
            ([LIMITED, BUSY, LIMITED],),
            ([None, None, BUSY, BUSY],),
            ([DROP],),
            ([None, None, None, DROP],),
            ([None, DROP, BUSY, None, DROP],),
        ],
        ids=["busy twice", "limited and busy", "busy later", "dropped at once", "dropped later", "all of it"],
        indirect=True,
    )
    def test_what_a_service_rejects_for_now_is_sent_again_and_none_is_lost(
        self, stand_in: StandIn, rows: Split, data_config: DataConfig, connections: int
    ) -> None:
        sent = send(rows, stand_in.url, data_config, label_share=1, connections=connections)
        assert Counter(stand_in.pictures) == pngs(rows.images)
        assert len(stand_in.feedback) == len(rows)
        assert (sent.rows, sent.labelled, sent.rejected) == (len(rows), len(rows), 0)

    @pytest.mark.parametrize(
        "stand_in",
        [
            ([Answer(503, headers=(("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"),))],),
            ([Answer(503, headers=(("retry-after", "soon"),))],),
            ([Answer(503, headers=(("retry-after", "-1"),))],),
        ],
        ids=["a date", "nonsense", "negative"],
        indirect=True,
    )
    def test_a_retry_after_that_is_no_number_loses_no_row(
        self, stand_in: StandIn, rows: Split, data_config: DataConfig
    ) -> None:
        sent = send(rows, stand_in.url, data_config, connections=1)
        assert sent.rows == len(rows)

    @pytest.mark.parametrize("stand_in", [([Answer(503, headers=(("retry-after", "1"),))],)], indirect=True)
    def test_a_busy_service_gets_the_pause_it_asks_for(
        self, stand_in: StandIn, rows: Split, data_config: DataConfig
    ) -> None:
        started = time.monotonic()
        assert send(rows, stand_in.url, data_config, connections=1).rows == len(rows)
        assert time.monotonic() - started >= 1

    @pytest.mark.parametrize("stand_in", [([], BUSY), ([], Answer(415))], ids=["busy", "unwilling"], indirect=True)
    def test_rows_that_are_not_accepted_are_counted_as_rejected(
        self, stand_in: StandIn, rows: Split, data_config: DataConfig
    ) -> None:
        sent = send(rows, stand_in.url, data_config, label_share=1)
        assert sent == TrafficSummary(0, 0, labelled=0, rejected=len(rows), versions=())
        assert str(sent) == "nothing was predicted, 30 pictures were rejected"
        assert stand_in.feedback == []

    @pytest.mark.parametrize("stand_in", [([None, Answer(422), None, Answer(422)],)], indirect=True)
    def test_feedback_that_is_not_accepted_is_not_counted(
        self, stand_in: StandIn, rows: Split, data_config: DataConfig
    ) -> None:
        sent = send(rows, stand_in.url, data_config, label_share=1, connections=1)
        assert (sent.rows, sent.labelled) == (len(rows), len(rows) - 2)
        assert len(stand_in.feedback) == sent.labelled

    def test_the_same_seed_labels_the_same_rows(self, stand_in: StandIn, rows: Split, data_config: DataConfig) -> None:
        def labelled_ids(seed: int) -> list[str]:
            stand_in.pictures.clear()
            stand_in.feedback.clear()
            sent = send(rows, stand_in.url, data_config, label_share=0.5, seed=seed, connections=1)
            assert 0 < sent.labelled == len(stand_in.feedback) < len(rows)
            return [each["prediction_id"] for each in stand_in.feedback]

        assert labelled_ids(1) == labelled_ids(1)
        assert labelled_ids(1) != labelled_ids(2)

    def test_no_feedback_is_given_by_default(self, stand_in: StandIn, rows: Split, data_config: DataConfig) -> None:
        assert send(rows, stand_in.url, data_config).labelled == 0
        assert stand_in.feedback == []

    def test_keys_and_a_path_before_the_service_are_passed_on(
        self, stand_in: StandIn, rows: Split, data_config: DataConfig
    ) -> None:
        url = f"{stand_in.url}/before/it/"
        send(rows, url, data_config, label_share=1, predict_key="one", feedback_key="two")
        keys = {(path, headers.get("authorization")) for path, headers in stand_in.requests}
        assert keys == {("/before/it/predict", "Bearer one"), ("/before/it/feedback", "Bearer two")}

    def test_progress_is_reported_row_by_row(self, stand_in: StandIn, rows: Split, data_config: DataConfig) -> None:
        counts: list[int] = []
        send(rows, stand_in.url, data_config, on_row=counts.append)
        assert counts == list(range(1, len(rows) + 1))

    @pytest.mark.parametrize(
        "stand_in",
        [([], Answer(401, b'{"error": "a key"}')), ([None] * 3, Answer(404, b"no such page"))],
        ids=["a key is wanted", "no such page"],
        indirect=True,
    )
    def test_a_service_that_needs_a_key_or_has_no_such_page_ends_it(
        self, stand_in: StandIn, rows: Split, data_config: DataConfig
    ) -> None:
        with pytest.raises(
            ServiceUnavailable, match=f"{stand_in.url}/predict answered (401: .*a key|404: no such page)"
        ):
            send(rows, stand_in.url, data_config)
        assert len(stand_in.requests) < len(rows)

    @pytest.mark.parametrize(
        "url",
        [
            "127.0.0.1:3000",
            "localhost:3000",
            "ftp://127.0.0.1:3000",
            "http://",
            "http://:3000",
            "",
            "http://127.0.0.1:99999",
            "http://127.0.0.1:port",
        ],
    )
    def test_a_malformed_address_is_named(self, rows: Split, data_config: DataConfig, url: str) -> None:
        with pytest.raises(ValueError, match=r"url must be such as http://127\.0\.0\.1:3000, got") as caught:
            send(rows, url, data_config)
        assert str(caught.value).endswith(f"got {url!r}")

    def test_a_key_that_no_header_can_carry_is_rejected(
        self, stand_in: StandIn, rows: Split, data_config: DataConfig
    ) -> None:
        with pytest.raises(ValueError, match="(?i)header|key"):
            send(rows, stand_in.url, data_config, predict_key="a\nb")


class TestTrafficSummary:
    def test_the_summary_is_one_sentence(self) -> None:
        sent = TrafficSummary(rows=2000, correct=1800, labelled=600, rejected=0, versions=("1", "2"))
        assert str(sent) == "2,000 predicted by version 1, 2: 90.0% correct (88.6% to 91.2%); feedback on 600"
        assert str(dataclasses.replace(sent, rejected=1)).endswith("; feedback on 600; 1 rejected")


@pytest.fixture
def home_with_data(small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own that holds the data."""
    (tmp_path / "data").symlink_to(REPOSITORY / "var" / "data")
    monkeypatch.setenv("FASHION_HOME", str(tmp_path))


@pytest.mark.usefixtures("home_with_data")
class TestRows:
    def test_test_rows_are_marked(self, small_dataset: Dataset, data_config: DataConfig) -> None:
        split, source = sample_rows(data_config, 1000, seed=0)
        assert source == TEST_ROWS
        assert pngs(split.images) == pngs(small_dataset.test.images)

    def test_rows_set_aside_are_taken_where_there_are_any(self, data_config: DataConfig) -> None:
        data = dataclasses.replace(data_config, live_rows=50)
        split, source = sample_rows(data, 50, seed=0)
        assert source == "traffic" != TEST_ROWS
        live = dataset.load(data, REPOSITORY / "var" / "data").live
        assert live is not None
        assert pngs(split.images) == pngs(live.images)

    def test_labels_stay_with_their_pictures(self, small_dataset: Dataset, data_config: DataConfig) -> None:
        split, _ = sample_rows(data_config, 300, seed=0)
        pairs = set(zip(map(image_store.to_png, small_dataset.test.images), small_dataset.test.labels, strict=True))
        assert set(zip(map(image_store.to_png, split.images), split.labels, strict=True)) <= pairs

    def test_rows_come_again_only_when_all_have_come(self, data_config: DataConfig) -> None:
        data = dataclasses.replace(data_config, live_rows=50)
        split, _ = sample_rows(data, 120, seed=0)
        assert len(split) == 120
        times = Counter(pngs(split.images).values())
        assert times == {2: 30, 3: 20}

    def test_the_seed_chooses_them(self, data_config: DataConfig) -> None:
        first, again, other = (sample_rows(data_config, 20, seed=seed)[0] for seed in (1, 1, 2))
        assert np.array_equal(first.images, again.images)
        assert not np.array_equal(first.images, other.images)


class TestCorrupted:
    def test_corruptions_come_one_after_the_other(self, rows: Split) -> None:
        before = rows.images.copy()
        found = apply_shifts(rows.images, [("darkness", 1), ("inversion", 1)])
        assert np.all(found == 255)
        assert np.all(apply_shifts(rows.images, [("inversion", 1), ("darkness", 1)]) == 0)
        assert np.array_equal(rows.images, before)

    def test_none_leaves_pictures_as_they_are(self, rows: Split) -> None:
        assert np.array_equal(apply_shifts(rows.images, []), rows.images)


class Failed(Protocol):
    """Runs a command that ends in one sentence, and returns that."""

    def __call__(self, *words: str) -> str: ...


@pytest.fixture
def failed(home_with_data: None, capsys: pytest.CaptureFixture[str]) -> Failed:
    def run(*words: str) -> str:
        assert main(["traffic", *words]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        (sentence,) = captured.err.strip().splitlines()
        assert sentence.startswith("error: ")
        return sentence.removeprefix("error: ")

    return run


class TestCommand:
    @pytest.mark.slow
    def test_no_service_at_the_address(self, failed: Failed) -> None:
        url = f"http://127.0.0.1:{free_port()}"
        sentence = failed("--rows", "5", "--url", url)
        assert re.fullmatch(rf"{url} does not answer \(.*refused.*\): is `make serve` running\?", sentence)

    def test_the_exit_code_reaches_the_shell(self, small_dataset: Dataset, tmp_path: Path) -> None:
        done = Machine(tmp_path / "var").python("-m", "fashion", "traffic", "--rows", "0")
        assert done.returncode == 1
        assert done.stderr.startswith("error: --rows must be at least 1")

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            ("--url 127.0.0.1:3000", "url must be such as http://127.0.0.1:3000, got '127.0.0.1:3000'"),
            ("--url http://127.0.0.1:99999", "url must be such as http://127.0.0.1:3000, got '"),
            ("--shift rust=1", "--shift must be NAME=AMOUNT such as brightness=0.4, got 'rust=1'; names are blur, "),
            ("--shift blur", "--shift must be NAME=AMOUNT such as brightness=0.4, got 'blur'; names are blur, "),
            ("--shift blur=much", "--shift must be NAME=AMOUNT such as brightness=0.4, got 'blur=much'; names "),
            ("--shift blur=-1", "amount must be at least 0, got -1.0"),
            ("--shift blur=nan", "amount must be at least 0, got nan"),
            ("--rows 0", "--rows must be at least 1 and --labels between 0 and 1, got 0, 0.0"),
            ("--labels 2", "--rows must be at least 1 and --labels between 0 and 1, got 1000, 2.0"),
            ("--labels nan", "--rows must be at least 1 and --labels between 0 and 1, got 1000, nan"),
            ("data.live=5", "data.live=5: there is no key 'live'; data has channels, "),
            ("data.live_rows=10000", "data.live_rows=10000 leaves nothing of 10,000 test rows: choose fewer"),
        ],
    )
    def test_wrong_arguments_are_one_sentence(self, words: str, sentence: str, failed: Failed) -> None:
        assert failed(*words.split()).startswith(sentence)

    @pytest.mark.parametrize(
        ("stand_in", "sentence"),
        [
            (
                ([], Answer(200, b"<html>hello</html>")),
                "/predict answered 200 without JSON: it is not the classifier's service",
            ),
            (
                ([], Answer(501, b"<html>no POST</html>")),
                "/predict answered 501 without JSON: it is not the classifier's service",
            ),
            (([], Answer(404, b"not here")), "/predict answered 404: not here"),
            (([], Answer(200, b'{"hello": 1}')), " is not the classifier's service: its answer has no 'prediction_id'"),
            (([], Answer(200, b"[1, 2]")), " is not the classifier's service: its answer has no 'prediction_id'"),
        ],
        ids=["a page", "no POST", "no such page", "other JSON", "a list"],
        indirect=["stand_in"],
    )
    def test_another_program_there_is_one_sentence(self, stand_in: StandIn, sentence: str, failed: Failed) -> None:
        assert failed("--rows", "9", "--url", stand_in.url) == f"{stand_in.url}{sentence}"


class Sending:
    """A stretch of the log of the served bento."""

    def __init__(self, machine: Machine) -> None:
        self._path = machine.root / "predictions.db"
        self._since_us = time.time_ns() // 1000

    def rows(self) -> list[LoggedPrediction]:
        """What was answered since this was made."""
        with PredictionLog(self._path) as log:
            return list(log.window(self._since_us, time.time_ns() // 1000 + 1, role="champion"))


def digests(images: Images) -> Counter[str]:
    return Counter(map(image_store.digest, images))


class TestServedBento:
    """All against one service: see conftest."""

    def test_rows_are_in_the_log_and_the_summary_is_what_counting_gives(
        self, service: Served, challenged: Machine, small_dataset: Dataset, data_config: DataConfig
    ) -> None:
        rows = Split(small_dataset.test.images[:200], small_dataset.test.labels[:200])
        sending = Sending(challenged)
        sent = send(rows, service.url, data_config, label_share=0.3, source="somebody")
        logged = sending.rows()
        assert Counter(row.record.image_sha256 for row in logged) == digests(rows.images)
        label_of = dict(zip(map(image_store.digest, rows.images), rows.labels, strict=True))
        right = sum(row.record.label == label_of[row.record.image_sha256] for row in logged)
        assert 100 < right < 200
        labelled = [row for row in logged if row.feedback]
        assert 40 < len(labelled) < 80
        assert sent == TrafficSummary(200, right, labelled=len(labelled), rejected=0, versions=("1",))
        for row in labelled:
            assert row.true_label == label_of[row.record.image_sha256]
            assert [each.source for each in row.feedback] == ["somebody"]

    @pytest.mark.parametrize("live_rows", [0, 50])
    def test_the_command_corrupts_pictures_and_marks_feedback_on_test_rows(
        self, service: Served, challenged: Machine, data_config: DataConfig, live_rows: int
    ) -> None:
        data = dataclasses.replace(data_config, live_rows=live_rows)
        found = dataset.load(data, REPOSITORY / "var" / "data")
        pool = found.test if found.live is None else found.live
        sending = Sending(challenged)
        words = [f"data.limit={data.limit}", f"data.live_rows={live_rows}"]
        options = ["--rows", "60", "--labels", "0.5", "--shift", "inversion=1"]
        done = challenged.python("-m", "fashion", "traffic", *words, *options, "--url", service.url)
        assert done.returncode == 0, done.stderr
        logged = sending.rows()
        assert len(logged) == 60
        label_of = dict(zip(map(image_store.digest, 255 - pool.images), pool.labels, strict=True))
        assert {row.record.image_sha256 for row in logged} <= label_of.keys()
        labelled = [row for row in logged if row.feedback]
        assert 0 < len(labelled) < 60
        assert all(row.true_label == label_of[row.record.image_sha256] for row in labelled)
        assert {each.source for row in labelled for each in row.feedback} == {"traffic" if live_rows else TEST_ROWS}
        right = sum(row.record.label == label_of[row.record.image_sha256] for row in logged)
        first, *more = done.stdout.splitlines()
        assert first == str(TrafficSummary(60, right, len(labelled), 0, ("1",)))
        assert more == ([] if live_rows else [NOTE])
        assert "60 of 60" in done.stderr
