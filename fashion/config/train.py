"""Configuration of TrainFlow: one dataclass for each group of configs/train.yaml. Knows nothing of Hydra."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fashion.config.compose import CONFIGS, load_as
from fashion.config.schema import DataConfig, Strict, TrackingConfig, require, require_minutes


@dataclass(frozen=True)
class ArchitectureConfig(Strict):
    """Which network, and how it is adapted to small images."""

    name: str
    """`convnet`, `vgg`, or any model name of timm."""
    kwargs: dict[str, Any]
    """Passed to the network's constructor."""
    min_final_map: int
    """Smallest height of the last feature map in pixels: strides are removed, first ones first, until it is reached."""
    drop_rate: float
    """Dropout before the classifier."""
    drop_path_rate: float | None
    """Stochastic depth; null if the network has none."""
    pretrained: bool
    """Start from timm's published weights, which are downloaded."""
    precision: Literal["32-true", "bf16-mixed"]
    """The faster one for this network if the processor has bfloat16; 32 bit is used if it has not."""
    channels_last: bool
    """Memory layout; faster for convolutional networks."""

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
    """Muon only: learning rate of all parameters that are not hidden weights."""
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
    """Random changes of training images, sampled for a whole batch on the device."""

    crop_padding: int
    """Pixels of padding before a random crop of the original size; 0 for no crop."""
    flip: Literal["none", "random", "alternating"]
    """Horizontal flips; alternating shows each image flipped every other epoch."""
    erase_probability: float
    """Probability that a rectangle of an image is erased."""
    erase_scale: tuple[float, float]
    """Smallest and largest erased area, as a fraction of the image."""
    distort_share: float = 0.0
    """Share of each batch's images that are changed in light, sharpness, noise, place or shape; 0 for none."""

    def __post_init__(self) -> None:
        require(self.crop_padding >= 0, f"crop_padding must not be negative, got {self.crop_padding}")
        require(
            0 <= self.erase_probability <= 1,
            f"erase_probability must be in [0, 1], got {self.erase_probability}",
        )
        require(0 <= self.distort_share <= 1, f"distort_share must be in [0, 1], got {self.distort_share}")
        low, high = self.erase_scale
        require(0 < low <= high < 1, f"erase_scale must be 0 < low <= high < 1, got {self.erase_scale}")


@dataclass(frozen=True)
class TrainingConfig(Strict):
    """The training loop."""

    num_epochs: int
    """Passes over the training split."""
    batch_size: int
    """Images in one optimizer step."""
    label_smoothing: float
    """Probability mass spread over the other classes."""
    ema_decay: float | None
    """Decay of the weights' exponential moving average at each step; null for no average."""
    gradient_clip_norm: float | None
    """Largest gradient norm; null does not clip."""
    patience_to_diverge: float
    """Fraction of the first epoch, its end included, after which a loss that has risen and is not below chance level
    ends the training. The warm-up is waited for; half-way, a loss that is still not below chance level ends it too."""
    num_threads: int
    """torch threads on a CPU. One is fastest on busy cores; bit-equal results need equal numbers."""
    seed: int
    """Seed of weights, order, and augmentation."""
    min_steps: int = 0
    """Optimizer steps of a training of few pictures, at least: each is shown several times an epoch, in smaller
    batches, and of many classes more often. It does not hold of a training split with more than 16 pictures for each
    such step, nor with `data.limit`, for quick runs. Runs of older versions had no such minimum."""
    logit_adjustment: float = 0.0
    """How far rare classes are made up for, from 0 to 1. With 0, probabilities are right for pictures with the training
    split's class shares, and most pictures are. With 1, they are those of classes that are equally frequent: more
    pictures of rare classes are found, and more of the others are taken for one."""

    def __post_init__(self) -> None:
        require(self.num_epochs >= 1, f"num_epochs must be at least 1, got {self.num_epochs}")
        require(self.min_steps >= 0, f"min_steps must not be negative, got {self.min_steps}")
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
        adjustment = self.logit_adjustment
        require(0 <= adjustment <= 1, f"logit_adjustment must be in [0, 1], got {adjustment}")
        require(self.num_threads >= 1, f"num_threads must be at least 1, got {self.num_threads}")
        require(0 <= self.seed < 2**32, f"seed must be in [0, 2**32), got {self.seed}")


