"""A trained model on its way to champion, beside others, and where champions are missing: on a real registry."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from mlflow import MlflowClient

from fashion.commands.main import main
from fashion.config.compose import compose
from fashion.config.names import MODEL_NAME
from fashion.config.train import GateConfig, load_train_config
from fashion.data.dataset import Dataset
from fashion.evaluation import gate, registration
from fashion.evaluation.gate import Verdict
from fashion.home import Home
from fashion.model import package
from fashion.model.package import MODEL, REFERENCE, WEIGHTS, DamagedPackage, Package
from fashion.registry import champions, history, learnt, tracking, versions
from fashion.registry.versions import DIGEST, Version

Train = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def settings() -> GateConfig:
    """What else runs on the machine is no part of these tests."""
    return dataclasses.replace(load_train_config(compose()).gate, max_latency_ratio=1000.0)


@pytest.fixture(scope="module")
def packages(
    tiny_package: Package, tiny_network: bytes, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Package]:
    """Packages of three qualities: `good`, `worse` (takes two classes for each other), `guessing` (learned nothing)."""
    import onnx
    from onnx import numpy_helper

    assert tiny_package.folder is not None
    made = {"good": tiny_package}
    for name in ("worse", "guessing"):
        model = onnx.load_from_string(tiny_network)
        (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == "weights"]
        weights = numpy_helper.to_array(tensor).copy()
        if name == "worse":
            weights[:, [0, 9]] = weights[:, [9, 0]]
        else:
            weights[:] = 0
        tensor.CopyFrom(numpy_helper.from_array(weights, "weights"))
        files = {each: (tiny_package.folder / each).read_bytes() for each in (WEIGHTS, REFERENCE)}
        files[MODEL] = model.SerializeToString()
        fields = dataclasses.replace(tiny_package, folder=None)
        made[name] = package.write(fields, tmp_path_factory.mktemp(name), files)
    return made


@pytest.fixture
def train(mlflow_home: Home, packages: Mapping[str, Package]) -> Train:
    """Log a package in a new run; returns the address and the run's id."""

    def train(quality: str = "good") -> tuple[str, str]:
        folder = packages[quality].folder
        assert folder is not None
        run = tracking.start_run(tracking.get_or_create_experiment(mlflow_home, "fashion"), quality, {})
        return versions.log_package(run, folder), run

    return train


@pytest.fixture
def register(small_dataset: Dataset, settings: GateConfig) -> Callable[..., tuple[Version, Verdict]]:
    """Register a logged package, as the flow does."""

    def register(trained: tuple[str, str], **changed: str) -> tuple[Version, Verdict]:
        address, run = trained
        return registration.register(
            address,
            run_id=run,
            name=MODEL_NAME,
            tags={"summary": "a test"},
            splits={"test": small_dataset.test},
            settings=dataclasses.replace(settings, **changed),  # type: ignore[arg-type]
        )

    return register


Registered = Callable[..., tuple[Version, Verdict]]


def champion() -> int | None:
    return history.read().champion


def register_while_judging(
    monkeypatch: pytest.MonkeyPatch, register: Registered, trained: tuple[str, str]
) -> list[Verdict]:
    """Let another training become champion over version 1 while the next one is judged; that verdict is appended."""
    judge = gate.judge
    judged: list[Verdict] = []

    def judge_slowly(*arguments: object) -> Verdict:
        verdict = judge(*arguments)  # type: ignore[arg-type]
        if not judged:
            judged.append(verdict)
            version, other = register(trained)
            assert (other.promoted, other.champion, champion()) == (True, 1, version.number)
        return verdict

    monkeypatch.setattr(gate, "judge", judge_slowly)
    return judged


