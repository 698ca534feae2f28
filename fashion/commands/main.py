"""The command `fashion`: its nouns, and how errors become sentences and exit codes."""

import sys
from collections.abc import Sequence
from typing import Any

import typer

from fashion.commands import (
    canary,
    cloud,
    cluster,
    data,
    demo,
    drift,
    gc,
    home,
    log,
    registry,
    reproduce,
    schedule,
    serve,
    status,
    traffic,
    ui,
)
from fashion.commands.errors import DONE, FAILED, INTERRUPTED, USAGE, CommandError
from fashion.home import AddressError, root
from fashion.state import faults
from fashion.state.record import StateError
from fashion.storage import owned

app = typer.Typer(
    name="fashion",
    help="An image classifier from data to drift reports. `make help` lists what trains, builds and tests.",
    epilog="Start with `fashion status`: it says what there is and what to type next.",
    rich_markup_mode=None,  # importing rich would double the time that --help takes
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command("status", epilog="Examples: fashion status; fashion status --json")(status.status)
app.add_typer(data.app, name="data")
registry.app.command("reproduce", epilog="Example: fashion registry reproduce 7")(reproduce.reproduce)
app.add_typer(registry.app, name="registry")
app.add_typer(canary.app, name="canary")
app.add_typer(log.app, name="log")
app.add_typer(home.app, name="home")
app.command("gc", epilog="Examples: fashion gc; fashion gc --delete bentos_days=7")(gc.gc)
app.command("serve", epilog="Example: fashion serve --follow --port 3001")(serve.serve)
app.command(
    "traffic", epilog="Example: fashion traffic --shift brightness=0.4 --rows 1000 --labels 0.3 data.live_rows=5000"
)(traffic.traffic)
app.add_typer(schedule.app, name="schedule")
app.add_typer(drift.app, name="drift")
app.add_typer(cloud.app, name="cloud")
app.add_typer(cluster.app, name="cluster")
app.command("ui", epilog="Examples: fashion ui --port 5001; fashion ui --drift; fashion ui --studies")(ui.ui)
app.command("demo", epilog="Example: fashion demo --short")(demo.demo)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fashion NOUN ...` and return the exit code.

    Args:
        arguments: what follows `fashion`; the process's own arguments by default.
    """
    owned.clear_temporary()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(args=words or ["--help"], prog_name="fashion", standalone_mode=False)
    except (CommandError, AddressError, StateError) as error:
        return _fail(str(error), FAILED)
    except typer.TyperException as error:
        _print_usage(error)
        return _fail(error.format_message().rstrip("."), USAGE)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Exception as error:
        if (fault := faults.find(error, root())) is None:
            raise
        return _fail(fault.sentence, FAILED)
    if code == INTERRUPTED:
        return _fail("interrupted; what was complete is stored", INTERRUPTED)
    return code if isinstance(code, int) else DONE


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _print_usage(error: Any) -> None:
    context = getattr(error, "ctx", None)
    if context is not None:
        print(context.get_usage(), file=sys.stderr)
        print(f"`{context.command_path} --help` explains it.", file=sys.stderr)
