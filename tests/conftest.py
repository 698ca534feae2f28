"""Fixtures that several rooms share: a slice of the data, model packages, a tracking store, a machine with runs."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch count the cores
os.environ.setdefault("MPLBACKEND", "agg")

import pytest
from filelock import FileLock
from support import firestore, postgres
from support.machine import FLOW_OVERRIDES, ROWS, Machine
from support.networks import least_squares_network
from support.served import Served
from support.stores import Clouds

from fashion.config.compose import compose
from fashion.config.schema import DataConfig
from fashion.config.train import load_train_config
from fashion.data.dataset import Dataset
from fashion.home import REPOSITORY, Home, current_home
from fashion.images import image_store
from fashion.model import package
from fashion.model.package import Package

FLOWS = ("story", "machine")
"""Fixtures that run flows for minutes, the longest first. Each worker would make its own: one gets all tests."""
SLOW = {
    *FLOWS,
    *("own", "watched", "templates", "emulator", "postgres_server", "new_backend", "chromium", "sound_package"),
    *("migrated_database", "own_pictures"),
}
"""Fixtures that run flows, servers or a browser, fit all data, or need MLflow: `make check` leaves their tests out."""
CI = {"emulator", "postgres_server", "new_backend", "templates"}
"""Fixtures that start what a team has beside one machine: `make test` leaves their tests out, not `make test-all`."""
CI_TESTS = (
    *("tests/deploy/", "tests/deployment/", "tests/flows/test_argo", "tests/flows/test_distributed_flow"),
    *("tests/flows/test_rollout_step", "tests/flows/test_team_servers", "tests/training/test_distributed"),
    *("tests/service/test_archives", "tests/service/test_service_elsewhere", "tests/service/test_team"),
    *("tests/service/test_telemetry", "tests/test_benchmarks", "tests/test_supply_chain"),
    *("tests/registry/test_kills", "tests/flows/test_supervision", "tests/commands/test_servers_away"),
    *("tests/drift/test_traffic.py::TestPower", "tests/drift/test_decision.py::TestPower"),
    *("tests/training/test_export.py::test_every_", "tests/training/test_models.py::TestArchitectures"),
    *(f"tests/flows/test_drift_flow.py::Test{name}" for name in ("Story", "Trouble", "Elsewhere", "BadDay")),
    *("tests/flows/test_launch.py::TestRefused", "tests/flows/test_train_flow.py::test_a_killed_training"),
)
"""How the names of further such tests begin: images, rollouts, several nodes, pods, collectors; benchmarks; and sweeps,
over each write at which a process is killed, over servers and their troubles, over simulated traffic, over
architectures, and over what a drift flow meets in the course of days."""


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Mark the tests of slow fixtures, and put those that share a flow's run on one worker, the longest first."""
    groups = {item: next((name for name in FLOWS if name in item.fixturenames), item.path.name) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
        if not SLOW.isdisjoint(item.fixturenames):
            item.add_marker(pytest.mark.slow)
        if not CI.isdisjoint(item.fixturenames) or item.nodeid.startswith(CI_TESTS):
            item.add_marker(pytest.mark.ci)
    items.sort(key=lambda item: [*FLOWS, groups[item]].index(groups[item]))


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """What a test sets in the environment ends with it: commands and MLflow set variables of their process."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def data_config() -> DataConfig:
    """Fashion-MNIST, cut to a slice."""
    return load_train_config(compose([f"data.limit={ROWS}"])).data


@pytest.fixture(scope="session")
def small_dataset(data_config: DataConfig) -> Dataset:
    """That slice, from the repository's cache: fetched on the first run, verified on each."""
    from fashion.data.loading import load_dataset

    return load_dataset(data_config, REPOSITORY / "var" / "data")


@pytest.fixture(scope="session")
def whole_dataset() -> Dataset:
    """All of Fashion-MNIST."""
    from fashion.data.loading import load_dataset

    return load_dataset(load_train_config(compose()).data, REPOSITORY / "var" / "data")


@pytest.fixture(scope="session")
def tiny_network(small_dataset: Dataset) -> bytes:
    """An ONNX network made without torch; right most of the time."""
    return least_squares_network(small_dataset, num_features=64)


@pytest.fixture(scope="session")
def tiny_package(tiny_network: bytes, small_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A complete model package around the tiny network."""
    return make_package(tiny_network, small_dataset, tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="session")
def sound_package(whole_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A package trained on all training images, with all validation images as its reference."""

    def make(folder: Path) -> None:
        make_package(least_squares_network(whole_dataset, num_features=400), whole_dataset, folder)

    return package.read(once(tmp_path_factory, "sound", make))


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first worker makes, and the others of this run use; none of them may change it.

    Args:
        factory: of this worker.
        name: of the folder.
        make: called with an empty folder.
    """
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of all workers
    folder = shared / f"{name}-of-all-workers"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            unfinished = folder.with_suffix(".unfinished")
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder


def make_package(network: bytes, data: Dataset, folder: Path) -> Package:
    """A complete model package around a network."""
    evaluation = evaluate_network(network, data)
    return package.write(evaluation.package, folder, evaluation.files)


def evaluate_network(network: bytes, data: Dataset) -> Any:
    """What an evaluation finds out about a network."""
    from fashion.data.checks import check_dataset
    from fashion.evaluation import scoring

    settings = load_train_config(compose()).data
    exported = {"onnx": network, "weights": b"", "rows": 0, "max_difference": 0.0, "label_agreement": 1.0}
    return scoring.evaluate(
        exported,
        data,
        check_dataset(data, settings),
        data=settings,
        architecture={"name": "tiny"},
        training={},
        lineage={"git_commit": "unknown", "metaflow_run_id": "TrainFlow/1", "mlflow_run_id": "none"},
    )


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database at the current schema: making one takes seconds, copying it does not."""
    import mlflow

    def make(folder: Path) -> None:
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        mlflow.MlflowClient().search_experiments(max_results=1)
        mlflow.set_tracking_uri(None)

    return once(tmp_path_factory, "mlflow", make) / "mlflow.db"


@pytest.fixture
def mlflow_home(tmp_path: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A new home with an empty tracking store, connected."""
    from fashion.registry import tracking

    root = tmp_path / "var"
    root.mkdir()
    shutil.copy(migrated_database, root / "mlflow.db")
    monkeypatch.setenv("FASHION_HOME", str(root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    home = current_home()
    tracking.connect(home)
    return home


@pytest.fixture(scope="session")
def machine(small_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine on which the training flow, tuning included, has run once."""
    machine = Machine(tmp_path_factory.mktemp("machine") / "var")
    overrides = [*FLOW_OVERRIDES, "tuning.num_trials=3", "tuning.num_workers=2", "tuning.num_epochs=1"]
    machine.output = machine.flow("run", *overrides)
    return machine


@pytest.fixture(scope="session")
def first(machine: Machine) -> Any:
    """The first Metaflow run of `machine`."""
    return machine.runs()[0]


@pytest.fixture(scope="session")
def challenged(machine: Machine) -> Machine:
    """The same machine after a second run, with a challenger that learned next to nothing."""
    from fashion.registry import versions

    overrides = [*FLOW_OVERRIDES, "training.num_epochs=1", "tuning=off", "optimizer.learning_rate=0.0001"]
    machine.challenger_output = machine.flow("run", *overrides)
    machine.connect()
    machine.challenger = versions.get("challenger")
    return machine


@pytest.fixture(scope="session")
def bento(challenged: Machine) -> str:
    """Tag of a bento of the champion, with the challenger as its shadow."""
    challenged.deployment_output = challenged.flow("run", "serve.shadow=2", "serve.log.images=true", name="deploy_flow")
    tag: str = challenged.runs("DeployFlow")[-1].data.bento
    return tag


@pytest.fixture(scope="session")
def service(challenged: Machine, bento: str) -> Iterator[Served]:
    """That bento, served."""
    served = Served(bento, challenged.serving(), challenged.root / "service.log")
    yield served
    assert served.stop() == 0, served.output.read_text()[-2000:]


@pytest.fixture(scope="session")
def pngs(small_dataset: Dataset) -> list[bytes]:
    """The first 200 test images as PNG files."""
    return [image_store.to_png(image) for image in small_dataset.test.images[:200]]


@pytest.fixture(scope="session")
def emulator() -> Iterator[str]:
    """Address of a Firestore emulator."""
    with firestore.serve() as address:
        yield address


@pytest.fixture(scope="session")
def clouds() -> Iterator[Clouds]:
    """Emulators of buckets, each started when a test first asks for a bucket."""
    with contextlib.ExitStack() as stack:
        yield Clouds(stack)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Address of a PostgreSQL server, to which `/database` is appended."""
    with postgres.serve() as address:
        yield address
