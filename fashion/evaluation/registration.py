"""Register a trained model, and let the gate decide whether it becomes the champion. Knows no torch and no flow."""

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fashion.config.names import MODEL_NAME
from fashion.config.train import GateConfig
from fashion.data.dataset import Dataset, Split
from fashion.evaluation import gate
from fashion.evaluation.gate import Check, Verdict
from fashion.model.package import DamagedPackage, Package
from fashion.predictions.labelled import LabelledFeedback
from fashion.registry import champions, history, tracking, versions
from fashion.registry.champions import A_CANARY, A_PERSON, WAITING, ChampionChanged, Expected
from fashion.registry.history import History
from fashion.registry.versions import Version

VERDICT = "verdict.json"
"""Artifact of the MLflow run."""


def register(
    model_uri: str,
    *,
    run_id: str,
    name: str,
    tags: Mapping[str, str],
    splits: Mapping[str, Split],
    settings: GateConfig,
) -> tuple[Version, Verdict]:
    """Register a model, compare it with the champion, and promote or reject it.

    A second call, as by a retried task, completes what the first one left, and repeats its verdict. If the champion
    changes meanwhile, the model is judged again, against the new one.

    Args:
        model_uri: MLflow's address of the model package.
        run_id: of the MLflow run that logged it; closed at the end.
        name: of the registered model.
        tags: lineage and summary of the version.
        splits: name -> rows that the gate compares on; neither model was trained on them.
        settings: of the gate.

    Raises:
        fashion.model.package.DamagedPackage: a package differs from what was stored; the version stays unjudged.
    """
    version = versions.register(model_uri, run_id=run_id, name=name, tags=tags)
    try:
        verdict = _earlier_verdict(version, run_id, champions.settle(name))
        if verdict is None:
            verdict = _decide(version, run_id, name, splits, settings)
    except DamagedPackage as error:
        raise DamagedPackage(
            f"version {version.number} is registered and not judged: {error}; `resume` judges it once the champion is "
            "another version, or whole again"
        ) from None
    tracking.log_tags(
        run_id, {"version": str(version.number), "promoted": str(verdict.promoted), "reason": verdict.reason}
    )
    versions.set_tags(version, gate.as_tags(verdict), name=name)
    tracking.finish_run(run_id)
    return version, verdict


def gate_splits(dataset: Dataset, feedback: LabelledFeedback | None, *, min_feedback_rows: int) -> dict[str, Split]:
    """The rows that the gate compares on, by name: the test split, and held-out feedback with trusted labels.

    Args:
        dataset: gives the test split.
        feedback: None where there is none.
        min_feedback_rows: with fewer rows, feedback is left out.
    """
    if feedback is None or len(feedback.held_out) < min_feedback_rows:
        return {"test": dataset.test}
    return {"test": dataset.test, "feedback": feedback.held_out}


def _earlier_verdict(version: Version, run_id: str, before: History) -> Verdict | None:
    """What an earlier call decided; None where it did not."""
    was_promoted = version.number in {change.version for change in before.changes}
    if not was_promoted and not {"refused.time", WAITING} & set(before.known[version.number].tags):
        return None
    content = tracking.read_file(run_id, VERDICT)
    return None if content is None else _parse(content)


def _decide(version: Version, run_id: str, name: str, splits: Mapping[str, Split], settings: GateConfig) -> Verdict:
    """Judge a version against the champion until the champion is still the same when the decision is written.

    Args:
        version: the challenger.
        run_id: its MLflow run.
        name: of the registered model.
        splits: name -> rows.
        settings: of the gate.
    """
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        challenger = versions.fetch(version, Path(folder, "challenger"))
        if versions.DIGEST not in version.tags:  # logged before digests were
            versions.set_tags(version, {versions.DIGEST: challenger.digest}, name=name)
        while True:
            before = history.read(name)
            verdict = _judge(version, challenger, before, splits, settings, name=name, folder=Path(folder))
            verdict = dataclasses.replace(verdict, notes=(*notes, *verdict.notes))
            if verdict.promoted and before.champion not in (None, version.number):
                verdict = _wait(verdict, settings)
            tracking.log_files(run_id, {VERDICT: json.dumps(dataclasses.asdict(verdict), indent=1).encode()})
            if before.champion == version.number:
                return verdict
            try:
                _write(version, challenger, verdict, judged_against=before.champion, name=name)
            except ChampionChanged as changed:
                notes.append(_describe(before.champion, changed.champion))
            else:
                return verdict


