"""`fashion schedule`: run the drift flow by the clock on one machine, where Metaflow's @schedule does nothing."""

import os
import sys

import typer

from fashion.commands.arguments import Overrides
from fashion.commands.errors import FAILED, failing_on

app = typer.Typer(help="Write and check a timer that runs the drift flow.", rich_markup_mode=None)


@app.command("write", epilog='Example: fashion schedule write window=7d "cron=0 6 * * 1"')
def write(overrides: Overrides = None) -> None:
    """Write a systemd timer and a crontab, and say how to start them.

    Overrides are those of the drift flow, after the ones in HYDRA_ARGS, and are stored in the timer. So are the
    variables of the environment that a run needs, in a file that only you can read.
    """
    from fashion.commands import systemd, timer_environment
    from fashion.config.compose import parse_overrides
    from fashion.home import current_home

    home = current_home()
    with failing_on(ValueError, OSError):
        cron_line = systemd.write_units(home, [*parse_overrides(os.environ.get("HYDRA_ARGS", "")), *(overrides or [])])
        path = systemd.folder_of(home) / systemd.ENVIRONMENT
        kept = timer_environment.keep(path, os.environ)
    print(systemd.explain(home, cron_line))
    if kept.names:
        print(f"Kept there of this shell's environment: {', '.join(kept.names)}.")
    for name in kept.ambiguous:
        print(f"warning: write {name} to {path} by hand: systemd and cron read its value differently", file=sys.stderr)


@app.command("check", epilog="Example: fashion schedule check")
def check() -> None:
    """Check that the timer is valid and when it will run. Exits with 1 where something is wrong."""
    from fashion.commands import systemd
    from fashion.home import current_home

    home = current_home()
    with failing_on(OSError):
        result = systemd.check_units(home)
    for note in result.notes:
        print(note)
    for problem in result.problems:
        print(f"error: {problem}", file=sys.stderr)
    if result.problems:
        raise typer.Exit(FAILED)
    print(f"valid: {systemd.NAME}.timer, {systemd.NAME}.service and crontab in {systemd.folder_of(home)}")
