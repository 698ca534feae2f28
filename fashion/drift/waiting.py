"""What waits for people or for another machine: quarantined feedback, versions to approve, trainings on a cluster."""

from collections.abc import Mapping, Sequence

from fashion.config.names import MODEL_NAME
from fashion.drift import messages, retraining
from fashion.drift.alerts import Alert
from fashion.evaluation import canary_tags
from fashion.registry.champions import A_CANARY, WAITING, WAITS_FOR
from fashion.registry.versions import Version
from fashion.storage.blobs import Store

SHOWN = 5
"""Sources that an alert names."""
PATIENCE_HOURS = 24.0
"""After which a training on a cluster that has registered nothing is taken to have failed."""


def quarantine(sources: Mapping[str, str]) -> Alert | None:
    """The alert on feedback that was put aside; None without any. Another source is another matter.

    Args:
        sources: name -> why.
    """
    if not sources:
        return None
    names = sorted(sources)
    lines = [f"{name!r}: {sources[name]}." for name in names[:SHOWN]]
    lines += [f"{len(names) - SHOWN:,} more sources."] if len(names) > SHOWN else []
    lines.append("Their labels neither train nor judge a model until somebody decides.")
    lines.append("Next: fashion log status; fashion log discard --source NAME, or fashion log restore --source NAME")
    return Alert("Feedback is quarantined", "\n".join(lines), matter=" ".join(names))


def approval(known: Sequence[Version], *, model: str) -> Alert | None:
    """The alert on the newest version that passed the gate and waits for a person or for a canary; None without one.

    Args:
        known: the versions of the registered model, newest first.
        model: its name.
    """
    newest = known[0] if known else None
    decided = {"promoted.time", "refused.time"}
    if newest is None or WAITING not in newest.tags or not decided.isdisjoint(newest.tags):
        return None
    of_model = "" if model == MODEL_NAME else f" --name {model}"
    command = f'fashion registry promote {newest.number}{of_model} --reason "..."'
    if newest.tags.get(WAITS_FOR) == A_CANARY:
        if canary_tags.RULES in newest.tags:  # it answers: what its labels show is told by itself
            return None
        of_model = "" if model == MODEL_NAME else f" tracking.registered_model={model}"
        command = f'make bento ARGS="serve.canary={newest.number}{of_model}"'
    text = f"{newest.tags.get('approval.reason', 'it passed the gate')}.\nNext: {command}"
    return Alert(f"A version waits for approval: {model} version {newest.number}", text, matter=str(newest.number))


def training_elsewhere(known: Sequence[Version], store: Store, *, model: str, now_s: float) -> Alert | None:
    """The message on a training that an event started on a cluster, where no flow waited for its end; None if none.

    Args:
        known: the versions of the registered model.
        store: where the start of the training is stored.
        model: name of the registered model.
        now_s: seconds since 1970.

    Returns:
        The message once the training has registered a version, or has not in `PATIENCE_HOURS`. Said again until
        `retraining.record_told`.
    """
    began = retraining.awaited_since(store, model_name=model)
    if began is None:
        return None
    since = [version for version in known if version.created.timestamp() >= began]
    if not since:
        if now_s < began + 3600 * PATIENCE_HOURS:
            return None
        outcome = f"training was asked for by an event, and has registered no version in {PATIENCE_HOURS:g} hours"
        return messages.training(outcome, model=model, ended_well=False, promoted=False, command="fashion status")
    first = min(since, key=lambda version: version.number)
    promoted, waits = "promoted.time" in first.tags, WAITING in first.tags
    if not promoted and not waits and "refused.time" not in first.tags:
        return None  # it is being judged
    what = "is the champion" if promoted else "waits for approval" if waits else "was refused"
    names = ("promoted.reason", "approval.reason", "refused.reason")
    reason = next((first.tags[name] for name in names if name in first.tags), "")
    return messages.training(
        f"version {first.number} {what}: {reason}".removesuffix(": "),
        model=model,
        ended_well=True,
        promoted=promoted,
        command="fashion registry list",
        awaits_approval=waits and not promoted,
    )
