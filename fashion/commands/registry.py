"""`fashion registry`: registered versions, which one is champion, and how others do on logged pictures."""

import contextlib
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fashion.commands.arguments import AsJson, DataSet, ModelName, chosen_model, with_version
from fashion.commands.errors import CommandError, failing_on, first_line
from fashion.config.names import MODEL_NAME
from fashion.state import faults

if TYPE_CHECKING:
    from fashion.evaluation.comparison import Comparison
    from fashion.home import Home
    from fashion.predictions.log import PredictionLog
    from fashion.registry.champions import Expected

DEFAULT_ROWS = 10_000

app = typer.Typer(help="List, compare, promote and roll back registered versions.", rich_markup_mode=None)
Rows = Annotated[int, typer.Option(min=1, help="Latest predictions to look at.")]


@app.command("list", epilog="Example: fashion registry list")
def list_versions(overrides: DataSet = None, name: ModelName = MODEL_NAME, as_json: AsJson = False) -> None:
    """List versions, and who made which one the champion.

    Aliases, accuracy, lineage, verdicts; and the history of champions.
    """
    name = chosen_model(name, overrides)
    with connected():
        from fashion.commands import registry_listing
        from fashion.registry import champions

        history = champions.settle(name)
        found, changes = list(history.known.values()), history.changes
        if as_json:
            print(json.dumps([registry_listing.version_as_dict(each, changes) for each in found], indent=1))
        elif not found:
            print("no version is registered yet: run `make train`")
        else:
            lines = ["champions", *map(registry_listing.describe_change, changes)] if changes else []
            print("\n".join([*map(registry_listing.summarize, found), *lines]))


@app.command("history", epilog="Example: fashion registry history --json")
def show_history(overrides: DataSet = None, name: ModelName = MODEL_NAME, as_json: AsJson = False) -> None:
    """List who made which version the champion, when and why.

    Versions that were deleted are listed too.
    """
    name = chosen_model(name, overrides)
    with connected():
        from fashion.commands import registry_listing
        from fashion.registry import champions

        changes = champions.settle(name).changes
        if as_json:
            print(json.dumps([dataclasses.asdict(each) for each in changes], indent=1))
        else:
            print("\n".join(map(registry_listing.describe_change, changes)) or f"{name} has had no champion yet")


@app.command("show", epilog="Examples: fashion registry show champion; fashion registry show 7 --json")
def show(
    version: Annotated[str, typer.Argument(help="Number or alias.")] = "champion",
    overrides: DataSet = None,
    name: ModelName = MODEL_NAME,
    as_json: AsJson = False,
) -> None:
    """Show one version in full.

    Lineage, metrics, and each check of the gate.
    """
    version, overrides = with_version(version, overrides)
    name = chosen_model(name, overrides)
    with connected():
        from fashion.commands import registry_listing
        from fashion.registry import champions
        from fashion.registry.versions import DIGEST, get

        changes = champions.settle(name).changes
        found = get(version, name)
        if as_json:
            print(json.dumps(registry_listing.version_as_dict(found, changes), indent=1))
            return
        print(registry_listing.headline(found))
        print(f"  {'files':26} {found.source}")
        unknown = {DIGEST: "none: it is older than digests, and only its own checksums are verified"}
        for key, value in sorted({**unknown, **found.tags}.items()):
            print(f"  {key:26} {value}")
        for change in changes:
            if change.version == found.number:
                print(registry_listing.describe_change(change))


@app.command("promote", epilog='Example: fashion registry promote 7 --reason "won the shadow test"')
def promote(
    version: Annotated[str, typer.Argument(help="Number or alias.")],
    reason: Annotated[str, typer.Option(help="Why; stored with the version.")],
    overrides: DataSet = None,
    expect: Annotated[
        str | None,
        typer.Option(
            help="Only if this version is the champion until then; `none` for no champion, `any` for whichever. "
            "Default: of a version that waits, the one that it passed the gate against; of others, any."
        ),
    ] = None,
    name: ModelName = MODEL_NAME,
) -> None:
    """Make a version the champion by hand.

    Its files are fetched and verified first.
    """
    name = chosen_model(name, overrides)
    with connected() as home:
        from fashion.commands.canary_endings import tell_services
        from fashion.registry import champions, versions

        found = versions.get(version, name)
        expected = champions.expected_by(found) if expect is None else _expected(expect)
        try:
            promoted = champions.promote(found, reason=reason, name=name, expected=expected)
        except champions.ChampionChanged as changed:
            if expect is not None:
                raise
            by_now = "there is no champion" if changed.champion is None else f"version {changed.champion} is champion"
            raise CommandError(
                f"version {found.number} passed the gate against version {expected}, and {by_now} by now: nothing was "
                "changed; --expect any promotes it all the same, `make train` compares a new version"
            ) from None
        print(f"champion: version {promoted.number}")
        tell_services(home, name)


