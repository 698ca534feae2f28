"""Which classes an answer holds beside the most probable one. Knows a package and records, no requests."""

from fashion.config.serve import ServiceConfig
from fashion.model.package import Package
from fashion.model.prediction_sets import PredictionSets
from fashion.predictions.record import PredictionRecord


class Covering:
    """The prediction sets of one model."""

    def __init__(self, package: Package, settings: ServiceConfig) -> None:
        """
        Args:
            package: of the served version.
            settings: how often a set is to hold the true class.

        Raises:
            fashion.model.package.DamagedPackage: what the package holds of prediction sets cannot be read.
        """
        sets = PredictionSets.of(package)
        # Lists: of ten classes, a loop is faster than the first call of numpy.
        self._least: list[float] | None = None if sets is None else sets.thresholds(settings.coverage).tolist()
        self._class_names = package.class_names

    def prediction_set(self, record: PredictionRecord) -> tuple[str, ...] | None:
        """The classes that hold the true one, most probable first; None where the package is older than the sets.

        The most probable class is always among them, so that no set is empty.
        """
        if self._least is None:
            return None
        probabilities = record.probabilities
        held = [label for label, least in enumerate(self._least) if probabilities[label] >= least]
        if record.label not in held:
            held.append(record.label)
        by_probability = sorted(held, key=lambda label: (label != record.label, -probabilities[label]))
        return tuple(self._class_names[label] for label in by_probability)
