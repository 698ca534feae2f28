"""What windows are compared with: packages of registered versions, each fetched and parsed once. Decides nothing."""

from dataclasses import dataclass
from pathlib import Path

from fashion.drift.reference_stats import ReferenceStats
from fashion.model.package import Package
from fashion.model.reference import Reference
from fashion.registry import versions


@dataclass(frozen=True, eq=False)
class VersionReference:
    """A registered version's package and the reference rows in it; needs no files, so it can be stored or sent."""

    package: Package
    reference: Reference

    def stats(self) -> ReferenceStats:
        """Prepare the reference for tests.

        Raises:
            fashion.model.package.DamagedPackage: the version has no severity thresholds.
        """
        return ReferenceStats.of(self.package, self.reference)


class References:
    """References of one registered model by version, fetched when they are first needed."""

    def __init__(self, model: str, folder: Path) -> None:
        """
        Args:
            model: name of the registered model.
            folder: where packages are copied to.
        """
        self._model, self._folder = model, folder
        self.loaded: dict[str, VersionReference | None] = {}
        """What `load` returned so far."""
        self._stats: dict[str, ReferenceStats | None] = {}

    def load(self, version: str) -> VersionReference | None:
        """A version's package and reference, or None if the registry does not hold the version.

        Raises:
            fashion.model.package.DamagedPackage: the stored files are not those that were registered.
        """
        if version not in self.loaded:
            known = {str(each.number): each for each in versions.list_versions(self._model)}
            loaded = None
            if version in known:
                package = versions.fetch(known[version], self._folder / version)
                loaded = VersionReference(package, Reference.of(package))
            self.loaded[version] = loaded
        return self.loaded[version]

    def stats(self, version: str) -> ReferenceStats | None:
        """A version's reference, prepared for tests, or None if the registry does not hold the version.

        Raises:
            fashion.model.package.DamagedPackage: as for `load`, or the version has no severity thresholds.
        """
        if version not in self._stats:
            loaded = self.load(version)
            self._stats[version] = None if loaded is None else loaded.stats()
        return self._stats[version]
