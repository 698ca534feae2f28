"""The tiny data set, and Fashion-MNIST itself."""

from pathlib import Path

import pytest
from support.tiny_dataset import TinyDataset, make_tiny

from fashion.config.compose import compose
from fashion.config.schema import DataConfig
from fashion.config.train import load_train_config
from fashion.data.dataset import Dataset
from fashion.data.fetch import DataUnavailable
from fashion.data.loading import load_dataset
from fashion.home import current_home


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyDataset:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path / "home"))
    return make_tiny(tmp_path)


@pytest.fixture(scope="session")
def real() -> tuple[DataConfig, Dataset]:
    """Fashion-MNIST itself, where this machine has it or can download it."""
    data = load_train_config(compose()).data
    try:
        return data, load_dataset(data, current_home().data)
    except DataUnavailable as error:
        pytest.skip(str(error))
