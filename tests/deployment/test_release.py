"""From the registry to the users of a service: whole rollouts, steps back, rollbacks, dry runs and kills."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import mlflow
import pytest
from support.cloudrun import PROJECT, REGION, SERVICE

from fashion.config.compose import compose, load_as
from fashion.config.deploy import DeployConfig
from fashion.config.names import MODEL_NAME
from fashion.config.serve import ServeConfig
from fashion.deployment.canary import revision_stem
from fashion.deployment.permission import NotPermitted
from fashion.deployment.release import release, require_served
from fashion.deployment.rollout import Outcome, RolloutError
from fashion.deployment.smoke import Picture
from fashion.home import REPOSITORY, Home
from fashion.model.package import Package
from fashion.registry import champions, versions

from .conftest import NEW_IMAGE, OLD_IMAGE, Cloud

pytestmark = pytest.mark.slow  # MLflow
FIRST = f"{SERVICE}-00001-abc"
SECOND = revision_stem(SERVICE, 2, NEW_IMAGE)
QUICK = [
    "deploy.target=cloudrun",
    "deploy.dry_run=false",
    f"deploy.project={PROJECT}",
    f"deploy.region={REGION}",
    "deploy.hold_seconds=0",
    "deploy.requests=20",
    "deploy.smoke_rows=10",
    "deploy.operation_seconds=10",
    "deploy.slo.latency_ms=2000",
]


@dataclass
class Team:
    """A registry with two versions, and a service of the first."""

    cloud: Cloud
    home: Home

    def release(self, number: int, *overrides: str, said: list[str] | None = None) -> Outcome:
        """Release a version."""
        settings = load_as(ServeConfig, compose([*QUICK, f"deploy.image={NEW_IMAGE}", *overrides], root="serve")).deploy
        return self.release_as(number, settings, [] if said is None else said)

    def release_as(self, number: int, settings: DeployConfig, said: list[str]) -> Outcome:
        """Release a version with settings."""
        return release(
            versions.get(str(number)),
            settings,
            model=MODEL_NAME,
            pictures=[Picture(b"coat", "Coat")] * settings.smoke_rows,
            environment=self.environment(),
            say=said.append,
        )

    def environment(self) -> Mapping[str, str]:
        """Of a release."""
        return {"CLOUD_RUN_EMULATOR_HOST": self.cloud.address, "FASHION_PREDICT_KEY": "secret"}


@pytest.fixture
def team(cloud: Cloud, mlflow_home: Home, tiny_package: Package) -> Team:
    client = mlflow.MlflowClient()
    client.create_registered_model(MODEL_NAME)
    for _ in range(3):
        client.create_model_version(MODEL_NAME, str(tiny_package.folder))
    champions.promote(versions.get("1"), reason="it is the first version")
    champions.promote(versions.get("2"), reason="won the comparison")
    champions.reject(versions.get("3"), reason="loses 4 points on shirts")
    return Team(cloud, mlflow_home)


def test_the_champion_gets_all_traffic_in_steps(team: Team) -> None:
    said: list[str] = []
    outcome = team.release(2, said=said)
    assert outcome.sentence == f"{SECOND} has all traffic"
    assert [each.get(SECOND, 0) for each in team.cloud.state.history] == [0, 0, 0, 5, 25, 50, 100, 100]
    assert said[0] == "version 2 is the champion: won the comparison"
    assert team.cloud.new.predictions >= 80
    assert team.cloud.old.predictions == 0
    assert team.cloud.new.headers["authorization"] == "Bearer secret"
    assert versions.get("2").tags["deployed.revision"] == SECOND
    require_served(outcome)


def test_released_again_nothing_is_changed(team: Team) -> None:
    team.release(2)
    count = len(team.cloud.state.history)
    assert "nothing was changed" in team.release(2).sentence
    assert len(team.cloud.state.history) == count


@pytest.mark.parametrize(
    ("attribute", "value", "sentence"),
    [
        ("status", 500, "availability|requests were answered"),
        ("seconds", 0.1, "within 50 ms"),
        ("cut", True, "requests were answered"),
        ("version", "1", "is it the right image"),
    ],
)
def test_a_revision_that_goes_bad_under_traffic_is_stepped_back(
    team: Team, attribute: str, value: Any, sentence: str
) -> None:
    # Bad from the first request after it got 25 % of the traffic.
    def go_bad(_: int) -> None:
        if team.cloud.state.history[-1].get(SECOND, 0) >= 25:
            setattr(team.cloud.new, attribute, value)

    team.cloud.new.on_prediction = go_bad
    outcome = team.release(2, "deploy.slo.latency_ms=50", "deploy.slo.latency_share=0.5")
    assert not outcome.served
    assert any(word in outcome.sentence for word in sentence.split("|"))
    assert "at 25 % of the traffic" in outcome.sentence
    assert [each.get(SECOND, 0) for each in team.cloud.state.history][-3:] == [5, 25, 0]
    assert team.cloud.state.traffic() == {FIRST: 100}
    assert "stepped back" in versions.get("2").tags["deployed.outcome"]
    with pytest.raises(RolloutError, match=r"fashion registry rollback --reason"):
        require_served(outcome)


def test_a_revision_that_is_bad_from_the_start_gets_no_traffic(team: Team) -> None:
    team.cloud.new.label = "Sandal"
    outcome = team.release(2)
    assert "0.0% of 10 test pictures are classified correctly" in outcome.sentence
    assert all(each == {FIRST: 100} for each in team.cloud.state.history)


class TestPermission:
    """What the registry's verdict allows."""

    def test_a_refused_version_is_not_rolled_out(self, team: Team) -> None:
        with pytest.raises(NotPermitted, match=r"version 3 was refused by the gate \(loses 4 points on shirts\)"):
            team.release(3)
        assert team.cloud.state.calls == []

    def test_a_former_champion_is_not_rolled_out(self, team: Team) -> None:
        with pytest.raises(NotPermitted, match=r"version 1 is not the champion and is not rolled out: promote it with"):
            team.release(1)

    def test_a_reason_forces_it_and_is_said(self, team: Team) -> None:
        team.cloud.new.version = "3"
        said: list[str] = []
        assert team.release(3, "deploy.force_reason='the shirts are gone'", said=said).served
        assert said[0].endswith("(loses 4 points on shirts); it is rolled out because: the shirts are gone")

    def test_a_person_can_promote_what_the_gate_refused(self, team: Team) -> None:
        time.sleep(1.1)  # decisions are stored by the second
        champions.promote(versions.get("3"), reason="won the shadow test")
        team.cloud.new.version = "3"
        assert team.release(3).served


