"""What the registry knows of the models that made logged predictions: classes and versions. Knows no log."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from fashion.commands.errors import CommandError
from fashion.predictions.record import KnownModel, ModelId, PredictionRecord


class UnknownModel(ValueError):
    """The registry holds no such model, or cannot be read. The message is one sentence."""


def known_models(name: str) -> list[KnownModel]:
    """Return what the registry knows of a model's versions.

    Raises:
        UnknownModel: it has none, or cannot be read.
    """
    from fashion.home import prepare_environment
    from fashion.model.package import DamagedPackage
    from fashion.registry import tracking, versions

    try:
        tracking.connect(prepare_environment())
        known = []
        for version in versions.list_versions(name):
            with tempfile.TemporaryDirectory() as folder:
                found = versions.fetch(version, Path(folder))
            created_us = int(version.created.timestamp() * 1e6)
            model = ModelId.of(name, version.number, found.digest)
            known.append(KnownModel(model, created_us, len(found.class_names)))
    except (*versions.ERRORS, DamagedPackage) as error:
        raise UnknownModel(f"the versions of {name} are not known: {' '.join(str(error).split())[:300]}") from None
    if not known:
        raise UnknownModel(
            f"the registry has no version of {name}: `fashion registry list --name NAME` shows what it has"
        )
    return known


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
            CommandError: the registry cannot be reached.
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
    """Class names of a model, or one sentence on why they are not known.

    Raises:
        CommandError: the registry cannot be reached; it would not know the next model either.
    """
    from fashion.home import prepare_environment
    from fashion.model.package import DamagedPackage
    from fashion.registry import server, tracking, versions

    remedy = "--classes names them in order"
    if model.name is None:
        return f"the classes of {model} are not known: {remedy}"
    try:
        tracking.connect(prepare_environment())
        with tempfile.TemporaryDirectory() as folder:
            found = versions.fetch(versions.get(model.version, model.name), Path(folder))
    except (*versions.ERRORS, DamagedPackage) as error:
        reason = " ".join(str(error).split())
        if (away := server.explain(error)) is not None:
            raise CommandError(f"the classes of {model} are not known ({away}); or {remedy}") from None
        return f"the classes of {model} are not known ({reason[:200]}): {remedy}"
    if not model.has_digest(found.digest):
        return f"the classes of {model} are not known, for the registry has another package of this number: {remedy}"
    return found.class_names
