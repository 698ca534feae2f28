"""The canary of a model, compared by labels that are trusted, and what is done about it. Knows no channel.

The registry is changed first, then its tags say so, then the log, which services read, and last people are told. A run
that is killed between leaves the rest to the next one.
"""

import contextlib
from dataclasses import dataclass

from fashion.drift import belief
from fashion.drift.alerts import Alert
from fashion.evaluation import canary, canary_tags
from fashion.evaluation.canary import CanaryComparison, Outcome
from fashion.evaluation.canary_tags import EndedComparison
from fashion.home import Home
from fashion.model.package import DamagedPackage
from fashion.predictions.address import open_shared_log
from fashion.predictions.canary import count, describe, judge
from fashion.predictions.log import PredictionLog
from fashion.predictions.shared_log import SharedLog
from fashion.predictions.sources import Trust
from fashion.predictions.windows import Source
from fashion.registry.versions import RegistryError, Version


@dataclass(frozen=True)
class News:
    """Outcomes of canaries, of this run or of one that was killed before it alerted them."""

    outcomes: tuple[Outcome, ...] = ()
    on_trial: frozenset[str] = frozenset()
    """Versions that these are about."""
    untold: tuple[Version, ...] = ()
    """Of them those that have ended, for `record_told`."""


def act(source: Source, trust: Trust, home: Home, *, model_name: str, decide: bool = True) -> News:
    """Complete what an earlier run left, do what the labels show, and return what people are to hear.

    Args:
        source: the log that labels are read from.
        trust: which sources are proven.
        home: names the log that services read.
        model_name: of the registered model.
        decide: whether to promote or to step back.

    Raises:
        fashion.predictions.record.LogUnavailable: a log cannot be read or written; what was decided stays decided.
        fashion.registry.versions.RegistryError: the rules of the comparison cannot be read.
    """
    ended = publish(home, model_name=model_name)
    compared = compare(source, trust, model_name=model_name)
    running = None if compared is None else settle(compared, model_name=model_name, decide=decide)
    if running is not None and running.has_ended:
        ended = publish(home, model_name=model_name)
    untold = [each for each in ended if not canary_tags.is_told(each.version)]
    outcomes = [canary.outcome_of(each.ending) for each in untold]
    on_trial = [each.version for each in untold]
    if compared is not None and running is not None and not running.has_ended:
        outcomes.append(running)
        on_trial.append(compared.version)
    numbers = frozenset(str(version.number) for version in on_trial)
    return News(tuple(outcomes), numbers, tuple(each.version for each in untold))


def publish(home: Home, *, model_name: str) -> list[EndedComparison]:
    """Complete what a killed process left, and store in the log how comparisons ended, for services have no registry.

    Args:
        home: names the log that services read: the shared one, or that of this machine.
        model_name: of the registered model.

    Returns:
        The last comparison of each version where it is over.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be written; the next call does it.
        fashion.registry.versions.RegistryError: the rules of a comparison cannot be read.
    """
    ended = canary_tags.complete(model_name)
    log = _log_of_services(home) if ended else None
    if log is not None:
        with contextlib.closing(log):
            for _, ending in ended:
                stored = log.canary_ending(ending.name)
                if stored is None or stored.ended_us < ending.ended_us:
                    log.end_canary(ending)
    return ended


def record_told(news: News, *, model_name: str) -> None:
    """Store that people were told of comparisons that have ended.

    Args:
        news: what they were told.
        model_name: of the registered model.
    """
    for version in news.untold:
        canary_tags.record_told(version, name=model_name)


def compare(source: Source, trust: Trust, *, model_name: str) -> CanaryComparison | None:
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
    return CanaryComparison(version, experiment, counts, judge(experiment, counts))


def settle(compared: CanaryComparison, *, model_name: str, decide: bool = True) -> Outcome:
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
    """The message on the outcome of a canary.

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


def _log_of_services(home: Home) -> PredictionLog | SharedLog | None:
    """The log that services read; None where this machine has none: then no service has run here."""
    if home.shared_log:
        return open_shared_log(home.shared_log)
    return PredictionLog(home.predictions) if home.predictions.exists() else None
