"""`fashion log forget` and `prune`: what a person sent is nowhere afterwards, whenever they were killed before."""

import base64
import dataclasses
import gzip
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support import faults, shared_logs
from support.log_rows import DAY_US, outcomes, record
from support.shared_logs import SERVERS

from fashion.commands.main import main
from fashion.config.names import MODEL_NAME
from fashion.data.dataset import Split
from fashion.drift import report_examples, reports
from fashion.drift.window_part import UnusualRow
from fashion.home import REPOSITORY, Home
from fashion.images import image_store
from fashion.images.transform import Images
from fashion.model.package import Package
from fashion.predictions import copies
from fashion.predictions.labelled import LabelledFeedback
from fashion.predictions.log import PredictionLog
from fashion.predictions.partition_writer import export_days
from fashion.predictions.partitions import day_of
from fashion.predictions.record import Feedback, PredictionRecord
from fashion.registry import tracking, versions
from fashion.state import backup
from fashion.storage import sqlite
from fashion.storage.address import open_store

NAMES = ("top", "boot")


@dataclass(frozen=True)
class Sent:
    """What two people sent, and the home that holds it."""

    home: Home
    mine: PredictionRecord
    others: tuple[PredictionRecord, ...]
    picture: Images

    def search(self) -> list[str]:
        """Where my id or my pixels are, in any byte of the home, unpacked or not."""
        return [str(path) for path in sorted(self.home.root.rglob("*")) if path.is_file() and self.holds(path)]

    def holds(self, path: Path) -> bool:
        png = image_store.to_png(self.picture)
        traces = (self.mine.prediction_id.encode(), self.picture.tobytes(), png, base64.b64encode(png))
        content = path.read_bytes()
        if any(trace in each for each in (content, *unpacked(content)) for trace in traces):
            return True
        if path.suffix == ".parquet" and "prediction_id" in (rows := pq.ParquetFile(path).read()).column_names:
            return self.mine.prediction_id in rows["prediction_id"].to_pylist()
        is_picture = path.suffix == ".png" and any(content)  # an overwritten one is zeros
        return is_picture and bool((np.asarray(Image.open(path)) == self.picture).all())


def unpacked(content: bytes) -> Iterator[bytes]:
    if content.startswith(b"\x1f\x8b"):
        yield gzip.decompress(content)


def figure(row: PredictionRecord, picture: Images) -> str:
    unusual = UnusualRow(3.0, row.prediction_id, row.image_sha256, 1, 0.5, 0)
    return "\n".join(report_examples.section([report_examples.Example(unusual, picture, None)], NAMES))


def pictures(count: int) -> list[Images]:
    rng = np.random.default_rng(7)
    return [rng.integers(0, 256, (28, 28), np.uint8) for _ in range(count)]


