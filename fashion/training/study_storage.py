"""Where studies are stored: a journal file each, or a database. Knows nothing of what a study holds."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from fashion.storage.servers import is_database_error, limit_requests, reason_of, without_password

EXPECTED = (OSError, ValueError, KeyError, optuna.exceptions.OptunaError)
"""What storages raise of a journal that is damaged, or a disk that is full."""


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


@contextlib.contextmanager
def reading(address: str, name: str) -> Iterator[None]:
    """Raise StudyUnavailable for whatever a storage raises in the block.

    Args:
        address: of the storage.
        name: of the study.
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
        raise StudyUnavailable(f"the study {name} in {shown} cannot be used ({reason}); {remedy}") from error


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
