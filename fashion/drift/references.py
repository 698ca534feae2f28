"""References of registered versions, fetched when they are first asked for. Knows the registry, decides nothing."""

from pathlib import Path

from fashion.drift.decision import ReferenceStats
from fashion.model.package import Package
from fashion.registry import versions


class Yardsticks:
    """What windows of one registered model are compared with, by version."""

    def __init__(self, model: str, folder: Path) -> None:
        """
        Args:
            model: name of the registered model.
            folder: where packages are copied to.
        """
        self._model, self._folder = model, folder
        self._packages: dict[str, Package | None] = {}
        self._made: dict[str, ReferenceStats] = {}

    def package(self, version: str) -> Package | None:
        """A version's package, or None where the registry does not hold it.

        Raises:
            fashion.model.package.DamagedPackage: what is stored is not what was registered.
        """
        if version not in self._packages:
            known = {str(each.number): each for each in versions.list_versions(self._model)}
            found = versions.fetch(known[version], self._folder / version) if version in known else None
            self._packages[version] = found
        return self._packages[version]

    def __call__(self, version: str) -> ReferenceStats | None:
        """A version's yardstick, or None where the registry does not hold it.

        Raises:
            fashion.model.package.DamagedPackage: as above, or it was never calibrated.
        """
        served = self.package(version)
        if served is None:
            return None
        if version not in self._made:
            self._made[version] = ReferenceStats.of(served)
        return self._made[version]
