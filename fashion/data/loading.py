"""Load a data version from wherever it is. Knows the cache and the sources, not the models."""

from pathlib import Path

from fashion.config.schema import DataConfig
from fashion.data import dataset, published
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
