"""A version's revision of a service: its name, which revision it replaces, and who has which traffic.

Traffic and what is noted of a rollout are changed together, in one update of the service: a killed rollout is
continued from there. Knows the service by an interface, and neither a cloud's client nor what is served.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fashion.deployment.rollout import ALL, RolloutError

PREVIOUS = "fashion-rollout-previous"
"""Annotation of the service: the revision that had all traffic before the rollout."""
CANDIDATE = "fashion-rollout-candidate"
"""Annotation: the revision that is rolled out."""
STATE = "fashion-rollout-state"
"""Annotation: how far the rollout is."""
REASON = "fashion-rollout-reason"
"""Annotation: why it stepped back."""
CANARY, DONE, STEPPED_BACK = "canary", "done", "stepped-back"
"""Values of STATE."""
ATTEMPTS = 5
"""Tries of an update that another one overtakes."""


class Conflict(RolloutError):
    """The service was changed after it was read."""


class RevisionFailed(RolloutError):
    """A revision did not become ready."""


class TrafficChanged(RolloutError):
    """Traffic is not as this rollout left it: somebody else decides about it."""


@dataclass(frozen=True)
class TrafficTarget:
    """What a revision gets of the traffic."""

    revision: str
    percent: int = 0
    tag: str = ""
    """Gives the revision an address of its own; empty without one."""
    url: str = ""
    """That address."""


@dataclass(frozen=True)
class Service:
    """A service as it was read."""

    name: str
    targets: tuple[TrafficTarget, ...]
    notes: Mapping[str, str]
    """Annotations."""
    url: str = ""
    """Its address for everybody."""
    source: Any = field(default=None, compare=False, repr=False)
    """What the control plane needs to update what was read."""

    def traffic(self) -> dict[str, int]:
        """Percentages of the revisions that have any."""
        percent: dict[str, int] = {}
        for target in self.targets:
            if target.percent:
                percent[target.revision] = percent.get(target.revision, 0) + target.percent
        return percent


@dataclass(frozen=True)
class Revision:
    """A revision of a service."""

    name: str
    ready: bool | None
    """None while it is not decided."""
    reason: str = ""
    """Why it is not ready."""


class ControlPlane(Protocol):
    """Reads and changes one service. Every method raises RolloutError, with one sentence, where it cannot."""

    def read(self) -> Service:
        """Return the service once no change of it is under way."""

    def revisions(self) -> Sequence[Revision]:
        """Return the service's revisions, newest first."""

    def revise(
        self, service: Service, name: str, *, image: str, targets: Sequence[TrafficTarget], notes: Mapping[str, str]
    ) -> None:
        """Make a revision like the latest but for its image, and wait until it is ready.

        Args:
            service: as it was read.
            name: of the revision.
            image: of its container.
            targets: the traffic.
            notes: annotations to set; others stay.

        Raises:
            Conflict: the service was changed since it was read.
            RevisionFailed: the revision is not ready.
        """

    def set_traffic(self, service: Service, targets: Sequence[TrafficTarget], notes: Mapping[str, str]) -> None:
        """Set the traffic.

        Args:
            service: as it was read.
            targets: the traffic.
            notes: annotations to set; others stay.

        Raises:
            Conflict: the service was changed since it was read.
        """


def revision_stem(service: str, version: int, image: str) -> str:
    """Return the name of the revision that serves a model version from an image: the same for the same three."""
    return f"{service}-v{version}-{hashlib.sha256(image.encode()).hexdigest()[:6]}"


def model_version(revision: str) -> int | None:
    """Return the model version that a revision serves, by its name; None if no rollout of this project made it."""
    match = re.search(r"-v(\d+)-[0-9a-f]{6}(-\d+)?$", revision)
    return None if match is None else int(match[1])


def current_revision(service: Service) -> str:
    """Return the revision that has all traffic, or had it before a rollout that has not ended.

    Raises:
        RolloutError: no revision has, because somebody has divided the traffic.
    """
    traffic = service.traffic()
    parties = {service.notes.get(PREVIOUS, ""), service.notes.get(CANDIDATE, "")}
    if service.notes.get(STATE) == CANARY and traffic.keys() <= parties:
        return service.notes[PREVIOUS]
    if len(traffic) == 1:
        return next(iter(traffic))
    shares = ", ".join(f"{name} {percent} %" for name, percent in traffic.items()) or "no revision"
    raise RolloutError(
        f"the traffic of {service.name} is divided ({shares}) and no rollout did it: give all of it to one revision "
        f"with `gcloud run services update-traffic {service.name} --to-revisions=REVISION=100`"
    )


