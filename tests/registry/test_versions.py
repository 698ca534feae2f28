"""Versions from their first to a rollback, on a real registry; and the same by the command line."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fashion.commands.main import main
from fashion.config.names import MODEL_NAME
from fashion.data.dataset import Dataset
from fashion.home import REPOSITORY, Home
from fashion.model import package
from fashion.model.package import MANIFEST, MODEL, DamagedPackage, Package
from fashion.model.predictor import Predictor
from fashion.registry import champions, tracking, versions
from fashion.registry.versions import CHALLENGER, CHAMPION, RegistryError, Version

Register = Callable[[], Version]


@pytest.fixture
def log(mlflow_home: Home, tiny_package: Package, tmp_path: Path) -> Callable[[], tuple[str, str]]:
    """Log the package in a new run; returns the run's id and the model's address."""
    experiment = tracking.get_or_create_experiment(mlflow_home, "fashion")
    assert tiny_package.folder is not None
    folder = shutil.copytree(tiny_package.folder, tmp_path / "package")

    def log() -> tuple[str, str]:
        run = tracking.start_run(experiment, "tiny", {})
        return run, versions.log_package(run, Path(folder))

    return log


@pytest.fixture
def register(log: Callable[[], tuple[str, str]]) -> Register:
    """Register a new version."""

    def register() -> Version:
        run, address = log()
        lineage = {"summary": "test accuracy 71.50%", "git_commit": "0123456789abcdef", "mlflow_run_id": run}
        return versions.register(address, run_id=run, tags=lineage)

    return register


def champion_number() -> int | None:
    found = versions.champion()
    return None if found is None else found.number


# Registering


def test_nothing_is_registered_at_first(mlflow_home: Home) -> None:
    assert versions.list_versions() == []
    assert versions.champion() is None
    with pytest.raises(RegistryError, match=f"^no version of {MODEL_NAME} is registered yet: run `make train` first$"):
        versions.get("1")


def test_a_new_version_is_the_challenger_with_its_lineage(register: Register) -> None:
    version = register()
    assert version.number == 1
    assert version.aliases == (CHALLENGER,)
    assert version.tags["git_commit"] == "0123456789abcdef"
    assert version.tags["mlflow_run_id"] == version.mlflow_run_id
    assert versions.get("1") == versions.get(CHALLENGER) == version
    assert versions.list_versions() == [version]
    assert champion_number() is None


def test_the_challenger_is_the_newest_version(register: Register) -> None:
    register()
    second = register()
    assert second.number == 2
    assert second.aliases == (CHALLENGER,)
    assert [(version.number, version.aliases) for version in versions.list_versions()] == [(2, (CHALLENGER,)), (1, ())]


def test_a_run_has_one_version_however_often_it_is_registered(log: Callable[[], tuple[str, str]]) -> None:
    run, address = log()
    first = versions.register(address, run_id=run, tags={"summary": "a"})
    _, another = log()
    assert versions.register(another, run_id=run, tags={"summary": "b"}) == first
    assert len(versions.list_versions()) == 1


def test_models_of_other_names_are_kept_apart(log: Callable[[], tuple[str, str]], register: Register) -> None:
    register()
    run, address = log()
    other = versions.register(address, run_id=run, tags={}, name="plants")
    assert (other.number, other.aliases) == (1, (CHALLENGER,))
    champions.promote(other, reason="first", name="plants")
    assert champion_number() is None
    found = versions.champion("plants")
    assert found is not None
    assert found.mlflow_run_id == run


def test_without_a_champion_the_error_says_how_to_get_one(register: Register) -> None:
    register()
    with pytest.raises(RegistryError, match="has no champion: `make train` promotes one that passes the gate"):
        versions.get("champion")


def test_an_unknown_version_lists_the_versions_and_aliases(register: Register) -> None:
    register()
    champions.promote(register(), reason="better")
    with pytest.raises(
        RegistryError,
        match="^fashion-classifier has no version or alias '7'; it has versions 2, 1 and aliases champion$",
    ):
        versions.get("7")


# Promotion and rollback


def test_promotion_makes_the_challenger_the_champion(register: Register) -> None:
    version = champions.promote(register(), reason="there is no champion yet")
    assert version.aliases == (CHAMPION,)
    assert version.tags["promoted.reason"] == "there is no champion yet"
    assert "promoted.replaced" not in version.tags
    assert champion_number() == 1


def test_promotion_remembers_what_it_replaced(register: Register) -> None:
    champions.promote(register(), reason="first")
    second = champions.promote(register(), reason="better")
    assert second.tags["promoted.replaced"] == "1"
    assert versions.get("1").aliases == ()
    assert versions.get(CHAMPION) == second


def test_an_older_version_may_be_promoted_and_the_challenger_stays(register: Register) -> None:
    old = register()
    new = register()
    champions.promote(old, reason="shorter answers")
    assert champion_number() == old.number
    assert versions.get(CHALLENGER).number == new.number


def test_promotion_needs_a_reason_and_a_change(register: Register) -> None:
    version = register()
    with pytest.raises(RegistryError, match="promotion needs a reason"):
        champions.promote(version, reason=" ")
    promoted = champions.promote(version, reason="first")
    with pytest.raises(RegistryError, match="^version 1 is already the champion$"):
        champions.promote(promoted, reason="again")


def test_a_rejected_challenger_stays_with_the_reason(register: Register) -> None:
    champions.promote(register(), reason="first")
    version = champions.reject(register(), reason="shirts are lost")
    assert version.aliases == (CHALLENGER,)
    assert version.tags["refused.reason"] == "shirts are lost"
    assert champion_number() == 1
    by_hand = champions.promote(version, reason="shirts do not matter")
    assert (by_hand.number, champion_number()) == (2, 2)


@pytest.mark.slow
def test_rollback_goes_back_step_by_step_to_the_first(register: Register) -> None:
    for reason in ("first", "second", "third"):
        champions.promote(register(), reason=reason)
    assert champion_number() == 3
    assert champions.rollback(reason="slow").number == champion_number() == 2
    assert champions.rollback(reason="wrong").number == champion_number() == 1
    assert versions.get("3").tags["rolled_back.reason"] == "slow"
    assert versions.get("2").tags["rolled_back.reason"] == "wrong"
    with pytest.raises(
        RegistryError, match="^version 1 has no predecessor to roll back to: promote another version instead$"
    ):
        champions.rollback(reason="more")
    assert champion_number() == 1


@pytest.mark.slow
def test_after_a_rollback_the_next_promotion_can_be_rolled_back_too(register: Register) -> None:
    champions.promote(register(), reason="first")
    champions.promote(register(), reason="second")
    champions.rollback(reason="wrong")
    assert champions.promote(register(), reason="third").tags["promoted.replaced"] == "1"
    assert champions.rollback(reason="wrong too").number == 1


def test_rollback_needs_a_champion_and_a_reason(register: Register) -> None:
    register()
    with pytest.raises(RegistryError, match="^fashion-classifier has no champion to roll back"):
        champions.rollback(reason="wrong")
    with pytest.raises(RegistryError, match="rollback needs a reason"):
        champions.rollback(reason="")


def test_rollback_to_a_version_that_was_deleted_leaves_the_champion(register: Register) -> None:
    champions.promote(register(), reason="first")
    champions.promote(register(), reason="second")
    MlflowClient().delete_model_version(MODEL_NAME, "1")
    with pytest.raises(RegistryError, match=r"no predecessor to roll back to that still exists \(1 deleted\): promote"):
        champions.rollback(reason="wrong")
    assert champion_number() == 2


# The package of a version


def test_a_fetched_package_is_the_one_that_was_logged(
    register: Register, tiny_package: Package, small_dataset: Dataset, tmp_path: Path
) -> None:
    fetched = versions.fetch(register(), tmp_path / "new" / "fetched")
    assert fetched.folder is not None
    assert fetched.folder.is_relative_to(tmp_path / "new")
    assert fetched.metrics == tiny_package.metrics
    images = small_dataset.test.images[:50]
    found, expected = Predictor(fetched).predict(images), Predictor(tiny_package).predict(images)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)


@pytest.mark.fault("package damaged in the artifact store")
@pytest.mark.parametrize("mlflow_home", ["sqlite"], indirect=True)  # looks into the store's files
@pytest.mark.parametrize(
    ("name", "message"),
    [(MODEL, f"{MODEL} differs from what was packed"), (MANIFEST, "cannot be read"), (None, f"{MODEL} is missing")],
)
@pytest.mark.slow
def test_a_package_damaged_in_the_store_is_not_used(
    name: str | None, message: str, register: Register, mlflow_home: Home, tmp_path: Path
) -> None:
    version = register()
    (stored,) = (path.parent for path in mlflow_home.root.rglob(MODEL))
    if name is None:
        (stored / MODEL).unlink()
    else:
        content = bytearray((stored / name).read_bytes())
        content[len(content) // 2] ^= 0x80
        (stored / name).write_bytes(content)
    with pytest.raises(DamagedPackage, match=message):
        versions.fetch(version, tmp_path / "fetched")


@pytest.mark.fault("package gone from the artifact store")
@pytest.mark.parametrize("mlflow_home", ["sqlite"], indirect=True)  # looks into the store's files
def test_a_package_gone_from_the_store_is_damaged_too(register: Register, mlflow_home: Home, tmp_path: Path) -> None:
    version = register()
    shutil.rmtree(mlflow_home.root / "mlflow-artifacts")
    with pytest.raises(DamagedPackage, match=r"^version 1, stored at models:/\S+: .* has no package\.json$"):
        versions.fetch(version, tmp_path / "fetched")


@pytest.mark.fault("package damaged before it is logged")
def test_a_damaged_package_is_not_logged(log: Callable[[], tuple[str, str]], mlflow_home: Home, tmp_path: Path) -> None:
    (tmp_path / "package" / MODEL).write_bytes(b"")
    with pytest.raises(DamagedPackage, match=f"{MODEL} differs"):
        log()


# MLflow's own way to load it

LOAD = """
import json, sys
sys.path = [entry for entry in sys.path if entry != {repository!r}]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
try:
    import fashion
