"""Which version is the champion: promote, reject, let wait and roll back, one process at a time.

A change is stored as pending first, then made, then added to the history. Whoever comes next completes a change that
was interrupted, so aliases, tags and history agree wherever a process is killed.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from mlflow import MlflowClient

from fashion.config.names import MODEL_NAME
from fashion.home import user
from fashion.model.package import DamagedPackage, Package
from fashion.registry import history, model_card, versions
from fashion.registry.exclusive import exclusive
from fashion.registry.history import Change, Event, History, Pending
from fashion.registry.versions import CHALLENGER, CHAMPION, RegistryError, Version

Expected = int | Literal["none", "any"]
"""The version that must be champion for a decision to be written; `none`: there must be no champion."""
WAITING = "approval.time"
"""Tag of a version that passed the gate and waits; `approval.reason` says what it passed."""
WAITS_FOR = "approval.by"
"""Tag that says what for: one of the next two. Without it, for a person."""
A_PERSON, A_CANARY = "a person", "a canary"
JUDGED_AGAINST = "approval.champion"
"""Tag with the champion that it passed the gate against. Older versions have the gate's own tag alone."""


class ChampionChanged(RegistryError):
    """The champion is not the one that the decision was made against. Nothing was changed."""

    def __init__(self, expected: Expected, champion: int | None) -> None:
        """
        Args:
            expected: what the decision was made against.
            champion: the present one.
        """
        there_is = "there is no champion" if champion is None else f"the champion is version {champion}"
        there_was = "none" if expected == "none" else f"version {expected}"
        super().__init__(f"{there_is} by now, not {there_was}: nothing was changed; look at `fashion registry list`")
        self.champion = champion


def fetch_to_compare(champion: Version, folder: Path, *, name: str = MODEL_NAME) -> Package:
    """Fetch the package that a new model is compared with.

    Args:
        champion: the champion, or the last one where there is none.
        folder: where to.
        name: the registered model.

    Raises:
        fashion.model.package.DamagedPackage: its files are missing, or are not those that were registered; with what
            can be done about it.
    """
    try:
        return versions.fetch(champion, folder)
    except DamagedPackage as error:
        before = history.read(name)
        back = before.predecessor()
        others = [
            number for number in sorted(before.known, reverse=True) if before.known[number] not in (champion, back)
        ]
        ways = [
            *([] if back is None else [f"go back to version {back.number} with `fashion registry rollback`"]),
            *[f"promote another one with `fashion registry promote {number} --reason ...`" for number in others[:1]],
        ]
        raise DamagedPackage(
            f"{error}; no model can be compared with it: restore its files, {''.join(f'{way}, ' for way in ways)}or "
            "train with gate.champion=ignore"
        ) from None


def promote(
    version: Version,
    *,
    reason: str,
    name: str = MODEL_NAME,
    event: Event = "promoted by hand",
    expected: Expected = "any",
    verified: Package | None = None,
) -> Version:
    """Make a version the champion, once its package is known to be sound.

    Args:
        version: the new champion.
        reason: stored in the history and as a tag of the version.
        name: the registered model.
        event: who decided, for the history.
        expected: the champion that this decision was made against.
        verified: the version's package, if the caller has fetched it; None to fetch it here.

    Returns:
        The version with its new tags and alias.

    Raises:
        RegistryError: the version is the champion already, or the reason is empty.
        ChampionChanged: another version than the expected one is the champion.
        fashion.model.package.DamagedPackage: its files are missing, or are not those that were registered.
    """
    if not reason.strip():
        raise RegistryError("promotion needs a reason, which is stored with the version: give --reason")
    if verified is None:
        before = history.read(name)
        _require_other(version, before)
        _verify(version, before)
    with exclusive(name) as check:
        champions = _settle(name, check)
        _require_expected(expected, champions)
        _require_other(version, champions)
        _change(name, champions, version.number, event, reason, check)
    model_card.write_last_change(name)
    return versions.get(str(version.number), name)


def reject(version: Version, *, reason: str, name: str = MODEL_NAME, expected: Expected = "any") -> Version:
    """Store why a version was not promoted; its alias stays.

    Args:
        version: the challenger.
        reason: stored as a tag of the version.
        name: the registered model.
        expected: the champion that this decision was made against.

    Raises:
        ChampionChanged: another version than the expected one is the champion.
    """
    with exclusive(name) as check:
        _require_expected(expected, _settle(name, check))
        # The time last: with it, the decision counts.
        versions.set_tags(version, {"refused.reason": reason, "refused.time": history.now()}, name=name)
    rejected = versions.get(str(version.number), name)
    model_card.write(rejected, name=name)
    return rejected


def let_wait(version: Version, *, reason: str, waits_for: str, name: str = MODEL_NAME, expected: int) -> Version:
    """Store that a version passed the gate, and that a person or a canary is to decide; its alias stays.

    Args:
        version: the challenger.
        reason: stored as a tag of the version.
        waits_for: `A_PERSON` or `A_CANARY`.
        name: the registered model.
        expected: the champion that it passed the gate against.

    Raises:
        ChampionChanged: another version than the expected one is the champion.
    """
    with exclusive(name) as check:
        _require_expected(expected, _settle(name, check))
        tags = {"approval.reason": reason, WAITS_FOR: waits_for, JUDGED_AGAINST: str(expected)}
        # The time last: with it, the decision counts.
        versions.set_tags(version, {**tags, WAITING: history.now()}, name=name)
    waiting = versions.get(str(version.number), name)
    model_card.write(waiting, name=name)
    return waiting