@app.command("rollback", epilog='Example: fashion registry rollback --reason "users report shirts as dresses"')
def rollback(
    overrides: DataSet = None,
    reason: Annotated[str, typer.Option(help="Why; stored with the version.")] = "rolled back by hand",
    name: ModelName = MODEL_NAME,
) -> None:
    """Make the champion's predecessor the champion again.

    Called again, it goes back further in the history, to the first champion. What the version that is rolled back had
    learnt of users is not learnt again until `fashion log restore` or a review says so.
    """
    name = chosen_model(name, overrides)
    with connected() as home:
        from fashion.commands.canary_endings import tell_services
        from fashion.registry import champions, learnt

        print(f"champion: version {champions.rollback(reason=reason, name=name).number}")
        tell_services(home, name)
        for each in learnt.rolled_back(name):
            if each.pictures:
                print(
                    f"{len(each.pictures):,} pictures that version {each.number} had learnt are not learnt again until "
                    "`fashion log restore` or a review says so"
                )


@app.command("sign", epilog="Example: FASHION_SIGNING_KEY=signing.pem fashion registry sign 3")
def sign(
    version: Annotated[str, typer.Argument(help="Number or alias.")],
    overrides: DataSet = None,
    name: ModelName = MODEL_NAME,
) -> None:
    """Sign a version's package with the key in FASHION_SIGNING_KEY.

    For versions that were registered without one, or before the key changed. Its files are fetched and verified first.
    """
    name = chosen_model(name, overrides)
    with connected(), tempfile.TemporaryDirectory() as folder:
        from fashion.registry import versions

        found = versions.get(version, name)
        versions.sign(found, Path(folder), name=name)
        print(f"signed: version {found.number}")


@app.command("compare", epilog="Example: fashion registry compare --rows 5000")
def compare(
    overrides: DataSet = None, rows: Rows = DEFAULT_ROWS, name: ModelName = MODEL_NAME, as_json: AsJson = False
) -> None:
    """Compare champion and shadow on the same pictures."""
    name = chosen_model(name, overrides)
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
    overrides: DataSet = None,
    rows: Rows = DEFAULT_ROWS,
    name: ModelName = MODEL_NAME,
    as_json: AsJson = False,
) -> None:
    """Score logged pictures with another version.

    Compares its labels and confidences with what was served, and with true labels where there are any.
    """
    name = chosen_model(name, overrides)
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
    from fashion.registry.artifacts import ArtifactsUnavailable
    from fashion.registry.versions import ERRORS, RegistryError
    from fashion.storage.servers import ServerUnavailable, without_password

    try:
        with failing_on(RegistryError, DamagedPackage, ServerUnavailable, ArtifactsUnavailable):
            yield
    except ERRORS as error:
        if (fault := faults.find(error, home.root)) is not None:
            raise CommandError(fault.sentence) from None
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
            if (fault := faults.find(error, home.root)) is not None:
                raise CommandError(fault.sentence) from None
            raise CommandError(
                f"the registry {without_password(home.tracking_uri)} cannot be opened ({first_line(error)}); "
                "check MLFLOW_TRACKING_URI, or move the damaged file away"
            ) from None
        yield home


def _expected(expect: str) -> "Expected":
    if expect == "none":
        return "none"
    if expect == "any":
        return "any"
    if not expect.isdecimal():
        raise CommandError(f"--expect takes the number of a version, `none` or `any`, got {expect!r}")
    return int(expect)


def _prepare() -> "Home":
    from fashion.home import prepare_home

    return prepare_home()


@contextlib.contextmanager
def _open_log() -> Iterator[tuple["PredictionLog", "Home"]]:
    """The prediction log of this home; whatever goes wrong with it, or with the registry, is one sentence."""
    from fashion.commands.open_logs import open_log
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