def fill(home: Home, *, same_picture: bool = False) -> Sent:
    """Make a home in which everything that may hold a prediction holds one of mine and one of somebody else."""
    mine, other = pictures(2)
    other = mine if same_picture else other
    rows = [
        record(image_sha256=image_store.digest(each), probabilities=(i / 8, 1 - i / 8))
        for i, each in enumerate((mine, other))
    ]
    shadows = [dataclasses.replace(row, role="shadow", model_version="4") for row in rows]
    with PredictionLog(home.predictions) as log:
        log.append([*rows, *shadows])
        log.append_feedback([Feedback(row.prediction_id, 1, "page", row.time_us + 1) for row in rows])
        log.add_export(str(home.root / "copy.parquet"))
        export_days(log.window, open_store(str(home.root / "days")), range(*days(rows[0])))
        log.add_export(str(home.root / "days"))
        assert main(["log", "export", str(home.root / "copy.parquet")]) == 0
        copy_log(home.predictions, home.root / "old/predictions.db")  # its last rows are in its -wal
    copy_log(home.predictions, home.root / "predictions.db.damaged")
    replaced = home.root / f"{backup.REPLACED}20260101T000000Z"
    copy_log(home.predictions, replaced / "predictions.db")
    for each in (mine, other):
        image_store.put(open_store(home.images), each, image_store.digest(each))
        image_store.put(open_store(str(replaced / "images")), each, image_store.digest(each))
    page = "".join(figure(row, each) for row, each in zip(rows, (mine, other), strict=True))
    report_id = reports.make_id(time.time_ns() // 1000, MODEL_NAME, "3")
    reports.publish(open_store(home.reports), report_id, page, {"decision": "drift", "model_name": MODEL_NAME})
    # As runs of DriftFlow and TrainFlow, MLflow's drift runs and a file of a person's own hold them.
    feedback = LabelledFeedback(Split(np.stack([other, mine]), np.array([1, 1])), Split(other[None], np.array([1])))
    for name, content in (
        ("metaflow/DriftFlow/data/ab/abcd", gzip.compress(pickle.dumps({"rows": rows}))),
        ("metaflow/TrainFlow/data/cd/cdef", gzip.compress(pickle.dumps(feedback))),
        ("mlflow-artifacts/fashion-drift/1/report.html", page.encode()),
        ("notes.txt", rows[0].prediction_id.encode()),
    ):
        path = home.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Sent(home, rows[0], (rows[1],), mine)


def copy_log(path: Path, target: Path) -> None:
    """Copy a log as a person does, with the files beside it."""
    target.parent.mkdir(exist_ok=True)
    for source, to in zip(sqlite.files_of(path), sqlite.files_of(target), strict=True):
        if source.exists():
            shutil.copy(source, to)


def days(row: PredictionRecord) -> tuple[int, int]:
    return day_of(row.time_us), day_of(row.time_us) + 2


def command(sent: Sent, *more: str, fault: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fashion", "log", "forget", sent.mine.prediction_id, *more],
        env=os.environ | (fault or {}),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )


def check_others(sent: Sent) -> None:
    """What others sent is as it was, in copies of the log too."""
    (other,) = sent.others
    found = copies.find(sent.home.root)
    assert len(found) == 4
    for path in found:
        with PredictionLog(path) as log:
            kept = log.get(other.prediction_id)
            assert (kept.record, kept.true_label) == (other, 1)
            assert log.count() == 2
    assert image_store.get(open_store(sent.home.images), other.image_sha256).shape == (28, 28)
    for path in (sent.home.root / "copy.parquet", *sent.home.root.glob("days/*/*.parquet")):
        assert pq.ParquetFile(path).read()["prediction_id"].to_pylist() == [other.prediction_id] * 2
    (report,) = reports.latest(open_store(sent.home.reports), 9)
    assert other.prediction_id.encode() in reports.read_page(open_store(sent.home.reports), report["id"])
    rows = pickle.loads(gzip.decompress((sent.home.root / "metaflow/DriftFlow/data/ab/abcd").read_bytes()))["rows"]
    assert rows[1] == other
    feedback = pickle.loads(gzip.decompress((sent.home.root / "metaflow/TrainFlow/data/cd/cdef").read_bytes()))
    assert image_store.digest(feedback.train.images[0]) == other.image_sha256


def test_a_forgotten_prediction_is_in_no_byte_of_the_home_and_the_others_stay(
    mlflow_home: Home, tiny_package: Package, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = fill(mlflow_home)
    run_id = tracking.start_run(tracking.get_or_create_experiment(mlflow_home, "fashion"), "tiny", {"feedback": "2"})
    table = f"sha256,label,part\n{'0' * 64},1,held out\n{sent.mine.image_sha256},1,train\n"
    tracking.log_files(run_id, {"data/feedback.csv": table.encode()})
    assert tiny_package.folder is not None
    versions.register(versions.log_package(run_id, tiny_package.folder), run_id=run_id, tags={})
    assert len(sent.search()) >= 9
    before = {path: path.read_bytes() for path in sent.home.root.rglob("*") if path.is_file()}
    capsys.readouterr()

    assert main(["log", "forget", sent.mine.prediction_id, "--dry-run"]) == 0
    planned = capsys.readouterr().out
    untouched = {path: path.read_bytes() for path in before if "predictions.db" not in path.name}
    assert untouched.items() <= before.items()

    assert main(["log", "forget", sent.mine.prediction_id]) == 0
    done = capsys.readouterr().out
    assert sent.search() == []
    check_others(sent)
    assert "fashion-classifier version 1 learnt from it: train another without it" in done.splitlines()
    assert [line.partition(": ")[2] for line in planned.splitlines()] == [
        line.partition(": ")[2] for line in done.splitlines()
    ]
    assert main(["log", "forget", sent.mine.prediction_id]) == 0
    assert capsys.readouterr().out.startswith(f"nothing of {sent.mine.prediction_id} is left here\n")


POINTS = (
    "fashion.predictions.export_removal:remove_from_days",
    "fashion.storage.erasure:write_atomically",
    "fashion.images.image_store:delete",
    "fashion.predictions.database:Database.erase",
)


@pytest.mark.parametrize("function", POINTS)
@pytest.mark.fault("killed while a prediction is forgotten")
def test_a_prediction_that_is_half_forgotten_is_forgotten_by_the_next_run(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path / "var"))
    from fashion.home import prepare_environment

    sent = fill(prepare_environment())
    when = "after" if function.endswith("delete") else "before"
    killed = command(sent, fault=faults.at(function, tmp_path, when=when))
    assert (killed.returncode, (tmp_path / "done").exists()) == (-9, True), killed.stderr
    assert sent.search() != [] or function.endswith("erase")
    assert main(["log", "forget", sent.mine.prediction_id]) == 0
    assert sent.search() == []
    check_others(sent)


def test_a_picture_that_another_prediction_is_on_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path))
    from fashion.home import prepare_environment

    sent = fill(prepare_environment(), same_picture=True)
    assert main(["log", "forget", sent.mine.prediction_id]) == 0
    assert f"picture {sent.mine.image_sha256} stays: another prediction is on it" in capsys.readouterr().out
    check_others(sent)
    assert all(sent.mine.prediction_id.encode() not in path.read_bytes() for path in tmp_path.rglob("*.db*"))


