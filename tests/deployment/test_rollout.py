"""The steps of a rollout: whatever the checks say and wherever it is killed, traffic is where the steps allow it."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fashion.deployment import canary
from fashion.deployment.canary import (
    CanaryRevision,
    Conflict,
    Revision,
    RevisionFailed,
    Service,
    TrafficChanged,
    TrafficTarget,
    model_version,
    revision_stem,
)
from fashion.deployment.rollout import Check, Outcome, RolloutError, roll_out

OLD = "shop-v1-aaaaaa"
SHARES = (5, 25, 50, 100)


class Killed(BaseException):
    """The process has ended here."""


class MemoryPlane:
    """A service in memory, which is changed at once; some of its calls are overtaken by others, or the last ones.

    Attributes:
        service: as it is.
        log: traffic after each change, and the checks in between.
    """

    def __init__(self, traffic: Mapping[str, int] | None = None, events: Sequence[str] = ()) -> None:
        targets = [TrafficTarget(name, percent) for name, percent in (traffic or {OLD: 100}).items()]
        self.service = Service("shop", tuple(targets), {})
        self.known = [Revision(name, True) for name in traffic or {OLD: 100}]
        self.events, self.log = iter(events), list[object]()

    def read(self) -> Service:
        if next(self.events, "") == "killed":
            raise Killed
        return self.service

    def revisions(self) -> Sequence[Revision]:
        return self.known

    def revise(
        self, service: Service, name: str, *, image: str, targets: Sequence[TrafficTarget], notes: Mapping[str, str]
    ) -> None:
        event = next(self.events, "")
        if event == "conflict":
            raise Conflict("overtaken")
        if event == "killed":
            raise Killed
        self.known.insert(0, Revision(name, "broken" not in image, "no such image"))
        if "broken" in image:
            raise RevisionFailed(f"revision {name} did not become ready")
        self._change(targets, notes)
        if event == "killed after":
            raise Killed

    def set_traffic(self, service: Service, targets: Sequence[TrafficTarget], notes: Mapping[str, str]) -> None:
        event = next(self.events, "")
        if event == "conflict":
            raise Conflict("overtaken")
        if event == "killed":
            raise Killed
        self._change(targets, notes)
        if event == "killed after":
            raise Killed

    def _change(self, targets: Sequence[TrafficTarget], notes: Mapping[str, str]) -> None:
        assert sum(each.percent for each in targets) == 100
        assert {each.revision for each in targets} <= {each.name for each in self.known}
        addressed = tuple(dataclasses.replace(each, url=f"https://{each.tag}" if each.tag else "") for each in targets)
        self.service = dataclasses.replace(self.service, targets=addressed, notes={**self.service.notes, **notes})
        self.log.append(self.service.traffic())


class ScriptedProbe:
    """Passes or fails as it is written."""

    def __init__(self, verdicts: Iterator[bool], log: list[object]) -> None:
        self.verdicts, self.log = verdicts, log

    def smoke(self, url: str) -> Sequence[Check]:
        return self.measure(url)

    def measure(self, url: str) -> Sequence[Check]:
        assert url.startswith("https://v2-")
        verdict = next(self.verdicts, True)
        self.log.append(verdict)
        return [Check("objective", verdict, "answered")]


def candidate(plane: MemoryPlane, image: str = "classifier:2", version: int = 2) -> CanaryRevision:
    return CanaryRevision(plane, "shop", version=version, image=image)


def run(plane: MemoryPlane, *verdicts: bool, shares: Sequence[int] = SHARES) -> Outcome:
    return roll_out(candidate(plane), ScriptedProbe(iter(verdicts), plane.log), shares, say=lambda _: None)


def new(plane: MemoryPlane) -> str:
    return candidate(plane).name


rising = st.sets(st.integers(1, 99), max_size=4).map(lambda few: (*sorted(few), 100))
happenings = st.lists(st.sampled_from(["", "", "", "conflict", "killed", "killed after"]), max_size=20)


class TestAnyRollout:
    """Properties over any checks, any shares, any overtaking updates and any points at which it is killed."""

    @pytest.mark.fault("errors and kills at any step of a rollout")
    @given(rising, st.lists(st.booleans(), max_size=10), happenings)
    def test_ends_with_all_traffic_on_one_revision_and_never_skips_a_share(
        self, shares: tuple[int, ...], verdicts: list[bool], events: list[str]
    ) -> None:
        plane = MemoryPlane(events=events)
        probe = ScriptedProbe(iter(verdicts), plane.log)
        outcome = None
        while outcome is None:
            try:
                outcome = roll_out(candidate(plane), probe, shares, say=lambda _: None)
            except (Killed, RolloutError):
                continue  # deployed again; each attempt uses up an event
        name = new(plane)
        assert plane.service.traffic() == {name if outcome.served else OLD: 100}
        share, passed = 0, False
        for entry in plane.log:
            if isinstance(entry, bool):
                passed = entry
                continue
            assert isinstance(entry, dict)
            assert entry.keys() <= {OLD, name}
            given = entry.get(name, 0)
            if given > share:
                assert passed, plane.log
                assert given == next(each for each in shares if each > share)
                passed = False
            else:
                assert given in (share, 0)
            share = given

    @given(rising, happenings)
    def test_has_all_traffic_if_every_check_passes(self, shares: tuple[int, ...], events: list[str]) -> None:
        plane = MemoryPlane(events=events)
        for _ in range(len(events) + 1):
            try:
                assert run(plane, shares=shares).served
                break
            except (Killed, RolloutError):
                continue
        assert plane.service.traffic() == {new(plane): 100}
        assert plane.service.notes[canary.STATE] == canary.DONE


def test_each_share_is_examined_before_the_next() -> None:
    plane = MemoryPlane()
    outcome = run(plane)
    assert [stage.share for stage in outcome.stages] == [0, *SHARES]
    assert outcome.sentence == f"{new(plane)} has all traffic"


@pytest.mark.parametrize("passes", range(5))
def test_one_failed_check_gives_all_traffic_back(passes: int) -> None:
    plane = MemoryPlane()
    outcome = run(plane, *[True] * passes, False)
    assert not outcome.served
    assert plane.service.traffic() == {OLD: 100}
    assert f"at {(0, *SHARES)[passes]} % of the traffic: answered" in outcome.sentence
    assert plane.service.notes[canary.STATE] == canary.STEPPED_BACK
    assert plane.service.notes[canary.REASON] in outcome.sentence


def test_a_revision_that_stepped_back_can_be_tried_again() -> None:
    plane = MemoryPlane()
    run(plane, True, False)
    assert run(plane).served
    assert len(plane.known) == 2


def test_a_finished_rollout_changes_nothing_when_it_is_repeated() -> None:
    plane = MemoryPlane()
    run(plane)
    before = len(plane.log)
    outcome = run(plane)
    assert (outcome.served, outcome.stages, len(plane.log)) == (True, (), before)
    assert "nothing was changed" in outcome.sentence


def test_a_revision_that_failed_is_made_again_under_another_name() -> None:
    plane = MemoryPlane()
    broken = candidate(plane, "broken:2")
    for expected in (broken.name, f"{broken.name}-2", f"{broken.name}-3"):
        with pytest.raises(RevisionFailed, match=f"revision {expected} did not"):
            broken.prepare()
    assert plane.service.traffic() == {OLD: 100}


def test_a_rollout_that_another_one_replaces_gives_its_traffic_back_first() -> None:
    plane = MemoryPlane()
    abandoned = candidate(plane)
    abandoned.prepare()
    abandoned.set_share(25)
    following = candidate(plane, "classifier:3", version=3)
    assert following.prepare() == 0
    assert plane.service.traffic() == {OLD: 100}
    with pytest.raises(TrafficChanged, match=f"is left as it is \\({OLD} 100 %\\); deploy again"):
        abandoned.set_share(50)


def test_traffic_that_somebody_else_sets_meanwhile_is_left_alone() -> None:
    plane = MemoryPlane()
    revision = candidate(plane)
    revision.prepare()
    plane.known.append(Revision("shop-00007-xyz", True))
    plane._change([TrafficTarget("shop-00007-xyz", 100)], {})
    with pytest.raises(TrafficChanged, match="somebody else has set the traffic of shop"):
        revision.set_share(5)
    assert plane.service.traffic() == {"shop-00007-xyz": 100}


def test_divided_traffic_is_not_decided_about() -> None:
    plane = MemoryPlane({OLD: 60, "shop-v1-bbbbbb": 40})
    with pytest.raises(
        RolloutError, match=r"the traffic of shop is divided \(shop-v1-aaaaaa 60 %, shop-v1-bbbbbb 40 %"
    ):
        run(plane)


def test_going_back_to_the_previous_version_ends_a_rollout_at_once() -> None:
    plane = MemoryPlane()
    run(plane)
    third = candidate(plane, "classifier:3", version=3)
    third.prepare()
    third.set_share(25)
    assert canary.roll_back(plane, 2) == new(plane)
    assert plane.service.traffic() == {new(plane): 100}
    assert run(plane).stages == ()


def test_deploying_the_previous_version_again_ends_a_rollout_at_once() -> None:
    plane = MemoryPlane()
    run(plane)
    third = candidate(plane, "classifier:3", version=3)
    third.prepare()
    third.set_share(25)
    assert run(plane).served
    assert plane.service.traffic() == {new(plane): 100}


def test_there_is_nothing_to_go_back_to_without_a_revision_of_the_version() -> None:
    plane = MemoryPlane()
    assert canary.roll_back(plane, 7) is None
    assert plane.log == []


def test_tags_of_others_stay_and_earlier_ones_of_rollouts_go() -> None:
    plane = MemoryPlane()
    stale = TrafficTarget(OLD, tag="v1-aaaaaa", url="https://v1-aaaaaa")
    own = TrafficTarget(OLD, tag="staging", url="https://staging")
    plane.service = dataclasses.replace(plane.service, targets=(*plane.service.targets, stale, own))
    run(plane)
    assert {each.tag: each.revision for each in plane.service.targets if each.tag} == {"staging": OLD}
    assert plane.service.traffic() == {new(plane): 100}


@given(st.from_regex(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True), st.integers(1, 10**6), st.text())
def test_a_revisions_name_says_its_version_and_fits(service: str, version: int, image: str) -> None:
    name = revision_stem(service, version, image)
    assert model_version(name) == version
    assert model_version(f"{name}-12") == version
    assert len(f"{name}-12") <= 63
    assert name == revision_stem(service, version, image)


@pytest.mark.parametrize("name", ["shop-00012-abc", "shop", "shop-v2-summer"])
def test_a_revision_of_somebody_else_has_no_version(name: str) -> None:
    assert model_version(name) is None
