"""`fashion ui`: the MLflow UI on this machine's runs."""

import argparse
import os
import sys
from collections.abc import Sequence

from fashion.home import Home, prepare_environment
from fashion.registry.tracking import connect


def serve_ui(home: Home, *, host: str = "127.0.0.1", port: int = 5000) -> None:
    """Become the MLflow UI on the tracking store, until interrupted. Does not return."""
    connect(home)
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # eight idle processes otherwise
    print(f"MLflow UI of {home.tracking_uri} on http://{host}:{port} (Ctrl-C ends it)", flush=True)
    command = ["mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", home.tracking_uri, "--default-artifact-root", home.artifacts]
    os.execv(sys.executable, [sys.executable, "-m", *command])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="fashion ui", description="Open the MLflow UI.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; only this machine sees the default")
    parser.add_argument("--port", type=int, default=5000)
    options = parser.parse_args(arguments)
    serve_ui(prepare_environment(), host=options.host, port=options.port)
