"""Studies of tuning: a journal each in a folder, or rows of a database. Knows their names, not what they hold."""

from collections.abc import Iterator
from pathlib import Path

from fashion.cleaning.candidates import Candidate, candidate, is_due, is_old
from fashion.config.gc import GcConfig
from fashion.storage.servers import ServerUnavailable, has_table

IN_DATABASE = "stored study"
OWN = "TrainFlow-"
"""How the names of this project's studies begin: other programs may have studies in the same database."""


def find(address: str, settings: GcConfig) -> Iterator[Candidate]:
    """Yield studies whose last trial is old.

    Args:
        address: a folder, or a storage URL of Optuna's, which other machines may use too.
        settings: the age.

    Raises:
        ServerUnavailable: the database cannot be used.
    """
    if "://" in address:
        yield from _in_database(address, settings)
        return
    studies = Path(address)
    folder = studies.parent if studies.suffix == ".log" else studies
    for path in sorted(folder.glob("*.log")):
        found = candidate("study", path.name, [path])
        if is_due(found, settings.studies_days):
            yield found


def remove(address: str, found: Candidate) -> None:
    """Remove one that is in a database.

    Raises:
        ServerUnavailable: it cannot be removed.
    """
    from fashion.training import study_storage

    try:
        study_storage.delete(address, found.name)
    except study_storage.StudyUnavailable as error:
        raise ServerUnavailable(str(error)) from None


def _in_database(address: str, settings: GcConfig) -> Iterator[Candidate]:
    from fashion.training import study_storage

    if not has_table(address, study_storage.TABLE, variable="FASHION_STUDIES"):
        return
    try:
        found = study_storage.ages(address)
    except study_storage.StudyUnavailable as error:
        raise ServerUnavailable(str(error)) from None
    for name, age_days in sorted(found.items()):
        if name.startswith(OWN) and is_old(age_days, settings.studies_days):
            yield Candidate(IN_DATABASE, name, (), 0, age_days)
