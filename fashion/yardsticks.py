"""References of registered versions, fetched when they are first asked for. Knows the registry, decides nothing."""

from pathlib import Path

from fashion import registry
from fashion.drift import Yardstick
from fashion.package import Package


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
        self._made: dict[str, Yardstick] = {}

    def package(self, version: str) -> Package | None:
        """A version's package, or None where the registry does not hold it.

        Raises:
            fashion.package.DamagedPackage: what is stored is not what was registered.
        """
        if version not in self._packages:
            known = {str(each.number): each for each in registry.versions(self._model)}
            found = registry.fetch(known[version], self._folder / version) if version in known else None
            self._packages[version] = found
        return self._packages[version]

    def __call__(self, version: str) -> Yardstick | None:
        """A version's yardstick, or None where the registry does not hold it.

        Raises:
            fashion.package.DamagedPackage: as above, or it was never calibrated.
        """
        served = self.package(version)
        if served is None:
            return None
        if version not in self._made:
            self._made[version] = Yardstick.of(served)
        return self._made[version]
