"""`fashion registry`: registered versions, which one is champion, and how others do on logged pictures."""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fashion.commands.arguments import MODEL_NAME, AsJson, ModelName
from fashion.commands.errors import CommandError, failing_on, first_line

if TYPE_CHECKING:
    from fashion.evaluation.comparison import Comparison
    from fashion.home import Home
    from fashion.predictions.log import PredictionLog
    from fashion.registry.versions import Version

DEFAULT_ROWS = 10_000

app = typer.Typer(help="List, compare, promote and roll back registered versions.", rich_markup_mode=None)
Rows = Annotated[int, typer.Option(min=1, help="Latest predictions to look at.")]


@app.command("list", epilog="Example: fashion registry list")
def list_versions(name: ModelName = MODEL_NAME, as_json: AsJson = False) -> None:
    """List versions: aliases, accuracy, lineage, verdicts."""
    with connected():
        from fashion.registry import versions

        found = versions.list_versions(name)
        if as_json:
            print(json.dumps([version_as_dict(each) for each in found], indent=1))
        else:
            print("\n".join(map(_summarize, found)) or "no version is registered yet: run `make train`")


@app.command("show", epilog="Examples: fashion registry show champion; fashion registry show 7 --json")
def show(
    version: Annotated[str, typer.Argument(help="Number or alias.")] = "champion",
    name: ModelName = MODEL_NAME,
    as_json: AsJson = False,
) -> None:
    """Show one version in full.

    Lineage, metrics, and each check of the gate.
    """
    with connected():
        from fashion.registry.versions import get

        found = get(version, name)
        if as_json:
            print(json.dumps(version_as_dict(found), indent=1))
            return
        print(_headline(found))
        print(f"  {'files':26} {found.source}")
        for key, value in sorted(found.tags.items()):
            print(f"  {key:26} {value}")


@app.command("promote", epilog='Example: fashion registry promote 7 --reason "won the shadow test"')
def promote(
    version: Annotated[str, typer.Argument(help="Number or alias.")],
    reason: Annotated[str, typer.Option(help="Why; stored with the version.")],
    name: ModelName = MODEL_NAME,
) -> None:
    """Make a version the champion by hand."""
    with connected():
        from fashion.registry import versions

        promoted = versions.promote(versions.get(version, name), reason=reason, name=name)
        print(f"champion: version {promoted.number}")


@app.command("rollback", epilog='Example: fashion registry rollback --reason "users report shirts as dresses"')
def rollback(
    reason: Annotated[str, typer.Option(help="Why; stored with the version.")] = "rolled back by hand",
    name: ModelName = MODEL_NAME,
) -> None:
    """Make the champion's predecessor the champion again."""
    with connected():
        from fashion.registry import versions

        print(f"champion: version {versions.rollback(reason=reason, name=name).number}")


@app.command("compare", epilog="Example: fashion registry compare --rows 5000")
def compare(rows: Rows = DEFAULT_ROWS, name: ModelName = MODEL_NAME, as_json: AsJson = False) -> None:
    """Compare champion and shadow on the same pictures."""
    from fashion.evaluation.replay import compare_shadow

    with _open_log() as (log, home):
        comparisons = compare_shadow(log, rows, name=name)
        if not comparisons:
            raise CommandError(f"no shadow of {name} has scored anything: deploy one with serve.shadow=challenger")
        names = _class_names(home, name)
        # Numbers begin anew where a registry was lost: then digests tell the versions apart.
        numbers = [(champion.version, other.version) for champion, other in comparisons]
        named = str if len(set(numbers)) < len(numbers) else lambda model: f"version {model.version}"
        results = [
            _result(each, served=named(champion), other=named(other), class_names=names)
            for (champion, other), each in comparisons.items()
        ]
        _print_results(results, as_json)


@app.command("replay", epilog="Example: fashion registry replay --version challenger --rows 2000")
def replay(
    version: Annotated[str, typer.Option(help="Number or alias of the version that scores.")],
    rows: Rows = DEFAULT_ROWS,
    name: ModelName = MODEL_NAME,
    as_json: AsJson = False,
) -> None:
    """Score logged pictures with another version.

    Compares its labels and confidences with what was served, and with true labels where there are any.
    """
    from fashion.evaluation.replay import replay_log
    from fashion.registry import tracking, versions
    from fashion.storage.address import open_store

    with _open_log() as (log, home), tempfile.TemporaryDirectory() as folder:
        tracking.connect(home)
        found = versions.get(version, name)
        package = versions.fetch(found, Path(folder))
        replayed = replay_log(log, open_store(home.images), package, rows, name=name, on_rows=_show_progress)
        print(file=sys.stderr)
        if replayed.missing:
            message = "pictures are not stored (serve.log.images=true stores them) or are damaged"
            print(f"{replayed.missing:,} {message}", file=sys.stderr)
        if replayed.other_shape:
            message = f"pictures have another size or other channels than version {found.number} takes"
            print(f"{replayed.other_shape:,} {message}", file=sys.stderr)
        if not replayed.comparison.rows:
            raise CommandError(
                "there is no logged picture to score: `make serve ARGS=serve.log.images=true` stores them"
            )
        names = package.class_names
        result = _result(replayed.comparison, served="as served", other=f"version {found.number}", class_names=names)
        _print_results([result], as_json)


