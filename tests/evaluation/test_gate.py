"""The gate: what it lets through, what it refuses, and that it names the reason."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from fashion.config.compose import compose
from fashion.config.train import GateConfig, load_train_config
from fashion.data.dataset import Dataset
from fashion.evaluation import gate
from fashion.evaluation.gate import Rows, Verdict
from fashion.model import package
from fashion.model.package import MODEL, REFERENCE, WEIGHTS, Package

CLASSES = ("coat", "bag", "shirt", "boot")
LABELS = np.arange(4000) % 4


@pytest.fixture(scope="module")
def config() -> GateConfig:
    return load_train_config(compose()).gate


def scored(right: np.ndarray, confidence: float | None = None) -> np.ndarray:
    """(N, 4) probabilities of a classifier that is right on these rows, by default as confident as it is accurate."""
    confidence = right.mean() if confidence is None else confidence
    predicted = np.where(right, LABELS[: len(right)], (LABELS[: len(right)] + 1) % 4)
    probabilities = np.full((len(right), 4), (1 - confidence) / 3)
    probabilities[np.arange(len(right)), predicted] = confidence
    return probabilities


def all_but(wrong: int, rows: int = 4000, *, start: int = 0) -> np.ndarray:
    """Right on all rows but `wrong` of them, spread evenly over the classes, from row `start` on."""
    right = np.ones(rows, bool)
    right[(start + np.arange(wrong)) % rows] = False
    return right


CHAMPION = scored(all_but(400))


def decided(
    champion: np.ndarray, challenger: np.ndarray, config: GateConfig, *, before: float = 1.0, after: float = 1.0
) -> Verdict:
    return gate.decide(
        [Rows("test", LABELS[: len(champion)], champion, challenger)],
        class_names=CLASSES,
        gate=config,
        champion_latency_ms=before,
        challenger_latency_ms=after,
    )


def failed(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if not check.passed]


# Decisions


def test_an_equal_challenger_is_promoted(config: GateConfig) -> None:
    verdict = decided(CHAMPION, CHAMPION, config)
    assert verdict.promoted
    assert [check.name for check in verdict.checks] == [
        "test: not shown worse",
        "test: within the margin",
        "test: every class",
        "test: calibration",
        "latency",
    ]
    assert verdict.reason.startswith("all 5 checks passed; test: 90.00% right against 90.00%")
    assert "test: accuracy changes by +0.00 points" in verdict.reason


def test_an_equal_challenger_is_promoted_even_if_no_loss_is_allowed(config: GateConfig) -> None:
    strict = dataclasses.replace(config, margin=0.0, max_class_drop=0.0, max_ece_increase=0.0, max_latency_ratio=1.0)
    assert decided(CHAMPION, CHAMPION, strict).promoted


def test_a_better_challenger_is_promoted(config: GateConfig) -> None:
    verdict = decided(CHAMPION, scored(all_but(200)), config)
    assert verdict.promoted
    assert "accuracy changes by +5.00 points" in verdict.reason


def test_a_clearly_worse_challenger_is_refused_by_both_overall_checks(config: GateConfig) -> None:
    verdict = decided(CHAMPION, scored(all_but(520)), config)
    assert not verdict.promoted
    assert failed(verdict) == ["test: not shown worse", "test: within the margin"]
    assert "87.00% right against 90.00%; 0 rows only the challenger has right, 120 only the champion" in verdict.reason
    assert "accuracy changes by -3.00 points" in verdict.reason


def test_too_few_rows_to_rule_out_a_loss_prevent_promotion(config: GateConfig) -> None:
    # 50 rows won and 55 lost of 1,000: not shown worse, but a loss of two points is possible.
    verdict = decided(scored(all_but(50, 1000)), scored(all_but(55, 1000, start=50)), config)
    assert failed(verdict) == ["test: within the margin"]


@pytest.mark.parametrize(("wrong", "is_promoted"), [(9, True), (10, True), (11, False)])
def test_of_few_rows_as_many_have_to_be_right(wrong: int, is_promoted: bool, config: GateConfig) -> None:
    verdict = decided(scored(all_but(10, 200)), scored(all_but(wrong, 200, start=10)), config)
    assert verdict.promoted is is_promoted
    assert failed(verdict) == ([] if is_promoted else ["test: as good"])
    assert f"test: {200 - wrong} of 200 rows are right, the champion has 190 right" in verdict.reason


def test_of_few_rows_a_loss_within_the_margin_is_allowed(config: GateConfig) -> None:
    rows = scored(all_but(10, 200)), scored(all_but(12, 200, start=10))
    assert failed(decided(*rows, dataclasses.replace(config, margin=0.05))) == ["test: as good"]
    assert decided(*rows, dataclasses.replace(config, margin=0.15)).promoted


def test_of_few_rows_one_less_may_be_right_where_feedback_shows_that_it_is_better(config: GateConfig) -> None:
    verdict = gate.decide(
        [
            Rows("test", LABELS[:200], scored(all_but(10, 200)), scored(all_but(11, 200))),
            Rows("feedback", LABELS[:400], scored(all_but(200, 400)), scored(all_but(40, 400))),
        ],
        class_names=CLASSES,
        gate=config,
        champion_latency_ms=1,
        challenger_latency_ms=1,
    )
    assert verdict.promoted, verdict.reason
    assert "on feedback it is better beyond chance" in verdict.reason


def test_a_challenger_that_gives_up_one_class_is_refused_for_that_class(config: GateConfig) -> None:
    shirt = CLASSES.index("shirt") == LABELS
    better = all_but(0)
    better[np.flatnonzero(shirt)[:300]] = False  # 92.5 % right, of shirts 70 %
    verdict = decided(CHAMPION, scored(better), config)
    assert failed(verdict) == ["test: every class"]
    assert verdict.reason == "test: the class that loses most is shirt, recall -20.0 points; -5.0 allowed"


def test_a_class_that_has_no_rows_is_not_judged(config: GateConfig) -> None:
    labels = np.arange(3000) % 2
    right = np.eye(4)[labels]
    verdict = gate.decide(
        [Rows("test", labels, right, right)],
        class_names=CLASSES,
        gate=config,
        champion_latency_ms=1,
        challenger_latency_ms=1,
    )
    assert verdict.promoted


@pytest.mark.parametrize("confidence", [0.6, 1.0])
def test_a_miscalibrated_challenger_is_refused(confidence: float, config: GateConfig) -> None:
    verdict = decided(CHAMPION, scored(all_but(400), confidence), config)
    assert failed(verdict) == ["test: calibration"]
    assert "calibration error" in verdict.reason
    assert "against 0.00%; 2.00% more allowed" in verdict.reason


def test_a_slower_challenger_is_refused(config: GateConfig) -> None:
    assert decided(CHAMPION, CHAMPION, config, before=1.5, after=3.0).promoted
    verdict = decided(CHAMPION, CHAMPION, config, before=1.5, after=3.1)
    assert failed(verdict) == ["latency"]
    assert verdict.reason == "one prediction takes 3.10 ms, the champion's 1.50 ms: 2.07 times, 2 allowed"


def test_every_set_of_rows_must_pass(config: GateConfig) -> None:
    fine = Rows("test", LABELS, CHAMPION, CHAMPION)
    feedback = Rows("feedback", LABELS[:1000], scored(all_but(50, 1000)), scored(all_but(200, 1000)))
    verdict = gate.decide(
        [fine, feedback], class_names=CLASSES, gate=config, champion_latency_ms=1, challenger_latency_ms=1
    )
    assert not verdict.promoted
    assert len(verdict.checks) == 9
    assert {name.split(":")[0] for name in failed(verdict)} == {"feedback"}


def test_little_feedback_rejects_only_a_significant_loss(config: GateConfig) -> None:
    fine = Rows("test", LABELS, CHAMPION, CHAMPION)

    def with_feedback(wrong: int) -> Verdict:
        feedback = Rows("feedback", LABELS[:300], scored(all_but(10, 300)), scored(all_but(wrong, 300, start=100)))
        return gate.decide(
            [fine, feedback], class_names=CLASSES, gate=config, champion_latency_ms=1, challenger_latency_ms=1
        )

    assert with_feedback(11).promoted
    assert failed(with_feedback(40)) == ["feedback: not shown worse", "feedback: every class"]


def test_several_failures_are_all_named(config: GateConfig) -> None:
    verdict = decided(CHAMPION, scored(all_but(2000), 1.0), config, after=9.0)
    assert failed(verdict) == [check.name for check in verdict.checks]
    assert verdict.reason.count("; ") >= 4


def test_the_same_rows_give_the_same_verdict(config: GateConfig) -> None:
    challenger = scored(all_but(410, start=123))
    assert decided(CHAMPION, challenger, config) == decided(CHAMPION, challenger, config)


def test_a_verdict_can_be_stored_as_json(config: GateConfig) -> None:
    verdict = dataclasses.replace(decided(CHAMPION, scored(all_but(520)), config), champion=4, notes=("judged again",))
    stored = json.loads(json.dumps(dataclasses.asdict(verdict)))
    assert (stored["promoted"], stored["champion"], stored["notes"]) == (False, 4, ["judged again"])
    assert [check["sentence"] for check in stored["checks"]] == [check.sentence for check in verdict.checks]
    assert verdict.reason.endswith(" (judged again)")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "^a gate needs rows to score on, got none$"),
        ([Rows("test", LABELS, CHAMPION, CHAMPION[:10])], r"test: probabilities must be \(4000, 4\), got .* \(10, 4\)"),
        ([Rows("test", LABELS, CHAMPION[:, :3], CHAMPION)], r"test: probabilities must be .* got \(4000, 3\)"),
        ([Rows("test", LABELS[:0], CHAMPION[:0], CHAMPION[:0])], "empty"),
    ],
)
def test_invalid_rows_are_rejected(rows: list[Rows], message: str, config: GateConfig) -> None:
    with pytest.raises(ValueError, match=message):
        gate.decide(rows, class_names=CLASSES, gate=config, champion_latency_ms=1, challenger_latency_ms=1)


# Two real packages


def with_network(tiny: Package, folder: Path, network: bytes) -> Package:
    """The package around another network."""
    assert tiny.folder is not None
    files = {name: (tiny.folder / name).read_bytes() for name in (WEIGHTS, REFERENCE)}
    return package.write(dataclasses.replace(tiny, folder=None), folder, {**files, MODEL: network})


def swapped(network: bytes, first: int, second: int) -> bytes:
    """The network with two classes taken for each other."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(network)
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == "weights"]
    weights = numpy_helper.to_array(tensor).copy()
    weights[:, [first, second]] = weights[:, [second, first]]
    tensor.CopyFrom(numpy_helper.from_array(weights, "weights"))
    content: bytes = model.SerializeToString()
    return content


