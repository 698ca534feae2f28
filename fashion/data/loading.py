"""Load a data version from wherever it is. Knows the cache and the sources, not the models."""

import contextlib
from pathlib import Path

from fashion.config.schema import DataConfig
from fashion.data import dataset, manifest, published
from fashion.data.dataset import Dataset
from fashion.data.fetch import fetch_data
from fashion.data.manifest import DataError, Manifest
from fashion.data.progress import Reporter
from fashion.home import current_home


def load_dataset(
    data: DataConfig, cache: Path, *, version: Manifest | None = None, reporter: Reporter | None = None
) -> Dataset:
    """Fetch the files that are missing, verify all of them, and load the three splits.

    Args:
        data: the version to load, its sources and how it is split.
        cache: folder that holds the files of all versions.
        version: which version, where it is not to be read from the data config's manifest.
        reporter: receives the messages of a download; standard error by default.

    Raises:
        DataUnavailable: no source has one of the files.
        DataError: the manifest, the cache or a file cannot be used.
    """
    version = published.read_or_make(data, cache, reporter=reporter) if version is None else version
    fetch_data(data, cache, version=version, reporter=reporter)
    return dataset.load(data, cache, version=version)


def find_version(data: DataConfig, digest: str, cache: Path, *, recorded: bytes | None) -> Manifest:
    """Find a version that need not be the present one, and bring its files into the cache, verified.

    Args:
        data: the data config that it was used with.
        digest: of the version.
        cache: folder that holds the files of all versions.
        recorded: its manifest, as the MLflow run of a training has it; None where it has none, as older ones.

    Returns:
        Its manifest.

    Raises:
        DataError: its manifest is neither recorded, nor the present one, nor made of files in the cache; or its files
            are neither in the cache nor at a source.
    """
    version: Manifest | None = None
    with contextlib.suppress(ValueError, TypeError, KeyError):  # a record that was damaged since
        version = None if recorded is None else manifest.parse(recorded.decode())
    if version is None or version.digest != digest:
        version = manifest.read_folder(data.name, len(data.class_names), digest, cache)
    if version is None:
        with contextlib.suppress(DataError):  # the data config may be another one by now
            version = published.read_or_make(data, cache)
    if version is None or version.digest != digest:
        raise DataError(
            f"the files of {data.name} {digest[:12]} are gone from {cache / data.name / digest[:12]}, and no manifest "
            "says where else they are: bring them back, as from a backup of that folder"
        )
    return fetch_data(data, cache, version=version)


def load_training_data(data: DataConfig, digest: str | None, *, purpose: str) -> Dataset | None:
    """Load the configured data set if a model was trained on it; otherwise print why not and return None.

    Args:
        data: the configured data set.
        digest: the version that the model was trained on; None if the model does not name one.
        purpose: what the data set is needed for; it begins the printed line.
    """
    try:
        loaded = load_dataset(data, current_home().data)
    except DataError as error:
        print(f"no {purpose}: {error}")
        return None
    if loaded.digest != digest:
        print(f"no {purpose}: the model was not trained on {data.name}; choose its data set with data=NAME")
        return None
    return loaded