@pytest.mark.fault("an export that the log knows is damaged")
def test_an_export_that_cannot_be_searched_is_named_and_the_rest_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path))
    row = record()
    with PredictionLog(tmp_path / "predictions.db") as log:
        log.append([row])
        log.add_export(str(tmp_path / "half.parquet"))
    (tmp_path / "half.parquet").write_bytes(b"PAR1 half")
    assert main(["log", "forget", row.prediction_id]) == 1
    printed = capsys.readouterr()
    assert f"deleted: log {tmp_path / 'predictions.db'}: its rows and feedback" in printed.out
    assert printed.err.startswith(f"export {tmp_path / 'half.parquet'} was not searched: ")
    assert printed.err.count("\n") == 1


@pytest.mark.fault("a damaged log was moved aside")
def test_a_picture_that_a_log_moved_aside_names_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path))
    images = open_store(str(tmp_path / "images"))
    (picture,) = pictures(1)
    image_store.put(images, picture, image_store.digest(picture))
    row = record(image_sha256=image_store.digest(picture))
    with PredictionLog(tmp_path / "predictions.db") as log:
        log.append([row])
    (tmp_path / "predictions.db").rename(tmp_path / "aside.db")
    assert main(["log", "forget", row.prediction_id]) == 0
    assert f"deleted: log {tmp_path / 'aside.db'}: its rows and feedback\n" in capsys.readouterr().out
    assert list(image_store.stored(images)) == []
    assert not copies.holds(tmp_path / "aside.db", row.prediction_id)


@pytest.mark.parametrize("damage", [4096, 24])
@pytest.mark.fault("a copy of the log that cannot be opened")
def test_a_copy_of_the_log_that_cannot_be_used_is_named_and_the_rest_is_forgotten(
    damage: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path))
    rows = [record() for _ in range(40)]
    with PredictionLog(tmp_path / "predictions.db") as log:
        log.append(rows)
    copied = tmp_path / "predictions.db.damaged"
    copy_log(tmp_path / "predictions.db", copied)
    content = bytearray(copied.read_bytes())
    content[damage : damage + 44] = b"\xff" * 44  # the first page of a table, or the header but for the kind of file
    copied.write_bytes(content)
    left = copied.read_bytes()
    mine = rows[-1].prediction_id
    assert main(["log", "forget", mine]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"{copied} still holds it: this copy of the log cannot be used (")
    assert printed.err.count("\n") == 1
    assert copied.read_bytes() == left
    assert not copies.holds(tmp_path / "predictions.db", mine)


def test_a_home_that_a_backup_replaced_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "var"
    monkeypatch.setenv("FASHION_HOME", str(home))
    row = record()
    with PredictionLog(home / "predictions.db") as log:
        log.append([row])
    assert main(["home", "backup", str(tmp_path / "home.tar.gz")]) == 0
    assert main(["home", "restore", str(tmp_path / "home.tar.gz"), "--force"]) == 0
    (replaced,) = tmp_path.glob("var.replaced-*")
    capsys.readouterr()
    assert main(["log", "forget", row.prediction_id]) == 0
    assert f"not searched: {replaced}, which a restored backup replaced: " in capsys.readouterr().out
    monkeypatch.setenv("FASHION_HOME", str(replaced))
    assert main(["log", "forget", row.prediction_id]) == 0
    assert not copies.holds(replaced / "predictions.db", row.prediction_id)


