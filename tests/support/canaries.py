"""A canary that answers beside the champion: in a registry, and with labels on both versions' answers in a log."""

import dataclasses
import time
from pathlib import Path

from mlflow import MlflowClient
from support.log_rows import record

from fashion.config.names import MODEL_NAME
from fashion.evaluation import canary, gate
from fashion.evaluation.gate import Check, Verdict
from fashion.metrics.sequential import Rules
from fashion.model.package import Package
from fashion.predictions.canary import Experiment
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import REVIEW, Feedback, ModelId
from fashion.registry import champions, history, versions
from fashion.registry.versions import DIGEST

CLIENTS = 400
"""Whose labels suffice for a decision."""


def pass_gate(version: versions.Version, *, waits_for: str = champions.A_CANARY) -> versions.Version:
    """Tag a version as the gate does with one that passed all its checks and waits; returns it as it is then.

    Args:
        version: the challenger; the champion is version 1.
        waits_for: who decides.
    """
    verdict = Verdict(False, (Check("test: not shown worse", True, 0.5, 0.05, "as good"),), champion=1)
    waits = {champions.WAITING: history.now(), champions.WAITS_FOR: waits_for}
    versions.set_tags(version, waits | gate.as_tags(verdict))
    return versions.get(str(version.number))


def begin(package: Package) -> Experiment:
    """Register a champion and a canary of one package that passed the gate, and begin their comparison.

    Args:
        package: of both; its folder stays where it is.
    """
    client = MlflowClient()
    client.create_registered_model(MODEL_NAME)
    for _ in range(2):
        client.create_model_version(MODEL_NAME, str(package.folder), tags={DIGEST: package.digest})
    champions.promote(versions.get("1"), reason="the first one")
    client.set_registered_model_alias(MODEL_NAME, versions.CHALLENGER, "2")
    one, two = ModelId.of(MODEL_NAME, 1, package.digest), ModelId.of(MODEL_NAME, 2, package.digest[::-1])
    began = time.time() - 3600
    return canary.begin(
        pass_gate(versions.get("2")),
        one,
        two,
        share=0.5,
        rules=Rules(margin=0.02, confidence=0.95),
        clock=lambda: began,
    )


def answer(path: Path, experiment: Experiment, *, right: bool, clients: int = CLIENTS) -> None:
    """Log answers of both versions that reviewers have labelled.

    Args:
        path: of the log.
        experiment: the versions.
        right: whether the canary's answers are right and the champion's are half wrong, or the other way round.
        clients: how many send one picture each.
    """
    records, reviews = [], []
    for number in range(clients):
        is_canary = experiment.goes_to_canary(f"client-{number}", "")
        model = experiment.canary if is_canary else experiment.champion
        made = record(
            client=f"client-{number}", label=1, time_us=experiment.since_us + 1 + number, image_sha256="0" * 64
        )
        named = {"model_name": model.name, "model_version": model.version, "model_digest": model.digest}
        records.append(dataclasses.replace(made, **named))
        is_wrong = is_canary is not right and number % 3 == 0
        reviews.append(Feedback(made.prediction_id, 0 if is_wrong else 1, REVIEW, made.time_us + 1))
    with PredictionLog(path) as log:
        log.append(records)
        log.append_feedback(reviews)