class TestRollback:
    """`fashion registry rollback`, and then a deployment."""

    def roll_out_both(self, team: Team) -> str:
        """Serve version 1 by a rollout, then version 2; returns the first revision."""
        champions.rollback(reason="start with version 1")
        team.release(1, f"deploy.image={OLD_IMAGE}")
        champions.promote(versions.get("2"), reason="won the comparison")
        assert team.release(2).served
        team.cloud.state.history.clear()
        return revision_stem(SERVICE, 1, OLD_IMAGE)

    def test_gives_all_traffic_back_at_once_without_an_image(self, team: Team) -> None:
        previous = self.roll_out_both(team)
        champions.rollback(reason="users report shirts as dresses")
        outcome = team.release(1, "deploy.image=null")
        assert team.cloud.state.history == [{previous: 100}]
        assert outcome.sentence == f"{previous} has all traffic again: the registry was rolled back to its version"

    def test_ends_a_rollout_that_was_killed_half_way(self, team: Team) -> None:
        self.roll_out_both(team)
        first = revision_stem(SERVICE, 1, OLD_IMAGE)
        team.cloud.state.give({first: 75, SECOND: 25})
        champions.rollback(reason="users report shirts as dresses")
        assert team.release(1, "deploy.image=null").served
        assert team.cloud.state.traffic() == {first: 100}

    def test_a_dry_run_of_it_changes_nothing(self, team: Team) -> None:
        previous = self.roll_out_both(team)
        champions.rollback(reason="users report shirts as dresses")
        said: list[str] = []
        outcome = team.release(1, "deploy.image=null", "deploy.dry_run=true", said=said)
        assert team.cloud.state.history == []
        assert f"would call UpdateService: traffic {previous} 100 %; state done" in said
        assert outcome.sentence.startswith("dry run, nothing was changed")

    def test_to_a_version_that_was_never_served_needs_an_image(self, team: Team) -> None:
        team.release(2)
        champions.rollback(reason="users report shirts as dresses")
        with pytest.raises(RolloutError, match=r"has no revision of version 1 to go back to: give deploy\.image="):
            team.release(1, "deploy.image=null")


