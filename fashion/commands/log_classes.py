"""The classes of the model that made a logged prediction, as given by hand or by the registry. Knows no log."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from fashion.predictions.record import ModelId, PredictionRecord


class ClassNames:
    """Class names by model, each looked up once."""

    def __init__(self, given: Sequence[str] | None) -> None:
        """
        Args:
            given: names in order, for every model; None to ask the registry.
        """
        self._given = given
        self._known: dict[ModelId, tuple[str, ...] | str] = {}

    def of(self, record: PredictionRecord) -> Sequence[str]:
        """Return the names that a record's labels index.

        Raises:
            ValueError: the registry does not know them, or there are more or fewer of them than the record has.
        """
        if self._given is not None:
            names: Sequence[str] | str = self._given
        else:
            if record.model not in self._known:
                self._known[record.model] = _look_up(record.model)
            names = self._known[record.model]
        if isinstance(names, str):
            raise ValueError(names)
        if len(names) != len(record.probabilities):
            raise ValueError(
                f"{len(names)} class names were given, but {record.model} has {len(record.probabilities)} classes"
            )
        return names


def _look_up(model: ModelId) -> tuple[str, ...] | str:
    """Class names of a model, or one sentence on why they are not known."""
    from fashion.home import prepare_environment
    from fashion.model.package import DamagedPackage
    from fashion.registry import tracking, versions

    remedy = "--classes names them in order"
    if model.name is None:
        return f"the classes of {model} are not known: {remedy}"
    try:
        tracking.connect(prepare_environment())
        with tempfile.TemporaryDirectory() as folder:
            found = versions.fetch(versions.get(model.version, model.name), Path(folder))
    except (*versions.ERRORS, DamagedPackage) as error:
        reason = " ".join(str(error).split())[:200]
        return f"the classes of {model} are not known ({reason}): {remedy}"
    if not model.has_digest(found.digest):
        return f"the classes of {model} are not known, for the registry has another package of this number: {remedy}"
    return found.class_names