def expected_by(version: Version) -> Expected:
    """The champion that a promotion of this version replaces: of one that waits, the champion that it was judged by.

    Args:
        version: with its tags of now.

    Returns:
        `any` for a version that does not wait, or waits since before that champion was stored.
    """
    decided = {"promoted.time", "refused.time"} & set(version.tags)
    judged_against = version.tags.get(JUDGED_AGAINST, version.tags.get("compared.with", ""))
    return int(judged_against) if WAITING in version.tags and not decided and judged_against else "any"


def rollback(*, reason: str, name: str = MODEL_NAME) -> Version:
    """Make the champion's predecessor the champion again. Called again, it goes back further, to the first champion.

    Versions that were deleted are passed over.

    Args:
        reason: stored in the history and as a tag of the version that is rolled back.
        name: the registered model.

    Returns:
        The new champion.

    Raises:
        RegistryError: there was no champion, or none before this one exists any more, or the reason is empty.
        fashion.model.package.DamagedPackage: the predecessor's files are missing, or are not the registered ones.
    """
    if not reason.strip():
        raise RegistryError("rollback needs a reason, which is stored with the version: give --reason")
    before = settle(name)
    previous = _predecessor(before, name)
    _verify(previous, before)
    with exclusive(name) as check:
        champions = _settle(name, check)
        if champions.stack() != before.stack():
            raise RegistryError("another process changed the champion just now: look at `fashion registry list`")
        _change(name, champions, previous.number, "rolled back", reason, check)
    model_card.write_last_change(name)
    return versions.get(str(previous.number), name)


def settle(name: str = MODEL_NAME) -> History:
    """Complete a change that was interrupted, and say so. Returns the history, as `history.read` does."""
    before = history.read(name)
    if _is_settled(before):
        return before
    with exclusive(name) as check:
        return _settle(name, check)


def _change(name: str, champions: History, version: int, event: Event, reason: str, check: Callable[[], None]) -> None:
    """Make a change.

    Args:
        name: the registered model.
        champions: its history, read under the lock that is held.
        version: the new champion.
        event: for the history.
        reason: for the history and the tags.
        check: raises where the lock is held no longer.
    """
    change = Change(version, champions.champion, event, user(), history.now(), reason)
    pending = Pending(champions.next_tag, (*champions.unstored, change))
    check()
    MlflowClient().set_registered_model_tag(name, history.PENDING, history.serialize_pending(pending))
    _complete(name, champions, pending, check)


def _complete(name: str, champions: History, pending: Pending, check: Callable[[], None]) -> None:
    """Make a pending change, or what is left of it. Each write may be repeated."""
    client, change = MlflowClient(), pending.change
    assert change.version is not None, "only fashion's own changes are pending, and each has a champion"
    if change.event == "rolled back":
        tags, tagged = {"rolled_back.reason": change.reason, "rolled_back.time": change.time}, change.replaced
    else:
        tags, tagged = {"promoted.reason": change.reason, "promoted.time": change.time}, change.version
        if change.replaced is not None:
            tags["promoted.replaced"] = str(change.replaced)
    if tagged is not None and tagged in champions.known:  # what was rolled back may be deleted by now
        versions.set_tags(champions.known[tagged], tags, name=name)
    check()
    # Services follow the alias.
    client.set_registered_model_alias(name, CHAMPION, str(change.version))
    if champions.challenger == change.version:
        client.delete_registered_model_alias(name, CHALLENGER)
    client.set_registered_model_tag(name, pending.tag, history.serialize(pending.changes))
    client.delete_registered_model_tag(name, history.PENDING)


def _is_settled(champions: History) -> bool:
    return champions.pending is None and (champions.champion is None or champions.challenger != champions.champion)


def _settle(name: str, check: Callable[[], None]) -> History:
    """Complete what was interrupted, under the lock; returns the history after it."""
    champions = history.read(name)
    if _is_settled(champions):
        return champions
    pending = champions.pending
    if pending is None:
        MlflowClient().delete_registered_model_alias(name, CHALLENGER)  # a process of an older version was killed
    elif pending.change.version in champions.known and champions.champion in (
        pending.change.version,
        pending.change.replaced,
    ):
        _complete(name, champions, pending, check)
        what = "a rollback to it" if pending.change.event == "rolled back" else "its promotion"
        sentence = f"version {pending.change.version} is the champion: {what} was interrupted, and is complete now"
        print(sentence, file=sys.stderr, flush=True)
    else:  # since then the alias was moved in MLflow, or the version deleted: that was meant
        MlflowClient().delete_registered_model_tag(name, history.PENDING)
    return _settle(name, check)


def _require_expected(expected: Expected, champions: History) -> None:
    if expected != "any" and champions.champion != (None if expected == "none" else expected):
        raise ChampionChanged(expected, champions.champion)


def _require_other(version: Version, champions: History) -> None:
    if champions.champion == version.number:
        raise RegistryError(f"version {version.number} is already the champion")


def _verify(version: Version, champions: History) -> None:
    """Fetch the package of a version that is to become champion.

    Raises:
        fashion.model.package.DamagedPackage: it cannot.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            versions.fetch(version, Path(folder))
        except DamagedPackage as error:
            stays = (
                "there is no champion" if champions.champion is None else f"version {champions.champion} stays champion"
            )
            raise DamagedPackage(
                f"{error}; {stays}: restore the files, or promote another version with `fashion registry promote`"
            ) from None


def _predecessor(champions: History, name: str) -> Version:
    """What a rollback goes back to.

    Raises:
        RegistryError: nothing.
    """
    found = champions.predecessor()
    if found is not None:
        return found
    if champions.champion is None:
        raise RegistryError(f"{name} has no champion to roll back: run `make train` first")
    back = champions.predecessors()
    deleted = f" that still exists ({', '.join(map(str, back))} deleted)" if back else ""
    raise RegistryError(
        f"version {champions.champion} has no predecessor to roll back to{deleted}: promote another version instead"
    )
