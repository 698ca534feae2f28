"""`fashion serve`: the service, in a process of its own program. The library does not know the service's code."""

import os
import sys
from typing import Annotated

import typer

from fashion.commands.errors import failing_on
from fashion.config.names import MODEL_NAME, PORT


def serve(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="data=NAME", show_default=False, help="The data set whose bento is served."),
    ] = None,
    bento: Annotated[
        str | None,
        typer.Option(
            help="Tag of the bento, or the address of an archive of one, such as gs://bucket/x.bento.",
            show_default="the data set's latest",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; the default is seen by this machine only.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = PORT,
    follow: Annotated[
        bool, typer.Option("--follow", help="Serve each newer bento in place of the one before, once it is checked.")
    ] = False,
    tag: Annotated[bool, typer.Option("--tag", help="Print the tag of the bento, and serve nothing.")] = False,
) -> None:
    """Serve the latest bento on this machine; the one before it where the latest does not pass its check.

    `make bento` builds one of the champion.
    """
    if bento is None:
        bento = f"{_bento_name(overrides or [])}:latest"
    if tag:
        print(bento)
        return
    command = [sys.executable, "-m", "bentos.serving", "--bento", bento, "--host", host, "--port", str(port)]
    sys.stdout.flush()
    os.execv(sys.executable, command + ["--follow"] * follow)


def _bento_name(overrides: list[str]) -> str:
    """Name of the bentos of a data set: that of its model, as `make bento` builds them."""
    if not overrides:
        return MODEL_NAME
    from fashion.config.compose import compose, load_as
    from fashion.config.schema import ConfigError
    from fashion.config.serve import ServeConfig, bento_name
    from fashion.data.manifest import DataError
    from fashion.data.requested import with_known

    with failing_on(ConfigError, DataError):
        return bento_name(load_as(ServeConfig, compose(with_known(overrides), root="serve")).data.model)
