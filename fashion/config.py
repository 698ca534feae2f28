"""What can be configured: YAML groups composed by Hydra into frozen dataclasses. Defaults are in configs/.

A key or value that is wrong is refused here, at the edge, in one sentence that names it and what is allowed.
"""

import dataclasses
import functools
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from fashion.home import REPOSITORY
from fashion.package import Preparation

Kind = TypeVar("Kind")

CONFIGS = Path(os.environ.get("FASHION_CONFIGS") or REPOSITORY / "configs")


class ConfigError(ValueError):
    """A configuration key or value that is not allowed. The message is one sentence for the person who typed it."""


class Strict:
    """Keys that no field has are errors."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


def require(condition: bool, message: str) -> None:
    """Refuse a value with a message that names it."""
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class SourceConfig(Strict):
    """One place that data files can come from."""

    kind: Literal["folder", "debian", "https", "bucket"]
    """How to read the address."""
    address: str
    """A folder, a Debian package's name, a URL of a folder, or `gs://bucket/prefix`."""


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
    trimmed, light ones inverted), `whole_picture` fits all of it and changes no colour."""
    manifest: str
    """Path of the manifest (file names, sizes, sha256), relative to the repository."""
    sources: tuple[SourceConfig, ...]
    """Tried in order."""
    val_fraction: float
    """Fraction of the training files held out for validation, stratified by class."""
    split_seed: int
    """Seed of that split."""
    limit: int | None
    """Rows kept of each split (a stratified subset), for quick runs; null keeps all."""
    live_rows: int = 0
    """Test rows (a stratified subset) set aside to play the traffic of users: never trained on, nor scored on."""

    def __post_init__(self) -> None:
        require(len(self.class_names) >= 2, f"class_names must name at least 2 classes, got {self.class_names}")
        require(
            len(set(self.class_names)) == len(self.class_names),
            f"class_names must differ, got {self.class_names}",
        )
        require(self.channels in (1, 3), f"channels must be 1 or 3, got {self.channels}")
        require(self.size >= 8, f"size must be at least 8 pixels, got {self.size}")
        require(0 < self.val_fraction < 1, f"val_fraction must be in (0, 1), got {self.val_fraction}")
        require(0 <= self.split_seed < 2**32, f"split_seed must be in [0, 2**32), got {self.split_seed}")
        require(
            self.limit is None or self.limit >= len(self.class_names),
            f"limit must leave a row for each of {len(self.class_names)} classes, got {self.limit}",
        )
        require(self.live_rows >= 0, f"live_rows must not be negative, got {self.live_rows}")


@dataclass(frozen=True)
class ArchitectureConfig(Strict):
    """Which network, and how it is fitted to small images."""

    name: str
    """`convnet`, `vgg`, or any model name of timm."""
    kwargs: dict[str, Any]
    """Passed to the network's constructor."""
    min_final_map: int
    """Smallest height of the last feature map in pixels: strides are removed, first ones first, until it is reached."""
    drop_rate: float
    """Dropout before the classifier."""
    drop_path_rate: float | None
    """Stochastic depth; null where the network has none."""
    pretrained: bool
    """Start from timm's published weights: needs a connection."""
    precision: Literal["32-true", "bf16-mixed"]
    """What pays on this network where the processor has bfloat16; 32 bit is used where it has not."""
    channels_last: bool
    """Memory layout; pays on convolutional networks."""

    def __post_init__(self) -> None:
        require(0 <= self.drop_rate < 1, f"drop_rate must be in [0, 1), got {self.drop_rate}")
        if self.drop_path_rate is not None:
            require(0 <= self.drop_path_rate < 1, f"drop_path_rate must be in [0, 1), got {self.drop_path_rate}")
        require(self.min_final_map >= 1, f"min_final_map must be at least 1 pixel, got {self.min_final_map}")


