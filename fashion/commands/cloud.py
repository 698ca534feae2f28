"""`fashion cloud`: what watches the service on Google Cloud."""

from typing import Annotated

import typer

from fashion.commands.errors import failing_on
from fashion.config.names import MODEL_NAME

app = typer.Typer(help="Set up what watches the service on Google Cloud.", rich_markup_mode=None)

VERBS = {
    "create": ("would create", "created"),
    "update": ("would update", "updated"),
    "keep": ("unchanged", "unchanged"),
    "skip": ("left out", "left out"),
    "unknown": ("in no file", "in no file"),
}
"""Action -> what is printed before, and once it is done."""


@app.command(
    "monitoring",
    epilog="Example: fashion cloud monitoring --project my-project --region europe-west1 --email team@example.com",
)
def monitoring(
    project: Annotated[str, typer.Option(help="Id of the Google Cloud project.", envvar="GOOGLE_CLOUD_PROJECT")],
    region: Annotated[str, typer.Option(help="Region of the Cloud Run service.")],
    email: Annotated[str, typer.Option(help="Address that alerts go to.")],
    service: Annotated[str, typer.Option(help="Name of the Cloud Run service.")] = MODEL_NAME,
    billing_account: Annotated[str | None, typer.Option(help="Billing account that gets a budget.")] = None,
    budget: Annotated[int | None, typer.Option(min=1, help="Of a month, in the account's currency.")] = None,
    currency: Annotated[str, typer.Option(help="Of the billing account.")] = "USD",
    apply: Annotated[bool, typer.Option("--apply", help="Do it. Without this, only print what would be done.")] = False,
) -> None:
    """Compare the objectives, alerts, e-mail channel and budget in configs/deploy/monitoring with a project.

    Prints what it would make or change; with --apply, does so. Deletes nothing.
    """
    from fashion.deployment import monitoring as cloud_monitoring
    from fashion.deployment import resource_files
    from fashion.deployment.google_api import ApiUnavailable, Session

    where = cloud_monitoring.Project(project, region, service, email, billing_account, budget, currency)
    changes = 0
    with failing_on(ApiUnavailable, resource_files.WrongFile):
        files = resource_files.read_files()
        for change in cloud_monitoring.synchronise(files, where, Session(project), apply=apply):
            changes += change.action in ("create", "update")
            details = f" ({', '.join(change.differs)})" if change.differs else ""
            print(f"{VERBS[change.action][apply]:<12} {change.name:<24} {change.title}{details}", flush=True)
    if changes and not apply:
        print(f"{changes} changes in {project}; the same command with --apply makes them")
    elif not changes:
        print(f"nothing to change in {project}")
