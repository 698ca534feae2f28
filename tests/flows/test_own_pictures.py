"""From a folder of somebody's own pictures to a served and watched model, that speaks of nothing else."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.machine import Machine
from support.served import Served
from support.shapes import KINDS, as_png, shape, write_shapes

from fashion.home import REPOSITORY

OTHERS_WORDS = re.compile(r"cloth|garment|fashion[ _-]?(?:mnist|classifier)|t-shirt|ankle boot|trouser", re.IGNORECASE)
PACKED = re.compile(r"<script.*?</script>|base64,[A-Za-z0-9+/=]+", re.DOTALL)
"""In base64, any short word may be found."""
COUNTS = {"circle": 80, "square": 40, "triangle": 20}
SENT = 90


@pytest.fixture(scope="module")
def own_pictures(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine on which a model of such a folder was trained, with one override that keeps it short."""
    folder = tmp_path_factory.mktemp("own")
    machine = Machine(folder / "var")
    (machine.root / "data").unlink()  # not into the data of this repository
    shutil.copytree(REPOSITORY / "configs", folder / "configs")
    machine.environment["FASHION_CONFIGS"] = str(folder / "configs")
    pictures = write_shapes(folder / "My shapes", COUNTS)
    machine.output = machine.flow(
        "run", f"data.root={pictures}", "data.size=28", "tuning=off", "training.min_steps=200"
    )
    machine.deployment_output = machine.flow("run", "data=my_shapes", "serve.log.images=true", name="deploy_flow")
    return machine


@pytest.fixture(scope="module")
def served_shapes(own_pictures: Machine) -> Iterator[Served]:
    """Its bento, served, after users have sent pictures and feedback on a half of them."""
    tag = own_pictures.runs("DeployFlow")[-1].data.bento
    served = Served(tag, own_pictures.serving(), own_pictures.root / "service.log")
    rng = np.random.default_rng(1)
    for number in range(SENT):
        kind = KINDS[number % 3]
        answer = served.predict(as_png(shape(kind, rng)))
        if number % 2:
            served.json("POST", "/feedback", {"prediction_id": answer["prediction_id"], "true_label": kind})
    yield served
    assert served.stop() == 0, served.output.read_text()[-2000:]


@pytest.fixture(scope="module")
def watched_shapes(own_pictures: Machine, served_shapes: Served) -> Any:
    """The drift flow's run on those predictions."""
    own_pictures.flow("run", "data=my_shapes", "decision.min_rows=50", "window=2h", name="drift_flow")
    return own_pictures.runs("DriftFlow")[-1]


def test_what_was_found_is_said_before_the_training(own_pictures: Machine) -> None:
    screen, _, rest = own_pictures.output.partition("Metaflow")
    assert "one folder a class" in screen
    assert "3: circle, square, triangle" in screen
    assert "imbalanced: circle has 80 pictures, triangle 20" in screen
    assert "2 files of 142 cannot be read:" in screen
    assert "circle/broken.jpg: the picture cannot be decoded" in screen
    assert "data=my_shapes" in screen
    assert "test accuracy" in rest


def test_the_config_is_kept_where_the_others_are(own_pictures: Machine) -> None:
    folder = Path(own_pictures.environment["FASHION_CONFIGS"], "data")
    data = yaml.safe_load((folder / "my_shapes.yaml").read_text())
    assert data["class_names"] == ["circle", "square", "triangle"]
    assert data["channels"] == 3
    assert (folder / "my_shapes.manifest.json").is_file()


def test_the_gate_lets_a_model_pass_that_is_better_than_guessing(own_pictures: Machine) -> None:
    run = own_pictures.runs()[0]
    assert run.data.promoted, run.data.outcome
    assert run.data.verdict["checks"][1]["value"] >= run.data.verdict["checks"][1]["bound"]
    own_pictures.connect()
    from fashion.registry import versions

    assert versions.champion("my-shapes-classifier") is not None
    assert versions.list_versions("fashion-classifier") == []


def test_the_bento_has_the_models_name(own_pictures: Machine) -> None:
    assert own_pictures.runs("DeployFlow")[-1].data.bento.startswith("my-shapes-classifier:v1-")


def test_predictions_and_feedback_are_of_these_classes(served_shapes: Served) -> None:
    answer = served_shapes.predict(as_png(shape("square", np.random.default_rng(5))))
    assert set(answer["probabilities"]) == set(KINDS)
    assert answer["model"]["name"] == "my-shapes-classifier"
    assert any(step.startswith("shrunk to") for step in answer["preprocessing"])


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/monitoring", "/model", "/gallery", "/page/page.js"])
def test_no_page_speaks_of_another_data_set(served_shapes: Served, path: str) -> None:
    status, _, body = served_shapes.request("GET", path)
    assert status == 200
    assert OTHERS_WORDS.findall(body.decode()) == []


def test_the_page_speaks_of_this_one(served_shapes: Served) -> None:
    page = served_shapes.request("GET", "/")[2].decode()
    assert "My shapes classifier" in page
    assert "What is on this picture?" in page
    assert "{{" not in page
    document = json.loads(served_shapes.request("GET", "/openapi.json")[2])
    assert document["info"]["title"] == "My shapes classifier"
    assert "my-shapes-classifier" in json.dumps(document)


def test_drift_is_decided_on_few_rows(watched_shapes: Any, own_pictures: Machine) -> None:
    assert watched_shapes.successful
    assert watched_shapes.data.model == "my-shapes-classifier"
    (report,) = (path for path in own_pictures.root.glob("reports/**/*.html"))
    html = PACKED.sub("", report.read_text())
    assert OTHERS_WORDS.findall(html) == []
    assert "circle" in html


@pytest.mark.parametrize(("step", "name"), [("start", "data"), ("evaluate", "evaluation"), ("register", "verdict")])
def test_no_card_speaks_of_another_data_set(own_pictures: Machine, step: str, name: str) -> None:
    assert OTHERS_WORDS.findall(PACKED.sub("", own_pictures.card(own_pictures.runs()[0], step, name))) == []


def test_pictures_that_were_not_trained_on_are_one_sentence_to_other_flows(own_pictures: Machine) -> None:
    process = own_pictures.start("run", "data.root=/nowhere", name="deploy_flow")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert (
        output
        == "error: data.root=/nowhere: no model was trained on these pictures; `make train DATA=/nowhere` does it\n"
    )


def test_pictures_that_are_none_are_one_sentence_and_leave_nothing(own_pictures: Machine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    process = own_pictures.start("run", f"data.root={tmp_path / 'empty'}")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert output.startswith(f"error: {tmp_path / 'empty'} holds 0 pictures in 0 class folders")
    assert output.count("\n") == 1
