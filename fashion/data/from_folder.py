"""Make a data version of a folder of pictures or IDX files. Knows the layout of folders, not the networks.

Pictures are in `train/<class>/` and `test/<class>/`, already of the data config's size: resizing here would be a
second preparation beside the service's.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fashion.config.schema import DataConfig
from fashion.data import dataset, manifest
from fashion.data.checks import DataReport, check_dataset
from fashion.data.idx import read_idx, write_idx
from fashion.data.manifest import DataError, Manifest, Role, SplitName
from fashion.storage.folder import write_atomically

_IDX_NAME = re.compile(r"(train|t10k|test)-(images|labels)-idx\d-ubyte")

_Part = tuple[SplitName, Role]


def add(data: DataConfig, folder: Path, cache: Path) -> tuple[Manifest, DataReport]:
    """Check a folder of pictures or IDX files, copy it into the cache, and write the data config's manifest.

    The same pictures under the same names give the same version on any machine.

    Args:
        data: the classes, the shape of an image, and the manifest to write.
        folder: holds `train/<class>/` and `test/<class>/`, or four IDX files.
        cache: folder that holds the files of all versions.

    Returns:
        The manifest, and what `check_dataset` reports.

    Raises:
        DataError: a file differs from the data config, or the data cannot be trained on.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    files = _idx_files(folder) or _from_pictures(folder, data)
    entries = tuple(manifest.describe(path, *part, content) for part, (path, content) in files.items())
    version = Manifest(data.name, len(data.class_names), entries)
    splits = {
        name: dataset.convert(name, _array(files, (name, "images")), _array(files, (name, "labels")), data)
        for name in get_args(SplitName)
    }
    report = check_dataset(dataset.split(splits["train"], splits["test"], data, digest=version.digest), data)
    target = manifest.folder_of(version, cache)
    for path, content in files.values():
        write_atomically(target / path, content)
    manifest.write(version, manifest.locate(data))
    return version, report


def _array(files: Mapping[_Part, tuple[str, bytes]], part: _Part) -> NDArray[np.uint8]:
    path, content = files[part]
    return read_idx(content, path)


def _idx_files(folder: Path) -> dict[_Part, tuple[str, bytes]]:
    """Read the IDX files of a folder as (name, content); an empty mapping if it holds none."""
    files: dict[_Part, tuple[str, bytes]] = {}
    for path in sorted(folder.iterdir()):
        match = _IDX_NAME.fullmatch(path.name.removesuffix(".gz"))
        if match:
            split: SplitName = "train" if match[1] == "train" else "test"
            role: Role = "images" if match[2] == "images" else "labels"
            files[split, role] = (path.name.removesuffix(".gz"), manifest.decompress(path.name, path.read_bytes()))
    if files and len(files) < 4:
        names = ", ".join(path for path, _ in files.values())
        raise DataError(f"{folder} must hold images and labels for train and for test, but has only {names}")
    return files


def _from_pictures(folder: Path, data: DataConfig) -> dict[_Part, tuple[str, bytes]]:
    files: dict[_Part, tuple[str, bytes]] = {}
    for name in get_args(SplitName):
        images, labels = _pictures(folder / name, data)
        files[name, "images"] = (f"{name}-images-idx{images.ndim}-ubyte", write_idx(images))
        files[name, "labels"] = (f"{name}-labels-idx1-ubyte", write_idx(labels))
    return files


def _pictures(folder: Path, data: DataConfig) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    labels_by_name = {_plain(name): label for label, name in enumerate(data.class_names)}
    if len(labels_by_name) < len(data.class_names) or len(data.class_names) > 256:
        raise DataError(
            f"class names must differ in their letters and digits and be at most 256, got {len(data.class_names)} "
            f"names: {', '.join(data.class_names)}"
        )
    if not folder.is_dir():
        raise DataError(f"{folder.parent} must hold train/<class>/ and test/<class>/, but there is no {folder}")
    images, labels = [], []
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        if _plain(path.name) not in labels_by_name:
            raise DataError(f"{path} is not named after a class; the classes are {', '.join(data.class_names)}")
        for picture in sorted(file for file in path.iterdir() if not file.name.startswith(".")):
            images.append(_decode(picture, data))
            labels.append(labels_by_name[_plain(path.name)])
    if not images:
        raise DataError(f"{folder} holds no pictures")
    return np.stack(images), np.array(labels, np.uint8)


def _decode(path: Path, data: DataConfig) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as picture:
            picture.load()
            converted = picture.convert("L" if data.channels == 1 else "RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not a picture that can be read ({error})") from None
    if converted.size != (data.size, data.size):
        raise DataError(
            f"{path} is {converted.width}x{converted.height} pixels, not {data.size}x{data.size}: "
            "resize the pictures first, or set `size` in the data config"
        )
    return np.asarray(converted)


def _plain(name: str) -> str:
    """Reduce a name to letters and digits, so that the folder `t_shirt_top` matches the class T-shirt/top."""
    return re.sub(r"\W|_", "", name).casefold()
