"""`fashion cluster`: what a Kubernetes cluster with Argo needs for the flows, and the manifests to apply."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fashion.commands.errors import FAILED, CommandError

app = typer.Typer(help="Deploy the flows to Kubernetes and Argo.", rich_markup_mode=None)

Production = Annotated[bool, typer.Option("--production", help="Deploy to production; to your own branch without it.")]
Branch = Annotated[
    str, typer.Option(metavar="NAME", show_default=False, help="Deploy to this branch of the project, beside others.")
]
FlowOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="flow:key=value",
        show_default=False,
        help="Configuration that a flow is deployed with, such as drift:retrain.enabled=true.",
    ),
]


@app.command("check", epilog="Example: fashion cluster check --production")
def check(production: Production = False, branch: Branch = "") -> None:
    """Say what a cluster needs before anything is created there. Exits with 1 where an address cannot work in a pod."""
    needs = _needs(production, branch)
    print(_describe(needs))
    for problem in needs.problems:
        print(f"error: {problem}", file=sys.stderr)
    if needs.problems:
        raise typer.Exit(FAILED)


@app.command("manifests", epilog="Example: fashion cluster manifests --production drift:retrain.enabled=true")
def manifests(
    overrides: FlowOverrides = None,
    production: Production = False,
    branch: Branch = "",
    folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", show_default=False, help="For the files; var/argo by default.")
    ] = None,
    unchecked: Annotated[
        bool, typer.Option(help="Write them though `check` finds errors, as for a cluster on this machine.")
    ] = False,
) -> None:
    """Write the manifests of all flows. Their code is uploaded to Metaflow's bucket; the cluster is not reached."""
    from fashion.commands import cluster_manifests, cluster_needs
    from fashion.home import prepare_environment

    target, by_flow = folder or prepare_environment().root / "argo", _by_flow(overrides or [])
    needs = _needs(production, branch)
    problems = [*needs.problems, *cluster_needs.override_problems(by_flow)]
    if problems and not unchecked:
        raise CommandError("; ".join(problems))
    written = cluster_manifests.write(needs, target, branch=_branch_option(production, branch), overrides=by_flow)
    for path in written:
        print(path)
    print(f"apply them: kubectl apply --filename {target}")


@app.command("secret", epilog="Example: fashion cluster secret --production | kubectl apply --filename -")
def secret(production: Production = False, branch: Branch = "") -> None:
    """Print the secret of the pods, with the values of this environment. It is stored nowhere.

    Of keys that are in files here, it holds the keys.
    """
    import yaml

    from fashion.commands import cluster_manifests
    from fashion.registry.signatures import SIGNING_KEY, TRUSTED_KEYS, SignatureError, pem_of

    needs = _needs(production, branch)
    try:
        keys = {
            name: pem_of(name).decode(errors="replace")
            for name in (SIGNING_KEY, TRUSTED_KEYS)
            if name in needs.secret_keys
        }
    except SignatureError as error:
        raise CommandError(str(error)) from None
    print(yaml.safe_dump(cluster_manifests.secret(needs, {**os.environ, **keys}), sort_keys=False), end="")


def _needs(production: bool, branch: str) -> Any:
    from fashion.commands import cluster_manifests, cluster_needs
    from fashion.home import prepare_environment

    if production and branch:
        raise CommandError(f"give --production or --branch {branch}, not both")
    if branch and not (branch.replace("_", "").isalnum() and branch == branch.lower()):
        raise CommandError(f"--branch must be lower-case letters, digits and underscores, got {branch}")
    given = dict(os.environ)  # before defaults for one machine are set
    prepare_environment()
    name = None if production else branch or os.environ["METAFLOW_USER"]
    return cluster_needs.find_needs(
        given, cluster_manifests.metaflow_settings(), branch=name, flows=cluster_manifests.FLOWS
    )


def _branch_option(production: bool, branch: str) -> list[str]:
    return ["--production"] if production else ["--branch", branch] if branch else []


def _by_flow(overrides: list[str]) -> dict[str, list[str]]:
    from fashion.commands.cluster_manifests import FLOWS

    found: dict[str, list[str]] = {}
    for each in overrides:
        flow, colon, override = each.partition(":")
        if flow not in FLOWS or not colon or "=" not in override:
            raise CommandError(f"{each}: write flow:key=value, where flow is one of {', '.join(FLOWS)}")
        found.setdefault(flow, []).append(override)
    return found


def _describe(needs: Any) -> str:
    """What has to be there, as a list for a person."""
    from fashion.commands.cluster_needs import FLOWS_IMAGE, IMAGES

    images = {IMAGES.get(flow, FLOWS_IMAGE): image for flow, image in needs.images.items()}
    lines = [f"Namespace {needs.namespace} of a cluster with Argo Workflows needs:"]
    lines += [f"  image            {image or '-'} ({variable})" for variable, image in images.items()]
    lines += [
        f"  secret           {needs.secret}: {', '.join(needs.secret_keys) or 'no keys'}",
        f"  service account  {needs.service_account}, for pods: it may report to Argo and start JobSets",
        f"  service account  {needs.events['SERVICE_ACCOUNT'] or '-'}, for sensors: it may start workflows",
        f"  Argo Events      event {needs.events['EVENT'] or '-'} of source {needs.events['EVENT_SOURCE'] or '-'}, "
        f"posted to {needs.events['WEBHOOK_URL'] or '-'}",
        "  JobSet           controller, if resources.nodes is more than 1",
        *(f"remark: {remark}" for remark in needs.remarks),
    ]
    return "\n".join(lines)