def _write(version: Version, challenger: Package, verdict: Verdict, *, judged_against: int | None, name: str) -> None:
    """Write a decision into the registry, if the champion is the one that it was made against.

    Args:
        version: the challenger.
        challenger: its package.
        verdict: the decision.
        judged_against: the champion when it was judged; None where there was none.
        name: of the registered model.

    Raises:
        ChampionChanged: another version is the champion by now; nothing was changed.
    """
    reason = verdict.reason
    expected: Expected = "none" if judged_against is None else judged_against
    if verdict.promoted:
        champions.promote(
            version,
            reason=reason,
            name=name,
            event="promoted by the gate",
            expected=expected,
            verified=challenger,
        )
    elif judged_against is not None and (verdict.awaits_approval or verdict.awaits_canary):
        waits_for = A_PERSON if verdict.awaits_approval else A_CANARY
        champions.let_wait(version, reason=reason, waits_for=waits_for, name=name, expected=judged_against)
    else:
        champions.reject(version, reason=reason, name=name, expected=expected)


def _wait(verdict: Verdict, settings: GateConfig) -> Verdict:
    """A verdict on a challenger that passed, where a person or live traffic is to decide: a person goes first."""
    if settings.approval:
        return dataclasses.replace(verdict, promoted=False, awaits_approval=True)
    return dataclasses.replace(verdict, promoted=False, awaits_canary=True) if settings.canary else verdict


def _judge(
    version: Version,
    challenger: Package,
    before: History,
    splits: Mapping[str, Split],
    settings: GateConfig,
    *,
    name: str,
    folder: Path,
) -> Verdict:
    """Compare a version with the champion, or where there is none, with the last one that still exists.

    Args:
        version: the challenger.
        challenger: its package.
        before: the champions until now.
        splits: name -> rows.
        settings: of the gate.
        name: of the registered model.
        folder: where packages are fetched to.
    """
    champion, last = before.champion, before.last()
    if champion == version.number:
        event = next(change.event for change in reversed(before.changes) if change.version == champion)
        return Verdict(True, (Check(gate.ALONE, True, 1.0, 1.0, f"it was {event} before this verdict"),))
    if settings.champion == "ignore" and last is not None:
        why = f"gate.champion=ignore: not compared with version {last.number}"
        return gate.judge_alone(challenger, splits, settings, why=why)
    if last is None:
        former = ", ".join(map(str, before.stack()))
        why = f"no former champion exists any more (version {former})" if former else "there is no champion yet"
        return gate.judge_alone(challenger, splits, settings, why=why)
    known = champions.fetch_to_compare(last, folder / f"champion-{last.number}", name=name)
    verdict = gate.judge(known, challenger, splits, settings)
    lost = f"there is no champion: compared with version {last.number}, the last one that still exists"
    return dataclasses.replace(verdict, champion=last.number, notes=() if champion is not None else (lost,))


def _describe(judged: int | None, champion: int | None) -> str:
    """Why a version is judged again."""
    against = "judged without a champion" if judged is None else f"judged against version {judged}"
    by_then = "there was no champion" if champion is None else f"the champion was version {champion}"
    return f"{against}; {by_then} by then: judged again"


def _parse(content: bytes) -> Verdict:
    fields = json.loads(content)
    checks = tuple(Check(**check) for check in fields["checks"])
    return Verdict(
        fields["promoted"],
        checks,
        fields.get("champion"),
        tuple(fields.get("notes", ())),
        fields.get("awaits_approval", False),
        fields.get("awaits_canary", False),
    )


def describe(version: int, verdict: Verdict, *, name: str) -> str:
    """The outcome of a registration, in one sentence.

    Args:
        version: its number.
        verdict: of the gate.
        name: of the registered model.
    """
    if verdict.awaits_approval:
        expected = "" if verdict.champion is None else f" --expect {verdict.champion}"
        of_model = "" if name == MODEL_NAME else f" --name {name}"
        command = f'fashion registry promote {version}{expected}{of_model} --reason "..."'
        return f"version {version} passed and waits for approval, by `{command}`: {verdict.reason}"
    if verdict.awaits_canary:
        command = f'make bento ARGS="serve.canary={version}"'
        return f"version {version} passed and waits for its comparison on live traffic (`{command}`): {verdict.reason}"
    return f"version {version} {'is the champion' if verdict.promoted else 'was refused'}: {verdict.reason}"
