"""Bring a registered version to the users of a Cloud Run service, or back to them. Joins the rest of this room."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from fashion.config.deploy import DeployConfig
from fashion.deployment import canary, cloudrun
from fashion.deployment.canary import CanaryRevision, ControlPlane, model_version
from fashion.deployment.dry_run import DryRunPlane, DryRunProbe
from fashion.deployment.permission import is_rolled_back, require_permission
from fashion.deployment.rollout import Outcome, Probe, RolloutError, roll_out
from fashion.deployment.smoke import Picture, ServiceProbe
from fashion.registry import versions
from fashion.registry.versions import RegistryError, Version


def release(
    version: Version,
    settings: DeployConfig,
    *,
    model: str,
    pictures: Sequence[Picture],
    environment: Mapping[str, str],
    say: Callable[[str], None] = print,
) -> Outcome:
    """Roll a version out, or give traffic back to its revision at once where the registry was rolled back to it.

    Args:
        version: the registered version.
        settings: where and how.
        model: name of the registered model.
        pictures: for the smoke test.
        environment: may hold FASHION_PREDICT_KEY, the service's API key, and CLOUD_RUN_EMULATOR_HOST.
        say: called with a sentence for each step.

    Raises:
        RolloutError: the version is not permitted, or the service cannot be read or changed.
    """
    say(require_permission(version, settings.force_reason))
    assert settings.project is not None
    assert settings.region is not None
    service = cloudrun.CloudRun(
        settings.project,
        settings.region,
        settings.service,
        operation_seconds=settings.operation_seconds,
        poll_seconds=0.05 if environment.get("CLOUD_RUN_EMULATOR_HOST") else 2.0,
        emulator=environment.get("CLOUD_RUN_EMULATOR_HOST"),
    )
    say(f"service {settings.service} of project {settings.project} in {settings.region}")
    plane: ControlPlane = DryRunPlane(service, settings.service, say=say) if settings.dry_run else service
    revision = _roll_back(plane, version, model)
    if revision is not None:
        outcome = Outcome(True, f"{revision} has all traffic again: the registry was rolled back to its version")
        return _record(outcome, revision, version, settings, model)
    if settings.image is None:
        raise RolloutError(
            f"{settings.service} has no revision of version {version.number} to go back to: give deploy.image=..., "
            "the container image of its bento"
        )
    candidate = CanaryRevision(plane, settings.service, version=version.number, image=settings.image)
    probe = _probe(version, settings, model=model, pictures=pictures, environment=environment, plane=plane)
    return _record(roll_out(candidate, probe, settings.shares, say=say), candidate.name, version, settings, model)


def require_served(outcome: Outcome) -> None:
    """Raise unless the new revision has all traffic.

    Raises:
        RolloutError: it was stepped back; the registry's champion is still the version that failed.
    """
    if not outcome.served:
        raise RolloutError(
            f"{outcome.sentence}; the registry still has this version as it was: `fashion registry rollback "
            "--reason ...` makes the previous one the champion again"
        )


def _record(outcome: Outcome, revision: str, version: Version, settings: DeployConfig, model: str) -> Outcome:
    """Store the outcome with the version; of a dry run, say only that it was one."""
    if settings.dry_run:
        return replace(outcome, sentence=f"dry run, nothing was changed; it would end with: {outcome.sentence}")
    versions.set_tags(version, {"deployed.revision": revision, "deployed.outcome": outcome.sentence[:500]}, name=model)
    return outcome


def _roll_back(plane: ControlPlane, version: Version, model: str) -> str | None:
    """Give traffic back if the registry was rolled back from a served version; returns the revision that gets it."""
    served = {model_version(revision) for revision in plane.read().traffic()} - {None, version.number}
    left = any(_was_rolled_back(str(number), model) for number in served)
    return canary.roll_back(plane, version.number) if left else None


def _was_rolled_back(number: str, model: str) -> bool:
    try:
        return is_rolled_back(versions.get(number, model))
    except RegistryError:  # it was deleted
        return False


def _probe(
    version: Version,
    settings: DeployConfig,
    *,
    model: str,
    pictures: Sequence[Picture],
    environment: Mapping[str, str],
    plane: ControlPlane,
) -> Probe:
    if settings.dry_run:
        return DryRunProbe(settings)
    if not pictures:
        raise RolloutError(
            "there are no test pictures for the smoke test: the data version that the model was trained on is not "
            "available here, see `fashion data fetch`"
        )
    key = environment.get("FASHION_PREDICT_KEY")
    audience = plane.read().url

    def headers() -> Mapping[str, str]:
        identity = (
            {"x-serverless-authorization": f"Bearer {cloudrun.identity_token(audience)}"}
            if settings.identity_token
            else {}
        )
        return {**identity, **({"authorization": f"Bearer {key}"} if key else {})}

    return ServiceProbe(
        pictures,
        model=(model, str(version.number)),
        slo=settings.slo,
        requests=settings.requests,
        hold_seconds=settings.hold_seconds,
        smoke_accuracy=settings.smoke_accuracy,
        ready_seconds=settings.ready_seconds,
        headers=headers,
    )
