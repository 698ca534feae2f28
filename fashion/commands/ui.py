"""`fashion ui`: the MLflow UI on this machine's runs, or the address of the team's."""

import os
import sys
from typing import Annotated

import typer


def ui(
    host: Annotated[str, typer.Option(help="Address to listen on; the default is seen by this machine only.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 5000,
) -> None:
    """Open the MLflow UI on runs, curves and versions.

    Where MLFLOW_TRACKING_URI names a server, that server has the UI: its address is printed.
    """
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
