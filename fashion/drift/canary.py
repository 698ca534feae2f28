"""The canary of a model, compared by labels that are trusted, and what is done about it. Knows no channel."""

from fashion.drift import belief
from fashion.drift.alerts import Alert
from fashion.evaluation import canary
from fashion.evaluation.canary import Comparison, Outcome
from fashion.model.package import DamagedPackage
from fashion.predictions.canary import count, describe, judge
from fashion.predictions.sources import Trust
from fashion.predictions.windows import Source
from fashion.registry.versions import RegistryError


def compare(source: Source, trust: Trust, *, model_name: str) -> Comparison | None:
    """Compare the canary that runs with the champion, by labels of reviewers and of proven sources; None without one.

    Args:
        source: the log.
        trust: which sources are proven: `fashion.drift.belief.assess`.
        model_name: of the registered model.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be read.
        fashion.registry.versions.RegistryError: the rules of the comparison cannot be read.
    """
    found = canary.running(model_name)
    if found is None:
        return None
    version, experiment = found
    believed = belief.believe(trust, source, model_name=model_name)
    counts = count(source.labelled(), experiment, lambda row: believed.use(row).judge)
    return Comparison(version, experiment, counts, judge(experiment, counts))


def settle(compared: Comparison, *, model_name: str, decide: bool = True) -> Outcome:
    """Do what the comparison shows, or only say it. A canary that cannot be promoted is told, and changes nothing else.

    Args:
        compared: the comparison.
        model_name: of the registered model.
        decide: whether to promote or to step back.
    """
    said = describe(compared.experiment, compared.counts, compared.verdict)
    number, decision = compared.version.number, compared.verdict.decision
    if not decide and decision != "go on":
        return Outcome("waits", f"canary {number} is to {decision}: {said}", "fashion canary decide")
    try:
        return canary.settle(compared, name=model_name)
    except (RegistryError, DamagedPackage) as error:
        return Outcome("failed", f"canary {number} is to {decision}, and cannot ({error}): {said}", "fashion status")


def alert(outcome: Outcome, *, model_name: str) -> Alert:
    """The message on what became of a canary.

    Args:
        outcome: of `settle`.
        model_name: of the registered model.
    """
    title = {
        "promoted": "A canary is the new champion",
        "stepped back": "A canary was refused: the champion stays",
        "waits": "A canary waits for the decision of a person",
        "failed": "What a canary's labels show cannot be done",
        "goes on": "A canary answers",
    }[outcome.ending]
    return Alert(f"{title}: {model_name}", f"{outcome.sentence}.\nNext: {outcome.command}", matter=outcome.ending)
