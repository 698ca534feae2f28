"""What MLflow records of a training: its data, its evaluation and its package. Knows no torch and no flow."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fashion.data import manifest
from fashion.data.dataset import Dataset
from fashion.data.manifest import Manifest
from fashion.evaluation.scoring import Evaluation
from fashion.model import package
from fashion.predictions.labelled import LabelledFeedback
from fashion.registry import model_card, tracking, versions

CONTEXTS = ("training", "validation", "test")
"""What MLflow calls the splits."""
MANIFEST = "data/manifest.json"
"""Artifact of a run: the files of its data version. Runs of older versions lack it."""
CURVES = {"train/loss": "training", "val/loss": "validation", "val/accuracy": "validation"}
"""Curves of a training -> the split that they are measured on."""
EXAMPLES = 2
"""Test pictures that are stored as the model's input example."""


def start(
    experiment_id: str,
    name: str,
    *,
    tags: Mapping[str, str],
    params: Mapping[str, Any],
    version: Manifest,
    dataset: Dataset,
    feedback: LabelledFeedback | None,
    resumes: Sequence[str] = (),
) -> str:
    """Open a run, and log what is known before training.

    A run that an earlier attempt opened is continued, unless it was planned otherwise: a plan for `fit_budget` is made
    of measured seconds.

    Args:
        experiment_id: of the experiment that the run is in.
        name: of the run.
        tags: lineage, such as `metaflow_run_id` and `git_commit`.
        params: the composed configuration of TrainFlow.
        version: of the data, stored as `MANIFEST`: what the data config names may change.
        dataset: that version, to train on.
        feedback: labelled pictures to train on besides; None for none.
        resumes: tags `metaflow_run_id` of Metaflow runs that this one resumes, and that ended before they had logged
            all this.

    Returns:
        The run's id. The run stays open until `tracking.finish_run`.
    """
    run_id = tracking.start_run(experiment_id, name, tags, resumes=resumes)
    logged, _ = tracking.run_records(run_id)
    if any(logged.get(key, str(value)) != str(value) for key, value in tracking.flatten(params).items()):
        tracking.discard_run(run_id)
        run_id = tracking.start_run(experiment_id, name, tags)
    tracking.log_params(run_id, params)
    for context in CONTEXTS:
        split = {"training": dataset.train, "validation": dataset.val, "test": dataset.test}[context]
        name, digest = _data_set(dataset, context)
        tracking.log_dataset(
            run_id,
            name=name,
            digest=digest,
            source=params["data"]["manifest"],
            images=split.images,
            labels=split.labels,
            context=context,
        )
    tracking.log_files(run_id, {MANIFEST: manifest.serialize(version).encode()})
    tracking.log_tags(run_id, {"data.name": dataset.name, "data.digest": dataset.digest})
    if feedback is not None:
        tracking.log_files(run_id, {"data/feedback.csv": feedback.as_csv()})
        tracking.log_tags(run_id, {"feedback": feedback.summary})
    return run_id


def log_evaluation(run_id: str, evaluation: Evaluation, dataset: Dataset) -> str:
    """Log metrics, figures, tables, the model package with its metrics, and the model card as the run's description.

    Args:
        run_id: of the MLflow run.
        evaluation: of the trained network.
        dataset: that it was evaluated on.

    Returns:
        MLflow's address of the package.
    """
    tracking.log_files(run_id, {f"evaluation/{name}.png": png for name, png in evaluation.figures.items()})
    tracking.log_table(run_id, "evaluation/per_class.json", evaluation.scores)
    tracking.log_table(run_id, "evaluation/metrics.json", evaluation.measurements)
    card = model_card.describe(evaluation.package, evaluation.scores, len(dataset.test))
    tracking.log_tags(run_id, {model_card.NOTE: card})
    with tempfile.TemporaryDirectory() as folder:
        package.write(evaluation.package, Path(folder, "package"), evaluation.files)
        address = versions.log_package(run_id, Path(folder, "package"), example=dataset.test.images[:EXAMPLES])
    model_id = versions.model_id_of(address)
    _log_metrics(run_id, evaluation, dataset, model_id=model_id)
    _assign_epoch(run_id, evaluation, dataset, model_id=model_id)
    return address


def _log_metrics(run_id: str, evaluation: Evaluation, dataset: Dataset, *, model_id: str) -> None:
    """Log metrics as those of the run and of its model, each on the split that it was measured on."""
    metrics = {name: metric.value for name, metric in evaluation.package.metrics.items()}
    # `val/accuracy` is logged after each epoch: the same name would be one more point of that curve.
    metrics["val/accuracy_exported"] = metrics.pop("val/accuracy")
    for prefix, context in (("val/", "validation"), ("test/", "test")):
        measured = {name: value for name, value in metrics.items() if name.startswith(prefix)}
        tracking.log_metrics(run_id, measured, model_id=model_id, dataset=_data_set(dataset, context))
    others = {name: value for name, value in metrics.items() if not name.startswith(("val/", "test/"))}
    tracking.log_metrics(run_id, others, model_id=model_id)


def _assign_epoch(run_id: str, evaluation: Evaluation, dataset: Dataset, *, model_id: str) -> None:
    """Assign the curves' points of the epoch whose weights the model has to it, and to their splits."""
    epoch = evaluation.package.training.get("best_epoch")
    if epoch is None:
        return
    for name, context in CURVES.items():
        tracking.assign_point(run_id, name, step=epoch, model_id=model_id, dataset=_data_set(dataset, context))


def _data_set(dataset: Dataset, context: str) -> tuple[str, str]:
    """Name and digest of a split in MLflow, which stores 36 characters of a digest."""
    return f"{dataset.name} {context}", dataset.digest[:36]
