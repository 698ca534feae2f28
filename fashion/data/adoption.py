"""Make a data version of pictures as somebody has them, with a config to keep. Knows the parts, not how each works."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fashion.config.compose import load_as
from fashion.config.schema import ConfigError, DataConfig
from fashion.data import config_file, dataset, layout, manifest, selection, survey, unpacking
from fashion.data.checks import DataReport, check_dataset
from fashion.data.dataset import Split
from fashion.data.found import Found, Selection
from fashion.data.idx import write_idx
from fashion.data.idx_folder import read_idx_folder
from fashion.data.layout import Entry, Layout
from fashion.data.manifest import DataError, Manifest, Role, SplitName
from fashion.data.selection import Pictures
from fashion.data.survey import Picture
from fashion.images.threads import in_threads
from fashion.images.transform import Preparation
from fashion.storage.folder import write_atomically

MOST_CLASSES = 1000
IDX = "IDX files"
PATHS = "paths.json"
"""Beside the files of a version, and none of them: the file that each row was read from."""


@dataclass(frozen=True)
class Request:
    """What somebody wants of their pictures otherwise than it is found out; None for what is found out."""

    root: str
    """A folder, a table, an archive, or an address of a bucket."""
    name: str | None = None
    size: int | None = None
    channels: int | None = None
    preparation: Preparation | None = None
    mirrored: bool | None = None
    group_by: str | None = None
    split_seed: int | None = None
    val_fraction: float | None = None
    test_fraction: float | None = None


@dataclass(frozen=True, eq=False)
class AdoptedData:
    """A data version of somebody's pictures."""

    name: str
    """Of its config, for `data=NAME`."""
    data: DataConfig
    version: Manifest
    report: DataReport
    found: Found
    is_new: bool
    """False if the very version was there before."""


def adopt(request: Request, cache: Path) -> AdoptedData:
    """Find out what the pictures are, make a data version of them, and write its config and its manifest.

    If a config has the same root already, it is renewed: its values are kept, but for `root`, `val_fraction` and the
    class names, which are those of the folders or the table. IDX files number their classes: names that were given to
    as many are kept.

    Args:
        request: where the pictures are, and what is not to be found out.
        cache: folder that holds the files of all versions.

    Raises:
        DataError: the pictures cannot be used, or another config has the name.
        OSError: a file cannot be written.
    """
    root = absolute(request.root)
    name = config_file.of_root(root) if request.name is None else None
    name = name or config_file.slug(request.name or unpacking.stem(root))
    path = config_file.path_of(name)
    kept = config_file.values_of(path) if path.exists() else {}
    is_of_others = bool(kept) and kept.get("root") != root
    if is_of_others and not _has_moved(kept.get("root")):
        raise _of_others(path, kept)
    with unpacking.unpack(root) as folder:
        seen = _examine(folder, name, root, request, kept)
    known = _class_names(kept)
    if is_of_others and not _are_alike(known, seen.layout):
        raise _of_others(path, kept)
    data = seen.data
    fractions: dict[SplitName, float | None] = {"val": data.fractions.val, "test": data.fractions.test}
    made, names, chosen = selection.select(
        seen.pictures, seen.layout.class_names, seed=data.split_seed, fractions=fractions, group_by=data.group_by
    )
    if seen.layout.kind == IDX and len(known) == len(names):
        names = known  # people name what the files number
    data = dataclasses.replace(data, class_names=names)
    version, report, is_new = _store(data, made, cache)
    config_file.write(path, data, count=sum(map(len, made.values())))
    _store_paths(version, cache, chosen)
    facts = Found(
        layout=seen.layout,
        sizes=tuple(seen.sizes),
        coloured=seen.coloured,
        size=data.size,
        channels=data.channels,
        mirrored=data.mirrored,
        unreadable=seen.unreadable,
        class_names=names,
        selection=chosen,
    )
    return AdoptedData(name, data, version, report, facts, is_new)


def add(data: DataConfig, folder: str, cache: Path) -> tuple[Manifest, DataReport, Found | None]:
    """Make a version of pictures that a data config describes: its classes, its size, its preparation.

    IDX files are taken as they are; nothing is found out about them.

    Args:
        data: what the pictures are, and the manifest to write.
        folder: what `unpacking.unpack` takes.
        cache: folder that holds the files of all versions.

    Raises:
        DataError: the pictures differ from the data config, or cannot be trained on.
    """
    with unpacking.unpack(folder) as root:
        if (arrays := read_idx_folder(root)) is not None:
            return *_store(data, _converted(arrays, data), cache)[:2], None
        found = _named_as_in(data, layout.find_layout(root))
        top = root if root.is_dir() else root.parent
        pictures, unreadable = _read(found.entries, top, data)
    fractions: dict[SplitName, float | None] = {"test": data.fractions.test}
    if data.val_fraction is None:
        fractions["val"] = data.fractions.val
    made, names, chosen = selection.select(
        pictures, data.class_names, seed=data.split_seed, fractions=fractions, group_by=data.group_by
    )
    missing = [name for name in data.class_names if name not in names]
    if missing:
        raise DataError(f"{folder} has too few pictures of {', '.join(missing)}; add some, or remove the class")
    if data.val_fraction is not None and "val" in made:
        train, val = made["train"], made.pop("val")  # they are held out anew, as the config says
        made["train"] = Split(np.concatenate([train.images, val.images]), np.concatenate([train.labels, val.labels]))
    version, report, _ = _store(data, made, cache)
    if data.val_fraction is None:
        _store_paths(version, cache, chosen)
    facts = Found(found, (), 0.0, data.size, data.channels, data.mirrored, unreadable, names, chosen)
    return version, report, facts


