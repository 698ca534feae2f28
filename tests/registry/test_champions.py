"""Which version is champion: decisions at the same time, killed, on damaged files; and the history that they leave."""

import functools
import itertools
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from fashion.commands.main import main
from fashion.config.names import MODEL_NAME
from fashion.home import Home, user
from fashion.model import package
from fashion.model.package import MANIFEST, MODEL, DamagedPackage, Package
from fashion.registry import champions, history, tracking, versions
from fashion.registry.champions import ChampionChanged
from fashion.registry.versions import CHALLENGER, CHAMPION, DIGEST, RegistryError, Version

Register = Callable[[], Version]


LOCAL = pytest.mark.parametrize("mlflow_home", ["sqlite"], indirect=True)
"""For tests that damage the files at a version's source, a path."""


@pytest.fixture
def register(request: pytest.FixtureRequest, mlflow_home: Home, tiny_package: Package, tmp_path: Path) -> Register:
    """Register a copy of the package, without a run: its files are of this version alone, so they can be damaged."""
    assert tiny_package.folder is not None
    folder = tiny_package.folder
    client = MlflowClient()
    client.create_registered_model(MODEL_NAME)
    numbers = itertools.count(1)

    @functools.cache
    def logged() -> tuple[str, str]:
        run = tracking.start_run(tracking.get_or_create_experiment(mlflow_home, "fashion"), "tiny", {})
        return run, versions.log_package(run, folder)

    def register() -> Version:
        number = next(numbers)
        tags = {DIGEST: tiny_package.digest}
        if mlflow_home.tracking_uri.startswith(
            "http"
        ):  # a server takes no path as a source, and no model without a run
            run, address = logged()
            client.create_model_version(MODEL_NAME, address, run, tags, model_id=address.removeprefix("models:/"))
        else:
            source = shutil.copytree(folder, tmp_path / f"package-{number}")
            client.create_model_version(MODEL_NAME, str(source), tags=tags)
        client.set_registered_model_alias(MODEL_NAME, CHALLENGER, str(number))
        return versions.get(str(number))

    return register


@pytest.fixture
def three(register: Register) -> tuple[Version, ...]:
    """Three versions, each champion after the other."""
    return tuple(champions.promote(register(), reason=reason) for reason in ("first", "second", "third"))


def champion() -> int | None:
    found = versions.champion()
    return None if found is None else found.number


