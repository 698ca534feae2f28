"""`fashion drift`: what people do about drift."""

import os

import typer

from fashion.commands.arguments import Overrides
from fashion.commands.errors import failing_on

app = typer.Typer(help="Say what is done about drift.", rich_markup_mode=None)


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
        if "problem" not in settings.alerts.on:
            return
        found = alert_channels.from_environment(os.environ, timeout_s=settings.alerts.timeout_s)
        alert = messages.problem(
            "a scheduled run ended early; its output says why (journalctl --user -u fashion-drift)"
        )
        alerts.notify(
            {"problem": alert._replace(matter="")},
            found.usable,
            settings.alerts,
            open_store(home.reports),
            model_name=settings.tracking.registered_model,
        )