@dataclass(frozen=True)
class OptimizerConfig(Strict):
    """How weights are updated, and how the learning rate changes."""

    name: Literal["sgd", "adamw", "muon"]
    """`muon` updates convolutions by orthogonalised momentum and everything else by SGD."""
    learning_rate: float
    """At the schedule's peak."""
    weight_decay: float
    """Never on norms and biases. Decoupled for adamw; Muon holds hidden weights at a fixed norm and decays the head."""
    momentum: float
    """Momentum, or AdamW's first beta."""
    head_learning_rate: float | None
    """Muon only: learning rate of what is not a hidden weight."""
    warmup_fraction: float
    """Fraction of the steps that climb linearly to the peak."""
    schedule: Literal["linear", "cosine"]
    """How the learning rate falls to 0 after the warm-up."""

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, f"learning_rate must be positive, got {self.learning_rate}")
        require(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}")
        require(0 <= self.momentum < 1, f"momentum must be in [0, 1), got {self.momentum}")
        require(0 <= self.warmup_fraction < 1, f"warmup_fraction must be in [0, 1), got {self.warmup_fraction}")
        if self.head_learning_rate is not None:
            require(
                self.head_learning_rate > 0,
                f"head_learning_rate must be positive, got {self.head_learning_rate}",
            )


@dataclass(frozen=True)
class AugmentationConfig(Strict):
    """Random changes of training images, drawn a batch at a time on the device."""

    crop_padding: int
    """Pixels of padding before a random crop of the original size; 0 for no crop."""
    flip: Literal["none", "random", "alternating"]
    """Horizontal flips; alternating shows each image flipped every other epoch."""
    erase_probability: float
    """Probability that a rectangle of an image is erased."""
    erase_scale: tuple[float, float]
    """Smallest and largest erased area, as a fraction of the image."""

    def __post_init__(self) -> None:
        require(self.crop_padding >= 0, f"crop_padding must not be negative, got {self.crop_padding}")
        require(
            0 <= self.erase_probability <= 1,
            f"erase_probability must be in [0, 1], got {self.erase_probability}",
        )
        low, high = self.erase_scale
        require(0 < low <= high < 1, f"erase_scale must be 0 < low <= high < 1, got {self.erase_scale}")


@dataclass(frozen=True)
class TrainingConfig(Strict):
    """One training from start to end."""

    num_epochs: int
    """Passes over the training split: the budget."""
    batch_size: int
    """Images an optimizer step."""
    label_smoothing: float
    """Probability mass spread over the other classes."""
    ema_decay: float | None
    """Exponential moving average of the weights, a step; null trains without."""
    gradient_clip_norm: float | None
    """Largest gradient norm; null does not clip."""
    patience_to_diverge: float
    """Fraction of the first epoch after which a loss that is not below chance level ends the training."""
    num_threads: int
    """torch threads on a CPU. One is fastest on busy cores; results are bit-equal only at equal counts."""
    seed: int
    """Seed of weights, order, and augmentation."""

    def __post_init__(self) -> None:
        require(self.num_epochs >= 1, f"num_epochs must be at least 1, got {self.num_epochs}")
        require(self.batch_size >= 2, f"batch_size must be at least 2, got {self.batch_size}")
        require(0 <= self.label_smoothing < 1, f"label_smoothing must be in [0, 1), got {self.label_smoothing}")
        if self.ema_decay is not None:
            require(0 < self.ema_decay < 1, f"ema_decay must be in (0, 1), got {self.ema_decay}")
        if self.gradient_clip_norm is not None:
            require(
                self.gradient_clip_norm > 0,
                f"gradient_clip_norm must be positive, got {self.gradient_clip_norm}",
            )
        require(
            0 < self.patience_to_diverge <= 1,
            f"patience_to_diverge must be in (0, 1], got {self.patience_to_diverge}",
        )
        require(self.num_threads >= 1, f"num_threads must be at least 1, got {self.num_threads}")
        require(0 <= self.seed < 2**32, f"seed must be in [0, 2**32), got {self.seed}")


