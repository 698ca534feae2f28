"""Read the IDX files of a folder, as MNIST and its kin are published. Knows their names, not what the values mean."""

import re
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fashion.data import manifest
from fashion.data.idx import read_idx
from fashion.data.manifest import DataError, Role, SplitName

_NAME = re.compile(r"(train|t10k|test)-(images|labels)[-.]idx\d-ubyte")
"""With a dot, too: so 7-Zip unpacks them and Kaggle names them."""


def read_idx_folder(folder: Path) -> dict[tuple[SplitName, Role], NDArray[Any]] | None:
    """The images and labels of train and test; None if the folder holds no such file.

    Raises:
        DataError: some of the four files are missing, or one is damaged.
    """
    if not folder.is_dir():
        return None
    arrays: dict[tuple[SplitName, Role], NDArray[Any]] = {}
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name.removesuffix(".gz"))
        if match:
            split: SplitName = "train" if match[1] == "train" else "test"
            role: Role = "images" if match[2] == "images" else "labels"
            content = manifest.decompress(path.name, path.read_bytes())
            arrays[split, role] = read_idx(content, path.name) if content else _empty(path)
    if arrays and len(arrays) < 4:
        names = ", ".join(f"{split} {role}" for split, role in arrays)
        raise DataError(f"{folder} must hold images and labels for train and for test, but has only {names}")
    return arrays or None


def _empty(path: Path) -> NDArray[Any]:
    raise DataError(f"{path} is empty")
