"""The model package: a folder with everything that a prediction needs. Knows files and fields, not how to make them.

Files: `model.onnx` (input `image` (N, C, H, W) float32 normalised; outputs `logits` (N, classes) and `embedding`
(N, D)), `weights.safetensors`, `reference.parquet` (held-out rows to compare windows with), `typicality.npz` (what a
usual picture is), `accuracy.npz` (how a window's accuracy is estimated), `prediction_sets.npz` (which classes hold the
truth in a chosen share of cases), `package.json`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion.images.transform import Preparation

FORMAT = 1
MANIFEST = "package.json"
MODEL = "model.onnx"
WEIGHTS = "weights.safetensors"
REFERENCE = "reference.parquet"
TYPICALITY = "typicality.npz"
ACCURACY = "accuracy.npz"
SETS = "prediction_sets.npz"
FILES = (MODEL, WEIGHTS, REFERENCE, TYPICALITY, ACCURACY, SETS)
SINCE_LATER = {TYPICALITY, ACCURACY, SETS}
"""Files that older packages lack."""


class DamagedPackage(ValueError):
    """A package in which a file is missing or differs from what was written."""


class NotComparable(ValueError):
    """Two packages with other classes or image sizes. The message names the difference."""


@dataclass(frozen=True)
class Metric:
    """A measured value with its 95 % interval."""

    value: float
    low: float | None = None
    """Lower bound; None if no interval was computed."""
    high: float | None = None
    """Upper bound; None if no interval was computed."""


@dataclass(frozen=True)
class SeverityThresholds:
    """Bounds above which a window counts as harmful, of packages from before `accuracy.npz`."""

    confidence_drop: float
    """Mean confidence of the reference minus that of the window."""
    output_distance: float
    """Largest Kolmogorov-Smirnov distance of a class probability, in [0, 1]."""
    outlier_fraction: float
    """Share of rows farther from the reference's embeddings than `outlier_distance`."""
    outlier_distance: float
    """99th percentile of the reference's own Mahalanobis distances."""
    window: int
    """Rows of each window in calibration."""
    detected: float
    """Share of the harmful windows of calibration that were found."""
    false_alarms: float
    """Share of the harmless windows of calibration that were called harmful."""


@dataclass(frozen=True)
class Package:
    """The content of `package.json`."""

    class_names: tuple[str, ...]
    channels: int
    size: int
    mean: tuple[float, ...]
    """Per channel, of training pixels in [0, 1]."""
    std: tuple[float, ...]
    """Per channel, of training pixels in [0, 1]."""
    temperature: float
    """Logits are divided by it before the softmax; fitted on the validation split."""
    embedding_mean: tuple[float, ...]
    """(D,) subtracted from an embedding before projection."""
    embedding_components: tuple[tuple[float, ...], ...]
    """(16, D) principal directions of the validation split's embeddings."""
    architecture: dict[str, Any]
    """Name and arguments of the network."""
    data: dict[str, Any]
    """Name and manifest digest of the data set, and `words`, which older packages lack: how pages speak of it, as in
    `WordsConfig`. `training` says whether labelled feedback was trained on besides."""
    lineage: dict[str, Any]
    """git_commit, metaflow_run_id, mlflow_run_id; git_commit.resumed where a resumed run went on with other code."""
    training: dict[str, Any]
    """Settings and course of the training; `feedback` has the counts of users' pictures, None where there are none."""
    metrics: dict[str, Metric]
    """By name, such as `test/accuracy`."""
    severity: SeverityThresholds | None
    """None since packages hold `accuracy.npz`."""
    export_check: dict[str, Any]
    """Difference of the exported network's outputs from the trained one's: rows, max_difference, label_agreement; and
    precision, `float32` or `int8`, which older packages lack: they are float32."""
    preparation: Preparation = "product_photo"
    """How users' pictures are prepared. Packages of older versions lack the field, and used this default."""
    folder: Path | None = None
    """Where the package is; not stored."""
    digest: str = ""
    """sha256 of `package.json`, which holds the checksums of all files: the package's identity. Not stored."""


def write(package: Package, folder: Path, files: Mapping[str, bytes]) -> Package:
    """Write a package: its files, then the manifest with their checksums.

    Args:
        package: fields of the manifest.
        folder: created if missing.
        files: name -> content of the model, the weights and the reference.

    Returns:
        The package with its folder and digest.

    Raises:
        ValueError: `files` are not those of a package.
    """
    if not set(FILES) - SINCE_LATER <= set(files) <= set(FILES):
        raise ValueError(f"a package has {', '.join(FILES)}, got {', '.join(sorted(files))}")
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if name in files:
            (folder / name).write_bytes(files[name])
        else:
            (folder / name).unlink(missing_ok=True)
    fields = dataclasses.asdict(dataclasses.replace(package, folder=None))
    del fields["folder"], fields["digest"]
    content = {"format": FORMAT, **fields, "files": {name: _sha256(data) for name, data in sorted(files.items())}}
    manifest = (json.dumps(content, indent=1) + "\n").encode()
    (folder / MANIFEST).write_bytes(manifest)
    return dataclasses.replace(package, folder=folder, digest=_sha256(manifest))


def read(folder: Path) -> Package:
    """Read a package and verify each file against its checksum.

    Raises:
        DamagedPackage: naming the file that is missing or differs.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        manifest = (folder / MANIFEST).read_bytes()
        content = json.loads(manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedPackage(f"{folder} is not a model package: it has no {MANIFEST}") from None
    except ValueError as error:
        raise DamagedPackage(f"{folder / MANIFEST} cannot be read: {error}") from None
    if not isinstance(content, dict) or "format" not in content:
        raise DamagedPackage(f"{folder / MANIFEST} does not describe a model package")
    if content["format"] != FORMAT:
        raise DamagedPackage(f"{folder} has format {content['format']}; this version of fashion reads format {FORMAT}")
    checksums = content.get("files")
    if not isinstance(checksums, dict):
        raise DamagedPackage(f"{folder / MANIFEST} is damaged: it holds no checksums")
    for name in FILES:
        path = folder / name
        if name in SINCE_LATER and name not in checksums:
            if path.exists():
                raise DamagedPackage(f"{folder} is damaged: {name} was not packed with it")
            continue
        if not path.is_file():
            raise DamagedPackage(f"{folder} is damaged: {name} is missing")
        if _sha256(path.read_bytes()) != checksums.get(name):
            raise DamagedPackage(f"{folder} is damaged: {name} differs from what was packed")
    try:
        package: Package = TypeAdapter(Package).validate_python(content)
    except ValidationError as error:
        raise DamagedPackage(f"{folder / MANIFEST} is damaged: {error.errors()[0]['loc']} is wrong") from None
    return dataclasses.replace(package, folder=folder, digest=_sha256(manifest))


def require_comparable(one: Package, other: Package) -> None:
    """Check that two packages take images of the same size and have the same classes.

    Raises:
        NotComparable: they do not.
    """
    differing = [
        f"{name} {getattr(one, name)} and {getattr(other, name)}"
        for name in ("class_names", "channels", "size")
        if getattr(one, name) != getattr(other, name)
    ]
    if differing:
        raise NotComparable(f"the two cannot be compared: {'; '.join(differing)}")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
