"""What a run does about a canary, on a real registry and log: done, stored for services, told, whatever is killed."""

import shutil
import time
from pathlib import Path

import pytest
from support import canaries, kill_sweep

from fashion.config.names import MODEL_NAME
from fashion.drift import canary as drift_canary
from fashion.drift.canary import News
from fashion.evaluation import canary, canary_tags
from fashion.home import Home, current_home
from fashion.model.package import Package
from fashion.predictions import windows
from fashion.predictions.canary import Experiment
from fashion.predictions.canary_ending import CanaryEnding, name_of
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import LogUnavailable
from fashion.predictions.sources import Trust
from fashion.registry import champions, tracking, versions


@pytest.fixture
def experiment(mlflow_home: Home, tiny_package: Package) -> Experiment:
    return canaries.begin(tiny_package)


def act(home: Home, *, decide: bool = True) -> News:
    source = windows.open_source(home, "local")
    return drift_canary.act(source, Trust(), home, model_name=MODEL_NAME, decide=decide)


def stored(home: Home, experiment: Experiment) -> CanaryEnding | None:
    with PredictionLog(home.predictions) as log:
        return log.canary_ending(name_of(experiment.champion, experiment.canary))


@pytest.mark.parametrize(("right", "kind"), [(True, "promoted"), (False, "stepped back")])
def test_an_ending_is_stored_for_services_and_told_until_somebody_was(
    experiment: Experiment, mlflow_home: Home, right: bool, kind: str
) -> None:
    canaries.answer(mlflow_home.predictions, experiment, right=right)
    first = act(mlflow_home)
    ending = stored(mlflow_home, experiment)
    assert ending is not None
    assert ending.is_of(experiment)
    assert (ending.kind, ending.command) == (kind, 'make bento ARGS="serve.canary=null"')
    assert ending.reason in versions.get("2").tags[canary_tags.RESULT]
    again = act(mlflow_home)  # of a run whose first attempt was killed before it could send the alert
    assert [each.ending for each in again.outcomes] == [kind]
    assert (again.outcomes, again.on_trial) == (first.outcomes, frozenset("2"))
    drift_canary.record_told(again, model_name=MODEL_NAME)
    assert act(mlflow_home) == News()
    assert stored(mlflow_home, experiment) == ending


def test_what_goes_on_is_said_by_each_run_and_nothing_is_stored(experiment: Experiment, mlflow_home: Home) -> None:
    canaries.answer(mlflow_home.predictions, experiment, right=False, clients=8)
    for decide in (True, False):
        news = act(mlflow_home, decide=decide)
        assert ([each.ending for each in news.outcomes], news.on_trial) == (["goes on"], frozenset("2"))
        assert (news.untold, stored(mlflow_home, experiment)) == ((), None)