class CanaryRevision:
    """The revision of a model version, as the candidate of a rollout."""

    def __init__(self, plane: ControlPlane, service: str, *, version: int, image: str) -> None:
        """Name the revision; nothing is read yet.

        Args:
            plane: of the service.
            service: its name.
            version: of the model.
            image: that serves it.
        """
        self._plane, self._image = plane, image
        self.name = self._stem = revision_stem(service, version, image)

    def prepare(self) -> int | None:
        """See Candidate.prepare."""
        for _ in range(ATTEMPTS):
            try:
                return self._prepare()
            except Conflict:
                continue
        raise self._overtaken()

    def url(self) -> str:
        """See Candidate.url."""
        for target in self._plane.read().targets:
            if target.revision == self.name and target.tag == self._tag() and target.url:
                return target.url
        raise TrafficChanged(f"{self.name} has lost its address: somebody else has set the traffic; deploy again")

    def set_share(self, percent: int) -> None:
        """See Candidate.set_share."""
        self._update(percent, CANARY)

    def finish(self) -> None:
        """See Candidate.finish."""
        self._update(ALL, DONE)

    def step_back(self, reason: str) -> None:
        """See Candidate.step_back."""
        self._update(0, STEPPED_BACK, reason)

    def _prepare(self) -> int | None:
        service = self._plane.read()
        self.name, exists = self._choose(self._plane.revisions())
        previous = current_revision(service)
        if previous == self.name:
            if service.traffic() != {self.name: ALL}:  # another revision's rollout has not ended
                self._set(service, service.notes[CANDIDATE], ALL, DONE)
            return None
        share = service.traffic().get(self.name, 0)
        if not exists:
            notes = {PREVIOUS: previous, CANDIDATE: self.name, STATE: CANARY, REASON: ""}
            targets = _targets(service, {previous: ALL}, tag=None)
            self._plane.revise(service, self.name, image=self._image, targets=targets, notes=notes)
            service = self._plane.read()
        self._set(service, previous, share, CANARY)
        return share

    def _choose(self, revisions: Iterable[Revision]) -> tuple[str, bool]:
        """Find the revision among those of the service, or a name for a new one beside those that failed."""
        tried = {each.name: each for each in revisions if re.fullmatch(rf"{self._stem}(-\d+)?", each.name)}
        for each in tried.values():
            if each.ready is not False:
                return each.name, True
        free = [self._stem, *(f"{self._stem}-{number}" for number in range(2, len(tried) + 2))]
        return next(name for name in free if name not in tried), False

    def _update(self, percent: int, state: str, reason: str = "") -> None:
        for _ in range(ATTEMPTS):
            service = self._plane.read()
            previous = service.notes.get(PREVIOUS, "")
            if service.notes.get(CANDIDATE) != self.name or not service.traffic().keys() <= {previous, self.name}:
                raise TrafficChanged(
                    f"somebody else has set the traffic of {service.name} during this rollout: it is left as it is "
                    f"({_sentence(service.traffic())}); deploy again to begin anew"
                )
            try:
                self._set(service, previous, percent, state, reason)
            except Conflict:
                continue
            return
        raise self._overtaken()

    def _set(self, service: Service, previous: str, percent: int, state: str, reason: str = "") -> None:
        shares = {previous: ALL - percent, self.name: percent}
        tag = None if state == DONE else TrafficTarget(self.name, tag=self._tag())
        notes = {PREVIOUS: previous, CANDIDATE: self.name, STATE: state, REASON: reason[:500]}
        self._plane.set_traffic(service, _targets(service, shares, tag=tag), notes)

    def _tag(self) -> str:
        return f"v{self.name.rpartition('-v')[2]}"

    def _overtaken(self) -> RolloutError:
        return RolloutError(f"the service of {self.name} is being changed by somebody else all the time: try again")


def roll_back(plane: ControlPlane, version: int) -> str | None:
    """Give all traffic at once to the newest ready revision of a model version that was served before.

    Args:
        plane: of the service.
        version: of the model.

    Returns:
        The revision's name; None if the service has none that is ready.
    """
    for _ in range(ATTEMPTS):
        service = plane.read()
        found = [each.name for each in plane.revisions() if each.ready and model_version(each.name) == version]
        if not found:
            return None
        notes = {PREVIOUS: ", ".join(service.traffic()), CANDIDATE: found[0], STATE: DONE, REASON: "rolled back"}
        try:
            plane.set_traffic(service, _targets(service, {found[0]: ALL}, tag=None), notes)
        except Conflict:
            continue
        return found[0]
    raise RolloutError("the service is being changed by somebody else all the time: try again")


def _targets(service: Service, shares: Mapping[str, int], *, tag: TrafficTarget | None) -> tuple[TrafficTarget, ...]:
    """Shares as targets. Tags that no rollout made stay on their revisions."""
    kept = [each for each in service.targets if each.tag and not re.fullmatch(r"v\d+-[0-9a-f]{6}(-\d+)?", each.tag)]
    tags = {each.tag: each.revision for each in [*kept, *([] if tag is None else [tag])]}
    untagged = {revision: percent for revision, percent in shares.items() if percent}
    targets = [TrafficTarget(revision, untagged.pop(revision, 0), name) for name, revision in tags.items()]
    return (*(TrafficTarget(revision, percent) for revision, percent in untagged.items()), *targets)


def _sentence(traffic: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {percent} %" for name, percent in traffic.items()) or "no revision has any"
