"""The data set whose pictures a service or a report shows beside a model. Knows neither of them."""

from fashion.config.schema import DataConfig
from fashion.data import dataset, manifest
from fashion.data.dataset import Dataset
from fashion.data.fetch import fetch_data
from fashion.home import current_home


def learnt_from(data: DataConfig, digest: str | None, *, what: str) -> Dataset | None:
    """The configured data set where a model has learnt from it; else None, and a line that says why `what` is missing.

    Args:
        digest: of the version that the model has learnt from; None where it does not say.
    """
    try:
        fetch_data(data, current_home().data)
        found = dataset.load(data, current_home().data)
        if found.digest != digest:
            raise manifest.DataError(
                f"the model has not learnt from {data.name}; data=NAME says which data set it is of"
            )
    except manifest.DataError as error:
        print(f"no {what}: {error}")
        return None
    return found
