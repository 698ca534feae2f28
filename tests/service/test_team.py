"""Two machines that share a log, in Firestore or in PostgreSQL: each finds what the other has stored."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import proxy, shared_logs
from support.served import Served
from support.shared_logs import SERVERS, Backend

from fashion.config.compose import compose
from fashion.home import REPOSITORY, current_home
from fashion.model.package import Package
from fashion.predictions import windows
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import FOREVER_US
from fashion.predictions.shared_log import SharedLog
from fashion.predictions.windows import Window

pytestmark = pytest.mark.slow

BUILD = """
import json, sys
from pathlib import Path
from bentos import building
from bentos.classifier.deployment import bento_files
content = json.loads(sys.stdin.read())
tag = building.store_model(Path(content["model"]), name="fashion-classifier", version=1, labels={})
model = {"name": "fashion-classifier", "version": "1", "tag": tag}
deployment = {"settings": content["settings"], "model": model, "shadow": None}
print(building.build("classifier", bento_files(deployment, []), version="v1"))
"""


@dataclass(frozen=True)
class Team:
    """Two machines; the second reaches the shared log through a proxy."""

    backend: Backend
    first: Served
    second: Served
    wire: proxy.Proxy
    second_home: Path
    second_environment: dict[str, str]
    bento: str
    remote: SharedLog


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bentoml")


@pytest.fixture(scope="module")
def team_bento(tiny_package: Package, store: Path) -> str:
    """A bento whose answers wait for the shared log."""
    overrides = ["serve.gallery=0", "serve.log.acknowledge=remote", "serve.log.remote_seconds=5"]
    content = {
        "model": str(tiny_package.folder),
        "settings": compose(overrides, root="serve")["serve"],
    }
    done = subprocess.run(
        [sys.executable, "-c", BUILD],
        input=json.dumps(content),
        cwd=REPOSITORY,
        env={**os.environ, "BENTOML_HOME": str(store), "BENTOML_DO_NOT_TRACK": "True"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


@pytest.fixture(scope="module", params=SERVERS)
def team(
    request: pytest.FixtureRequest, team_bento: str, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Team]:
    backend = shared_logs.make(request.param, request.getfixturevalue(SERVERS[request.param]))
    root = tmp_path_factory.mktemp("team")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("FASHION", "FIRESTORE"))}
    plain |= {"BENTOML_HOME": str(store), "BENTOML_DO_NOT_TRACK": "True"}
    with proxy.between(backend.server) as wire, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRESTORE_EMULATOR_HOST", backend.server)
        served = []
        for name, server in (("first", backend.server), ("second", wire.address)):
            (root / name).mkdir()
            own = {**plain, **backend.environment(server), "FASHION_HOME": str(root / name / "var")}
            served.append(Served(team_bento, own, root / name / "service.log"))
        with contextlib.closing(backend.connect()) as remote:
            yield Team(backend, *served, wire, root / "second", own, team_bento, remote)
        for each in served:
            each.stop()


def predict(served: Served, png: bytes, kind: str) -> str:
    """Predict until the answer says that the shared log has it: the first connection takes longest."""
    deadline = time.monotonic() + 60
    while (answer := served.predict(png))["stored_in"] != kind:
        assert time.monotonic() < deadline, answer
    prediction_id: str = answer["prediction_id"]
    return prediction_id


def test_each_machine_finds_and_labels_predictions_of_the_other(team: Team, pngs: list[bytes]) -> None:
    kind = team.backend.kind
    mine = [predict(team.first, png, kind) for png in pngs[:3]]
    theirs = [predict(team.second, png, kind) for png in pngs[3:5]]
    here, there = (each.json("GET", f"/predictions/{mine[0]}") for each in (team.first, team.second))
    assert here == there | {"latency_ms": here["latency_ms"]}
    given = {"prediction_id": mine[0], "true_label": "Coat", "source": "colleague"}
    assert team.second.json("POST", "/feedback", given)["stored_in"] == kind
    assert team.remote.get(mine[0]).true_label == 4
    for served in (team.first, team.second):
        (said,) = served.json("GET", f"/predictions/{mine[0]}")["feedback"]
        assert (said["true_label"], said["source"]) == ("Coat", "colleague")
    table = f"prediction_id,true_label\n{theirs[0]},Bag\nnone,Bag\n".encode()
    answer = json.loads(team.first.request("POST", "/feedback", table, {"content-type": "text/csv"})[2])
    assert (answer["accepted"], answer["refused"], answer["stored_in"]) == (1, 1, kind)

    home = dataclasses.replace(current_home(), shared_log=team.backend.address())
    source = windows.open_source(home)
    found = [each for batch in source.batches(Window(0, FOREVER_US)) for each in batch.prediction_ids]
    assert set(found) >= {*mine, *theirs}
    assert len(found) == len(set(found))
    assert {each.record.prediction_id for each in source.labelled()} == {mine[0], theirs[0]}

    page = team.second.request("GET", "/monitoring")[2].decode()
    assert f"Predictions of all machines, from {shown(team)} at " in page
    assert f"<dd>{len(found)}<small>" in page
    assert "of 2 with feedback" in page


def test_no_page_or_log_shows_the_password_of_the_shared_log(team: Team) -> None:
    ready = team.first.json("GET", "/readyz")["log"]
    assert ready["ships_to"] == team.remote.address
    texts = [team.first.request("GET", path)[2].decode() for path in ("/readyz", "/monitoring", "/metrics", "/model")]
    assert "Rows of the prediction log that are not shipped yet" in texts[2]
    texts.append(team.first.output.read_text())
    assert not [text for text in texts if "sesame" in text]


@pytest.mark.fault("shared log away, then kill -9")
def test_what_waits_survives_a_kill_and_is_shipped_at_the_end(team: Team, pngs: list[bytes]) -> None:
    team.wire.cut()
    ids = [team.second.predict(png) for png in pngs[5:8]]
    assert {answer["stored_in"] for answer in ids} == {"disk"}
    ready = team.second.json("GET", "/readyz")["log"]
    assert ready["backlog_rows"] == 3
    assert ready["problem"].startswith(f"{shown(team)} cannot be used: ")
    page = team.second.request("GET", "/monitoring")[2].decode()
    assert f"Shipped to {shown(team)}" in page
    team.second.kill()
    again = Served(team.bento, team.second_environment, team.second_home / "again.log")
    more = again.predict(pngs[8])
    assert more["stored_in"] == "disk"
    team.wire.resume()
    assert again.stop(signal.SIGTERM) == 0
    with PredictionLog(team.second_home / "var" / "predictions.db") as log:
        assert log.outbox.backlog().rows == 0
    for answer in (*ids, more):
        assert team.remote.get(answer["prediction_id"])
    assert "sesame" not in (team.second_home / "service.log").read_text()


def shown(team: Team) -> str:
    """The address of the log as the second machine knows it."""
    return team.remote.address.replace(team.backend.server, team.wire.address)
