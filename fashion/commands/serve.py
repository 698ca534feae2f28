"""`fashion serve`: the service, in a process of its own program. The library does not know the service's code."""

import os
import sys
from typing import Annotated

import typer


def serve(
    bento: Annotated[
        str, typer.Option(help="Tag of the bento, or the address of an archive of one, such as gs://bucket/x.bento.")
    ] = "fashion-classifier:latest",
    host: Annotated[str, typer.Option(help="Address to listen on; the default is seen by this machine only.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 3000,
    follow: Annotated[
        bool, typer.Option("--follow", help="Serve each newer bento in place of the one before, once it is checked.")
    ] = False,
) -> None:
    """Serve the latest bento on this machine; the one before it where the latest does not pass its check.

    `make bento` builds one of the champion.
    """
    command = [sys.executable, "-m", "bentos.serving", "--bento", bento, "--host", host, "--port", str(port)]
    sys.stdout.flush()
    os.execv(sys.executable, command + ["--follow"] * follow)