def test_a_package_is_promoted_over_itself(tiny_package: Package, small_dataset: Dataset, config: GateConfig) -> None:
    # What else runs on the machine is no part of this test.
    patient = dataclasses.replace(config, max_latency_ratio=100.0)
    verdict = gate.judge(tiny_package, tiny_package, {"test": small_dataset.test}, patient)
    assert verdict.promoted, verdict.reason
    assert verdict.checks[-1].value > 0


def test_a_package_that_confuses_two_classes_is_refused(
    tiny_package: Package, tiny_network: bytes, small_dataset: Dataset, config: GateConfig, tmp_path: Path
) -> None:
    boot, trouser = small_dataset.class_names.index("Ankle boot"), small_dataset.class_names.index("Trouser")
    worse = with_network(tiny_package, tmp_path, swapped(tiny_network, boot, trouser))
    verdict = gate.judge(tiny_package, worse, {"test": small_dataset.test}, config)
    assert not verdict.promoted
    assert {"test: not shown worse", "test: within the margin", "test: every class"} <= set(failed(verdict))
    assert "loses most is Ankle boot" in verdict.reason or "loses most is Trouser" in verdict.reason
    back = dataclasses.replace(config, max_latency_ratio=100.0)
    assert gate.judge(worse, tiny_package, {"test": small_dataset.test}, back).promoted


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [("class_names", ("cat", "dog"), r"class_names \(.*\) and \('cat', 'dog'\)"), ("size", 32, "size 28 and 32")],
)
def test_packages_of_another_kind_are_not_compared(
    field: str, value: object, named: str, tiny_package: Package, small_dataset: Dataset, config: GateConfig
) -> None:
    other = dataclasses.replace(tiny_package, **{field: value})  # type: ignore[arg-type]
    verdict = gate.judge(tiny_package, other, {"test": small_dataset.test}, config)
    assert not verdict.promoted
    assert failed(verdict) == ["comparable"]
    assert re.fullmatch(f"the two cannot be compared: {named}; promote by hand if that is meant", verdict.reason)


