"""Configuration of a rollout: where a version is served, by which steps, and what makes it step back."""

import re
from dataclasses import dataclass
from typing import Literal

from fashion.config.schema import Strict, require

SERVICE = r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?"
"""Cloud Run's rule, but at most 32 characters: a revision's name and its tag's host name add to it."""
IMAGE = r"\S+(@sha256:[0-9a-f]{64}|:(?!latest$)[\w][\w.-]*)"
PLACE = r"[a-z0-9][a-z0-9.:-]*"


@dataclass(frozen=True)
class SloConfig(Strict):
    """Service-level objective that a revision must meet at every share of the traffic."""

    availability: float
    """Share of requests that must be answered, between 0 and 1."""
    latency_ms: float
    """Milliseconds within which a request counts as fast, measured where the rollout runs."""
    latency_share: float
    """Share of requests that must be fast, between 0 and 1; 0.95 bounds the 95th percentile."""

    def __post_init__(self) -> None:
        for name in ("availability", "latency_share"):
            require(0 < getattr(self, name) <= 1, f"{name} must be in (0, 1], got {getattr(self, name)}")
        require(self.latency_ms > 0, f"latency_ms must be positive, got {self.latency_ms}")


@dataclass(frozen=True)
class DeployConfig(Strict):
    """Where and how DeployFlow rolls a version out."""

    target: Literal["none", "cloudrun"]
    """`none` ends with the bento; `cloudrun` gives a revision of a Cloud Run service traffic in steps."""
    dry_run: bool
    """True to print the calls, shares and checks without making them."""
    project: str | None
    """Google Cloud project of the service."""
    region: str | None
    """Region of the service, such as europe-west1."""
    service: str
    """Name of the service. It must exist: configs/deploy/cloudrun.yaml describes it."""
    image: str | None
    """Container image of the bento, by digest or by a tag that does not move; null where traffic only goes back to a
    revision that exists."""
    shares: tuple[int, ...]
    """Percent of the traffic at each step; the last is 100."""
    hold_seconds: float
    """Seconds that each share is held, while requests measure the objective."""
    requests: int
    """Requests sent to the new revision, spread evenly over that time."""
    smoke_rows: int
    """Test pictures sent to the new revision before it gets traffic."""
    smoke_accuracy: float
    """Share of these pictures that must be classified correctly; an altered preprocessing or class order shows here."""
    ready_seconds: float
    """Seconds until the revision's address must answer."""
    operation_seconds: float
    """Seconds that one change of the service may take."""
    identity_token: bool
    """True to send a Google identity token, which a service that is not public requires."""
    force_reason: str | None
    """Why a version is rolled out although it was refused or is not the champion; null to roll out no such version."""
    slo: SloConfig

    def __post_init__(self) -> None:
        if self.target == "cloudrun":
            for name in ("project", "region"):
                value = getattr(self, name)
                require(
                    value is not None and re.fullmatch(PLACE, value) is not None,
                    f"{name} must name the {name} of the Cloud Run service where target is cloudrun, got {value!r}",
                )
        require(
            re.fullmatch(SERVICE, self.service) is not None,
            f"service must be at most 32 lower-case letters, digits and hyphens, got {self.service!r}",
        )
        require(
            self.image is None or re.fullmatch(IMAGE, self.image) is not None,
            f"image must end with @sha256:digest or with a tag other than latest, got {self.image!r}",
        )
        rising = all(low < high for low, high in zip((0, *self.shares), self.shares, strict=False))
        require(
            rising and self.shares[-1:] == (100,),
            f"shares must be rising percentages that end with 100, got {list(self.shares)}",
        )
        for name in ("requests", "smoke_rows"):
            require(1 <= getattr(self, name) <= 10_000, f"{name} must be in [1, 10000], got {getattr(self, name)}")
        require(self.hold_seconds >= 0, f"hold_seconds must not be negative, got {self.hold_seconds}")
        require(0 <= self.smoke_accuracy <= 1, f"smoke_accuracy must be in [0, 1], got {self.smoke_accuracy}")
        for name in ("ready_seconds", "operation_seconds"):
            require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")
        require(self.force_reason is None or bool(self.force_reason.strip()), "force_reason must say why, or be null")
