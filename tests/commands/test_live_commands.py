"""Commands on live predictions: status, export, feedback, compare, replay, batch prediction."""

import csv
import io
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.machine import Machine
from support.served import Served
from support.stores import Clouds

from fashion.data.dataset import Dataset
from fashion.predictions.log import PredictionLog


@pytest.fixture(scope="module")
def labelled(service: Served, challenged: Machine, pngs: list[bytes], small_dataset: Dataset) -> list[str]:
    """Ids of 40 predictions with feedback."""
    names = service.json("GET", "/model")["class_names"]
    ids = []
    for row, png in enumerate(pngs[:40]):
        prediction_id = service.predict(png)["prediction_id"]
        label = names[small_dataset.test.labels[row]]
        service.json("POST", "/feedback", {"prediction_id": prediction_id, "true_label": label})
        ids.append(prediction_id)
    return ids


class TestPredictionLog:
    def test_status_counts(self, challenged: Machine, labelled: list[str]) -> None:
        done = challenged.python("-m", "fashion", "log", "status")
        assert done.returncode == 0, done.stderr
        assert "predictions.db: " in done.stdout
        assert "by a shadow" in done.stdout

    def test_export_holds_predictions_and_labels(
        self, challenged: Machine, labelled: list[str], small_dataset: Dataset, tmp_path: Path
    ) -> None:
        done = challenged.python("-m", "fashion", "log", "export", str(tmp_path / "log.parquet"))
        assert done.returncode == 0, done.stderr
        table = pq.read_table(tmp_path / "log.parquet").to_pylist()
        by_id = {row["prediction_id"]: row for row in table if row["role"] == "champion"}
        for row, prediction_id in enumerate(labelled):
            assert by_id[prediction_id]["label"] == small_dataset.test.labels[row]

    def test_feedback_comes_from_a_csv_file(
        self, challenged: Machine, service: Served, pngs: list[bytes], tmp_path: Path
    ) -> None:
        ids = [service.predict(png)["prediction_id"] for png in pngs[:3]]
        file = tmp_path / "labels.csv"
        with file.open("w", newline="") as out:
            csv.writer(out).writerows(
                [
                    ["true_label", "prediction_id"],
                    *(["shirt", ids[0]], [3, ids[1]], [3, "none"], ["hat", ids[2]], ["", ids[2]], [10, ids[2]], [3]),
                ]
            )
        done = challenged.python(
            *("-m", "fashion", "log", "feedback", str(file), "--classes"),
            "top,trouser,pullover,dress,shirt,sandal,bag,sneaker,coat,boot",
        )
        assert done.returncode == 1  # not all rows were stored
        assert done.stdout == "2 rows stored, 5 rejected\n"
        assert [line.split(":")[0] for line in done.stderr.splitlines()] == [f"line {number}" for number in range(4, 9)]
        assert "true_label must be one of top, trouser, " in done.stderr
        assert "boot, or its number from 0 to 9, got '10'" in done.stderr
        with PredictionLog(challenged.root / "predictions.db") as log:
            assert [log.get(each).true_label for each in ids] == [4, 3, None]

    def test_without_classes_those_of_the_model_that_predicted_are_used(
        self, challenged: Machine, service: Served, pngs: list[bytes], tmp_path: Path
    ) -> None:
        ids = [service.predict(png)["prediction_id"] for png in pngs[:3]]
        (tmp_path / "labels.csv").write_text(f"prediction_id,true_label\n{ids[0]},7\n{ids[1]},\n{ids[2]},Coat\n")
        done = challenged.python("-m", "fashion", "log", "feedback", str(tmp_path / "labels.csv"))
        assert done.stdout == "2 rows stored, 1 rejected\n", done.stderr
        with PredictionLog(challenged.root / "predictions.db") as log:
            assert [log.get(each).true_label for each in ids] == [7, None, 4]

    def test_a_table_without_the_columns_is_one_sentence(self, challenged: Machine, tmp_path: Path) -> None:
        (tmp_path / "labels.csv").write_text("id,label\n1,2\n")
        done = challenged.python("-m", "fashion", "log", "feedback", str(tmp_path / "labels.csv"))
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert "must have the columns prediction_id and true_label" in done.stderr

    def test_without_a_log_the_error_names_the_remedy(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path / "var")
        for command in (["log", "status"], ["registry", "compare"]):
            done = machine.python("-m", "fashion", *command)
            assert done.returncode == 1
            assert "`make serve` begins one" in done.stderr