def _has_moved(root: Any) -> bool:
    """True for a path where nothing is any more: pictures of the same name that lie elsewhere may be the same."""
    return isinstance(root, str) and bool(root) and "://" not in root and not Path(root).exists()


def _are_alike(known: tuple[str, ...], found: Layout) -> bool:
    """True if pictures may be those of a config: half of its classes are there, or as many numbered ones."""
    if found.kind == IDX:
        return len(known) == len(found.class_names)
    return bool(known) and 2 * len({*known} & {*found.class_names}) >= len(known)


def _class_names(kept: Mapping[str, Any]) -> tuple[str, ...]:
    """The class names of a config's file; none where it has no list of them."""
    names = kept.get("class_names")
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _of_others(path: Path, kept: Mapping[str, Any]) -> DataError:
    which = kept.get("root") or kept.get("name")
    return DataError(
        f"{path} describes other pictures ({which}): name yours with data.name=NAME, or correct root in that file if "
        "they are the same"
    )


def _examine(folder: Path, name: str, root: str, request: Request, kept: dict[str, Any]) -> "_Examination":
    """Read the pictures of a folder or a table, and find out what they are. The arguments are those of `_describe`."""
    if (arrays := read_idx_folder(folder)) is not None:
        found, pictures = _of_idx(arrays, root)
        edge, coloured = pictures.images.shape[1], float(pictures.images.ndim == 4)
        asked = dataclasses.replace(request, size=edge, channels=3 if coloured else 1)
        data = _describe(name, root, found, [(edge, edge)], coloured, asked, kept)
        return _Examination(found, [(edge, edge)], coloured, data, pictures, {})
    found = layout.find_layout(folder)
    top = folder if folder.is_dir() else folder.parent
    sizes, coloured = survey.look([top / entry.path for entry in found.entries])
    if not sizes:
        raise DataError(f"{root}: none of {len(found.entries):,} files is a picture that can be read")
    data = _describe(name, root, found, sizes, coloured, request, kept)
    return _Examination(found, sizes, coloured, data, *_read(found.entries, top, data))


class _Examination(NamedTuple):
    """What `_examine` found."""

    layout: Layout
    sizes: Sequence[tuple[int, int]]
    coloured: float
    data: DataConfig
    pictures: Pictures
    unreadable: dict[str, str]


def absolute(root: str) -> str:
    """A root as it is stored: an address without a slash at its end, a path from the top."""
    return root.rstrip("/") if "://" in root else str(Path(root).expanduser().resolve())


def _describe(
    name: str,
    root: str,
    found: Layout,
    sizes: Sequence[tuple[int, int]],
    coloured: float,
    request: Request,
    kept: dict[str, Any],
) -> DataConfig:
    """What the config says: what is asked for, else what it said before, else what was found out."""
    names = found.class_names
    if not 2 <= len(names) <= MOST_CLASSES:
        raise DataError(f"{root}: from 2 to {MOST_CLASSES:,} classes can be told apart, got {len(names):,}")
    title = name.replace("_", " ")
    findings: dict[str, Any] = {
        "name": name,
        "class_names": names,
        "channels": 3 if coloured >= survey.LEAST_COLOURED else 1,
        "size": survey.fitting_size(sizes, len(found.entries)),
        "preparation": "whole_picture",
        "manifest": config_file.manifest_of(name),
        "split_seed": 42,
        "limit": None,
        "live_rows": 0,
        "model": f"{name.replace('_', '-')}-classifier",
        "mirrored": not all(_is_character(each) for each in names),
        "group_by": None,
        "fractions": {"val": None, "test": None},
        "words": {
            "title": f"{title[:1].upper()}{title[1:]} classifier",
            "question": "What is on this picture?",
            "hint": "Show one picture.",
            "subject": f"pictures ({title})",
        },
    }
    before = {key: kept[key] for key in findings if key in kept and key != "class_names"}
    asked = {
        field.name: value
        for field in dataclasses.fields(Request)
        if field.name in findings and field.name != "name" and (value := getattr(request, field.name)) is not None
    }
    values = findings | before | asked | {"root": root, "sources": (), "val_fraction": None}
    wanted = {"val": request.val_fraction, "test": request.test_fraction}
    if isinstance(values["fractions"], dict):
        values["fractions"] = values["fractions"] | {split: each for split, each in wanted.items() if each is not None}
    try:
        return load_as(DataConfig, values)
    except ConfigError as error:
        raise ConfigError(f"data.{error}" if not kept else f"{config_file.path_of(name)}: {error}") from None


