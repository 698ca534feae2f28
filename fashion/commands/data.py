"""`fashion data`: versions of the data, in the cache and in a bucket."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fashion.commands.arguments import AsJson, Overrides
from fashion.commands.errors import FAILED, CommandError, failing_on

if TYPE_CHECKING:
    from fashion.config.schema import DataConfig
    from fashion.data.checks import DataReport
    from fashion.data.manifest import Manifest

app = typer.Typer(help="Fetch, check and share versions of the data.", rich_markup_mode=None)


@app.command("fetch", epilog="Example: fashion data fetch data=mine")
def fetch(overrides: Overrides = None) -> None:
    """Bring the files into the cache, verified against the manifest."""
    with _failing_on_data():
        from fashion.data.fetch import fetch_data
        from fashion.home import current_home

        cache = current_home().data
        version = fetch_data(_configure(overrides), cache)
        print(_describe(version, cache))


@app.command("verify", epilog="Example: fashion data verify")
def verify(overrides: Overrides = None) -> None:
    """Check the cached files and their content, without fetching."""
    with _failing_on_data():
        from fashion.data import dataset, manifest
        from fashion.data.checks import check_dataset
        from fashion.home import current_home

        data, cache = _configure(overrides), current_home().data
        version = manifest.read(data)
        states = _file_states(version, cache)
        if set(states.values()) != {"verified"}:
            for name, state in states.items():
                print(f"{name}: {state}")
            raise CommandError("files are missing or changed: `fashion data fetch` brings them back")
        print(f"{_title(version)}: {len(states)} files verified")
        _print_report(check_dataset(dataset.load(data, cache), data))


@app.command("status", epilog="Example: fashion data status --json")
def status(overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show what is cached, what has changed, and what the bucket holds.

    Exits with 1 where something is missing or changed.
    """
    with _failing_on_data():
        from fashion.data import manifest
        from fashion.data.fetch import find_bucket
        from fashion.home import current_home

        data, cache = _configure(overrides), current_home().data
        version = manifest.read(data)
        folder = manifest.folder_of(version, cache)
        states = _file_states(version, cache)
        bucket = find_bucket(data)
        present = {} if bucket is None else _bucket_files(bucket, version)
        content: dict[str, Any] = {
            "name": version.name,
            "digest": version.digest,
            "manifest": str(manifest.locate(data)),
            "cache": str(folder),
            "files": {entry.path: {"bytes": entry.size, "state": states[entry.path]} for entry in version.files},
            "bucket": bucket,
            "bucket_files": present,
            "complete": set(states.values()) == {"verified"} and all(present.values()),
        }
        if as_json:
            print(json.dumps(content, indent=1))
        else:
            _print_status(content, _title(version))
    if not content["complete"]:
        raise typer.Exit(FAILED)


@app.command("push", epilog="Example: FASHION_DATA_BUCKET=s3://bucket/prefix fashion data push (also gs:// and az://)")
def push(overrides: Overrides = None) -> None:
    """Upload the cached files to the bucket of the data config."""
    with _failing_on_data():
        from fashion.data import manifest
        from fashion.data.fetch import push_data
        from fashion.home import current_home

        data = _configure(overrides)
        address = push_data(data, current_home().data)
        print(f"{_title(manifest.read(data))}: complete in {address}")


