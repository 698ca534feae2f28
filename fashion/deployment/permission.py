"""Whether the registry's verdict allows a version to be rolled out. Knows versions and their tags, no cloud."""

from fashion.deployment.rollout import RolloutError
from fashion.registry.versions import CHAMPION, Version


class NotPermitted(RolloutError):
    """The registry's verdict is against this version."""


def require_permission(version: Version, force_reason: str | None) -> str:
    """Return a sentence that says why a version may be rolled out.

    The champion may, unless the gate has refused it and nobody has promoted it since. Others need a reason.

    Args:
        version: as the registry has it.
        force_reason: why it is rolled out in any case; None for no such reason.

    Raises:
        NotPermitted: it may not.
    """
    tags = version.tags
    refused = tags.get("refused.time", "") > tags.get("promoted.time", "")
    if CHAMPION in version.aliases and not refused:
        return f"version {version.number} is the champion: {tags.get('promoted.reason', 'no reason is recorded')}"
    problem = f"was refused by the gate ({tags.get('refused.reason')})" if refused else "is not the champion"
    if force_reason is not None:
        return f"version {version.number} {problem}; it is rolled out because: {force_reason}"
    raise NotPermitted(
        f"version {version.number} {problem} and is not rolled out: promote it with `fashion registry promote "
        f"{version.number} --reason ...`, or give deploy.force_reason=..."
    )


def is_rolled_back(version: Version) -> bool:
    """True if a version was the champion and users went back from it: not the champion, and not promoted since."""
    rolled_back, promoted = (version.tags.get(f"{each}.time", "") for each in ("rolled_back", "promoted"))
    return CHAMPION not in version.aliases and rolled_back != "" and rolled_back >= promoted
