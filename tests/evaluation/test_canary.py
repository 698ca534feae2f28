"""A canary from its deployment to its promotion or its step back, on a real registry."""

import dataclasses
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support import canaries

from fashion.config.compose import compose
from fashion.config.names import MODEL_NAME
from fashion.config.train import load_train_config
from fashion.data.dataset import Dataset
from fashion.drift import canary as drift_canary
from fashion.evaluation import canary, canary_tags, registration
from fashion.evaluation.canary import CanaryComparison
from fashion.home import Home
from fashion.metrics.sequential import Rules
from fashion.model.package import DamagedPackage, Package
from fashion.predictions.canary import ArmCounts, Counts, Experiment, judge
from fashion.predictions.record import ModelId
from fashion.registry import champions, history, tracking, versions
from fashion.registry.versions import RegistryError, Version

RULES = Rules(margin=0.02, confidence=0.95)
BETTER, WORSE, EQUAL = (9000, 1000, 9500, 500), (9000, 1000, 850, 150), (90, 10, 90, 10)
"""Right and wrong labels of the champion, and of the canary."""


@pytest.fixture
def two(mlflow_home: Home, tiny_package: Package) -> tuple[Version, Version]:
    """The champion, and a challenger that passed the gate and waits for its canary."""
    assert tiny_package.folder is not None
    for number in (1, 2):
        run = tracking.start_run(tracking.get_or_create_experiment(mlflow_home, "fashion"), "run", {})
        versions.register(versions.log_package(run, tiny_package.folder), run_id=run, tags={})
        if number == 1:
            champions.promote(versions.get("1"), reason="the first one")
    return versions.get("champion"), canaries.pass_gate(versions.get("challenger"))


def begin(two: tuple[Version, Version], *, share: float = 0.1, now: float = 1000.0, rules: Rules = RULES) -> Experiment:
    champion, challenger = (ModelId.of(MODEL_NAME, each.number, each.tags["package.digest"]) for each in two)
    return canary.begin(two[1], champion, challenger, share=share, rules=rules, clock=lambda: now)


def compared(labels: tuple[int, int, int, int]) -> CanaryComparison:
    """What the labels show of the canary that runs."""
    found = canary.running()
    assert found is not None
    counts = Counts(ArmCounts(right=labels[0], wrong=labels[1]), ArmCounts(right=labels[2], wrong=labels[3]))
    return CanaryComparison(found[0], found[1], counts, judge(found[1], counts))


def test_a_deployment_under_the_same_rules_goes_on_and_under_others_begins_anew(two: tuple[Version, Version]) -> None:
    first = begin(two)
    assert first.since_us == 1_000_000_000
    again = versions.get("1"), versions.get("2")
    assert begin(again, now=2000.0) == first
    assert canary.running() == (versions.get("2"), first)
    assert begin(again, now=2000.0, share=0.2).since_us == 2_000_000_000
    assert begin((again[0], versions.get("2")), now=3000.0, rules=Rules(0.1, 0.95)).since_us == 3_000_000_000


def test_one_that_is_better_becomes_the_champion_and_the_comparison_ends(two: tuple[Version, Version]) -> None:
    begin(two)
    outcome = canary.settle(compared(BETTER), clock=lambda: 2000.0)
    assert (outcome.ending, outcome.has_ended) == ("promoted", True)
    assert outcome.sentence.startswith(
        "canary 2 is the champion, in place of version 1: 9,500 of 10,000 right (95.0%) "
    )
    last = history.read().changes[-1]
    assert (last.version, last.replaced, last.event) == (2, 1, "promoted by its canary")
    assert last.reason in outcome.sentence
    assert versions.get("2").tags[canary_tags.RESULT] == f"promoted: {last.reason}"
    assert canary.running() is None
    champions.rollback(reason="users complain")
    assert canary.running() is None


def test_one_that_is_worse_is_refused_and_is_no_canary_again(two: tuple[Version, Version]) -> None:
    begin(two)
    outcome = canary.settle(compared(WORSE), clock=lambda: 2000.0)
    assert (outcome.ending, history.read().champion) == ("stepped back", 1)
    assert outcome.command == 'make bento ARGS="serve.canary=null"'
    refused = versions.get("2")
    assert refused.tags["refused.reason"] in outcome.sentence
    assert canary.running() is None
    chosen, sentence = canary.choose("challenger", versions.get("1"))
    assert (chosen, sentence.startswith("version 2 was refused (850 of 1,000 right")) == (None, True)
    with pytest.raises(RegistryError, match="version 2 was refused .*, and a canary answers users: .*serve.shadow=2"):
        canary.choose(2, versions.get("1"))
    assert canary.choose(2, versions.get("1"), force_reason="a bug of the labels")[0] == refused


def test_labels_that_do_not_suffice_change_nothing(two: tuple[Version, Version]) -> None:
    begin(two)
    outcome = canary.settle(compared(EQUAL))
    assert (outcome.ending, outcome.has_ended, history.read().champion) == ("goes on", False, 1)
    assert "refused.time" not in versions.get("2").tags
    assert canary.running() is not None


