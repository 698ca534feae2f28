"""The history of champions: who made which version the champion, when and why. Reads it, and changes nothing.

Each change is a tag of the registered model, `champion.0001` and so on, which holds a JSON list of changes: one, and
before it those that were found to have happened without a tag. The tag `champion.pending` holds a change that is under
way: whoever finds it completes it (`champions.settle`). Registries without these tags are read by the versions' tags.
"""

import dataclasses
import datetime
import json
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fashion.config.names import MODEL_NAME
from fashion.registry import versions
from fashion.registry.versions import CHALLENGER, CHAMPION, RegistryError, Version

TAG = "champion."
"""How the tags of the history begin."""
PENDING = "champion.pending"
ALIASES = (CHAMPION, CHALLENGER)
Event = Literal[
    "promoted by the gate",
    "promoted by hand",
    "promoted by its canary",
    "promoted",
    "rolled back",
    "changed in MLflow",
]


@dataclass(frozen=True)
class Change:
    """A change of the champion."""

    version: int | None
    """The champion from then on; None where it was deleted, or lost its alias."""
    replaced: int | None
    """The champion until then; None where there was none."""
    event: Event
    """`promoted` alone is from a registry of older versions, which did not say by whom."""
    who: str
    time: str
    """UTC, ISO 8601; of a change in MLflow, when it was noticed."""
    reason: str


@dataclass(frozen=True)
class History:
    """All changes of one registered model's champion, the first one first."""

    champion: int | None
    """The version with the alias."""
    challenger: int | None
    """The version with the other alias."""
    known: Mapping[int, Version]
    """The versions that exist, by number."""
    changes: tuple[Change, ...]
    unstored: tuple[Change, ...]
    """The last ones of them that no tag holds yet: they were derived from the versions' tags and the alias."""
    next_tag: str
    """Where the next change is to be stored."""
    pending: "Pending | None"
    """A change that was begun and not completed; not one of `changes`."""

    def stack(self) -> list[int]:
        """Champions that a rollback goes back through, the last one first to go: promotions add, rollbacks remove."""
        stack: list[int] = []
        for change in self.changes:
            if change.version is None:
                continue
            if change.event == "rolled back" and change.version in stack:
                while stack[-1] != change.version:
                    stack.pop()
            elif stack[-1:] != [change.version]:
                stack.append(change.version)
        return stack

    def predecessors(self) -> list[int]:
        """What a rollback goes back to, the nearest one first. Some may be deleted by now."""
        return [number for number in reversed(self.stack()) if number != self.champion]

    def last(self) -> Version | None:
        """The champion; where it was deleted or lost its alias, the last former one that still exists, or None."""
        return next((self.known[number] for number in reversed(self.stack()) if number in self.known), None)

    def predecessor(self) -> Version | None:
        """The nearest of the predecessors that still exists, or None."""
        return next((self.known[number] for number in self.predecessors() if number in self.known), None)


@dataclass(frozen=True)
class Pending:
    """A change under way."""

    tag: str
    """Where it is stored once it is made."""
    changes: tuple[Change, ...]
    """To store there: the last one is to be made, those before it have happened."""

    @property
    def change(self) -> Change:
        """What is to be made."""
        return self.changes[-1]


def read(name: str = MODEL_NAME) -> History:
    """Return the history of champions of a registered model; an empty one where nothing is registered.

    Raises:
        RegistryError: somebody has edited its tags.
    """
    model = versions.registered_model(name)
    if model is None:
        return History(None, None, {}, (), (), _tag(1), None)
    champion, challenger = (int(model.aliases[each]) if each in model.aliases else None for each in ALIASES)
    numbers = sorted(int(found[1]) for key in model.tags if (found := re.fullmatch(rf"{TAG}(\d+)", key)))
    try:
        stored = [change for number in numbers for change in _changes(json.loads(model.tags[_tag(number)]))]
        begun = json.loads(model.tags[PENDING]) if PENDING in model.tags else None
        pending = None if begun is None else Pending(begun["tag"], _changes(begun["changes"]))
    except (ValueError, TypeError, KeyError) as error:
        raise RegistryError(
            f"the history of {name}, the tags {TAG}* in MLflow, cannot be read ({error}): correct or delete the "
            "tag that was edited"
        ) from None
    known = {version.number: version for version in versions.versions_of(model)}
    unstored = [] if stored else derive(known.values())
    next_tag = _tag(max(numbers, default=0) + 1)
    last = next((change.version for change in reversed([*stored, *unstored])), None)
    if last != champion and pending is None:
        unstored.append(_found(last, champion, known))
    return History(champion, challenger, known, (*stored, *unstored), tuple(unstored), next_tag, pending)


def derive(known: Iterable[Version]) -> list[Change]:
    """Changes according to the versions' own tags, in which each has only its last promotion and rollback."""
    changes = []
    for version in known:
        tags = version.tags
        replaced = int(tags["promoted.replaced"]) if "promoted.replaced" in tags else None
        if "promoted.time" in tags:
            why = tags.get("promoted.reason", "")
            changes.append(Change(version.number, replaced, "promoted", "unknown", tags["promoted.time"], why))
        if "rolled_back.time" in tags and replaced is not None:
            why = tags.get("rolled_back.reason", "")
            changes.append(Change(replaced, version.number, "rolled back", "unknown", tags["rolled_back.time"], why))
    return sorted(changes, key=lambda change: (change.time, change.event == "rolled back", change.version or 0))


def serialize(changes: Sequence[Change]) -> str:
    """Changes as the value of a tag of the history."""
    return json.dumps([dataclasses.asdict(change) for change in changes])


def serialize_pending(pending: Pending) -> str:
    """A change under way as the value of its tag."""
    return json.dumps(dataclasses.asdict(pending))


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _found(last: int | None, champion: int | None, known: Container[int | None]) -> Change:
    """The change that explains why the alias is not where the history says."""
    if champion is not None:
        reason = "the alias was set outside of fashion"
    elif last in known:
        reason = "the alias was removed outside of fashion"
    else:
        reason = f"version {last} was deleted"
    return Change(champion, last, "changed in MLflow", "unknown", now(), reason)


def _changes(content: Sequence[Mapping[str, Any]]) -> tuple[Change, ...]:
    return tuple(Change(**fields) for fields in content)


def _tag(number: int) -> str:
    return f"{TAG}{number:04d}"
