"""`fashion ui`: the UIs of MLflow, Evidently and Optuna on what this machine has."""

import importlib.util
import itertools
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from fashion.commands.errors import CommandError, failing_on

if TYPE_CHECKING:
    from fashion.home import Home
    from fashion.storage.blobs import Store

OPTUNA_DASHBOARD = """
import os
from optuna_dashboard import run_server
run_server(os.environ["FASHION_STUDY"], host=os.environ["FASHION_HOST"], port=int(os.environ["FASHION_PORT"]))
"""


def ui(
    host: Annotated[str, typer.Option(help="Address to listen on; the default is seen by this machine only.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 5000,
    drift: Annotated[bool, typer.Option("--drift", help="Evidently's UI, on the drift reports.")] = False,
    studies: Annotated[bool, typer.Option("--studies", help="Optuna's dashboard, on the newest study.")] = False,
    study: Annotated[str, typer.Option(help="The study to open in its place: a name, as in the folder.")] = "",
) -> None:
    """Open the MLflow UI on runs, curves and versions, or another one.

    Where MLFLOW_TRACKING_URI names a server, that server has the UI: its address is printed.
    """
    from fashion.home import current_home, set_environment

    if drift and (studies or study):
        raise CommandError("--drift and --studies are two UIs: choose one")
    if not (drift or studies or study):
        return open_mlflow(host, port)
    home = current_home()
    set_environment(home)
    if drift:
        open_evidently(home, host, port)
    open_optuna(home, host, port, study)


def open_mlflow(host: str, port: int) -> None:
    """Become the MLflow UI, or print the address of the team's."""
    from fashion.commands import ports
    from fashion.commands.registry import connected
    from fashion.storage.servers import is_database, without_password

    with connected() as home:
        shown = without_password(home.tracking_uri)
    if not is_database(home.tracking_uri):
        print(f"the MLflow UI is on {shown}, the server that MLFLOW_TRACKING_URI names")
        return
    ports.require_free(host, port)
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # eight idle processes otherwise
    # In the environment, for all users of a machine can read the arguments of its processes.
    os.environ["MLFLOW_BACKEND_STORE_URI"] = home.tracking_uri
    print(f"MLflow UI of {shown} on http://{host}:{port} (Ctrl-C ends it)", flush=True)
    command = ["mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, "-m", *command, "--default-artifact-root", home.artifacts])


def open_evidently(home: "Home", host: str, port: int) -> NoReturn:
    """Become Evidently's UI, on a workspace that is made of the stored reports.

    Raises:
        CommandError: there is nothing to show, or the reports cannot be read.
    """
    import shutil

    from fashion.commands import ports
    from fashion.drift import evidently_report, reports
    from fashion.storage.address import open_store

    ports.require_free(host, port)
    folder, store = home.root / "evidently", open_store(home.reports)
    shutil.rmtree(folder, ignore_errors=True)
    with failing_on(OSError):
        snapshots = reports.read_snapshots(store)
        if (first := next(snapshots, None)) is None:
            raise CommandError(f"no report in {home.reports} has a snapshot of Evidently's: `make drift` writes one")
        count = evidently_report.build_workspace(folder, _named(store, itertools.chain([first], snapshots)))
    print(f"Evidently's UI of {count} snapshots on http://{host}:{port} (Ctrl-C ends it)", flush=True)
    words = ["evidently.cli", "ui", "--workspace", str(folder), "--host", host, "--port", str(port)]
    os.execv(sys.executable, [sys.executable, "-m", *words])


def _named(store: "Store", snapshots: Iterable[tuple[str, str, str]]) -> Iterator[tuple[str, str, float, str]]:
    """Project, name, time and content of the snapshots of complete reports."""
    from fashion.drift import reports

    for report_id, title, content in snapshots:
        if store.exists(f"{report_id}/{reports.RESULT}"):
            project = reports.read_result(store, report_id).get("model_name") or "drift"
            yield str(project), f"{report_id} {title}", reports.time_of(report_id), content


def open_optuna(home: "Home", host: str, port: int, study: str) -> NoReturn:
    """Become optuna-dashboard, on one study or on the database of all.

    Raises:
        CommandError: there is no study, its database cannot be used, or optuna-dashboard is not installed.
    """
    from fashion.commands import ports
    from fashion.storage.servers import check_database

    address = home.studies if "://" in home.studies else str(_journal(Path(home.studies), study))
    if importlib.util.find_spec("optuna_dashboard") is None:
        shown = '"$FASHION_STUDIES"' if "://" in address else shlex.quote(address)
        raise CommandError(
            f"optuna-dashboard is not installed: `uv tool run optuna-dashboard --port {port} {shown}` runs it, "
            f"`{shlex.quote(sys.executable)} -m pip install optuna-dashboard` installs it"
        )
    if "://" in address:
        with failing_on(OSError):
            check_database(address, variable="FASHION_STUDIES")
    ports.require_free(host, port)
    print(f"Optuna's dashboard of {Path(address).stem} on http://{host}:{port} (Ctrl-C ends it)", flush=True)
    os.environ |= {"FASHION_STUDY": address, "FASHION_HOST": host, "FASHION_PORT": str(port)}
    os.execv(sys.executable, [sys.executable, "-c", OPTUNA_DASHBOARD])


def _journal(folder: Path, study: str) -> Path:
    """The journal of a study, or the newest one."""
    folder = folder.parent if folder.suffix == ".log" else folder
    journals = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
    chosen = [path for path in journals if study in ("", path.stem)]
    if not journals:
        raise CommandError(f"there is no study in {folder}: `make train` with tuning begins one")
    if not chosen:
        raise CommandError(f"there is no study {study} in {folder}: it has {', '.join(path.stem for path in journals)}")
    return chosen[-1]