@pytest.mark.fault("the shared log is away when a canary is stepped back from")
def test_an_ending_that_the_log_did_not_take_is_stored_and_told_by_the_next_run(
    experiment: Experiment, mlflow_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    canaries.answer(mlflow_home.predictions, experiment, right=False)
    monkeypatch.setenv("FASHION_LOG", "postgresql://fashion:x@127.0.0.1:1/log")
    with pytest.raises(LogUnavailable):
        act(current_home())
    assert "refused.time" in versions.get("2").tags
    assert stored(mlflow_home, experiment) is None
    monkeypatch.delenv("FASHION_LOG")
    assert [each.ending for each in act(mlflow_home).outcomes] == ["stepped back"]
    assert stored(mlflow_home, experiment) is not None


def test_a_canary_that_a_person_promotes_is_compared_no_more(experiment: Experiment, mlflow_home: Home) -> None:
    canaries.answer(mlflow_home.predictions, experiment, right=False)
    champions.promote(versions.get("2"), reason="we want it")
    (outcome,) = act(mlflow_home).outcomes
    assert outcome.ending == "promoted"
    assert outcome.sentence.startswith("canary 2 is the champion, in place of version 1: we want it")
    ending = stored(mlflow_home, experiment)
    assert ending is not None
    assert ending.kind == "promoted"


def test_a_comparison_that_ended_before_endings_were_stored_is_stored_and_not_told(
    experiment: Experiment, mlflow_home: Home
) -> None:
    canaries.answer(mlflow_home.predictions, experiment, right=False, clients=2)
    champions.reject(versions.get("2"), reason="8 of 10 right")
    tags = {canary_tags.RESULT: "stepped back: 8 of 10 right", canary_tags.ENDED: str(time.time_ns() // 1000)}
    versions.set_tags(versions.get("2"), tags)
    assert act(mlflow_home) == News()
    ending = stored(mlflow_home, experiment)
    assert ending is not None
    assert ending.reason == "8 of 10 right"


def test_a_canary_that_is_deployed_again_is_compared_anew(experiment: Experiment, mlflow_home: Home) -> None:
    canaries.answer(mlflow_home.predictions, experiment, right=False)
    drift_canary.record_told(act(mlflow_home), model_name=MODEL_NAME)
    pair = experiment.champion, experiment.canary
    rules = canary.Rules(experiment.margin, experiment.confidence)
    anew = canary.begin(versions.get("2"), *pair, share=experiment.share, rules=rules, clock=lambda: time.time() + 2)
    (outcome,) = act(mlflow_home).outcomes
    assert (outcome.ending, outcome.sentence) == ("goes on", "no label against no label: nothing can be said yet")
    ending = stored(mlflow_home, experiment)
    assert ending is not None
    assert (ending.is_of(experiment), ending.is_of(anew)) == (True, False)


SCENARIOS = """
import shutil
from pathlib import Path
from fashion.drift import canary as drift_canary
from fashion.home import current_home
from fashion.predictions import windows
from fashion.predictions.canary_ending import name_of
from fashion.predictions.log import PredictionLog
from fashion.predictions.sources import Trust
from fashion.registry import champions, tracking, versions

ROOT, NAME, MODEL = Path({root!r}), {name!r}, "fashion-classifier"

def run():
    home = current_home()
    tracking.connect(home)
    news = drift_canary.act(windows.open_source(home), Trust(), home, model_name=MODEL)
    with (ROOT / "told").open("a") as told:
        told.writelines(f"{{outcome.ending}}\\n" for outcome in news.outcomes)
    drift_canary.record_told(news, model_name=MODEL)

def begin(log):
    for path in (*ROOT.glob("predictions.db*"), ROOT / "told"):
        path.unlink(missing_ok=True)
    shutil.copy(ROOT / log, current_home().predictions)
    run()

def check(kind, champion):
    run()  # the next one
    run()
    # Told twice only where the process was killed between telling and storing that it had.
    assert (ROOT / "told").read_text().splitlines() in ([kind], [kind] * 2), (ROOT / "told").read_text()
    with PredictionLog(current_home().predictions) as log:
        assert log.canary_ending(NAME).kind == kind
    assert versions.champion().number == champion
    tags = versions.get("2").tags
    assert tags["canary.told"] == "yes" and tags["canary.result"].startswith(kind), tags

SCENARIOS = {{
    "promote": (lambda: begin("better.db"), lambda: check("promoted", 2), ()),
    "step back": (lambda: begin("worse.db"), lambda: check("stepped back", 1), ()),
}}
"""


@pytest.fixture(scope="module")
def swept(
    tiny_package: Package, migrated_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, object]:
    """What each scenario came to: its number of writes, or how its check failed."""
    root = tmp_path_factory.mktemp("swept") / "var"
    root.mkdir()
    shutil.copy(migrated_database, root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASHION_HOME", str(root))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
        tracking.connect(current_home())
        experiment = canaries.begin(tiny_package)
        for name, right in (("better.db", True), ("worse.db", False)):
            canaries.answer(root / name, experiment, right=right)
        source = SCENARIOS.format(root=str(root), name=name_of(experiment.champion, experiment.canary))
        return kill_sweep.run(root / "mlflow.db", source)


@pytest.mark.fault("a run that ends a canary is killed before each of its writes")
@pytest.mark.parametrize("scenario", ["promote", "step back"])
def test_an_ending_is_completed_stored_and_told_by_the_next_run(scenario: str, swept: dict[str, object]) -> None:
    assert isinstance(swept[scenario], int), swept[scenario]
    assert swept[scenario] >= 6  # type: ignore[operator]
