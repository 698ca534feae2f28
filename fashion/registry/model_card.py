"""Model cards: what MLflow shows as the description of a run and of a registered version. Knows no gate and no drift.

A version's card has three parts: what the model is, which never changes and is the description of its run; the
decisions about it, from its tags; and what its traffic looked like, a line for each drift report.
"""

import logging
import re
from collections.abc import Sequence

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fashion.config.names import MODEL_NAME
from fashion.metrics.classification import ClassScore
from fashion.model.package import Metric, Package
from fashion.registry import history
from fashion.registry.versions import RegistryError, Version

NOTE = "mlflow.note.content"
"""Tag that holds a run's description."""
DECISIONS, TRAFFIC = "## Decisions", "## Traffic"
DECISION_WORDS = {
    "promoted.reason": "Promoted",
    "refused.reason": "Refused",
    "rolled_back.reason": "Rolled back",
}
"""Tag of a version -> how its text begins in the card. In the order in which they happen."""
WAITS, WAITING_WORDS = "approval.reason", "Passed the gate, and waits for a decision"
"""The same of a version that nobody has promoted or refused yet."""
MOST_REPORTS = 10
"""Lines on drift that a card keeps, the latest first."""
MOST_CHARACTERS = 5000
"""Of a version's description: MLflow's limit."""
WEAKEST = 3
"""Classes that a card names."""

_logger = logging.getLogger(__name__)


def describe(package: Package, scores: Sequence[ClassScore], num_test_rows: int) -> str:
    """What a model is, as Markdown.

    Args:
        package: of the model, with its metrics.
        scores: of the test split, one for each class.
        num_test_rows: of the test split.
    """
    name, subject = package.data["name"], package.data.get("words", {}).get("subject", "pictures")
    channels = "grey" if package.channels == 1 else "colour"
    weakest = sorted(scores, key=lambda score: score.recall)[:WEAKEST]
    lines = [
        f"**{package.architecture['name']}** tells {len(package.class_names)} classes of {subject} apart: "
        f"{package.size} x {package.size} pixels, {channels}.",
        "",
        "| | |",
        "| --- | --- |",
        f"| Accuracy | {_percent(package.metrics['test/accuracy'])} of {num_test_rows:,} test pictures |",
        *_without_duplicates(package),
        f"| Calibration error | {package.metrics['test/ece'].value:.2%} |",
        f"| Weakest classes (recall) | {', '.join(f'{each.name} {each.recall:.1%}' for each in weakest)} |",
        f"| Data | {name}, version `{package.data['digest'][:12]}` |",
        f"| Training | {_training(package)} |",
        *_precision(package),
        f"| Code | commit `{package.lineage.get('git_commit') or 'unknown'}` |",
        "",
        "It answers every picture with one of its classes. What it has not learnt is marked as unlike its data, and "
        "the accuracy holds for pictures like those of the test split alone.",
    ]
    return "\n".join(lines)


def write(version: Version, *, name: str = MODEL_NAME, report: tuple[str, str] | None = None) -> None:
    """Describe a version anew, from its run's description, its tags, and the lines on drift that it has.

    A description that cannot be written costs a log line, and nothing else: it repeats what is stored elsewhere.

    Args:
        version: with its tags of now.
        name: the registered model.
        report: id of a drift report on it, which begins with its time, and its result in a sentence. The same report
            has one line.
    """
    client = MlflowClient()
    try:
        about = client.get_run(version.mlflow_run_id).data.tags.get(NOTE, "") if version.mlflow_run_id else ""
        known = client.get_model_version(name, str(version.number)).description or ""
        made = {tag: word for tag, word in DECISION_WORDS.items() if version.tags.get(tag)} or {WAITS: WAITING_WORDS}
        decided = [f"- {word}: {version.tags[tag]}" for tag, word in made.items() if tag in version.tags]
        reported = {line.partition(":")[0]: line for line in _lines_of(known, TRAFFIC)}
        if report is not None:
            reported[f"- `{report[0]}`"] = f"- `{report[0]}`: {report[1]}"
        latest = [reported[key] for key in sorted(reported, reverse=True)][:MOST_REPORTS]
        parts = [about, *_part(DECISIONS, decided), *_part(TRAFFIC, latest)]
        text = "\n\n".join(part for part in parts if part)
        client.update_model_version(name, str(version.number), text[:MOST_CHARACTERS])
    except MlflowException as error:
        _logger.warning("version %d is not described in MLflow: %s", version.number, str(error).splitlines()[0])


def write_last_change(name: str = MODEL_NAME) -> None:
    """Describe the champion anew, and the version that it replaced. What cannot be described costs a log line."""
    try:
        before = history.read(name)
    except (MlflowException, RegistryError) as error:
        _logger.warning("the last change of the champion is not described in MLflow: %s", str(error).splitlines()[0])
        return
    for number in (before.changes[-1].version, before.changes[-1].replaced) if before.changes else ():
        if number is not None and number in before.known:
            write(before.known[number], name=name)


def _part(heading: str, lines: Sequence[str]) -> list[str]:
    return [heading, "\n".join(lines)] if lines else []


def _lines_of(text: str, heading: str) -> list[str]:
    """The list under a heading of a card; empty where there is none."""
    found = re.search(rf"^{heading}\n\n((?:- .*(?:\n|$))+)", text, flags=re.M)
    return found[1].splitlines() if found else []


def _percent(metric: Metric) -> str:
    interval = "" if metric.low is None or metric.high is None else f" ({metric.low:.2%} to {metric.high:.2%})"
    return f"{metric.value:.2%}{interval}"


def _without_duplicates(package: Package) -> list[str]:
    metric = package.metrics.get("test/accuracy_deduplicated")
    return [] if metric is None else [f"| Without pictures that are also in training | {_percent(metric)} |"]


def _precision(package: Package) -> list[str]:
    """What answers are computed in, where it is not float32."""
    check = package.export_check
    if check.get("precision", "float32") == "float32":
        return []
    return [f"| Answers in | {check['precision']}: {check['label_agreement']:.2%} of the labels are those of float32 |"]


def _training(package: Package) -> str:
    training = package.training
    config, optimizer, feedback = (training.get(each) or {} for each in ("config", "optimizer", "feedback"))
    known = [
        f"{config['num_epochs']} epochs" if "num_epochs" in config else "",
        str(optimizer.get("name", "")),
        f"{training['cpu_seconds']:,.0f} CPU-seconds on {training['device']}" if "cpu_seconds" in training else "",
        f"{feedback['trained_on']:,} pictures with feedback" if feedback else "",
    ]
    return ", ".join(each for each in known if each) or "unknown"
