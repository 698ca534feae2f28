"""`fashion demo`: the whole loop on this machine, in a home of its own."""

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from fashion.commands.errors import CommandError, failing_on


def demo(
    short: Annotated[bool, typer.Option("--short", help="A small model on little data, in a few minutes.")] = False,
    home: Annotated[
        Path | None,
        typer.Option(help="Where its state goes; an earlier demo there is removed. Default: demo/ in the home."),
    ] = None,
) -> None:
    """Run the whole loop with real parts, in a home of its own.

    Train, serve, send drifting traffic, detect it, retrain with feedback, deploy and roll back: about 15 minutes on
    two cores.
    """
    from fashion.commands import demo_story
    from fashion.home import current_home

    current = current_home()
    root = (home or current.root / "demo").resolve()
    if root.exists() and any(root.iterdir()) and not (root / "demo.log").exists():
        raise CommandError(f"{root} holds something that is not a demo: choose another --home")
    if root.exists():
        shutil.rmtree(root)
    root.mkdir(parents=True)
    current.data.mkdir(parents=True, exist_ok=True)
    (root / "data").symlink_to(current.data)
    sandbox = demo_story.Sandbox(root)
    sandbox.log.touch()
    os.environ["FASHION_HOME"] = str(root)  # what this process reads is the demo's too
    for name in ("MLFLOW_TRACKING_URI", "BENTOML_HOME", "HYDRA_ARGS"):
        os.environ.pop(name, None)
    with failing_on(demo_story.DemoFailed):
        demo_story.run_demo(sandbox, demo_story.SHORT if short else demo_story.FULL)
