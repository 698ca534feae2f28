"""Studies in PostgreSQL: old ones are found by their last trial, and go on request."""

import datetime
import json
import os
from collections.abc import Callable

import optuna
import pytest
from support import postgres

from fashion.commands.main import main
from fashion.home import Home

pytestmark = pytest.mark.slow


@pytest.fixture
def database(postgres_server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty database that FASHION_STUDIES names."""
    address = postgres.create_database(postgres_server, f"studies_{os.getpid()}_{abs(hash(request.node.name))}")
    monkeypatch.setenv("FASHION_STUDIES", address)
    return address


@pytest.fixture
def gc(mlflow_home: Home, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, float]]:
    """Run `fashion gc`, and return the names that it lists, with their ages in days."""

    def run(*arguments: str) -> dict[str, float]:
        assert main(["gc", "--json", *arguments]) == 0
        return {each["name"]: each["age_days"] for each in json.loads(capsys.readouterr().out)}

    return run


def add(database: str, name: str, *ages_days: float) -> None:
    """Add a study with trials that ended so long ago."""
    study = optuna.create_study(storage=database, study_name=name)
    for age in ages_days:
        then = datetime.datetime.now() - datetime.timedelta(days=age)
        trial = optuna.trial.create_trial(value=0.5)
        trial.datetime_start = trial.datetime_complete = then
        study.add_trial(trial)


def names(database: str) -> set[str]:
    return set(optuna.get_all_study_names(database))


def test_a_study_goes_so_long_after_its_last_trial(database: str, gc: Callable[..., dict[str, float]]) -> None:
    add(database, "TrainFlow-1", 200, 91)
    add(database, "TrainFlow-2", 200, 89)
    add(database, "TrainFlow-3")
    add(database, "somebody-elses", 300)
    assert {name: round(age) for name, age in gc().items()} == {"TrainFlow-1": 91}
    assert len(names(database)) == 4
    assert set(gc("--delete", "studies_days=30")) == {"TrainFlow-1", "TrainFlow-2"}
    assert names(database) == {"TrainFlow-3", "somebody-elses"}
    assert gc("studies_days=0") == {}


def test_a_study_that_runs_stays_whatever_the_ages(database: str, gc: Callable[..., dict[str, float]]) -> None:
    add(database, "TrainFlow-1", 200)
    optuna.load_study(storage=database, study_name="TrainFlow-1").ask()
    assert gc("studies_days=0", "--delete") == {}
    assert names(database) == {"TrainFlow-1"}


def test_a_database_without_studies_is_left_as_it_is(database: str, gc: Callable[..., dict[str, float]]) -> None:
    import psycopg

    assert gc("studies_days=0") == {}
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
