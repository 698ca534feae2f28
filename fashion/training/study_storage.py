"""Where studies are stored: a journal file each, or a database. Knows nothing of what a study holds."""

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from fashion.storage.servers import is_database_error, limit_requests, reason_of, without_password

EXPECTED = (OSError, ValueError, KeyError, optuna.exceptions.OptunaError)
"""What storages raise of a journal that is damaged, or a disk that is full."""


TABLE = "studies"
"""Of Optuna in a database: where it is missing, there is no study yet."""


class StudyUnavailable(RuntimeError):
    """A study cannot be read or written. The message is one sentence with its address and what to do."""


def open_storage(address: str, name: str, *, replace_damaged: bool = False) -> BaseStorage:
    """Open the storage of one study.

    Args:
        address: a folder, with a journal file for each study, or any storage URL of Optuna.
        name: of the study.
        replace_damaged: True to move a journal that cannot be read aside, and begin anew.
    """
    if "://" in address:
        limit_requests()
        return RDBStorage(address, engine_kwargs={"pool_pre_ping": True} if address.startswith("postgresql") else {})
    file = journal_file(address, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    _drop_torn_line(file)
    try:
        return JournalStorage(JournalFileBackend(str(file)))
    except (ValueError, KeyError):
        if not replace_damaged:
            raise
        file.rename(file.with_suffix(".damaged"))
        return JournalStorage(JournalFileBackend(str(file)))


def journal_file(address: str, name: str) -> Path:
    """The journal of one study. A file of the name that held all studies once gives its folder."""
    folder = Path(address)
    return (folder.parent if folder.suffix == ".log" else folder) / f"{name}.log"


def ages(address: str) -> dict[str, float]:
    """Days since something changed last in each study that has a trial.

    Optuna stores the local time of the machine that ran a trial: an age may be wrong by half a day.

    Args:
        address: of a database that has Optuna's tables.

    Raises:
        StudyUnavailable: it cannot be read.
    """
    now, found = datetime.datetime.now(), {}
    with reading(address, ""):
        storage = open_storage(address, "")
        for study in storage.get_all_studies():
            trials = storage.get_all_trials(study._study_id, deepcopy=False)
            moments = [moment for each in trials if (moment := each.datetime_complete or each.datetime_start)]
            if moments:
                found[str(study.study_name)] = (now - max(moments)) / datetime.timedelta(days=1)
    return found


def delete(address: str, name: str) -> None:
    """Delete a study with its trials.

    Args:
        address: of the database that it is in.
        name: of the study; that there is none is no error.

    Raises:
        StudyUnavailable: it cannot be deleted.
    """
    with reading(address, name), contextlib.suppress(KeyError):
        optuna.delete_study(study_name=name, storage=open_storage(address, name))


@contextlib.contextmanager
def reading(address: str, name: str) -> Iterator[None]:
    """Raise StudyUnavailable for whatever a storage raises in the block.

    Args:
        address: of the storage.
        name: of the study; empty for all of them.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, EXPECTED) and not is_database_error(error):
            raise
        reason = reason_of(error.__cause__ or error)
        if "://" in address:
            shown, remedy = without_password(address), "check FASHION_STUDIES, and that its server is up; then `resume`"
        else:
            shown = str(journal_file(address, name))
            remedy = "check the disk and its permissions; then `resume`"
        if "://" not in address and not isinstance(error, OSError):
            remedy = "`resume plan --origin-run-id RUN` begins the study anew, and a new run has a study of its own"
        what = f"the study {name}" if name else "a study"
        raise StudyUnavailable(f"{what} in {shown} cannot be used ({reason}); {remedy}") from error


def _drop_torn_line(file: Path) -> None:
    """Remove half a line at the end, as a full disk leaves it: Optuna would append the next one to it."""
    lock = JournalFileSymlinkLock(str(file))
    lock.acquire()
    try:
        if file.exists():
            with file.open("r+b") as journal:
                content = journal.read()
                journal.truncate(content.rfind(b"\n") + 1)
    finally:
        lock.release()