@pytest.mark.fault("two trainings end at once")
def test_two_trainings_at_once_promote_the_better_one(
    train: Train, register: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(train("worse"))
    worse, good = train("worse"), train("good")
    judged = register_while_judging(monkeypatch, register, good)  # version 3, while 2 is judged against version 1
    version, verdict = register(worse)
    assert judged[0].promoted  # it would have become champion over version 1
    assert (version.number, verdict.promoted, verdict.champion, champion()) == (2, False, 3, 3)
    again = "judged against version 1; the champion was version 3 by then: judged again"
    assert verdict.reason.endswith(f" ({again})")
    tags = versions.get("2").tags
    assert (tags["refused.reason"], tags["compared.with"]) == (verdict.reason, "3")
    stored = json.loads(tracking.read_file(worse[1], registration.VERDICT) or b"")
    assert (stored["champion"], stored["notes"]) == (3, [again])


@pytest.mark.fault("two trainings end at once")
def test_the_better_one_of_two_trainings_is_promoted_though_the_other_was_first(
    train: Train, register: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(train("worse"))
    worse, good = train("worse"), train("good")
    register_while_judging(monkeypatch, register, worse)
    version, verdict = register(good)
    assert (version.number, verdict.promoted, verdict.champion, champion()) == (2, True, 3, 2)
    assert [(change.version, change.replaced) for change in history.read().changes] == [(1, None), (3, 1), (2, 3)]


@pytest.mark.fault("a first model that has learned nothing")
def test_a_model_that_guesses_does_not_become_the_first_champion(train: Train, register: Registered) -> None:
    version, verdict = register(train("guessing"))
    assert (verdict.promoted, champion()) == (False, None)
    assert "guessing is right in" in version.tags.get("refused.reason", versions.get("1").tags["refused.reason"])
    assert register(train("good"))[1].reason.startswith("there is no champion yet; test: 7")
    assert champion() == 2


@pytest.mark.fault("the champion was deleted in MLflow")
def test_where_the_champion_was_deleted_the_next_model_is_compared_with_the_one_before(
    train: Train, register: Registered
) -> None:
    register(train("good"))
    register(train("good"))
    MlflowClient().delete_model_version(MODEL_NAME, "2")
    _, verdict = register(train("worse"))
    assert (verdict.promoted, verdict.champion, champion()) == (False, 1, None)
    assert verdict.reason.endswith(" (there is no champion: compared with version 1, the last one that still exists)")
    MlflowClient().delete_model_version(MODEL_NAME, "1")
    _, verdict = register(train("guessing"))
    assert not verdict.promoted
    assert verdict.checks[0].sentence == "no former champion exists any more (version 1, 2)"
    assert register(train("good"))[1].promoted


@pytest.mark.parametrize("mlflow_home", ["sqlite"], indirect=True)  # looks into the store's files
@pytest.mark.fault("the champion's files are damaged")
def test_a_damaged_champion_is_told_with_the_ways_out_and_does_not_block_for_good(
    train: Train, register: Registered, mlflow_home: Home, tmp_path: Path
) -> None:
    for _ in range(2):
        register(train("good"))
    last = history.read().last()
    assert last is not None
    (damaged,) = Path(mlflow_home.root / "mlflow-artifacts").rglob(f"{last.source.removeprefix('models:/')}/**/{MODEL}")
    damaged.write_bytes(b"")
    with pytest.raises(DamagedPackage) as told:
        champions.fetch_to_compare(last, tmp_path / "fetched")
    assert str(told.value).endswith(
        f"{MODEL} differs from what was packed; no model can be compared with it: restore its files, go back to "
        "version 1 with `fashion registry rollback`, or train with gate.champion=ignore"
    )
    trained = train("good")
    with pytest.raises(DamagedPackage, match="^version 3 is registered and not judged: version 2, stored at"):
        register(trained)
    assert versions.get("challenger").number == 3
    champions.rollback(reason="its files are damaged")
    assert register(trained)[1].promoted  # as `resume` does
    assert champion() == 3


@pytest.mark.fault("the only champion's files are damaged")
def test_a_champion_can_be_left_out_of_the_comparison(train: Train, register: Registered) -> None:
    register(train("good"))
    version, verdict = register(train("worse"), champion="ignore")
    assert (verdict.promoted, champion()) == (True, version.number)
    assert verdict.reason.startswith("gate.champion=ignore: not compared with version 1; test:")
    assert not register(train("guessing"), champion="ignore")[1].promoted


def test_the_registry_holds_the_digest_of_what_was_trained(train: Train, packages: Mapping[str, Package]) -> None:
    address, run = train("good")
    version = versions.register(address, run_id=run, tags={})
    assert version.tags[DIGEST] == packages["good"].digest


def test_registered_again_the_verdict_is_the_first_one(train: Train, register: Registered) -> None:
    register(train("good"))
    trained = train("worse")
    _, verdict = register(trained)
    champions.promote(versions.get("2"), reason="by hand")
    assert register(trained) == (versions.get("2"), verdict)
    assert len(history.read().changes) == 2


def test_a_version_that_is_promoted_by_hand_before_it_is_judged_stays_champion(
    train: Train, register: Registered
) -> None:
    register(train("good"))
    address, run = trained = train("worse")
    champions.promote(versions.register(address, run_id=run, tags={}), reason="by hand")
    _, verdict = register(trained)
    assert (verdict.promoted, verdict.reason) == (True, "it was promoted by hand before this verdict")


def test_a_challenger_that_passes_waits_where_people_approve(train: Train, register: Registered) -> None:
    assert register(train("good"), approval=True)[1].promoted  # a first champion is nobody's successor
    trained = train("good")
    version, verdict = register(trained, approval=True)
    assert (verdict.promoted, verdict.awaits_approval, champion()) == (False, True, 1)
    said = registration.describe(version.number, verdict, name=MODEL_NAME)
    command = 'fashion registry promote 2 --expect 1 --reason "..."'
    assert said.startswith(f"version 2 passed and waits for approval, by `{command}`: all ")
    others = registration.describe(version.number, verdict, name="flowers-classifier")
    assert 'promote 2 --expect 1 --name flowers-classifier --reason "..."`' in others
    assert "refused.time" not in versions.get("2").tags
    assert register(trained, approval=True)[1] == verdict  # as a retried task does
    assert register(train("worse"), approval=True)[1].awaits_approval is False
    champions.promote(versions.get("2"), reason="looked at", expected=1)
    assert champion() == 2


@pytest.mark.fault("the champion changed while a version was judged that is to wait")
@pytest.mark.parametrize("by", ["approval", "canary"])
def test_a_version_that_waits_was_judged_against_the_champion_of_now(
    train: Train, register: Registered, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    register(train("worse"))
    worse, good = train("worse"), train("good")
    judged = register_while_judging(monkeypatch, register, good)
    version, verdict = register(worse, **{by: True})
    assert judged[0].promoted  # it would have waited for a decision between it and version 1
    assert (version.number, verdict.champion, verdict.awaits_approval, verdict.awaits_canary) == (2, 3, False, False)
    assert "judged against version 1; the champion was version 3 by then: judged again" in verdict.reason
    tags = versions.get("2").tags
    assert champions.WAITING not in tags
    assert tags["refused.reason"] == verdict.reason


@pytest.mark.fault("the champion changed while a version waited for approval")
@pytest.mark.parametrize("stored", ["now", "before this tag"])
def test_an_approval_of_a_verdict_against_a_former_champion_changes_nothing(
    train: Train, register: Registered, capsys: pytest.CaptureFixture[str], stored: str
) -> None:
    register(train("good"))
    register(train("good"), approval=True)
    if stored == "before this tag":  # then the gate's tag tells
        MlflowClient().delete_model_version_tag(MODEL_NAME, "2", champions.JUDGED_AGAINST)
    assert register(train("good"))[1].promoted
    promote = ["registry", "promote", "2", "--reason", "looked at"]
    capsys.readouterr()
    assert main(promote) == 1
    assert capsys.readouterr().err == (
        "error: version 2 passed the gate against version 1, and version 3 is champion by now: nothing was changed; "
        "--expect any promotes it all the same, `make train` compares a new version\n"
    )
    assert champion() == 3
    assert main([*promote, "--expect", "any"]) == 0
    assert champion() == 2
    champions.rollback(reason="not yet")
    champions.promote(versions.get("1"), reason="back to the first")
    assert main(promote) == 0  # it was decided on before: no verdict is approved by this


@pytest.mark.fault("what was rolled back is learnt again")
def test_what_a_rolled_back_version_alone_had_learnt_is_known(train: Train, register: Registered) -> None:
    table = "sha256,label,part\n{}"
    for number, pictures in (("1", ["a,1,train"]), ("2", ["a,1,train", "b,2,train", "c,3,held out"])):
        register(train("good"))
        run = versions.get(number).mlflow_run_id
        tracking.log_files(run, {learnt.FEEDBACK: table.format("\n".join(pictures)).encode()})
        tracking.log_tags(run, {"feedback": "some"})
    assert learnt.rolled_back(MODEL_NAME) == []
    champions.rollback(reason="users report shirts")
    (found,) = learnt.rolled_back(MODEL_NAME)
    assert (found.number, found.reason, found.pictures) == (2, "users report shirts", {"b"})
    champions.promote(versions.get("2"), reason="it was right after all")
    assert learnt.rolled_back(MODEL_NAME) == []