@dataclass(frozen=True)
class Distribution(Strict):
    """What values of one parameter a study may try: a range, or choices."""

    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    """Sample the logarithm uniformly."""
    choices: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        is_range = self.low is not None and self.high is not None
        require(is_range != (self.choices is not None), f"give either low and high or choices, got {self}")
        if self.low is not None and self.high is not None:
            require(
                math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high,
                f"low must be below high, got {self.low} and {self.high}",
            )
            require(not self.log or self.low > 0, f"a log range must start above 0, got {self.low}")
        else:
            require(bool(self.choices), "choices must not be empty")


@dataclass(frozen=True)
class SearchConfig(Strict):
    """The search space of a study: parameter name -> Distribution, by the config group it belongs to."""

    architecture: dict[str, Distribution]
    training: dict[str, Distribution]
    augmentation: dict[str, Distribution]
    optimizer: dict[str, dict[str, Distribution]]
    """By optimizer name, for learning rates of different optimizers are of different size."""


@dataclass(frozen=True)
class TuningConfig(Strict):
    """One study."""

    enabled: bool
    """Whether to search before training."""
    num_trials: int
    """Trials that finish, over all workers."""
    num_workers: int
    """Tasks that share the study."""
    num_epochs: int
    """Epochs of one trial: a complete short schedule."""
    optimizers: tuple[Literal["sgd", "adamw", "muon"], ...]
    """Optimizers to choose from; empty keeps the configured one."""
    prune_after: float
    """Fraction of a trial's schedule before which it is never pruned: values early in a one-cycle schedule mislead."""
    keep_percentile: float
    """Percentage of trials that go on past a point of the schedule; the others are pruned there."""
    min_improvement: float
    """Validation accuracy by which a trial must beat the configured values to replace them."""
    seed: int
    """Seed of the sampler."""

    def __post_init__(self) -> None:
        require(self.num_trials >= 1, f"num_trials must be at least 1, got {self.num_trials}")
        require(
            1 <= self.num_workers <= self.num_trials,
            f"num_workers must be between 1 and num_trials ({self.num_trials}), got {self.num_workers}",
        )
        require(self.num_epochs >= 1, f"num_epochs must be at least 1, got {self.num_epochs}")
        require(0 <= self.prune_after <= 1, f"prune_after must be in [0, 1], got {self.prune_after}")
        require(0 < self.keep_percentile <= 100, f"keep_percentile must be in (0, 100], got {self.keep_percentile}")
        require(self.min_improvement >= 0, f"min_improvement must not be negative, got {self.min_improvement}")
        require(0 <= self.seed < 2**31, f"seed must be in [0, 2**31), got {self.seed}")


@dataclass(frozen=True)
class GateConfig(Strict):
    """When a challenger may replace the champion."""

    margin: float
    """Accuracy that a challenger may lose overall and still count as not worse."""
    confidence: float
    """Confidence of the interval of the paired difference."""
    max_class_drop: float
    """Recall that any class may lose."""
    max_ece_increase: float
    """How much worse calibrated a challenger may be."""
    max_latency_ratio: float
    """How much slower a challenger may answer."""
    min_feedback_rows: int
    """Labelled feedback rows from which feedback takes part in the decision."""

    def __post_init__(self) -> None:
        require(0 <= self.margin < 1, f"margin must be in [0, 1), got {self.margin}")
        require(0.5 < self.confidence < 1, f"confidence must be in (0.5, 1), got {self.confidence}")
        require(0 <= self.max_class_drop <= 1, f"max_class_drop must be in [0, 1], got {self.max_class_drop}")
        require(self.max_ece_increase >= 0, f"max_ece_increase must not be negative, got {self.max_ece_increase}")
        require(self.max_latency_ratio > 0, f"max_latency_ratio must be positive, got {self.max_latency_ratio}")
        require(self.min_feedback_rows >= 1, f"min_feedback_rows must be at least 1, got {self.min_feedback_rows}")


@dataclass(frozen=True)
class FeedbackConfig(Strict):
    """What a training takes from the prediction log."""

    use: bool
    """Learn from pictures of users that somebody has labelled, besides the data set."""
    holdout: float
    """Share of them that is never learnt from: the gate judges by those."""
    max_rows: int
    """The latest so many."""
    repeat: int
    """How often each is in an epoch: there are few of them beside the data set."""

    def __post_init__(self) -> None:
        require(0 < self.holdout < 1, f"holdout must be in (0, 1), got {self.holdout}")
        require(self.max_rows >= 1, f"max_rows must be at least 1, got {self.max_rows}")
        require(self.repeat >= 1, f"repeat must be at least 1, got {self.repeat}")