def _is_character(name: str) -> bool:
    """True for a digit, a number or a letter: mirrored, those are others or none."""
    return len(name) == 1 or name.isdecimal()


def _read(entries: Sequence[Entry], top: Path, data: DataConfig) -> tuple[Pictures, dict[str, str]]:
    """Decode all pictures as the service does; those that it would reject are listed with its reasons."""

    def read(entry: Entry) -> Picture:
        return survey.read(top / entry.path, size=data.size, channels=data.channels, preparation=data.preparation)

    pairs = list(zip(entries, in_threads(read, entries), strict=True))
    unreadable = {entry.path: picture.problem for entry, picture in pairs if picture.image is None}
    readable = [(entry, picture.image) for entry, picture in pairs if picture.image is not None]
    if not readable:
        raise DataError(f"{top}: none of {len(entries):,} files is a picture that can be read")
    return Pictures([entry for entry, _ in readable], np.stack([image for _, image in readable])), unreadable


def _named_as_in(data: DataConfig, found: Layout) -> Layout:
    """The layout with the class names of a data config: the folder `t_shirt_top` is its class T-shirt/top."""
    names = {layout.plain(name): name for name in data.class_names}
    if len(names) < len(data.class_names):
        raise DataError(f"class names must differ in their letters and digits, got {', '.join(data.class_names)}")
    for label in found.class_names:
        if layout.plain(label) not in names:
            raise DataError(f"{label} is not named after a class; the classes are {', '.join(data.class_names)}")
    entries = tuple(dataclasses.replace(entry, label=names[layout.plain(entry.label)]) for entry in found.entries)
    return dataclasses.replace(found, entries=entries)


def read_paths(version: Manifest, cache: Path) -> dict[str, Sequence[str]] | None:
    """The file that each row of each split was read from; None where it is not known."""
    try:
        paths = json.loads((manifest.folder_of(version, cache) / PATHS).read_bytes())
    except (OSError, ValueError):
        return None
    return paths if isinstance(paths, dict) else None


def _store_paths(version: Manifest, cache: Path, chosen: Selection) -> None:
    content = json.dumps(chosen.paths, ensure_ascii=True).encode()  # also of names that are no UTF-8
    write_atomically(manifest.folder_of(version, cache) / PATHS, content)


def _of_idx(arrays: Mapping[tuple[SplitName, Role], NDArray[Any]], root: str) -> tuple[Layout, Pictures]:
    """Rows of IDX files, with classes named by their numbers."""
    for name in manifest.REQUIRED:
        images, labels = arrays[name, "images"], arrays[name, "labels"]
        if labels.ndim != 1 or len(images) != len(labels):
            raise DataError(f"{root}: the IDX files of {name} have {len(images):,} images but {labels.size:,} labels")
    shapes = {arrays[name, "images"].shape[1:] for name in manifest.REQUIRED}
    if len(shapes) > 1 or len(shape := shapes.pop()) < 2 or shape[0] != shape[1]:
        raise DataError(f"{root}: the images of all IDX files must be squares of one size")
    entries = [
        Entry(f"{name} row {row}", str(label), name, None)
        for name in manifest.REQUIRED
        for row, label in enumerate(arrays[name, "labels"])
    ]
    images = np.concatenate([arrays[name, "images"] for name in manifest.REQUIRED])
    return Layout(IDX, tuple(entries)), Pictures(entries, images)


def _converted(arrays: Mapping[tuple[SplitName, Role], NDArray[Any]], data: DataConfig) -> dict[SplitName, Split]:
    splits: dict[SplitName, Split] = {}
    for name in manifest.REQUIRED:
        splits[name] = dataset.convert(name, arrays[name, "images"], arrays[name, "labels"], data)
    return splits


def _store(data: DataConfig, made: dict[SplitName, Split], cache: Path) -> tuple[Manifest, DataReport, bool]:
    """Check the rows, and write them and the manifest; return also whether the version is new."""
    for split in ("train", "test"):
        if split not in made:
            raise DataError(f"{data.name}: no picture is left for {split}; add some")
    kind = np.uint8 if len(data.class_names) <= 256 else np.int16
    files = {
        (name, role): (f"{name}-{role}-idx{values.ndim}-ubyte", write_idx(values))
        for name, part in made.items()
        for role, values in (("images", part.images), ("labels", part.labels.astype(kind)))
    }
    entries = tuple(manifest.describe(path, *part, content) for part, (path, content) in files.items())  # type: ignore[arg-type]
    version = Manifest(data.name, len(data.class_names), entries)
    loaded = dataset.split(made["train"], made["test"], data, digest=version.digest, val=made.get("val"))
    report = check_dataset(loaded, data)
    folder = manifest.folder_of(version, cache)
    is_new = not folder.exists()
    for path, content in files.values():
        write_atomically(folder / path, content)
    manifest.write(version, manifest.locate(data))
    return version, report, is_new
