"""What the configurations share: strict dataclasses, their error, and the data and tracking groups."""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from fashion.config.names import MODEL_NAME
from fashion.images.transform import Preparation

NAME = r"\w([\w .-]*[\w.-])?"
"""What a name may be: MLflow puts it into filters, and it is part of addresses and of the names of files and bentos."""
NAME_RULE = "letters, digits, spaces and . _ -, begin with a letter or a digit and not end with a space"


class ConfigError(ValueError):
    """A configuration key or value that is not allowed. The message is one sentence for the person who typed it."""


class Strict:
    """Keys that no field has are errors."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


def require(condition: bool, message: str) -> None:
    """Raise a ValueError with this message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def check_model_name(name: str) -> None:
    """Reject a name of a registered model that MLflow, or a bento of the model, would not take.

    Raises:
        ConfigError: it is empty, or holds what no name may hold.
    """
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"registered_model must consist of {NAME_RULE}, got {name!r}")


def require_minutes(minutes: int) -> None:
    """Reject a time limit that Metaflow does not take on a cluster: it wants a minute at least."""
    require(minutes >= 1, f"timeout_minutes must be at least 1, got {minutes}")


@dataclass(frozen=True)
class SourceConfig(Strict):
    """One place that data files can come from."""

    kind: Literal["folder", "debian", "https", "bucket"]
    """How to read the address."""
    address: str
    """A folder, a Debian package's name, a URL of a folder, or `gs://`, `s3://` or `az://bucket/prefix`."""


@dataclass(frozen=True)
class FractionsConfig(Strict):
    """How much of somebody's pictures each held-out split gets when they are read; null for what suits their number."""

    val: float | None = None
    test: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("val", self.val), ("test", self.test)):
            require(value is None or 0 < value < 0.9, f"fractions.{name} must be in (0, 0.9), got {value}")


@dataclass(frozen=True)
class PublishedFile(Strict):
    """A file as the authors of a data set publish it."""

    name: str
    """Without folders."""
    size: int
    """Bytes."""
    sha256: str
    """Of the file as it is, 64 hexadecimal digits."""

    def __post_init__(self) -> None:
        require(re.fullmatch(r"\w[\w.-]*", self.name) is not None, f"name must be one of a file, got {self.name!r}")
        digits = re.fullmatch("[0-9a-f]{64}", self.sha256)
        require(digits is not None, f"sha256 must be 64 hexadecimal digits, got {self.sha256!r}")


@dataclass(frozen=True)
class PublishedConfig(Strict):
    """A public data set as its authors publish it, from which the first fetch makes a version."""

    form: Literal["idx", "cifar10", "emnist_balanced"]
    """`idx`: images and labels of train and t10k, gzip or not; `cifar10`: an archive of binary batches;
    `emnist_balanced`: an archive of IDX files, whose images are transposed."""
    files: tuple[PublishedFile, ...]
    addresses: tuple[str, ...]
    """URLs of folders that have all files, tried in order."""

    def __post_init__(self) -> None:
        require(bool(self.files and self.addresses), "published must name files and addresses")


@dataclass(frozen=True)
class WordsConfig(Strict):
    """How the service's pages and its API speak of the pictures. They travel in the model package."""

    title: str = "Picture classifier"
    """Name of the service, at the top of each page."""
    question: str = "What is on this picture?"
    """Headline of the page."""
    hint: str = "Show one picture."
    """What a user is to do."""
    subject: str = "pictures"
    """What is classified, as in "Classifies pictures"."""

    def __post_init__(self) -> None:
        for name in ("title", "question", "hint", "subject"):
            require(bool(getattr(self, name).strip()), f"{name} must not be empty")