class TestPromotion:
    def test_compare_shows_champion_and_shadow_on_the_same_rows(self, challenged: Machine, labelled: list[str]) -> None:
        done = challenged.python("-m", "fashion", "registry", "compare")
        assert done.returncode == 0, done.stderr
        assert "version 1" in done.stdout
        assert "version 2" in done.stdout
        assert "McNemar p" in done.stdout

    def test_replay_of_the_champion_agrees_with_itself(self, challenged: Machine, labelled: list[str]) -> None:
        done = challenged.python("-m", "fashion", "registry", "replay", "--version", "1")
        assert done.returncode == 0, done.stderr
        assert "the same label for 100.0%" in done.stdout

    def test_replay_of_another_version_differs(self, challenged: Machine, labelled: list[str]) -> None:
        done = challenged.python("-m", "fashion", "registry", "replay", "--version", "2", "--rows", "40")
        assert done.returncode == 0, done.stderr
        assert "the same label for 100.0%" not in done.stdout
        assert "labelled" in done.stdout

    def test_an_unknown_version_is_one_sentence(self, challenged: Machine, labelled: list[str]) -> None:
        done = challenged.python("-m", "fashion", "registry", "replay", "--version", "9")
        assert done.returncode == 1
        assert done.stderr.startswith("error: fashion-classifier has no version or alias '9'")


class TestPredictFlow:
    @pytest.fixture
    def folder(self, tmp_path: Path, pngs: list[bytes]) -> Path:
        folder = tmp_path / "pictures"
        (folder / "deeper").mkdir(parents=True)
        for number, png in enumerate(pngs[:30]):
            (folder / ("deeper" if number % 2 else "") / f"{number:02}.png").write_bytes(png)
        photo = io.BytesIO()
        Image.new("RGB", (300, 200), "white").save(photo, "JPEG")
        (folder / "photo.JPG").write_bytes(photo.getvalue())
        (folder / "broken.png").write_bytes(b"no picture")
        (folder / "locked.png").symlink_to("locked.png")  # leads to itself: nobody can read it, not even root
        (folder / "notes.txt").write_text("not looked at")
        return folder

    def test_a_folder_becomes_one_table_and_bad_files_are_listed(
        self, challenged: Machine, service: Served, folder: Path, pngs: list[bytes], tmp_path: Path
    ) -> None:
        output = tmp_path / "predictions.parquet"
        said = challenged.flow(
            "run", "--images", str(folder), "--output", str(output), "--workers", "2", name="predict_flow"
        )
        assert "1 files are passed over, whose names are not those of pictures: notes.txt" in said
        assert {int(count) for count in re.findall(r"(\d+)/\1 files, ", said)} == {16, 17}  # each worker's progress
        assert "31 pictures predicted, 2 could not be read" in said
        assert "broken.png: " in said
        assert "locked.png cannot be read: Too many levels of symbolic links" in said
        rows = {row["file"]: row for row in pq.read_table(output).to_pylist()}
        assert len(rows) == 31
        for number in range(30):
            row = rows[f"{'deeper/' if number % 2 else ''}{number:02}.png"]
            told = service.predict(pngs[number])
            assert row["label"] == told["label"]
            assert row["confidence"] == pytest.approx(told["confidence"], abs=1e-5)
            assert row["probability: Coat"] == pytest.approx(told["probabilities"]["Coat"], abs=1e-5)
        assert {row["model_version"] for row in rows.values()} == {"1"}

    @pytest.mark.parametrize("kinds", [("gs", "gs"), ("s3", "az")])
    def test_a_bucket_is_read_and_written(
        self, kinds: tuple[str, str], challenged: Machine, folder: Path, clouds: Clouds, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from fashion.storage.address import open_store

        images, output = (f"{clouds.bucket(kind, monkeypatch)}/shop" for kind in kinds)
        for kind in kinds:
            for name, value in clouds.server(kind).environment.items():
                monkeypatch.setitem(challenged.environment, name, value)
        store = open_store(images)
        for path in sorted(folder.rglob("0*.png"))[:5]:
            store.put(path.name, path.read_bytes())
        file = f"{output}/predictions.parquet"
        challenged.flow("run", "--images", images, "--output", file, name="predict_flow")
        table = pq.read_table(io.BytesIO(open_store(output).get("predictions.parquet")))
        assert table.num_rows == 5

    @pytest.mark.parametrize(
        ("images", "output", "sentence"),
        [
            ("nowhere", "a.parquet", "holds no pictures; their names end in .bmp, "),
            ("pictures", "a.csv", "output must name a file that ends in .parquet, got 'a.csv'"),
            ("ftp://x/y", "a.parquet", "'ftp://x/y' is not the address of a store"),
        ],
    )
    def test_what_cannot_be_done_is_one_sentence(
        self, challenged: Machine, folder: Path, images: str, output: str, sentence: str
    ) -> None:
        address = images if "://" in images else str(folder.parent / images)
        process = challenged.start("run", "--images", address, "--output", output, name="predict_flow")
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 1
        assert sentence in said
        assert "Traceback" not in said
        shutil.rmtree(folder)
