"""Which feedback of a log is believed, by what the registry's models are sure of; and what is quarantined for it."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Literal

from fashion.drift.references import References
from fashion.model.package import DamagedPackage
from fashion.predictions import sources
from fashion.predictions.labelled import Believed, Unlearnt
from fashion.predictions.record import FOREVER_US, REVIEW, LogUnavailable, ModelId
from fashion.predictions.sources import Outlook, Trust
from fashion.predictions.windows import Source
from fashion.predictions.withdrawal import Decision
from fashion.registry import learnt

FLOW = "the flow"
"""Who quarantines and releases."""
SHOWN = 5
"""Sources that are named; there may be one for each label."""


def believe(
    trust: Trust, source: Source, *, model_name: str, rolled_back: Literal["block", "learn"] = "block"
) -> Believed:
    """Say which feedback may be learnt, and judged by.

    Args:
        trust: from `assess`.
        source: the log, with the decisions that followed from it.
        model_name: of the registered model.
        rolled_back: whether what a version learnt that was rolled back is left out.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be read.
    """
    unlearnt: dict[str, Unlearnt] = {}
    if rolled_back == "block":
        for version in learnt.rolled_back(model_name):
            unlearnt |= dict.fromkeys(version.pictures, Unlearnt(version.number, version.since_us))
    return Believed(dataclasses.replace(trust, decisions=source.decisions()), unlearnt)


def assess(source: Source, references: References, *, known: Mapping[str, int] | None = None) -> Trust:
    """Check every source of feedback; see `fashion.predictions.sources`.

    Args:
        source: the log.
        references: of the model's versions.
        known: sha256 of a picture -> its label, where that is known.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be read.
    """
    outlooks: dict[ModelId, Outlook | None] = {}

    def outlook(model: ModelId) -> Outlook | None:
        if model not in outlooks:
            outlooks[model] = None
            with contextlib.suppress(DamagedPackage):  # of an old version, which costs no other
                loaded = references.load(model)
                outlooks[model] = None if loaded is None else Outlook.of(loaded.package)
        return outlooks[model]

    return sources.assess(source.labelled(withdrawn=True), outlook, decisions=source.decisions(), known=known)


def check_sources(source: Source, references: References) -> tuple[Trust, list[str]]:
    """Quarantine the feedback of refuted sources, and say so; a row that cannot be read costs the check alone.

    Args:
        source: the log.
        references: of the model's versions.

    Returns:
        What is known of the sources, and sentences for a person.
    """
    try:
        trust = assess(source, references)
        return trust, [*quarantine(source, trust, may_release=False), *describe_agreement(trust)]
    except LogUnavailable as error:
        return Trust(), [f"feedback is not checked: {error}"]


def describe_agreement(trust: Trust) -> list[str]:
    """A sentence for each source whose predictions others have labelled too, those with most such labels first.

    Args:
        trust: from `assess`.
    """
    told = {name: each for name, each in trust.agreement.items() if str(each)}
    names = sorted(told, key=lambda name: (-told[name].others - told[name].reviews, name))
    sentences = [f"{name!r}, {trust.standing(name)}, {told[name]}" for name in names[:SHOWN]]
    checked = next((each for each in trust.sources if each.names == [REVIEW]), None)
    return [*sentences, *([] if checked is None else [f"reviews of known pictures: {checked.agreement_with_known}"])]


def quarantine(source: Source, trust: Trust, *, may_release: bool, clock: Callable[[], float] = time.time) -> list[str]:
    """Store which sources are quarantined from now on, and which no more.

    Args:
        source: the log.
        trust: from `assess`.
        may_release: whether a source whose labels are right may count again: only where `assess` knew the data set's
            pictures, for without them it knows less than who quarantined it.
        clock: seconds since 1970.

    Returns:
        A sentence for each source that is quarantined, or was released.

    Raises:
        fashion.predictions.record.LogUnavailable: the log cannot be written.
    """
    held = trust.held()
    wanted = trust.quarantined()
    now_us = int(clock() * 1e6)

    def decision(action: Literal["quarantine", "release"], name: str, why: str) -> Decision:
        return Decision(action, name, None, 0, FOREVER_US, now_us, FLOW, why)

    # Silence proves nothing: its labels may have left the log, or the model that they are checked by the registry.
    checked = {name for each in trust.sources if each.checked >= sources.FEW for name in each.names}
    released = {name: "its labels agree with what is known" for name in held & checked - set(wanted) if may_release}
    changes = [decision("quarantine", name, why) for name, why in wanted.items() if name not in held]
    changes += [decision("release", name, why) for name, why in released.items()]
    if changes:
        source.decide(changes)
    remedy = "`fashion log restore --source NAME` accepts a source, `fashion log discard --source NAME` refuses it"
    sentences = [f"feedback of {name!r} is quarantined ({why})" for name, why in sorted(wanted.items())[:SHOWN]]
    if len(wanted) > SHOWN:
        sentences.append(f"feedback of {len(wanted) - SHOWN:,} more sources is quarantined")
    sentences += [f"feedback of {name!r} counts again: {why}" for name, why in sorted(released.items())[:SHOWN]]
    return [*sentences, remedy] if wanted else sentences
