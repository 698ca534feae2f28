"""Where state is stored: every address that a run writes to. Knows nothing of what is written there."""

import getpass
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from fashion.state import interrupts, record, relocation
from fashion.state.record import StateError
from fashion.storage import sqlite
from fashion.storage.servers import server_seconds

REPOSITORY = Path(__file__).resolve().parents[1]


class AddressError(ValueError):
    """Variables of the environment contradict each other, or are none. The message is one sentence with the remedy."""


@dataclass(frozen=True)
class Home:
    """Addresses of everything that a run writes. On one machine all are in one folder.

    A folder or bucket is what `fashion.storage.address.open_store` takes: a path, `gs://`, `s3://` or `az://`.
    """

    root: Path
    """The folder; `FASHION_HOME`, or `var/` in the repository."""
    tracking_uri: str
    """MLflow tracking store; `MLFLOW_TRACKING_URI`, or SQLite in the folder."""
    artifacts: str
    """MLflow artifact root of new experiments, where runs are in a database, not on a server; `FASHION_ARTIFACTS`."""
    data: Path
    """Verified data files, one folder a data set."""
    checkpoints: str
    """Folder or bucket of training checkpoints; `FASHION_CHECKPOINTS` where disks are not durable."""
    studies: str
    """Optuna storage URL, or a folder with a journal file for each study; `FASHION_STUDIES`."""
    predictions: Path
    """The prediction log of this machine."""
    shared_log: str | None = field(repr=False)  # it may hold a password
    """Log of several machines, where predictions are shipped to: `firestore://project[/database]` or
    `postgresql://user:password@host/database`; `FASHION_LOG`, or None. `FASHION_FIRESTORE=project[/database]` is an
    older way to name Firestore."""
    images: str
    """Folder or bucket of the pictures that were predicted; `FASHION_IMAGES`."""
    reports: str
    """Folder or bucket of drift reports; `FASHION_REPORTS`."""
    bentos: Path
    """BentoML's store of models and bentos; `BENTOML_HOME`."""
    bento_archives: str | None
    """Folder or bucket that DeployFlow writes an archive of each bento to; `FASHION_BENTOS`, or None."""


def root() -> Path:
    """The folder of this machine's state; whether it can be used is not looked at."""
    return Path(os.environ.get("FASHION_HOME") or REPOSITORY / "var").expanduser().resolve()


def current_home() -> Home:
    """Read the environment and return the addresses that follow from it. Creates nothing.

    Raises:
        AddressError: FASHION_LOG and FASHION_FIRESTORE name different logs, or FASHION_SERVER_SECONDS is no number of
            seconds.
        fashion.state.record.StateError: the folder is a file, or was written by a newer version of this program.
    """
    folder = root()
    _server_seconds()
    record.read(folder)
    return Home(
        root=folder,
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or sqlite.url(folder / relocation.DATABASE),
        artifacts=os.environ.get("FASHION_ARTIFACTS") or (folder / relocation.ARTIFACTS).as_uri(),
        data=folder / "data",
        checkpoints=os.environ.get("FASHION_CHECKPOINTS") or str(folder / "checkpoints"),
        studies=os.environ.get("FASHION_STUDIES") or str(folder / "optuna"),
        predictions=folder / "predictions.db",
        shared_log=_shared_log(os.environ.get("FASHION_LOG"), os.environ.get("FASHION_FIRESTORE")),
        images=os.environ.get("FASHION_IMAGES") or str(folder / "images"),
        reports=os.environ.get("FASHION_REPORTS") or str(folder / "reports"),
        bentos=Path(os.environ.get("BENTOML_HOME") or folder / "bentoml"),
        bento_archives=os.environ.get("FASHION_BENTOS") or None,
    )


def prepare_home() -> Home:
    """Make the folder, adapt what it stores if it has moved, and set the environment as `set_environment` does.

    Raises:
        AddressError: the environment's addresses contradict each other.
        fashion.state.record.StateError: the folder cannot be made or used.
    """
    home = current_home()
    try:
        home.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(
            f"FASHION_HOME={home.root} cannot be made ({error.strerror}): name a folder of this user"
        ) from None
    relocation.settle(home.root)
    set_environment(home)
    return home


def prepare_environment() -> Home:
    """Do what `prepare_home` does, or end the process with one sentence, on Ctrl-C with one word.

    Call before importing metaflow, which reads its settings on import.
    """
    interrupts.end_in_one_word()
    try:
        return prepare_home()
    except (AddressError, StateError) as error:
        sys.exit(f"error: {error}")


def set_environment(home: Home) -> None:
    """Set what Metaflow, MLflow and BentoML read from the environment. Creates nothing.

    A variable that is set already wins: this is how the same flow runs on a cluster.

    Raises:
        AddressError: FASHION_SERVER_SECONDS is no number of seconds.
    """
    seconds = _server_seconds()
    defaults = {
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(home.root / "metaflow"),
        "METAFLOW_USER": _user(),
        "MLFLOW_TRACKING_URI": home.tracking_uri,
        "BENTOML_HOME": str(home.bentos),
        "BENTOML_DO_NOT_TRACK": "True",
        "GIT_PYTHON_REFRESH": "quiet",  # MLflow warns about a missing git executable otherwise
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "5",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines for each trial
        # Two tries in the time that a server has; MLflow's defaults add up to 4 minutes, and 20 if it hangs.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(max(1, int(seconds - 1) // 2)),
        "DO_NOT_TRACK": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def _server_seconds() -> float:
    try:
        return server_seconds()
    except ValueError as error:
        raise AddressError(str(error)) from None


def _shared_log(log: str | None, firestore: str | None) -> str | None:
    named = f"firestore://{firestore}" if firestore else None
    if log and named and log.removesuffix("/(default)") != named.removesuffix("/(default)"):
        raise AddressError(
            f"FASHION_LOG and FASHION_FIRESTORE={firestore} name different logs: unset FASHION_FIRESTORE, which is an "
            "older way to set FASHION_LOG=firestore://project[/database]"
        )
    return log or named


def _user() -> str:
    # Metaflow does not run as root without another user name to store runs under.
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user id without a name
        return "fashion"
    return "fashion" if name == "root" else name


def user() -> str:
    """Who runs this process: METAFLOW_USER on a cluster, else the user of this machine."""
    try:
        return os.environ.get("METAFLOW_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user id without a name
        return "unknown"
