"""`fashion drift`: what people do about drift."""

import os
from typing import Annotated

import typer

from fashion.commands.arguments import Overrides
from fashion.commands.errors import CommandError, failing_on

app = typer.Typer(help="Say what is done about drift.", rich_markup_mode=None)


@app.command("accept", epilog="Example: fashion drift accept 20270115T080000Z-fashion-classifier-v3")
def accept(
    report: Annotated[str, typer.Argument(help="Id of a drift report, as alerts and /monitoring name it.")],
    overrides: Overrides = None,
    undo: Annotated[bool, typer.Option("--undo", help="Return to the held-out rows of the version.")] = False,
) -> None:
    """Make the traffic of a report's window the new normal of its version.

    Later windows are compared with its rows, and with those of windows that were accepted before, in place of the
    held-out rows of the model package; those of later versions too, where the rows' pictures are stored. A decline of
    accuracy is still an alert. Overrides are those of the drift flow.
    """
    from fashion.config.compose import compose, load_as
    from fashion.config.drift import DriftConfig
    from fashion.drift import accepted, reports
    from fashion.home import current_home
    from fashion.predictions import windows
    from fashion.predictions.record import ModelId
    from fashion.storage.address import open_store
    from fashion.storage.blobs import BlobNotFound

    home = current_home()
    store = open_store(home.reports)
    with failing_on(ValueError, OSError):
        settings = load_as(DriftConfig, compose(overrides or [], root=DriftConfig.root))
        try:
            result = reports.read_result(store, report)
        except BlobNotFound:
            raise CommandError(
                f"there is no report {report[:100]} in {home.reports}: `fashion status` names the last one"
            ) from None
        if not result.get("model_digest"):
            raise CommandError(f"report {report} is about no version of a model: nothing of it can be accepted")
        model = ModelId(result["model_name"], result["model_version"], result["model_digest"])
        if undo:
            withdrawn = accepted.withdraw(store, model)
            what = "compared with its held-out rows again" if withdrawn else "as it was: nothing was accepted of it"
            print(f"{model} is {what}")
            return
        if why_not := accepted.refusal(result):
            raise CommandError(f"report {report} {why_not}")
        source = windows.open_source(home, settings.source)
        window = windows.Window(result["since_us"], result["until_us"] + 1)
        rows = accepted.accept(
            store,
            model,
            report,
            source.batches(window),
            classes=accepted.num_classes(result),
            min_pictures=result["min_rows"],
        )
    print(
        f"{model} is compared with {len(rows.keys):,} rows of {len(rows.reports)} accepted windows from now on; "
        f"`fashion drift accept {report} --undo` undoes it"
    )
    if result["level"] == "harmful" or "decline" in result["conditions"]:
        print("note: this window was likely to hurt; accuracy is still compared with that of the held-out rows")


@app.command("failed", epilog="Example: fashion drift failed")
def failed(overrides: Overrides = None) -> None:
    """Send an alert that the drift flow has failed, unless it has sent one itself. Timers call this."""
    from fashion.config.compose import compose, load_as
    from fashion.config.drift import DriftConfig
    from fashion.drift import alert_channels, alerts, messages
    from fashion.home import current_home
    from fashion.storage.address import open_store

    home = current_home()
    with failing_on(ValueError, OSError):
        settings = load_as(DriftConfig, compose(overrides or [], root=DriftConfig.root))
        found = alert_channels.from_environment(os.environ, timeout_s=settings.alerts.timeout_s)
        alert = messages.problem(
            "a scheduled run ended early; its output says why (journalctl --user -u fashion-drift)"
        )
        conditions = {"problem": alert._replace(matter=""), "channel": messages.channels(found.problems)}
        alerts.notify(
            {name: condition for name, condition in conditions.items() if name in settings.alerts.on},
            found.usable,
            settings.alerts,
            open_store(home.reports),
            model_name=settings.tracking.registered_model,
        )
