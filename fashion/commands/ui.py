"""`fashion ui`: the MLflow UI on this machine's runs."""

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
    """Open the MLflow UI on runs, curves and versions."""
    from fashion.commands.registry import failing_on_registry
    from fashion.home import prepare_environment
    from fashion.registry.tracking import connect

    home = prepare_environment()
    with failing_on_registry(home):
        connect(home)
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # eight idle processes otherwise
    print(f"MLflow UI of {home.tracking_uri} on http://{host}:{port} (Ctrl-C ends it)", flush=True)
    command = ["mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", home.tracking_uri, "--default-artifact-root", home.artifacts]
    os.execv(sys.executable, [sys.executable, "-m", *command])