@contextlib.contextmanager
def failing_on_registry(home: "Home") -> Iterator[None]:
    """End with one sentence where the registry lacks something, is damaged, or cannot be reached."""
    from fashion.model.package import DamagedPackage
    from fashion.registry import server
    from fashion.registry.versions import ERRORS, RegistryError
    from fashion.storage.servers import ServerUnavailable, without_password

    try:
        with failing_on(RegistryError, DamagedPackage, ServerUnavailable):
            yield
    except ERRORS as error:
        if (away := server.unavailable(error, home.tracking_uri)) is not None:
            raise CommandError(str(away)) from None
        raise CommandError(
            f"the registry {without_password(home.tracking_uri)} cannot be used ({first_line(error)}); "
            "check MLFLOW_TRACKING_URI and that its server is up"
        ) from None


@contextlib.contextmanager
def connected() -> Iterator["Home"]:
    """Connect to the registry of this home; whatever goes wrong there is one sentence."""
    home = _prepare()
    from fashion.registry import tracking
    from fashion.storage.servers import ServerUnavailable, without_password

    with failing_on_registry(home):
        try:
            tracking.connect(home)
        except ServerUnavailable:
            raise
        except Exception as error:  # a damaged database raises errors of several libraries
            raise CommandError(
                f"the registry {without_password(home.tracking_uri)} cannot be opened ({first_line(error)}); "
                "check MLFLOW_TRACKING_URI, or move the damaged file away"
            ) from None
        yield home


def version_as_dict(version: "Version") -> dict[str, Any]:
    """A version as `--json` prints it."""
    return {
        "number": version.number,
        "aliases": list(version.aliases),
        "created": version.created.isoformat(timespec="seconds"),
        "source": version.source,
        "mlflow_run_id": version.mlflow_run_id,
        "tags": dict(version.tags),
    }


def _prepare() -> "Home":
    """Set the environment; a server that is down is tried twice, not for minutes."""
    from fashion.home import prepare_environment

    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    return prepare_environment()


@contextlib.contextmanager
def _open_log() -> Iterator[tuple["PredictionLog", "Home"]]:
    """The prediction log of this home; whatever goes wrong with it, or with the registry, is one sentence."""
    from fashion.commands.log import open_log
    from fashion.storage.blobs import StoreUnavailable

    home = _prepare()
    with failing_on_registry(home), failing_on(StoreUnavailable), open_log(home) as log:
        yield log, home


def _result(
    comparison: "Comparison", *, served: str, other: str, class_names: Sequence[str]
) -> tuple[str, dict[str, Any]]:
    """A comparison as text and as JSON."""
    from fashion.evaluation.comparison import format_table

    test = comparison.test()
    content = {
        "served": served,
        "other": other,
        "rows": comparison.rows,
        "agreed": comparison.agreed,
        "labelled": len(comparison.served_right),
        "served_right": sum(comparison.served_right),
        "other_right": sum(comparison.other_right),
        "mcnemar_p": None if test is None else test.p_value,
    }
    return format_table(comparison, served=served, other=other, class_names=class_names), content


def _print_results(results: Sequence[tuple[str, Mapping[str, Any]]], as_json: bool) -> None:
    if as_json:
        print(json.dumps([content for _, content in results], indent=1))
    else:
        print("\n".join(text for text, _ in results))


def _class_names(home: "Home", name: str) -> Sequence[str]:
    """Class names of the champion; none where the registry cannot give them: labels are then shown as numbers."""
    from fashion.model.package import DamagedPackage
    from fashion.registry import tracking, versions

    try:
        tracking.connect(home)
        champion = versions.champion(name)
        if champion is None:
            return ()
        with tempfile.TemporaryDirectory() as folder:
            return versions.fetch(champion, Path(folder)).class_names
    except (*versions.ERRORS, DamagedPackage) as error:
        print(f"classes are shown by number: {first_line(error)}", file=sys.stderr)
        return ()


def _show_progress(rows: int) -> None:
    print(f"\r{rows:,} scored", end="", file=sys.stderr, flush=True)


def _headline(version: "Version") -> str:
    aliases = ", ".join(version.aliases) or "-"
    return f"version {version.number}  {aliases}  {version.created:%Y-%m-%d %H:%M} UTC"


def _summarize(version: "Version") -> str:
    """A version in a few lines."""
    from fashion.registry.versions import LINEAGE, NOTES

    tags = version.tags
    lineage = ", ".join(f"{key} {_shorten(tags[key])}" for key in LINEAGE if key in tags)
    lines = [_headline(version), f"    {tags.get('summary', '')}", f"    {lineage}"]
    return "\n".join([*lines, *(f"    {key}: {tags[key]}" for key in NOTES if key in tags)])


def _shorten(value: str) -> str:
    """A hash by its first twelve digits, anything else whole."""
    digits, dirty = value.removesuffix("-dirty"), value.endswith("-dirty")
    is_hash = len(digits) > 12 and all(digit in "0123456789abcdef" for digit in digits)
    return digits[:12] + "-dirty" * dirty if is_hash else value
