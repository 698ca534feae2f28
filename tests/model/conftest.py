"""The tiny package's network and its held-out rows."""

import pytest

from fashion.model.package import Package
from fashion.model.predictor import Predictor
from fashion.model.reference import Reference


@pytest.fixture(scope="session")
def predictor(tiny_package: Package) -> Predictor:
    return Predictor(tiny_package)


@pytest.fixture(scope="session")
def reference(tiny_package: Package) -> Reference:
    return Reference.of(tiny_package)