class TestDryRun:
    """Which is the default."""

    def test_says_each_call_share_and_check_and_changes_nothing(self, team: Team) -> None:
        said: list[str] = []
        outcome = team.release(2, "deploy.dry_run=true", said=said)
        text = "\n".join(said)
        assert f"would call UpdateService: revision {SECOND} of image {NEW_IMAGE}, traffic {FIRST} 100 %" in text
        for share in (5, 25, 50):
            assert f"traffic {FIRST} {100 - share} %, {SECOND} {share} % (tag v2-" in text
        assert f"would call UpdateService: traffic {SECOND} 100 %; state done" in text
        assert "would send 10 pictures, 70% right" in text
        assert text.count("would send 20 requests over 0 s and require 95% answered, 95% within 2000 ms") == 4
        assert outcome.sentence == f"dry run, nothing was changed; it would end with: {SECOND} has all traffic"
        assert set(team.cloud.state.calls) == {"GetService", "ListRevisions"}
        assert len(team.cloud.state.history) == 1
        assert "deployed.revision" not in versions.get("2").tags
        assert (team.cloud.new.predictions, team.cloud.old.predictions) == (0, 0)

    def test_goes_on_from_where_a_rollout_is(self, team: Team) -> None:
        team.release(2)
        assert "nothing was changed" in team.release(2, "deploy.dry_run=true").sentence

    def test_works_where_the_service_cannot_be_read(self, team: Team) -> None:
        said: list[str] = []
        assert team.release(2, "deploy.dry_run=true", "deploy.region=us-east1", said=said).served
        assert said[2].startswith("the service was not read (project shop has no service fashion-classifier in region")
        assert "REVISION-SERVED-NOW 95 %" in "\n".join(said)


def test_without_an_image_it_is_one_sentence(team: Team) -> None:
    with pytest.raises(RolloutError, match=r"give deploy\.image=\.\.\., the container image"):
        team.release(2, "deploy.image=null")


def test_without_pictures_it_is_one_sentence(team: Team) -> None:
    settings = load_as(ServeConfig, compose([*QUICK, f"deploy.image={NEW_IMAGE}"], root="serve")).deploy
    with pytest.raises(RolloutError, match="there are no test pictures for the smoke test"):
        release(
            versions.get("2"),
            replace(settings, smoke_rows=1),
            model=MODEL_NAME,
            pictures=[],
            environment=team.environment(),
        )


CODE = """
import json, os, sys
from fashion.config.compose import compose, load_as
from fashion.config.serve import ServeConfig
from fashion.deployment.release import release
from fashion.deployment.smoke import Picture
from fashion.home import current_home
from fashion.registry import tracking, versions

tracking.connect(current_home())
settings = load_as(ServeConfig, compose(json.loads(sys.argv[1]), root="serve")).deploy
pictures = [Picture(b"coat", "Coat")] * settings.smoke_rows
release(versions.get("2"), settings, model="fashion-classifier", pictures=pictures, environment=os.environ)
"""


@pytest.mark.fault("kill -9 of a rollout")
@pytest.mark.parametrize("goes_bad", [False, True])
def test_killed_half_way_it_leaves_the_traffic_and_goes_on_or_steps_back(team: Team, goes_bad: bool) -> None:
    overrides = [*QUICK, f"deploy.image={NEW_IMAGE}", "deploy.hold_seconds=60"]
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, json.dumps(overrides)],
        cwd=REPOSITORY,
        env={**os.environ, **team.environment(), "FASHION_HOME": str(team.home.root)},
    )
    try:
        wait(lambda: team.cloud.state.history[-1].get(SECOND) == 5 or process.poll() is not None)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert team.cloud.state.traffic() == {FIRST: 95, SECOND: 5}
    before = len(team.cloud.state.history)
    team.cloud.new.status = 500 if goes_bad else 200
    assert team.release(2).served is not goes_bad
    shares = [each.get(SECOND, 0) for each in team.cloud.state.history[before:]]
    assert shares == [5, *([0] if goes_bad else [25, 50, 100, 100])]
    assert len(team.cloud.state.revisions) == 2


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()
