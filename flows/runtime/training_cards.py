"""The cards of TrainFlow, one function a card. Knows what is shown; `cards` knows how."""

from collections.abc import Mapping
from typing import Any

from fashion.data.checks import DataReport
from fashion.data.dataset import Dataset
from runtime import cards


def show_data(card: Any, dataset: Dataset, report: DataReport, *, feedback: str | None, samples: bytes) -> None:
    """The data version: warnings, samples of each class, rows and copies.

    Args:
        card: Metaflow's card.
        dataset: the data version.
        report: its counts and warnings.
        feedback: a sentence on labelled feedback; None where none is used.
        samples: a PNG.
    """
    cards.show(
        card,
        title=f"{dataset.name}, version {dataset.digest[:12]}",
        texts=[*report.warnings, *([] if feedback is None else [feedback])],
        pictures={"Samples of each class": samples},
    )
    cards.table(card, "Rows", [{"split": name, "rows": f"{count:,}"} for name, count in report.num_rows.items()])
    cards.table(card, "Exact copies", [{"where": name, "images": count} for name, count in report.duplicates.items()])


def show_study(card: Any, choice: Any, *, num_trials: int, files: Mapping[str, bytes]) -> None:
    """The study: its best trial, Optuna's plots, and the values that training takes.

    Args:
        card: Metaflow's card.
        choice: a `fashion.training.tuning.Choice`.
        num_trials: of the study.
        files: the plots by file name.
    """
    from fashion.training.study_figures import PLOTS

    cards.show(
        card,
        title=f"Best of {num_trials} trials: validation accuracy {choice.best_value:.2%}",
        texts=[choice.reason],
        pictures={caption: files[f"{name}.png"] for name, caption in PLOTS.items() if f"{name}.png" in files},
    )
    cards.table(
        card,
        "Values to train with",
        [{"parameter": name, "value": f"{value:.4g}"} for name, value in choice.params.items()],
    )


def show_evaluation(card: Any, evaluation: Any) -> None:
    """The evaluation: figures, scores of each class, and metrics with their intervals.

    Args:
        card: Metaflow's card.
        evaluation: a `fashion.evaluation.scoring.Evaluation`.
    """
    from fashion.evaluation.scoring import CAPTIONS

    pictures = {CAPTIONS[name]: png for name, png in evaluation.figures.items()}
    cards.show(card, title=evaluation.summary, pictures=pictures)
    cards.table(card, "Classes", [_class_row(score) for score in evaluation.scores])
    cards.table(
        card,
        "Metrics",
        [
            {"metric": name, "value": f"{metric.value:.4f}", "95 % interval": _interval(metric)}
            for name, metric in evaluation.package.metrics.items()
        ],
    )


def show_verdict(card: Any, version: int, outcome: str, verdict: Any) -> None:
    """The gate's verdict on a version.

    Args:
        card: Metaflow's card.
        version: its number.
        outcome: a sentence.
        verdict: a `fashion.evaluation.gate.Verdict`.
    """
    compared = "no version" if verdict.champion is None else f"version {verdict.champion}"
    cards.show(card, title=f"Version {version}", texts=[outcome, f"It was compared with {compared}."])
    cards.table(
        card,
        "Checks",
        [
            {"check": check.name, "passed": "yes" if check.passed else "no", "finding": check.sentence}
            for check in verdict.checks
        ],
    )


def _class_row(score: Any) -> dict[str, str]:
    shares = {"precision": score.precision, "recall": score.recall, "F1": score.f1}
    return {"class": score.name, **{name: f"{100 * share:.1f} %" for name, share in shares.items()}}


def _interval(metric: Any) -> str:
    return "" if metric.low is None else f"{metric.low:.4f} to {metric.high:.4f}"