@app.command("add", epilog="Examples: fashion data add pictures/; fashion data add pictures/ data=mine")
def add(
    folder: Annotated[
        str,
        typer.Argument(help="Folder, archive or bucket of pictures in class folders; a table of files; IDX files."),
    ],
    overrides: Overrides = None,
) -> None:
    """Make a new version of your own pictures.

    Without `data=NAME` it is found out what they are, and a data config is written, as `make train DATA=` does."""
    with _failing_on_data():
        from fashion.data import adoption, config_file, manifest, requested
        from fashion.data.found import screen
        from fashion.home import current_home

        cache = current_home().data
        request, others = requested.split_request([f"data.root={folder}", *(overrides or [])], named=True)
        if request is None or others:
            requested.check_described(others)
            data = _configure(overrides)
            name = next((text.removeprefix("data=") for text in others if text.startswith("data=")), None)
            config_file.check_manifest(data, name)
            version, report, found = adoption.add(data, folder, cache)
        else:
            adopted = adoption.adopt(request, cache)
            data, version, report, found = adopted.data, adopted.version, adopted.report, adopted.found
        if found is not None:
            print(screen(found))
        print(_describe(version, cache))
        _print_report(report)
        print(f"Commit {manifest.locate(data)}; `fashion data push` shares the files.")


@app.command("look", epilog="Example: fashion data look data=mine --output look.html")
def look(
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option(help="Where the page goes.", show_default="look.html beside the version's files")
    ] = None,
) -> None:
    """Write a page of pictures to look through: labels that may be wrong, near copies, unusual pictures."""
    with _failing_on_data():
        from fashion.data import adoption, dataset, look_page, manifest, requested
        from fashion.home import current_home
        from fashion.storage.folder import write_atomically

        data, cache = _configure(requested.with_known(overrides or [])), current_home().data
        version = manifest.read(data)
        loaded = dataset.load(data, cache, version=version)
        known = adoption.read_paths(version, cache) if data.limit is None and not data.live_rows else None
        page = output or manifest.folder_of(version, cache) / "look.html"
        write_atomically(page, look_page.page(loaded, known).encode())
        print(f"{_title(version)}: {page}")


def _failing_on_data() -> Any:
    from fashion.config.schema import ConfigError
    from fashion.data.manifest import DataError

    return failing_on(ConfigError, DataError, OSError)


def _configure(overrides: list[str] | None) -> "DataConfig":
    from fashion.config.compose import compose
    from fashion.config.train import load_train_config

    return load_train_config(compose(overrides or [])).data


def _file_states(version: "Manifest", cache: Path) -> dict[str, str]:
    from fashion.data import manifest

    return {entry.path: manifest.state(entry, manifest.folder_of(version, cache)) for entry in version.files}


def _bucket_files(bucket: str, version: "Manifest") -> dict[str, bool]:
    """Which files of a version a bucket holds."""
    from fashion.data import sources

    store = sources.open_bucket(bucket)
    names = {entry.path: entry.blob for entry in version.files} | {"manifest": version.blob}
    return {name: store.exists(blob) for name, blob in names.items()}


def _print_status(content: dict[str, Any], title: str) -> None:
    print(f"{title}\nmanifest {content['manifest']}\ncache    {content['cache']}")
    for name, file in content["files"].items():
        print(f"  {name:26} {file['bytes'] / 1e6:8.1f} MB  {file['state']}")
    if {file["state"] for file in content["files"].values()} != {"verified"}:
        print("  -> `fashion data fetch` brings back what is missing or changed")
    if content["bucket"] is None:
        print("bucket   none (FASHION_DATA_BUCKET names one: gs://, s3:// or az://bucket/prefix)")
        return
    print(f"bucket   {content['bucket']}")
    for name, is_present in content["bucket_files"].items():
        print(f"  {name:26} {'present' if is_present else 'missing'}")
    if not all(content["bucket_files"].values()):
        print("  -> `fashion data push` uploads what is missing")


def _print_report(report: "DataReport") -> None:
    for name, count in report.num_rows.items():
        classes = report.class_counts[name]
        print(f"  {name:5} {count:6,} images, {min(classes):,} to {max(classes):,} per class")
    for remark in report.warnings or ("no exact duplicates, classes balanced",):
        print(f"  {remark}")


def _describe(version: "Manifest", cache: Path) -> str:
    from fashion.data import manifest

    return f"{_title(version)}: complete in {manifest.folder_of(version, cache)}"


def _title(version: "Manifest") -> str:
    return f"{version.name}, version {version.digest[:12]}"