@dataclass(frozen=True)
class Distribution(Strict):
    """Values of one parameter that a study may try: a range, or choices."""

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
    """Of keys of `architecture`."""
    training: dict[str, Distribution]
    """Of keys of `training`."""
    augmentation: dict[str, Distribution]
    """Of keys of `augmentation`."""
    optimizer: dict[str, dict[str, Distribution]]
    """By optimizer name: learning rates of different optimizers differ in size."""


@dataclass(frozen=True)
class TuningConfig(Strict):
    """The study that searches before training."""

    enabled: bool
    """True to search before training."""
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
    """Percentage of trials that continue at each point of the schedule; the others are pruned."""
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


Precision = Literal["float32", "int8"]


@dataclass(frozen=True)
class ExportConfig(Strict):
    """The network that is packed and served."""

    precision: Precision = "float32"
    """int8 quantises the trained network on validation images: faster and smaller, and judged by the gate as it is."""


@dataclass(frozen=True)
class GateConfig(Strict):
    """When a challenger may replace the champion."""

    champion: Literal["compare", "ignore"]
    """`ignore` judges a model as if there were no champion, as is needed where the champion's files are lost."""
    min_accuracy_over_chance: float
    """Without a champion to compare with: how much of the way from guessing (always the most frequent class) to no
    mistakes a model must have come, in [0, 1), by the lower bound of its accuracy's interval."""
    margin: float
    """Accuracy in [0, 1] that a challenger may lose and still count as not worse."""
    confidence: float
    """Confidence of the intervals."""
    max_class_drop: float
    """Recall in [0, 1] that any class may lose."""
    max_ece_increase: float
    """Largest increase of the expected calibration error."""
    max_latency_ratio: float
    """Largest ratio of a challenger's median latency to the champion's."""
    max_shifted_drop: float
    """Accuracy in [0, 1] that any shifted copy of the test split may lose."""
    min_feedback_rows: int
    """Held-out feedback rows with trusted labels below which the gate uses the test split only."""
    approval: bool
    """True to let a challenger that passes wait for a person: `fashion registry promote` makes it the champion."""
    canary: bool
    """True to let a challenger that passes wait for its comparison with the champion on live traffic, after
    `make bento ARGS=serve.canary=challenger`: by it, it becomes the champion or is refused."""

    def __post_init__(self) -> None:
        over_chance = self.min_accuracy_over_chance
        require(0 <= over_chance < 1, f"min_accuracy_over_chance must be in [0, 1), got {over_chance}")
        require(0 <= self.margin < 1, f"margin must be in [0, 1), got {self.margin}")
        require(0.5 < self.confidence < 1, f"confidence must be in (0.5, 1), got {self.confidence}")
        require(0 <= self.max_class_drop <= 1, f"max_class_drop must be in [0, 1], got {self.max_class_drop}")
        require(self.max_ece_increase >= 0, f"max_ece_increase must not be negative, got {self.max_ece_increase}")
        require(self.max_latency_ratio > 0, f"max_latency_ratio must be positive, got {self.max_latency_ratio}")
        require(0 <= self.max_shifted_drop <= 1, f"max_shifted_drop must be in [0, 1], got {self.max_shifted_drop}")
        require(self.min_feedback_rows >= 1, f"min_feedback_rows must be at least 1, got {self.min_feedback_rows}")


@dataclass(frozen=True)
class FeedbackConfig(Strict):
    """Which labelled feedback of the prediction log is trained on."""

    use: bool
    """Train on users' pictures with feedback, besides the data set."""
    holdout: float
    """Fraction of them that is never trained on: the gate compares models on it."""
    max_rows: int
    """Only the latest pictures are used, at most this many."""
    repeat: int
    """Times that each picture is in an epoch: there are few of them beside the data set."""
    rolled_back: Literal["block", "learn"]
    """Whether pictures are learnt again that a version had learnt which was rolled back; `block` until
    `fashion log restore` or a review says so."""

    def __post_init__(self) -> None:
        require(0 < self.holdout < 1, f"holdout must be in (0, 1), got {self.holdout}")
        require(self.max_rows >= 1, f"max_rows must be at least 1, got {self.max_rows}")
        require(self.repeat >= 1, f"repeat must be at least 1, got {self.repeat}")


