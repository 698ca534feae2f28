"""What MLflow records of a training: its data, its evaluation and its package. Knows no torch and no flow."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fashion.data.dataset import Dataset
from fashion.evaluation.scoring import Evaluation
from fashion.model import package
from fashion.predictions.labelled import LabelledFeedback
from fashion.registry import tracking, versions


def start(
    experiment_id: str,
    name: str,
    *,
    tags: Mapping[str, str],
    params: Mapping[str, Any],
    dataset: Dataset,
    feedback: LabelledFeedback | None,
) -> str:
    """Open a run, and log what is known before training.

    Args:
        experiment_id: of the experiment that the run is in.
        name: of the run.
        tags: lineage, such as `metaflow_run_id` and `git_commit`.
        params: the composed configuration of TrainFlow.
        dataset: the data version to train on.
        feedback: labelled pictures to train on besides; None for none.

    Returns:
        The run's id. The run stays open until `tracking.finish_run`.
    """
    run_id = tracking.start_run(experiment_id, name, tags)
    tracking.log_params(run_id, params)
    tracking.log_dataset(
        run_id,
        name=dataset.name,
        digest=dataset.digest,
        source=params["data"]["manifest"],
        images=dataset.train.images,
        labels=dataset.train.labels,
    )
    if feedback is not None:
        tracking.log_files(run_id, {"data/feedback.csv": feedback.as_csv()})
        tracking.log_tags(run_id, {"feedback": feedback.summary})
    return run_id


def log_evaluation(run_id: str, evaluation: Evaluation) -> str:
    """Log metrics, figures, tables and the model package.

    Returns:
        MLflow's address of the package.
    """
    metrics = {name: metric.value for name, metric in evaluation.package.metrics.items()}
    del metrics["val/accuracy"]  # logged after each epoch: this would be one more point of that curve
    tracking.log_metrics(run_id, metrics)
    tracking.log_files(run_id, {f"evaluation/{name}.png": png for name, png in evaluation.figures.items()})
    tracking.log_table(run_id, "evaluation/per_class.json", evaluation.scores)
    tracking.log_table(run_id, "evaluation/metrics.json", evaluation.measurements)
    with tempfile.TemporaryDirectory() as folder:
        package.write(evaluation.package, Path(folder, "package"), evaluation.files)
        return versions.log_package(run_id, Path(folder, "package"))
