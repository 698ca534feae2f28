"""What windows are compared with: packages of registered versions, each fetched and parsed once. Decides nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fashion.drift.reference_stats import ReferenceStats
from fashion.model.accuracy import AccuracyEstimator
from fashion.model.package import Package
from fashion.model.reference import Reference
from fashion.predictions.record import ModelId
from fashion.registry import versions
from fashion.registry.versions import Version


@dataclass(frozen=True, eq=False)
class VersionReference:
    """A registered version's package and the reference rows in it; needs no files, so it can be stored or sent."""

    package: Package
    reference: Reference
    estimator: AccuracyEstimator | None
    """None where the package was made before packages held one."""

    def stats(self) -> ReferenceStats:
        """Prepare the reference for tests.

        Raises:
            fashion.model.package.DamagedPackage: the version has nothing to tell harm by.
        """
        return ReferenceStats.of(self.package, self.reference, self.estimator)


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
        """Version -> its reference, None where the registry does not hold the version; what was fetched so far."""
        self._known: dict[str, Version] | None = None
        self._stats: dict[str, ReferenceStats] = {}

    def load(self, model: ModelId) -> VersionReference | None:
        """The package and reference of what a row is of; None where the registry does not hold this very package.

        Raises:
            fashion.model.package.DamagedPackage: the stored files are not those that were registered.
        """
        if model.name != self._model:
            return None
        loaded = self._fetch(model.version)
        return loaded if loaded is not None and model.has_digest(loaded.package.digest) else None

    def stats(self, model: ModelId) -> ReferenceStats | None:
        """The same reference, prepared for tests.

        Raises:
            fashion.model.package.DamagedPackage: as for `load`, or the version has nothing to tell harm by.
        """
        loaded = self.load(model)
        if loaded is None:
            return None
        if model.version not in self._stats:
            self._stats[model.version] = loaded.stats()
        return self._stats[model.version]

    def describe_unjudged(self, rows: Mapping[ModelId, int]) -> str:
        """One sentence on rows that have no reference here, and why; empty without such rows.

        Args:
            rows: number of rows by model.
        """
        reasons = []
        for model, count in sorted(rows.items(), key=lambda each: each[0].order):
            loaded = self.loaded.get(model.version)
            if model.name is None:
                why = f"of a version {model.version} of an unnamed model, from before logs held names"
            elif model.name != self._model:
                why = f"of another model, {model}"
            elif loaded is None:
                why = f"of {model}, which the registry does not hold"
            else:
                why = (
                    f"of {model}, but the registry's version {model.version} is another package "
                    f"({loaded.package.digest[:8]}): its numbers began anew"
                )
            reasons.append(f"{count:,} are {why}")
        return f"Rows of this window that are not judged: {'; '.join(reasons)}" if reasons else ""

    def _fetch(self, version: str) -> VersionReference | None:
        if version not in self.loaded:
            if self._known is None:
                self._known = {str(each.number): each for each in versions.list_versions(self._model)}
            loaded = None
            if version in self._known:
                package = versions.fetch(self._known[version], self._folder / version)
                loaded = VersionReference(package, Reference.of(package), AccuracyEstimator.of(package))
            self.loaded[version] = loaded
        return self.loaded[version]