# Without a champion


def alone(package: Package, dataset: Dataset, config: GateConfig, **floor: float) -> Verdict:
    settings = dataclasses.replace(config, **floor)  # type: ignore[arg-type]
    return gate.judge_alone(package, {"test": dataset.test}, settings, why="there is no champion yet")


@pytest.fixture(scope="module")
def guessing(tiny_package: Package, tiny_network: bytes, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A package whose network always answers the same class, as one does whose training ran away."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(tiny_network)
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == "weights"]
    tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), "weights"))
    return with_network(tiny_package, tmp_path_factory.mktemp("guessing"), model.SerializeToString())


@pytest.mark.fault("a first model that has learned nothing")
def test_a_first_champion_must_be_better_than_guessing(
    guessing: Package, tiny_package: Package, small_dataset: Dataset, config: GateConfig
) -> None:
    verdict = alone(guessing, small_dataset, config)
    assert not verdict.promoted
    assert failed(verdict) == ["test: better than guessing"]
    assert re.search(
        r"^test: 1?\d\.\d\d% right, at least .*% with 95% confidence; guessing is right in", verdict.reason
    )
    assert not alone(guessing, small_dataset, config, min_accuracy_over_chance=0.0).promoted  # chance, with luck or not
    learned = alone(tiny_package, small_dataset, config)
    assert learned.promoted
    assert learned.reason.startswith("there is no champion yet; test: 7")


def test_guessing_the_most_frequent_class_is_what_must_be_beaten(
    guessing: Package, tiny_package: Package, small_dataset: Dataset, config: GateConfig
) -> None:
    test = small_dataset.test
    frequent = np.flatnonzero((test.labels == 0) | (np.arange(len(test)) % 20 == 0))  # two in three are of class 0
    rows = dataclasses.replace(test, images=test.images[frequent], labels=test.labels[frequent])
    skewed = dataclasses.replace(small_dataset, test=rows)
    chance = float((rows.labels == 0).mean())
    assert chance > 0.6
    verdict = alone(guessing, skewed, config)
    assert not verdict.promoted
    assert verdict.checks[1].bound == pytest.approx(chance + 0.1 * (1 - chance))
    assert verdict.checks[1].value < chance
    assert not alone(tiny_package, skewed, config, min_accuracy_over_chance=0.9).promoted


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_the_margin_over_chance_is_a_share(value: float, config: GateConfig) -> None:
    with pytest.raises(ValueError, match=f"min_accuracy_over_chance must be in \\[0, 1\\), got {value}"):
        dataclasses.replace(config, min_accuracy_over_chance=value)
