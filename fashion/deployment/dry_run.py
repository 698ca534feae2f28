"""A rollout that only prints: the same steps, with every change of the service and every request left out."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from fashion.config.deploy import DeployConfig
from fashion.deployment.canary import STATE, ControlPlane, Revision, Service, TrafficTarget
from fashion.deployment.rollout import Check, RolloutError


class DryRunPlane:
    """A ControlPlane that reads the service once, where it can, and from then on changes its own copy."""

    def __init__(self, plane: ControlPlane, service: str, *, say: Callable[[str], None] = print) -> None:
        """Read the service.

        Args:
            plane: of the service; only read.
            service: its name.
            say: called with a sentence for each call that is left out.
        """
        self._say = say
        try:
            self._service, self._revisions = plane.read(), list(plane.revisions())
        except RolloutError as error:
            say(f"the service was not read ({error}); this is what a first rollout would do")
            self._service = Service(service, (TrafficTarget("REVISION-SERVED-NOW", 100),), {})
            self._revisions = []

    def read(self) -> Service:
        """See ControlPlane.read."""
        return self._service

    def revisions(self) -> Sequence[Revision]:
        """See ControlPlane.revisions."""
        return self._revisions

    def revise(
        self, service: Service, name: str, *, image: str, targets: Sequence[TrafficTarget], notes: Mapping[str, str]
    ) -> None:
        """See ControlPlane.revise."""
        self._say(f"would call UpdateService: revision {name} of image {image}, traffic {_sentence(targets)}")
        self._revisions.insert(0, Revision(name, True))
        self._replace(targets, notes)

    def set_traffic(self, service: Service, targets: Sequence[TrafficTarget], notes: Mapping[str, str]) -> None:
        """See ControlPlane.set_traffic."""
        state = notes.get(STATE, "")
        self._say(f"would call UpdateService: traffic {_sentence(targets)}; state {state}")
        self._replace(targets, notes)

    def _replace(self, targets: Sequence[TrafficTarget], notes: Mapping[str, str]) -> None:
        addressed = tuple(
            dataclasses.replace(each, url=f"https://{each.tag}---{self._service.name}" if each.tag else "")
            for each in targets
        )
        self._service = dataclasses.replace(
            self._service, targets=addressed, notes={**self._service.notes, **notes}, source=None
        )


class DryRunProbe:
    """A Probe that passes, and says what it would examine."""

    def __init__(self, settings: DeployConfig) -> None:
        self._settings = settings

    def smoke(self, url: str) -> Sequence[Check]:
        """See Probe.smoke."""
        settings = self._settings
        return [
            Check("ready", True, f"would wait up to {settings.ready_seconds:g} s for {url}/readyz"),
            Check("smoke", True, f"would send {settings.smoke_rows} pictures, {settings.smoke_accuracy:.0%} right"),
            Check("objective", True, f"would require {self._objective()}"),
        ]

    def measure(self, url: str) -> Sequence[Check]:
        """See Probe.measure."""
        settings = self._settings
        sent = f"would send {settings.requests} requests over {settings.hold_seconds:g} s"
        return [Check("objective", True, f"{sent} and require {self._objective()}, or else step back")]

    def _objective(self) -> str:
        slo = self._settings.slo
        return f"{slo.availability:.0%} answered, {slo.latency_share:.0%} within {slo.latency_ms:g} ms"


def _sentence(targets: Sequence[TrafficTarget]) -> str:
    return ", ".join(f"{each.revision} {each.percent} %{f' (tag {each.tag})' if each.tag else ''}" for each in targets)
