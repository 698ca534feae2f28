"""What windows are compared with: packages of registered versions, each fetched and parsed once. Decides nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fashion.drift import accepted, carry_over
from fashion.drift.accepted import Accepted
from fashion.drift.reference_stats import ReferenceStats
from fashion.model.accuracy import AccuracyEstimator
from fashion.model.package import Package
from fashion.model.prediction_sets import USUAL_COVERAGE
from fashion.model.predictor import Predictions
from fashion.model.reference import Reference
from fashion.predictions.record import ModelId
from fashion.registry import served_settings, versions
from fashion.registry.versions import Version
from fashion.storage.blobs import Store


@dataclass(frozen=True, eq=False)
class VersionReference:
    """A registered version's package and the reference rows in it; needs no files, so it can be stored or sent."""

    package: Package
    reference: Reference
    estimator: AccuracyEstimator | None
    """None where the package was made before packages held one."""
    accepted: Accepted | None = None
    """Rows of windows that were accepted as the new normal."""
    coverage: float = USUAL_COVERAGE
    """Share of true labels that the prediction sets are to hold which the version was last deployed with."""

    @property
    def compared(self) -> Predictions:
        """The rows that a window's distribution is compared with."""
        return self.reference.predictions if self.accepted is None else self.accepted.predictions

    @property
    def accepted_rows(self) -> int:
        """How many of them are of accepted windows."""
        return 0 if self.accepted is None else len(self.accepted.keys)

    def stats(self) -> ReferenceStats:
        """Prepare the reference for tests.

        Raises:
            fashion.model.package.DamagedPackage: the version has nothing to tell harm by.
        """
        accepted = None if self.accepted is None else self.accepted.predictions
        return ReferenceStats.of(self.package, self.reference, self.estimator, accepted, coverage=self.coverage)


class References:
    """References of one registered model by version, fetched when they are first needed."""

    def __init__(self, model: str, folder: Path, reports: Store | None = None, images: Store | None = None) -> None:
        """
        Args:
            model: name of the registered model.
            folder: where packages are copied to.
            reports: where accepted windows are stored; None to compare with held-out rows only.
            images: where users' pictures are stored, to carry over what was accepted of an earlier version; None to
                carry nothing over.
        """
        self._model, self._folder, self._reports, self._images = model, folder, reports, images
        self.notes: list[str] = []
        """A sentence on each version that accepted rows were carried over to, or could not be."""
        self.loaded: dict[str, VersionReference | None] = {}
        """Version -> its reference, None where the registry does not hold the version; what was fetched so far."""
        self._known: dict[str, Version] | None = None
        self._stats: dict[str, ReferenceStats] = {}

    def load(self, model: ModelId) -> VersionReference | None:
        """The package and reference of what a row is of; None where the registry does not hold this very package.

        Raises:
            fashion.model.package.DamagedPackage: the stored files are not those that were registered.
            fashion.drift.accepted.DamagedRows: the accepted rows cannot be read.
            fashion.registry.versions.RegistryError: the tag with the coverage that it is served with is no coverage.
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

    def unknown(self, rows: Iterable[ModelId]) -> tuple[str, ...]:
        """Those of some models that should have a reference here: all but those of another name.

        Args:
            rows: models without a reference.
        """
        mine = [model for model in rows if model.name in (None, self._model)]
        return tuple(str(model) for model in sorted(mine, key=lambda each: each.order))

    def _fetch(self, version: str) -> VersionReference | None:
        if version not in self.loaded:
            if self._known is None:
                self._known = {str(each.number): each for each in versions.list_versions(self._model)}
            loaded = None
            if version in self._known:
                package = versions.fetch(self._known[version], self._folder / version)
                known = ModelId.of(self._model, version, package.digest)
                rows = self._accepted(known, package)
                coverage = served_settings.coverage_of(self._known[version]) or USUAL_COVERAGE
                estimator = AccuracyEstimator.of(package)
                loaded = VersionReference(package, Reference.of(package), estimator, rows, coverage)
            self.loaded[version] = loaded
        return self.loaded[version]

    def _accepted(self, model: ModelId, package: Package) -> Accepted | None:
        if self._reports is None:
            return None
        if self._images is None:
            return accepted.load(self._reports, model)
        known = sorted((self._known or {}).values(), key=lambda each: each.number, reverse=True)
        earlier = [
            ModelId.of(self._model, each.number, each.tags[versions.DIGEST])
            for each in known
            if each.number < int(model.version) and versions.DIGEST in each.tags
        ]
        found = carry_over.load(self._reports, self._images, model, package, earlier)
        self.notes += [found.note] if found.note else []
        return found.rows
