"""The package that contenders serve, and the form of their answers. Loads neither torch nor ONNX Runtime."""

import os
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fashion.model import package
from fashion.model.package import Package

PACKAGE_VARIABLE = "BENCHMARK_PACKAGE"
"""Names the package's folder."""


def package_folder() -> Path:
    """Folder of the package that is served."""
    return Path(os.environ[PACKAGE_VARIABLE])


def read_package() -> Package:
    """The package that is served."""
    return package.read(package_folder())


def answer(probabilities: NDArray[Any], used: Package) -> dict[str, Any]:
    """What is sent as JSON.

    Args:
        probabilities: `(classes,)`.
        used: the package, which names the classes.
    """
    label = int(probabilities.argmax())
    return {
        "label": used.class_names[label],
        "confidence": float(probabilities[label]),
        "probabilities": dict(zip(used.class_names, map(float, probabilities), strict=True)),
    }