@dataclass(frozen=True)
class DataConfig(Strict):
    """What the images are, and where they come from. The only place that knows how many classes there are."""

    name: str
    """Name of the data set, used for its cache folder and in MLflow."""
    class_names: tuple[str, ...]
    """Names in the order of the labels."""
    channels: int
    """1 for grey, 3 for colour."""
    size: int
    """Height and width in pixels."""
    preparation: Preparation
    """What the service does with a picture of another size: `product_photo` as Fashion-MNIST was made (the background
    trimmed, light ones inverted), `whole_picture` fits all of it and changes no colour, `handwriting` as MNIST was
    made (like a product, but in the middle 20 of 28 pixels and centred by its mass)."""
    manifest: str
    """Path of the manifest (file names, sizes, sha256), relative to the repository."""
    sources: tuple[SourceConfig, ...]
    """Tried in order."""
    val_fraction: float | None
    """Fraction of the training files held out for validation, stratified by class; null where the version has
    validation files of its own."""
    split_seed: int
    """Seed of that split."""
    limit: int | None
    """Rows of each split (a stratified subset) for quick runs; null for all."""
    live_rows: int = 0
    """Test rows (a stratified subset) that play the traffic of users: never trained on, nor scored on."""
    model: str = MODEL_NAME
    """Name of the registered model, unless `tracking.registered_model` is set, and of its bentos."""
    mirrored: bool = True
    """True if a mirrored picture is still one of its class; false for digits and letters. Training mirrors no pictures
    where it is false."""
    root: str = ""
    """Where the pictures were read from, with `data.root=`; empty for files that have a source."""
    group_by: str | None = None
    """Regular expression: pictures in whose paths it finds the same stay in one split; null for none."""
    fractions: FractionsConfig = FractionsConfig()
    """Of pictures that are read with `data.root=`: set by `data.val_fraction=` and `data.test_fraction=` there."""
    words: WordsConfig = WordsConfig()
    published: PublishedConfig | None = None
    """Of a public data set: what the first fetch makes the version of, where no source has its files."""

    def __post_init__(self) -> None:
        require(len(self.class_names) >= 2, f"class_names must name at least 2 classes, got {self.class_names}")
        require(
            len(set(self.class_names)) == len(self.class_names),
            f"class_names must differ, got {self.class_names}",
        )
        require(self.channels in (1, 3), f"channels must be 1 or 3, got {self.channels}")
        require(self.size >= 8, f"size must be at least 8 pixels, got {self.size}")
        fraction = self.val_fraction
        require(fraction is None or 0 < fraction < 1, f"val_fraction must be in (0, 1), got {fraction}")
        require(0 <= self.split_seed < 2**32, f"split_seed must be in [0, 2**32), got {self.split_seed}")
        require(
            self.limit is None or self.limit >= len(self.class_names),
            f"limit must leave a row for each of {len(self.class_names)} classes, got {self.limit}",
        )
        require(self.live_rows >= 0, f"live_rows must not be negative, got {self.live_rows}")
        require(re.fullmatch(NAME, self.name) is not None, f"name must consist of {NAME_RULE}, got {self.name!r}")
        require(re.fullmatch(NAME, self.model) is not None, f"model must consist of {NAME_RULE}, got {self.model!r}")


@dataclass(frozen=True)
class StepConfig(Strict):
    """What each step of a flow may use."""

    timeout_minutes: int
    """Minutes after which a step is ended, and begun anew where it may be retried."""

    def __post_init__(self) -> None:
        require_minutes(self.timeout_minutes)


@dataclass(frozen=True)
class TrackingConfig(Strict):
    """Names in MLflow."""

    experiment: str
    """Name of the experiment; of several parts with `/` between them where MLflow has folders, as on Databricks."""
    registered_model: str
    """Name of the registered model. Without `/` and `:`, which separate it from a version in MLflow's addresses."""

    def __post_init__(self) -> None:
        parts = self.experiment.removeprefix("/").replace("@", "_").split("/")
        is_name = all(re.fullmatch(NAME, part) for part in parts)
        require(is_name, f"experiment must consist of {NAME_RULE}, got {self.experiment!r}")
        check_model_name(self.registered_model)
