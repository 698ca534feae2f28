"""The settings of a rollout: the defaults touch nothing, and each wrong value is one sentence."""

import pytest

from fashion.config.compose import compose, load_as
from fashion.config.deploy import DeployConfig
from fashion.config.schema import ConfigError
from fashion.config.serve import ServeConfig

CLOUD = ("deploy.target=cloudrun", "deploy.project=shop", "deploy.region=europe-west1")
DIGEST = "a" * 64


def loaded(*overrides: str) -> DeployConfig:
    return load_as(ServeConfig, compose(overrides, root="serve")).deploy


def test_by_default_nothing_is_rolled_out_and_a_rollout_is_dry() -> None:
    settings = loaded()
    assert (settings.target, settings.dry_run) == ("none", True)
    assert loaded(*CLOUD).dry_run


def test_the_objective_is_the_one_of_the_service() -> None:
    slo = loaded().slo
    assert (slo.availability, slo.latency_ms, slo.latency_share) == (0.95, 70.0, 0.95)


@pytest.mark.parametrize(
    "image",
    [
        f"europe-west1-docker.pkg.dev/shop/fashion/classifier@sha256:{DIGEST}",
        f"localhost:5000/classifier:v3@sha256:{DIGEST}",
        "europe-west1-docker.pkg.dev/shop/fashion/classifier:v3-17",
    ],
)
def test_an_image_is_named_by_digest_or_by_a_tag(image: str) -> None:
    assert loaded(f"deploy.image='{image}'").image == image


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("deploy.target=lambda", "deploy.target must be 'none' or 'cloudrun', got 'lambda'"),
        ("deploy.target=cloudrun", "project must name the project of the Cloud Run service where target is cloudrun"),
        ("deploy.service=Shop_1", "service must be at most 32 lower-case letters, digits and hyphens, got 'Shop_1'"),
        (f"deploy.service={'a' * 33}", "service must be at most 32 lower-case letters"),
        ("deploy.image=classifier", "image must end with @sha256:digest or with a tag other than latest"),
        ("deploy.image='classifier:latest'", "image must end with @sha256:digest or with a tag other than latest"),
        ("deploy.shares=[5,50]", "shares must be rising percentages that end with 100, got [5, 50]"),
        ("deploy.shares=[]", "shares must be rising percentages that end with 100, got []"),
        ("deploy.shares=[50,5,100]", "shares must be rising percentages"),
        ("deploy.shares=[0,100]", "shares must be rising percentages"),
        ("deploy.hold_seconds=-1", "hold_seconds must not be negative, got -1"),
        ("deploy.requests=0", "requests must be in [1, 10000], got 0"),
        ("deploy.smoke_rows=0", "smoke_rows must be in [1, 10000], got 0"),
        ("deploy.smoke_accuracy=70", "smoke_accuracy must be in [0, 1], got 70"),
        ("deploy.ready_seconds=0", "ready_seconds must be positive, got 0"),
        ("deploy.operation_seconds=0", "operation_seconds must be positive, got 0"),
        ("deploy.force_reason=' '", "force_reason must say why, or be null"),
        ("deploy.slo.availability=95", "availability must be in (0, 1], got 95"),
        ("deploy.slo.latency_share=0", "latency_share must be in (0, 1], got 0"),
        ("deploy.slo.latency_ms=0", "latency_ms must be positive, got 0"),
        ("deploy.canary=5", "there is no key 'canary'; deploy has dry_run, force_reason"),
    ],
)
def test_a_wrong_value_is_one_sentence(override: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(override)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