@dataclass(frozen=True)
class TrackingConfig(Strict):
    """Names in MLflow."""

    experiment: str
    registered_model: str
    """Without `/` and `:`, which separate it from a version in MLflow's addresses."""

    def __post_init__(self) -> None:
        require(bool(self.experiment.strip()), "experiment must not be empty")
        is_name = bool(self.registered_model.strip()) and not set("/:") & set(self.registered_model)
        require(is_name, f"registered_model must be a name without / and :, got {self.registered_model!r}")


@dataclass(frozen=True)
class ResourcesConfig(Strict):
    """What a training task asks of a cluster; on one machine they change nothing."""

    cpu: int
    gpu: int
    memory: int
    """Megabytes."""

    def __post_init__(self) -> None:
        require(self.cpu >= 1, f"cpu must be at least 1, got {self.cpu}")
        require(self.gpu >= 0, f"gpu must not be negative, got {self.gpu}")
        require(self.memory >= 1, f"memory must be at least 1 megabyte, got {self.memory}")


@dataclass(frozen=True)
class TrainConfig(Strict):
    """Everything TrainFlow can be told."""

    root: ClassVar[str] = "train"

    data: DataConfig
    architecture: ArchitectureConfig
    optimizer: OptimizerConfig
    optimizers: dict[str, OptimizerConfig]
    """Every optimizer's own values, for a study that chooses between them."""
    augmentation: AugmentationConfig
    training: TrainingConfig
    tuning: TuningConfig
    search: SearchConfig
    gate: GateConfig
    feedback: FeedbackConfig
    tracking: TrackingConfig
    resources: ResourcesConfig

    def __post_init__(self) -> None:
        searched = {name: getattr(self.search, name) for name in ("architecture", "training", "augmentation")}
        searched |= {f"optimizer.{name}": group for name, group in self.search.optimizer.items()}
        for where, group in searched.items():
            owner = getattr(self, where.split(".", maxsplit=1)[0])
            fields = sorted(field.name for field in dataclasses.fields(owner))
            for key in group:
                require(key in fields, f"search.{where}: there is no key {key!r} to search; there is {fields}")
        for name in self.search.optimizer:
            require(name in self.optimizers, f"search.optimizer.{name}: optimizers are {', '.join(self.optimizers)}")
        chosen = self.tuning.optimizers
        require(
            not chosen or self.optimizer.name in chosen,
            f"tuning.optimizers must hold the configured optimizer {self.optimizer.name}, got {', '.join(chosen)}; "
            f"add it, or set optimizer={chosen[0] if chosen else ''}",
        )


def is_shipped(architecture: ArchitectureConfig) -> bool:
    """Whether a file in configs/architecture builds this very network; those are known to be sound."""
    import yaml

    shape = {name: getattr(architecture, name) for name in ("name", "kwargs", "min_final_map", "pretrained")}
    files = (CONFIGS / "architecture").glob("*.yaml")
    return any(shape.items() <= yaml.safe_load(file.read_text())["architecture"].items() for file in files)


