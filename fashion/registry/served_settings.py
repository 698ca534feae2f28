"""What is stored with a version of how it is served, for those who judge its answers. Knows no service."""

from fashion.config.names import MODEL_NAME
from fashion.registry import versions
from fashion.registry.versions import Version

COVERAGE = "serve.coverage"
"""Tag with the share of true labels that the prediction sets of the newest bento are to hold."""


def record_coverage(version: Version, coverage: float, *, name: str = MODEL_NAME) -> None:
    """Store the coverage that a version is deployed with, in the place of an earlier one.

    Args:
        version: that a bento was built of.
        coverage: of its prediction sets, in (0, 1).
        name: of the registered model.
    """
    versions.set_tags(version, {COVERAGE: str(coverage)}, name=name)


def coverage_of(version: Version) -> float | None:
    """The coverage that a version was last deployed with; None where no bento with prediction sets was built of it.

    Raises:
        RegistryError: the tag holds no such number.
    """
    tag = version.tags.get(COVERAGE)
    if tag is None:
        return None
    try:
        coverage = float(tag)
    except ValueError:
        coverage = 0.0
    if not 0 < coverage < 1:
        raise versions.RegistryError(
            f"the tag {COVERAGE} of version {version.number} must be a number in (0, 1), got {tag!r}: "
            "`make bento` of that version writes it anew"
        )
    return coverage