except ImportError:
    pass
else:
    sys.exit(f"fashion is importable without the model: {{fashion.__file__}}")
import mlflow, numpy
model = mlflow.pyfunc.load_model("models:/fashion-classifier@champion")
found = model.predict(numpy.load({images!r}))
numpy.save({probabilities!r}, found)
import fashion.model.predictor
print(json.dumps({{"file": fashion.model.predictor.__file__, "torch": "torch" in sys.modules}}))
"""


@pytest.mark.slow
def test_pyfunc_loads_the_champion_with_its_own_code_and_without_pickle(
    register: Register, mlflow_home: Home, tiny_package: Package, small_dataset: Dataset, tmp_path: Path
) -> None:
    champions.promote(register(), reason="first")
    images = small_dataset.test.images[:50]
    np.save(tmp_path / "images.npy", images)
    script = LOAD.format(
        repository=str(REPOSITORY),
        images=str(tmp_path / "images.npy"),
        probabilities=str(tmp_path / "probabilities.npy"),
    )
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "FASHION_HOME")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=tmp_path,
        env={
            **kept,
            "MLFLOW_TRACKING_URI": mlflow_home.tracking_uri,
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert Path(said["file"]).parts[-4:] == ("code", "fashion", "model", "predictor.py")  # of the model's own copy
    assert not said["torch"]
    expected = Predictor(tiny_package).predict(images).probabilities
    np.testing.assert_array_equal(np.load(tmp_path / "probabilities.npy"), expected)


@pytest.mark.parametrize("mlflow_home", ["sqlite"], indirect=True)  # looks into the store's files
def test_the_logged_model_has_a_signature_and_no_pickle(register: Register, mlflow_home: Home) -> None:
    version = register()
    info = mlflow.models.get_model_info(version.source)
    assert info.signature is not None
    (images,), (probabilities,) = info.signature.inputs.inputs, info.signature.outputs.inputs
    assert (images.type, images.shape) == (np.dtype("uint8"), (-1, 28, 28))
    assert (probabilities.type, probabilities.shape) == (np.dtype("float32"), (-1, 10))
    assert info.metadata["class_names"][-1] == "Ankle boot"
    suffixes = {path.suffix for path in mlflow_home.root.rglob("*") if path.is_file()}
    assert not suffixes & {".pkl", ".pickle", ".joblib", ".pt", ".pth"}
    assert package.MODEL in {path.name for path in mlflow_home.root.rglob("*")}


def test_pyfunc_rejects_pictures_of_another_type(register: Register) -> None:
    model = mlflow.pyfunc.load_model(register().source)
    with pytest.raises(MlflowException, match="uint8"):
        model.predict(np.zeros((1, 28, 28), np.float32))


# The command


def command(home: Home, *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of the command in a new process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "FASHION"))}
    of_home = {"FASHION_HOME": str(home.root), "MLFLOW_TRACKING_URI": home.tracking_uri}
    done = subprocess.run(
        [sys.executable, "-m", "fashion", "registry", *words],
        cwd="/",
        env={**kept, **of_home, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_the_command_lists_promotes_and_rolls_back(register: Register, mlflow_home: Home) -> None:
    champions.promote(register(), reason="there is no champion yet")
    champions.reject(register(), reason="shirts are lost")
    assert command(mlflow_home, "promote", "2", "--reason", "won the shadow test") == (0, "champion: version 2\n", "")
    assert champion_number() == 2
    code, listed, errors = command(mlflow_home, "list")
    assert (code, errors) == (0, "")
    assert [line for line in listed.splitlines() if line.startswith("version")] == [
        f"version {version.number}  {', '.join(version.aliases) or '-'}  {version.created:%Y-%m-%d %H:%M} UTC"
        for version in versions.list_versions()
    ]
    for expected in (
        "test accuracy 71.50%",
        "git_commit 0123456789ab, mlflow_run_id",
        "promoted.reason: won the shadow test",
        "promoted.replaced: 1",
        "refused.reason: shirts are lost",
        "promoted.reason: there is no champion yet",
    ):
        assert expected in listed
    assert command(mlflow_home, "rollback", "--reason", "users report shirts") == (0, "champion: version 1\n", "")
    assert versions.get("2").tags["rolled_back.reason"] == "users report shirts"


@pytest.mark.slow
def test_the_command_fails_with_one_sentence(mlflow_home: Home) -> None:
    code, said, errors = command(mlflow_home, "rollback")
    assert (code, said) == (1, "")
    assert errors == "error: fashion-classifier has no champion to roll back: run `make train` first\n"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ["promote", "9", "--reason", "x"],
            "fashion-classifier has no version or alias '9'; it has versions 1 and aliases champion",
        ),
        (["promote", "champion", "--reason", "x"], "version 1 is already the champion"),
        (["promote", "1", "--reason", ""], "promotion needs a reason, which is stored with the version: give --reason"),
        (["rollback"], "version 1 has no predecessor to roll back to: promote another version instead"),
    ],
)
def test_every_error_of_the_command_is_one_sentence(
    words: list[str], error: str, register: Register, capsys: pytest.CaptureFixture[str]
) -> None:
    champions.promote(register(), reason="first")
    capsys.readouterr()
    assert main(["registry", *words]) == 1
    assert capsys.readouterr().err == f"error: {error}\n"
    assert champion_number() == 1


def test_the_list_of_a_new_machine_says_what_to_do(mlflow_home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["registry", "list"]) == 0
    assert capsys.readouterr().out == "no version is registered yet: run `make train`\n"


def test_a_store_that_cannot_be_opened_is_one_sentence_too(
    mlflow_home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "carrier-pigeon://somewhere")
    assert main(["registry", "list"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "carrier-pigeon" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("words", [[], ["promote", "1"], ["demote", "1"]])
def test_a_mistyped_command_shows_how_it_is_used(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["registry", *words]) == 2
    assert "Usage: fashion registry" in capsys.readouterr().err