def compose(overrides: Sequence[str] = (), *, root: str = "train") -> dict[str, Any]:
    """Compose `configs/<root>.yaml` with Hydra overrides into plain dicts and lists.

    Raises:
        ConfigError: an override names no key, group or option there is, or is not `key=value`.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _check_words(overrides)
    overrides = _any_timm_name(overrides)
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        try:
            composed = hydra_compose(root, list(overrides))
            plain = OmegaConf.to_container(composed, resolve=True)
        except (HydraException, OmegaConfBaseException) as error:
            groups = [o for o in overrides if (CONFIGS / o.split("=")[0]).is_dir()]
            plain = OmegaConf.to_container(hydra_compose(root, groups), resolve=True)
            raise ConfigError(_explain(overrides, plain, error)) from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def load(mapping: Mapping[str, Any]) -> TrainConfig:
    """Turn a composed mapping into a TrainConfig.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """
    return load_as(TrainConfig, mapping)


def load_as(kind: type[Kind], mapping: Mapping[str, Any]) -> Kind:
    """Turn a composed mapping into the dataclass of another command.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """
    from pydantic import ValidationError

    try:
        config: Kind = _adapter(kind).validate_python(dict(mapping))  # type: ignore[arg-type]  # classes are hashable
    except ValidationError as error:
        raise ConfigError("; ".join(_sentence(entry, mapping) for entry in error.errors())) from None
    _check_switches(config, mapping)
    return config


def parse_overrides(text: str) -> list[str]:
    """Split the words of HYDRA_ARGS as a shell would."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a list of key=value words as in HYDRA_ARGS: {error}") from None


def as_mapping(config: Any) -> dict[str, Any]:
    """The plain dict of any config dataclass, for storing beside a model."""
    return dataclasses.asdict(config)


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _check_switches(config: Any, mapping: Mapping[str, Any], where: str = "") -> None:
    """Refuse `true` and `false` where pydantic has read them as 1 and 0."""
    for field in dataclasses.fields(config):
        read, given = getattr(config, field.name), mapping.get(field.name)
        if isinstance(given, bool) and isinstance(read, (int, float)) and not isinstance(read, bool):
            raise ConfigError(f"{where}{field.name} must be a number, got {str(given).lower()}")
        if dataclasses.is_dataclass(read) and isinstance(given, Mapping):
            _check_switches(read, given, f"{where}{field.name}.")


def _sentence(error: Mapping[str, Any], mapping: Mapping[str, Any]) -> str:
    """One of pydantic's errors for the person who typed the value."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}" if where else str(error["ctx"]["error"])
    if error["type"] == "unexpected_keyword_argument":
        *parents, key = error["loc"]
        siblings: Any = mapping
        for part in parents:
            siblings = siblings[part]
        known = ", ".join(sorted(str(each) for each in siblings if each != key))
        return f"{where}: there is no such key; {'.'.join(map(str, parents)) or 'the configuration'} has {known}"
    if error["type"] == "literal_error":
        return f"{where} must be {error['ctx']['expected']}, got {error['input']!r}"
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}, got {error['input']!r}"


def _check_words(overrides: Sequence[str]) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for word in overrides:
        try:
            override = parser.parse_override(word)
        except HydraException:
            override = None
        if override is None or not override.key_or_group:
            raise ConfigError(f"{word!r} is not a configuration word: write key=value, e.g. training.num_epochs=3")
        key, value = override.key_or_group, override.value()
        folder = CONFIGS / key
        options = sorted(path.stem for path in folder.glob("*.yaml"))
        if options and str(value) not in options:
            raise ConfigError(f"{word}: no such option; {key} is one of {', '.join(options)}")


def _any_timm_name(overrides: Sequence[str]) -> list[str]:
    """Let `architecture.name=NAME` alone choose any network of timm: the defaults of convnet would not fit it."""
    words = dict(word.partition("=")[::2] for word in overrides)
    if "architecture.name" not in words or "architecture" in words:
        return list(overrides)
    own = CONFIGS / "architecture" / f"{words['architecture.name']}.yaml"
    return [f"architecture={own.stem if own.is_file() else 'timm'}", *overrides]


def _explain(overrides: Sequence[str], composed: Any, error: Exception) -> str:
    """Name the override that is wrong, and what its group holds."""
    for word in overrides:
        *parents, last = word.lstrip("+~").split("=")[0].split(".")
        node = composed
        for depth, part in enumerate([*parents, last]):
            if not isinstance(node, dict) or part not in node:
                where = ".".join([*parents, last][:depth]) or "the configuration"
                allowed = f"; {where} has {', '.join(sorted(node))}" if isinstance(node, dict) else ""
                if not word.startswith("+"):
                    return f"{word}: there is no key {part!r}{allowed}"
                break
            node = node[part]
    return " ".join(str(error).split())
