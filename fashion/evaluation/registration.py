"""Register a trained model, and let the gate decide whether it becomes the champion. Knows no torch and no flow."""

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fashion.config.train import GateConfig
from fashion.data.dataset import Dataset, Split
from fashion.evaluation import gate
from fashion.evaluation.gate import Verdict
from fashion.predictions.labelled import LabelledFeedback
from fashion.registry import tracking, versions
from fashion.registry.versions import Version


def register(
    model_uri: str,
    *,
    run_id: str,
    name: str,
    tags: Mapping[str, str],
    splits: Mapping[str, Split],
    settings: GateConfig,
) -> tuple[Version, Verdict]:
    """Register a model, compare it with the champion, and promote or reject it. A second call changes nothing.

    Args:
        model_uri: MLflow's address of the model package.
        run_id: of the MLflow run that logged it; closed at the end.
        name: of the registered model.
        tags: lineage and summary of the version.
        splits: name -> rows that the gate compares on; neither model was trained on them.
        settings: of the gate.

    Raises:
        fashion.model.package.DamagedPackage: a package differs from what was stored.
    """
    version = versions.register(model_uri, run_id=run_id, name=name, tags=tags)
    champion = versions.champion(name)
    is_decided = champion is not None and champion.number == version.number  # by an earlier call
    if is_decided:
        champion = versions.previous_champion(version, name=name)
    verdict = gate.FIRST if champion is None else _compare(champion, version, splits, settings)
    content = json.dumps(dataclasses.asdict(verdict), indent=1).encode()
    tracking.log_files(run_id, {"verdict.json": content})
    tracking.log_tags(
        run_id, {"version": str(version.number), "promoted": str(verdict.promoted), "reason": verdict.reason}
    )
    versions.set_tags(version, gate.as_tags(verdict), name=name)
    if not is_decided:
        decide = versions.promote if verdict.promoted else versions.reject
        decide(version, reason=verdict.reason, name=name)
    tracking.finish_run(run_id)
    return version, verdict


def gate_splits(dataset: Dataset, feedback: LabelledFeedback | None, *, min_feedback_rows: int) -> dict[str, Split]:
    """The rows that the gate compares on, by name: the test split, and held-out feedback.

    Args:
        dataset: gives the test split.
        feedback: None where there is none.
        min_feedback_rows: with fewer rows, feedback is left out.
    """
    if feedback is None or len(feedback.held_out) < min_feedback_rows:
        return {"test": dataset.test}
    return {"test": dataset.test, "feedback": feedback.held_out}


def _compare(champion: Version, challenger: Version, splits: Mapping[str, Split], settings: GateConfig) -> Verdict:
    with tempfile.TemporaryDirectory() as folder:
        return gate.judge(
            versions.fetch(champion, Path(folder, "champion")),
            versions.fetch(challenger, Path(folder, "challenger")),
            splits,
            settings,
        )