@pytest.mark.parametrize("wrong", ["", "x", "019a0c3e", "../x"])
def test_what_is_no_id_is_one_sentence(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path))
    assert main(["log", "forget", wrong]) == 1
    assert capsys.readouterr().err == f"error: {wrong!r} is not the id of a prediction: give the one of its answer\n"


@pytest.mark.slow
@pytest.mark.parametrize("kind", SERVERS)
def test_a_prediction_is_forgotten_in_the_shared_log_and_in_the_outbox(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = shared_logs.make(kind, request.getfixturevalue(SERVERS[kind]))
    for name, value in {**backend.environment(), "FASHION_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("fashion.commands.log_forget.REQUEST_SECONDS", 0.0)
    mine, other = pictures(2)
    row, theirs = (record(image_sha256=image_store.digest(each)) for each in (mine, other))
    shared_picture = record(image_sha256=image_store.digest(other))
    remote = backend.connect()
    outcomes(remote, row, dataclasses.replace(row, role="shadow"), theirs)
    with PredictionLog(tmp_path / "predictions.db") as log:
        log.outbox.ship_to(remote.address)
        log.append([row, shared_picture])
    for each in (mine, other):
        image_store.put(open_store(str(tmp_path / "images")), each, image_store.digest(each))
    for each in (row, shared_picture):
        assert main(["log", "forget", each.prediction_id]) == 0
    assert [each.record for each in remote.read_window(0, 2**60)] == [theirs]
    with PredictionLog(tmp_path / "predictions.db") as log:
        assert (log.count(), log.outbox.backlog().rows) == (0, 0)
    assert list(image_store.stored(open_store(str(tmp_path / "images")))) == [theirs.image_sha256]
    remote.close()


# Retention


def test_pruning_takes_pictures_and_reports_along_and_leaves_those_still_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path))
    images, report_store = open_store(str(tmp_path / "images")), open_store(str(tmp_path / "reports"))
    gone, needed, never_logged, new = (image_store.digest(each) for each in pictures(4))
    for each in pictures(4):
        image_store.put(images, each, image_store.digest(each))
    now = time.time_ns() // 1000
    with PredictionLog(tmp_path / "predictions.db") as log:
        log.append([record(time_us=now - 40 * DAY_US, image_sha256=each) for each in (gone, needed)])
        log.append([record(time_us=now - DAY_US, image_sha256=each) for each in (new, needed)])
    old, young = (reports.make_id(now - age * DAY_US, MODEL_NAME, "3") for age in (31, 29))
    for report_id in (old, young):
        reports.publish(report_store, report_id, "page", {"decision": "drift"})
    report_store.put("state/alerts.json", b"{}")
    assert main(["log", "prune", "30"]) == 0
    assert capsys.readouterr().out == "2 predictions, 2 pictures and 1 reports dropped\n"
    assert sorted(image_store.stored(images)) == sorted([needed, new])
    assert [each["id"] for each in reports.latest(report_store, 9)] == [young]
    assert report_store.exists("state/alerts.json")
    assert never_logged not in image_store.stored(images)


@pytest.mark.fault("killed between a row's end and its picture's")
def test_pictures_of_pruned_rows_go_though_the_first_run_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path))
    images = open_store(str(tmp_path / "images"))
    (picture,) = pictures(1)
    image_store.put(images, picture, image_store.digest(picture))
    with PredictionLog(tmp_path / "predictions.db") as log:
        log.append([record(time_us=1, image_sha256=image_store.digest(picture))])
    killed = subprocess.run(
        [sys.executable, "-m", "fashion", "log", "prune", "30"],
        env=os.environ | faults.at("fashion.images.image_store:delete", tmp_path),
        cwd=REPOSITORY,
    )
    assert (killed.returncode, (tmp_path / "done").exists()) == (-9, True)
    assert list(image_store.stored(images)) != []
    shutil.rmtree(tmp_path / "reports", ignore_errors=True)
    assert main(["log", "prune", "30"]) == 0
    assert list(image_store.stored(images)) == []