UNTAG = "delete"
"""The value of a tag that is deleted instead of set."""
JUDGED = {champions.WAITING: UNTAG, champions.WAITS_FOR: UNTAG}
"""Of a version that does not wait: the gate decided on it at once, or not at all."""


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({champions.WAITS_FOR: champions.A_PERSON}, "waits for approval"),
        (JUDGED | {"check/test: not shown worse": UNTAG, "compared.with": UNTAG}, "was never judged by the gate"),
        (
            JUDGED | {"check/latency": "failed: 2, bound 1.25", "promoted.time": "2020-01-01T00:00:00+00:00"},
            "failed the gate's check of 'latency' (failed: 2, bound 1.25)",
        ),
        ({"refused.time": "2020-01-01T00:00:00+00:00", "refused.reason": "slow"}, "was refused (slow)"),
        ({"compared.with": "7"}, "passed the gate compared with 7, not with 1"),
        (JUDGED | {"compared.with": UNTAG}, "passed the gate compared with no version, not with 1"),
    ],
)
def test_one_that_the_gate_has_not_passed_waits_for_a_person(
    two: tuple[Version, Version], tags: dict[str, str], why: str
) -> None:
    versions.set_tags(two[1], {key: value for key, value in tags.items() if value != UNTAG})
    for key in (key for key, value in tags.items() if value == UNTAG):
        MlflowClient().delete_model_version_tag(MODEL_NAME, "2", key)
    chosen, sentence = canary.choose("2", two[0], force_reason="to see it")
    assert chosen is not None
    assert sentence.endswith(f", and only a person may promote it, for it {why}")
    begin((two[0], versions.get("2")), now=1.6e9)  # in September 2020
    better, worse = compared(BETTER), compared(WORSE)
    outcome = canary.settle(better)
    assert (outcome.ending, outcome.has_ended, history.read().champion) == ("waits", False, 1)
    assert outcome.sentence.startswith(f"only a person may promote canary 2, for it {why}: 9,500 of 10,000 right")
    assert outcome.command == 'fashion registry promote 2 --expect 1 --reason "..."'
    assert canary.settle(worse).ending == "stepped back"


def test_one_that_the_gate_lets_wait_for_its_canary_is_promoted_by_it(
    mlflow_home: Home, tiny_package: Package, small_dataset: Dataset
) -> None:
    assert tiny_package.folder is not None
    # The package is compared with itself: only its latency could differ.
    settings = dataclasses.replace(load_train_config(compose()).gate, canary=True, max_latency_ratio=1000.0)
    for _ in range(2):
        run = tracking.start_run(tracking.get_or_create_experiment(mlflow_home, "fashion"), "run", {})
        splits = {"test": small_dataset.test}
        model_uri = versions.log_package(run, tiny_package.folder)
        version, verdict = registration.register(
            model_uri, run_id=run, name=MODEL_NAME, tags={}, splits=splits, settings=settings
        )
    assert verdict.awaits_canary
    two = versions.get("1"), versions.get(str(version.number))
    assert canary.choose("challenger", two[0])[1] == "version 2 answers as canary of version 1"
    begin(two)
    assert canary.settle(compared(BETTER)).ending == "promoted"


def test_a_run_that_only_reports_changes_nothing(two: tuple[Version, Version]) -> None:
    begin(two)
    outcome = drift_canary.settle(compared(BETTER), model_name=MODEL_NAME, decide=False)
    assert (outcome.ending, outcome.command, history.read().champion) == ("waits", "fashion canary decide", 1)
    said = drift_canary.alert(outcome, model_name=MODEL_NAME)
    assert said.title == f"A canary waits for the decision of a person: {MODEL_NAME}"
    assert said.text.endswith("\nNext: fashion canary decide")


@pytest.mark.fault("a canary's files are damaged")
def test_a_damaged_canary_is_not_promoted_and_stops_nothing(two: tuple[Version, Version], mlflow_home: Home) -> None:
    begin(two)
    found = compared(BETTER)
    for model in Path(mlflow_home.root).rglob("model.onnx"):
        model.write_bytes(b"damaged")
    with pytest.raises(DamagedPackage):
        canary.settle(found)
    outcome = drift_canary.settle(found, model_name=MODEL_NAME)
    assert (outcome.ending, history.read().champion) == ("failed", 1)
    assert outcome.sentence.startswith("canary 2 is to promote, and cannot (version 2")


@pytest.mark.fault("the champion changes while a canary is compared")
def test_a_canary_of_a_former_champion_is_not_promoted(
    two: tuple[Version, Version], mlflow_home: Home, tiny_package: Package
) -> None:
    begin(two)
    found = compared(BETTER)
    assert tiny_package.folder is not None
    run = tracking.start_run(tracking.get_or_create_experiment(mlflow_home, "fashion"), "run", {})
    third = versions.register(versions.log_package(run, tiny_package.folder), run_id=run, tags={})
    champions.promote(third, reason="by hand")
    assert canary.running() is None
    outcome = drift_canary.settle(found, model_name=MODEL_NAME)
    assert (outcome.ending, history.read().champion) == ("failed", 3)
    assert "the champion is version 3 by now, not version 1" in outcome.sentence


def test_there_is_no_canary_without_a_challenger_and_none_of_a_version_that_is_not_the_champion(
    two: tuple[Version, Version],
) -> None:
    champion, challenger = two
    assert canary.choose("challenger", champion)[0] == challenger
    assert canary.choose(1, champion) == (None, "version 1 is the champion: it answers alone")
    with pytest.raises(RegistryError, match="a canary is compared with the champion, and version 2 is served"):
        canary.choose(1, challenger)
    with pytest.raises(RegistryError, match="no version or alias 'chalenger'"):
        canary.choose("chalenger", champion)
    champions.promote(challenger, reason="by hand")
    chosen, sentence = canary.choose("challenger", versions.get("champion"))
    assert (chosen, sentence) == (None, "no version is the challenger: version 2 answers alone")


def test_an_edited_tag_is_one_sentence(two: tuple[Version, Version]) -> None:
    versions.set_tags(two[1], {canary_tags.RULES: '{"champion": 1}'})
    with pytest.raises(RegistryError, match="the tag canary.rules of version 2 cannot be read"):
        canary.running()
