"""`fashion canary`: the version that answers a share of the clients, compared with the champion."""

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fashion.commands.arguments import AsJson, ModelName
from fashion.commands.errors import CommandError, failing_on
from fashion.config.names import MODEL_NAME

if TYPE_CHECKING:
    from fashion.evaluation.canary import CanaryComparison

app = typer.Typer(
    help="Compare a canary with the champion, by labels on both versions' answers.", rich_markup_mode=None
)


@app.command("status", epilog="Example: fashion canary status --json")
def status(name: ModelName = MODEL_NAME, as_json: AsJson = False) -> None:
    """Show the labels on both versions' answers, and what they show.

    One label of each client counts, or of each picture without a client: the first one of a reviewer or of a source
    that reviews have proven. It may be looked at as often as one likes.
    """
    with _comparison(name) as compared:
        if as_json:
            print(json.dumps(_as_dict(compared), indent=1))
            return
        print("\n".join(_lines(compared)))


@app.command("decide", epilog="Example: fashion canary decide")
def decide(name: ModelName = MODEL_NAME) -> None:
    """Promote the canary or step back from it, where its labels suffice.

    `make drift` does the same after each window. A version that waits for approval is not promoted. Running services
    learn it from the log.
    """
    from fashion.drift.canary import publish
    from fashion.evaluation import canary, canary_tags
    from fashion.home import current_home

    with _comparison(name, publish_first=True) as compared:
        outcome = canary.settle(compared, name=name)
        print(f"{outcome.ending}: {outcome.sentence}\nNext: {outcome.command}", flush=True)
        if outcome.has_ended:
            publish(current_home(), model_name=name)
            canary_tags.record_told(compared.version, name=name)


@contextmanager
def _comparison(name: str, *, publish_first: bool = False) -> Iterator["CanaryComparison"]:
    """The comparison that runs; whatever goes wrong with the log or the registry is one sentence.

    Args:
        name: of the registered model.
        publish_first: store in the log how earlier comparisons ended, where a killed process has not.
    """
    from fashion.commands.registry import connected
    from fashion.drift import belief, canary
    from fashion.drift.references import References
    from fashion.evaluation.canary import describe_last, running
    from fashion.predictions import windows
    from fashion.predictions.record import LogUnavailable
    from fashion.storage.blobs import StoreUnavailable

    with connected() as home, failing_on(LogUnavailable, StoreUnavailable), tempfile.TemporaryDirectory() as folder:
        if publish_first:
            canary.publish(home, model_name=name)
        if running(name) is None:
            last = describe_last(name)
            raise CommandError(
                f'no canary of {name} is compared with the champion: `make bento ARGS="serve.canary=challenger"` '
                f"deploys one{'' if last is None else f'; {last}'}"
            )
        source = windows.open_source(home)
        compared = canary.compare(source, belief.assess(source, References(name, Path(folder))), model_name=name)
        assert compared is not None, "it was running just now"
        yield compared


def _lines(compared: "CanaryComparison") -> list[str]:
    from fashion.metrics.sequential import accuracy_bounds
    from fashion.predictions.canary import describe

    experiment, counts, verdict = compared.experiment, compared.counts, compared.verdict
    lines = [
        f"canary: version {compared.version.number}, which answers {experiment.share:.0%} of the clients of version "
        f"{experiment.champion.version}",
        f"{'':10}{'labels':>10}{'trusted':>10}{'counted':>10}{'right':>10}  accuracy",
    ]
    for role, arm in (("champion", counts.champion), ("canary", counts.canary)):
        low, high = accuracy_bounds(arm.arm, experiment.confidence)
        accuracy = "unknown" if arm.arm.accuracy is None else f"{arm.arm.accuracy:.1%} ({low:.1%} to {high:.1%})"
        cells = "".join(f"{number:>10,}" for number in (arm.labels, arm.trusted, arm.arm.labels, arm.right))
        lines.append(f"{role:10}{cells}  {accuracy}")
    if counts.elsewhere:
        lines.append(f"{counts.elsewhere:,} labels are on answers of a service without this canary, and do not count")
    return [*lines, f"{verdict.decision}: {describe(experiment, counts, verdict)}"]


def _as_dict(compared: "CanaryComparison") -> dict[str, Any]:
    return {
        "version": compared.version.number,
        "experiment": dataclasses.asdict(compared.experiment),
        "counts": dataclasses.asdict(compared.counts),
        "verdict": dataclasses.asdict(compared.verdict),
    }
