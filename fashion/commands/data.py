"""The command `fashion data`: versions of the data, in the cache and in a bucket. Decides nothing."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fashion.config.compose import compose
from fashion.config.schema import ConfigError, DataConfig
from fashion.config.train import load_train_config
from fashion.data import dataset, from_folder, manifest, sources
from fashion.data.checks import DataReport, check_dataset
from fashion.data.fetch import fetch_data, find_bucket, push_data
from fashion.data.manifest import DataError, Manifest
from fashion.home import current_home

_OVERRIDES = "configuration words, e.g. data=mine data.val_fraction=0.2"


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb; return 0 when all is well, 1 when something is missing, wrong or out of reach."""
    arguments = _parser().parse_args(words)
    try:
        data = load_train_config(compose(arguments.overrides)).data
        good: bool = arguments.verb(data, current_home().data, arguments)
    except (ConfigError, DataError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was complete is kept", file=sys.stderr)
        return 130
    return 0 if good else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fashion data", description="Versions of the data.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, function: Callable[..., bool], text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text)
        added.set_defaults(verb=function)
        return added

    parsers = [
        verb("fetch", _fetch, "bring the files into the cache, verified"),
        verb("verify", _verify, "check the cached files, and what they hold, without fetching"),
        verb("push", _push, "upload the cached files to the bucket of the data config"),
        verb("status", _status, "say what is cached, changed, and in the bucket"),
        verb("add", _add, "make a new version of train/<class>/ and test/<class>/ pictures, or of IDX files"),
    ]
    parsers[-1].add_argument("folder", type=Path, metavar="FOLDER")
    for added in parsers:
        added.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES)
    return parser


def _fetch(data: DataConfig, cache: Path, _: argparse.Namespace) -> bool:
    version = fetch_data(data, cache)
    print(f"{_title(version)}: complete in {manifest.folder_of(version, cache)}")
    return True


def _verify(data: DataConfig, cache: Path, _: argparse.Namespace) -> bool:
    version = manifest.read(data)
    states = {entry: manifest.state(entry, manifest.folder_of(version, cache)) for entry in version.files}
    if set(states.values()) != {"verified"}:
        for entry, state in states.items():
            print(f"{entry.path}: {state}")
        print("`fashion data fetch` brings back what is missing or changed", file=sys.stderr)
        return False
    print(f"{_title(version)}: {len(states)} files verified")
    _print_report(check_dataset(dataset.load(data, cache), data))
    return True


def _push(data: DataConfig, cache: Path, _: argparse.Namespace) -> bool:
    address = push_data(data, cache)
    print(f"{_title(manifest.read(data))}: complete in {address}")
    return True


def _status(data: DataConfig, cache: Path, _: argparse.Namespace) -> bool:
    version = manifest.read(data)
    folder = manifest.folder_of(version, cache)
    states = {entry: manifest.state(entry, folder) for entry in version.files}
    print(f"{_title(version)}\nmanifest {manifest.locate(data)}\ncache    {folder}")
    for entry, state in states.items():
        print(f"  {entry.path:26} {entry.size / 1e6:8.1f} MB  {state}")
    is_cached = set(states.values()) == {"verified"}
    if not is_cached:
        print("  -> `fashion data fetch` brings back what is missing or changed")
    return _bucket_status(data, version) and is_cached


def _bucket_status(data: DataConfig, version: Manifest) -> bool:
    address = find_bucket(data)
    if address is None:
        print("bucket   none (FASHION_DATA_BUCKET=gs://bucket/prefix names one)")
        return True
    store = sources.open_bucket(address)
    print(f"bucket   {address}")
    names = {entry.path: entry.blob for entry in version.files} | {"manifest": version.blob}
    present = {name: store.exists(blob) for name, blob in names.items()}
    for name, is_present in present.items():
        print(f"  {name:26} {'present' if is_present else 'missing'}")
    if not all(present.values()):
        print("  -> `fashion data push` uploads what is missing")
    return all(present.values())


def _add(data: DataConfig, cache: Path, arguments: argparse.Namespace) -> bool:
    version, report = from_folder.add(data, arguments.folder, cache)
    print(f"{_title(version)}: complete in {manifest.folder_of(version, cache)}")
    _print_report(report)
    print(f"Commit {manifest.locate(data)}; `fashion data push` shares the files.")
    return True


def _print_report(report: DataReport) -> None:
    for name, count in report.num_rows.items():
        classes = report.class_counts[name]
        print(f"  {name:5} {count:6,} images, {min(classes):,} to {max(classes):,} a class")
    for warning in report.warnings or ("no exact duplicates, classes balanced",):
        print(f"  {warning}")


def _title(version: Manifest) -> str:
    return f"{version.name}, version {version.digest[:12]}"