def events() -> list[tuple[int | None, str]]:
    return [(change.version, change.event) for change in history.read().changes]


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command that fails says: one sentence."""
    capsys.readouterr()
    assert main(["registry", *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error.removeprefix("error: ").rstrip("\n")


# History


def test_each_change_of_the_champion_is_kept_with_who_when_and_why(three: tuple[Version, ...]) -> None:
    champions.rollback(reason="users report shirts")
    assert events() == [
        (1, "promoted by hand"),
        (2, "promoted by hand"),
        (3, "promoted by hand"),
        (2, "rolled back"),
    ]
    last = history.read().changes[-1]
    assert (last.replaced, last.who, last.reason) == (3, user(), "users report shirts")
    assert last.time == versions.get("3").tags["rolled_back.time"]


@pytest.mark.fault("rollback after a promotion by hand")
def test_rollback_after_a_promotion_by_hand_ends_at_the_first_champion(register: Register) -> None:
    first = champions.promote(register(), reason="first")
    champions.promote(register(), reason="second")
    champions.promote(versions.get(str(first.number)), reason="by hand")
    assert champions.rollback(reason="wrong").number == champion() == 2
    assert champions.rollback(reason="wrong too").number == champion() == 1
    with pytest.raises(RegistryError, match="^version 1 has no predecessor to roll back to: promote another version"):
        champions.rollback(reason="more")
    assert champion() == 1


@pytest.mark.fault("a former champion was deleted")
def test_rollback_passes_over_a_version_that_was_deleted(three: tuple[Version, ...]) -> None:
    MlflowClient().delete_model_version(MODEL_NAME, "2")
    assert champions.rollback(reason="wrong").number == champion() == 1


@pytest.mark.fault("the champion was deleted in MLflow")
def test_rollback_finds_the_last_champion_where_the_present_one_was_deleted(three: tuple[Version, ...]) -> None:
    MlflowClient().delete_model_version(MODEL_NAME, "3")
    assert champion() is None
    found = history.read().last()
    assert found is not None
    assert found.number == 2
    assert champions.rollback(reason="the champion is gone").number == champion() == 2
    assert events()[-2:] == [(None, "changed in MLflow"), (2, "rolled back")]


def test_a_registry_of_older_versions_has_the_history_of_its_tags(three: tuple[Version, ...]) -> None:
    client = MlflowClient()
    for key in [key for key in client.get_registered_model(MODEL_NAME).tags if key.startswith(history.TAG)]:
        client.delete_registered_model_tag(MODEL_NAME, key)
    assert events() == [(1, "promoted"), (2, "promoted"), (3, "promoted")]
    assert champions.rollback(reason="wrong").number == 2
    assert champions.rollback(reason="wrong too").number == 1
    assert events() == [(1, "promoted"), (2, "promoted"), (3, "promoted"), (2, "rolled back"), (1, "rolled back")]
    with pytest.raises(RegistryError, match="no predecessor"):
        champions.rollback(reason="more")


def test_a_champion_that_was_set_in_mlflow_is_part_of_the_history(three: tuple[Version, ...]) -> None:
    MlflowClient().set_registered_model_alias(MODEL_NAME, CHAMPION, "1")
    assert events()[-1] == (1, "changed in MLflow")
    assert champions.rollback(reason="that was a mistake").number == champion() == 3


@pytest.mark.fault("a tag of the history was edited in MLflow")
@pytest.mark.parametrize("value", ["", "[{}]", "{", "[1]"])
def test_a_history_that_was_edited_is_told_in_a_sentence(
    value: str, register: Register, capsys: pytest.CaptureFixture[str]
) -> None:
    champions.promote(register(), reason="first")
    MlflowClient().set_registered_model_tag(MODEL_NAME, f"{history.TAG}0001", value)
    assert "correct or delete the tag that was edited" in error_of(capsys, "rollback")
    MlflowClient().delete_registered_model_tag(MODEL_NAME, f"{history.TAG}0001")
    assert events() == [(1, "promoted")]


def test_the_command_lists_the_history(three: tuple[Version, ...], capsys: pytest.CaptureFixture[str]) -> None:
    champions.rollback(reason="users report shirts")
    who = history.read().changes[0].who
    for words in (["history"], ["list"]):
        capsys.readouterr()
        assert main(["registry", *words]) == 0
        lines = capsys.readouterr().out.splitlines()[-4:]
        assert f"version 1: promoted by hand by {who}: first" in lines[0]
        assert f"version 2: rolled back from version 3 by {who}: users report shirts" in lines[3]
    assert main(["registry", "history", "--json"]) == 0
    assert [each["version"] for each in json.loads(capsys.readouterr().out)] == [1, 2, 3, 2]
    assert main(["registry", "list", "--json"]) == 0
    listed = {each["number"]: each["champion"] for each in json.loads(capsys.readouterr().out)}
    assert [each["event"] for each in listed[2]] == ["promoted by hand", "rolled back"]


# An expected champion


@pytest.mark.fault("the champion changed since a decision was made")
def test_a_promotion_against_another_champion_changes_nothing(
    three: tuple[Version, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ChampionChanged, match="^the champion is version 3 by now, not version 2: nothing was changed"):
        champions.promote(three[0], reason="better than 2", expected=2)
    with pytest.raises(ChampionChanged, match="^the champion is version 3 by now, not none"):
        champions.reject(three[0], reason="worse than nothing", expected="none")
    assert "the champion is version 3 by now" in error_of(capsys, "promote", "1", "--reason", "x", "--expect", "2")
    assert "`none` or `any`, got 'two'" in error_of(capsys, "promote", "1", "--reason", "x", "--expect", "two")
    assert champion() == 3
    assert len(events()) == 3
    assert main(["registry", "promote", "1", "--reason", "better than 3", "--expect", "3"]) == 0
    assert champion() == 1


@pytest.mark.fault("two promotions at once")
def test_of_two_promotions_at_once_against_one_champion_one_is_made(register: Register) -> None:
    champions.promote(register(), reason="first")
    challengers = [register() for _ in range(4)]
    outcomes: list[str] = []

    def promote(version: Version) -> None:
        try:
            champions.promote(version, reason="better than 1", expected=1)
            outcomes.append("promoted")
        except ChampionChanged:
            outcomes.append("changed")

    threads = [threading.Thread(target=promote, args=(each,)) for each in challengers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["changed"] * 3 + ["promoted"]
    assert events() == [(1, "promoted by hand"), (champion(), "promoted by hand")]


# Files


def damage(version: Version, how: str) -> None:
    folder = Path(version.source)
    if how == "gone":
        shutil.rmtree(folder)
    elif how == "missing":
        (folder / MODEL).unlink()
    elif how == "damaged":
        (folder / MODEL).write_bytes(b"\x80" + (folder / MODEL).read_bytes()[1:])
    elif how == "exchanged":  # with its checksum
        content = (folder / MODEL).read_bytes() + b"\0"
        (folder / MODEL).write_bytes(content)
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["files"][MODEL] = package._sha256(content)
        (folder / MANIFEST).write_text(json.dumps(manifest))


@LOCAL
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("gone", "its files cannot be fetched"),
        ("missing", f"{MODEL} is missing"),
        ("damaged", f"{MODEL} differs from what was packed"),
        ("exchanged", "was registered: it was exchanged"),
    ],
)
@pytest.mark.fault("the files of a registered version are damaged, missing or exchanged")
def test_a_version_whose_files_are_not_the_registered_ones_does_not_become_champion(
    how: str, reason: str, three: tuple[Version, ...], register: Register, capsys: pytest.CaptureFixture[str]
) -> None:
    new = register()
    damage(three[1], how)
    damage(new, how)
    for words in (["rollback"], ["promote", "4", "--reason", "x"]):
        error = error_of(capsys, *words)
        assert reason in error
        assert error.endswith("version 3 stays champion: restore the files, or promote another version with `fashion "
                              "registry promote`")  # fmt: skip
        assert champion() == 3
    assert len(events()) == 3
    assert champions.promote(three[0], reason="the only sound one").number == 1


@LOCAL
@pytest.mark.fault("model.onnx and its checksum are edited together")
def test_an_exchanged_package_is_refused_with_both_digests(
    register: Register, tiny_package: Package, tmp_path: Path
) -> None:
    version = register()
    damage(version, "exchanged")
    exchanged = package.read(Path(version.source)).digest
    with pytest.raises(DamagedPackage, match=f"has the digest {exchanged}, and {tiny_package.digest} was registered"):
        versions.fetch(version, tmp_path / "fetched")


def test_a_version_without_a_digest_still_works_and_says_so(
    register: Register, capsys: pytest.CaptureFixture[str]
) -> None:
    version = register()
    MlflowClient().delete_model_version_tag(MODEL_NAME, "1", DIGEST)
    assert champions.promote(versions.get(str(version.number)), reason="first").number == 1
    assert main(["registry", "show", "1"]) == 0
    shown = capsys.readouterr().out
    assert f"{DIGEST:26} none: it is older than digests, and only its own checksums are verified" in shown