@dataclass(frozen=True)
class ResourcesConfig(Strict):
    """What a training task requests from a cluster, and how long a step may take."""

    cpu: int
    """Cores of each node."""
    gpu: int
    """Devices of each node. A training uses all of them; a trial of a study uses one."""
    memory: int
    """Megabytes of each node."""
    timeout_minutes: int
    """Minutes after which a step is ended, and begun anew where it may be retried; on one machine too."""
    nodes: int
    """Machines that train one model together; on one machine, processes. `training.batch_size` is of all together."""
    rank_timeout_minutes: float
    """How long nodes wait for one another to start, and in a step: then the training ends, and can be resumed."""

    def __post_init__(self) -> None:
        require_minutes(self.timeout_minutes)
        require(self.cpu >= 1, f"cpu must be at least 1, got {self.cpu}")
        require(self.gpu >= 0, f"gpu must not be negative, got {self.gpu}")
        require(self.memory >= 1, f"memory must be at least 1 megabyte, got {self.memory}")
        require(self.nodes >= 1, f"nodes must be at least 1, got {self.nodes}")
        minutes = self.rank_timeout_minutes
        require(0 < minutes < math.inf, f"rank_timeout_minutes must be positive, got {minutes}")


@dataclass(frozen=True)
class TrainConfig(Strict):
    """Configuration of TrainFlow."""

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
    export: ExportConfig = ExportConfig()  # runs of older versions, which can be resumed, had none
    fit_budget: float | None = None
    """Seconds of one machine's processor that the last training may take: epochs, and the width of the default network,
    are chosen to fit. None trains what is configured."""

    def __post_init__(self) -> None:
        if self.fit_budget is not None:
            require(self.fit_budget > 0, f"fit_budget must be positive, got {self.fit_budget}")
            require(
                self.resources.gpu == 0 and self.resources.nodes == 1,
                "fit_budget is measured on one processor: with resources.gpu or resources.nodes, set "
                "training.num_epochs instead",
            )
        searched = {name: getattr(self.search, name) for name in ("architecture", "training", "augmentation")}
        searched |= {f"optimizer.{name}": group for name, group in self.search.optimizer.items()}
        for where, group in searched.items():
            owner = getattr(self, where.split(".", maxsplit=1)[0])
            fields = sorted(field.name for field in dataclasses.fields(owner))
            for key in group:
                require(key in fields, f"search.{where}: there is no key {key!r} to search; there is {fields}")
        for name in self.search.optimizer:
            require(name in self.optimizers, f"search.optimizer.{name}: optimizers are {', '.join(self.optimizers)}")
        optimizers = self.tuning.optimizers
        require(
            not optimizers or self.optimizer.name in optimizers,
            f"tuning.optimizers must hold the configured optimizer {self.optimizer.name}, got {', '.join(optimizers)}; "
            f"add it, or set optimizer={optimizers[0] if optimizers else ''}",
        )


def is_shipped(architecture: ArchitectureConfig) -> bool:
    """True if a file in configs/architecture builds this network: tests build and export each of those."""
    import yaml

    shape = {name: getattr(architecture, name) for name in ("name", "kwargs", "min_final_map", "pretrained")}
    files = [CONFIGS / "train.yaml", *(CONFIGS / "architecture").glob("*.yaml")]
    defaults, *shipped = (yaml.safe_load(file.read_text())["architecture"] for file in files)
    return any(shape.items() <= (defaults | values).items() for values in shipped)


def load_train_config(mapping: Mapping[str, Any]) -> TrainConfig:
    """Turn a composed mapping into a TrainConfig.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """
    return load_as(TrainConfig, mapping)
