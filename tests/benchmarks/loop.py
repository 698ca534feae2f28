"""CPU time of a training step: `fit` against a bare loop, and against Lightning's Trainer, on the same work."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import util
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from fashion.config.compose import compose
from fashion.config.train import TrainConfig, load_train_config
from fashion.data.dataset import Dataset, Split
from fashion.images.transform import normalise, with_channels
from fashion.training import models, optimizers
from fashion.training.batches import Batches
from fashion.training.convnet import ConvNet
from fashion.training.fit import WHITENING_IMAGES, fit, supported_precision
from tests.benchmarks.loader import Transformed, transforms
from tests.benchmarks.measurement import Options, Spread, Table, alternately, fashion_mnist, run_one
from tests.benchmarks.trainers import quiet_lightning

UNTIMED_STEPS = 2
"""First steps allocate, and choose kernels."""
BARE = "bare loop, one tensor"


@dataclass(frozen=True)
class Timed:
    """One training."""

    cpu_seconds_a_step: float
    weights: Tensor


@dataclass(frozen=True)
class Work:
    """The same for all contenders."""

    settings: TrainConfig
    data: Dataset
    build: Callable[[TrainConfig], nn.Module]
    num_steps: int


def tables(options: Options) -> Iterator[Table]:
    """Compare on the default network, and where the network costs next to nothing."""
    steps, linear_steps, rounds = (4, 10, 1) if options.quick else (40, 300, 5)
    data = fashion_mnist(2000 if options.quick else None)
    convnet = load_train_config(compose(["architecture=convnet"]))
    yield _table("convnet", Work(convnet, data, _convnet, steps), rounds)
    linear = load_train_config(compose(["optimizer=sgd", "architecture.precision=32-true", "training.batch_size=64"]))
    linear = dataclasses.replace(linear, architecture=dataclasses.replace(linear.architecture, channels_last=False))
    yield _table("a linear model: what is left is the framework", Work(linear, data, _linear, linear_steps), rounds)


def _table(title: str, work: Work, rounds: int) -> Table:
    contenders: dict[str, Callable[[], Timed]] = {
        BARE: partial(_bare, work, _tensor_batches),
        "fit (Fabric), one tensor": partial(_fit, work),
        "bare loop, torchvision + DataLoader": partial(_bare, work, _image_batches),
    }
    trainers: dict[str, Callable[[], Timed]] = {
        "Lightning Trainer, one tensor": partial(_trainer, work, _tensor_batches, logs=False),
        "Lightning Trainer with logging, one tensor": partial(_trainer, work, _tensor_batches, logs=True),
        "Lightning Trainer with logging, torchvision + DataLoader": partial(_trainer, work, _image_batches, logs=True),
    }
    has_lightning = util.find_spec("lightning") is not None
    trainings = alternately(contenders | (trainers if has_lightning else {}), rounds)
    bare = trainings[BARE]
    rows: list[dict[str, Any]] = []
    for name, timed in trainings.items():
        speeds = [own.cpu_seconds_a_step for own in timed]
        ratios = [reference.cpu_seconds_a_step / own for reference, own in zip(bare, speeds, strict=True)]
        is_same = all(torch.equal(reference.weights, own.weights) for reference, own in zip(bare, timed, strict=True))
        rows.append(
            {
                "loop": name,
                "CPU-ms a step": 1000 * statistics.median(speeds),
                "speed, bare loop = 1": Spread(tuple(ratios)),
                "same weights in the end": "yes" if is_same else "no",
            }
        )
    if not has_lightning:
        row = {"CPU-ms a step": None, "speed, bare loop = 1": "Lightning is not installed: run make bench"}
        rows += [{"loop": name, **row, "same weights in the end": ""} for name in trainers]
    precision = supported_precision(work.settings.architecture.precision)
    return Table(
        f"Loop on {title}",
        rows,
        f"{work.num_steps} steps of {work.settings.training.batch_size} images, {precision}, "
        f"{work.settings.optimizer.name}, the same start; {rounds} rounds in turn, each divided by its own round's "
        "bare loop: median (range). Timed from forward to forward: set-up, validation and checkpoints are left out.",
        {"CPU-ms a step": ".2f", "speed, bare loop = 1": ".2f"},
    )


class Linear(nn.Module):
    """Logistic regression, with what `fit` asks of a network."""

    def __init__(self, num_inputs: int, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(num_inputs, num_classes)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(images.flatten(1))
        return logits


class Clock:
    """Reads the CPU clock as each training step enters the network: the same spot in every loop."""

    def __init__(self, model: nn.Module) -> None:
        self._readings: list[float] = []
        model.register_forward_pre_hook(self._read)

    def _read(self, model: nn.Module, _: object) -> None:
        if model.training:
            self._readings.append(time.process_time())

    def timed(self, model: nn.Module, num_steps: int) -> Timed:
        """The mean step, and the weights that it all led to."""
        assert len(self._readings) == num_steps, f"{len(self._readings)} steps instead of {num_steps}"
        first, last = self._readings[UNTIMED_STEPS], self._readings[-1]
        weights = torch.cat([param.detach().flatten() for param in model.parameters()])
        return Timed((last - first) / (num_steps - 1 - UNTIMED_STEPS), weights)


def _fit(work: Work) -> Timed:
    settings, rows = work.settings, work.num_steps * work.settings.training.batch_size
    model = work.build(settings)
    clock = Clock(model)
    data = dataclasses.replace(
        work.data,
        train=Split(work.data.train.images[:rows], work.data.train.labels[:rows]),
        val=Split(work.data.val.images[:100], work.data.val.labels[:100]),
    )
    fit(model, data, dataclasses.replace(settings, training=dataclasses.replace(settings.training, num_epochs=1)))
    return clock.timed(model, work.num_steps)


def _bare(work: Work, batches_of: Callable[[Work], Iterable[tuple[Tensor, Tensor]]]) -> Timed:
    """What one writes without any framework."""
    settings = work.settings
    model = _prepared(work)
    clock = Clock(model)
    optimizer = optimizers.build(model, settings.optimizer)
    is_mixed = supported_precision(settings.architecture.precision) == "bf16-mixed"
    model.train()
    for step, (images, labels) in enumerate(batches_of(work)):
        factor = optimizers.learning_rate_factor(step, work.num_steps, settings.optimizer)
        for group in optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"]
        if settings.architecture.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=settings.training.label_smoothing)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    return clock.timed(model, work.num_steps)


def _trainer(work: Work, batches_of: Callable[[Work], Iterable[tuple[Tensor, Tensor]]], *, logs: bool) -> Timed:
    from lightning import pytorch as lightning
    from lightning.pytorch.loggers import CSVLogger

    settings = work.settings
    model = _prepared(work)
    clock = Clock(model)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            images, labels = batch
            if settings.architecture.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            logits = self.model(images).float()
            loss = F.cross_entropy(logits, labels, label_smoothing=settings.training.label_smoothing)
            if logs:
                self.log("train/loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> Any:
            optimizer = optimizers.build(self.model, settings.optimizer)
            factor = partial(optimizers.learning_rate_factor, num_steps=work.num_steps, config=settings.optimizer)
            # Asked for the step after the last one too, where the schedule is over.
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(min(step, work.num_steps - 1)))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    with quiet_lightning() as folder:
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=1,
            precision=supported_precision(settings.architecture.precision),
            max_epochs=1,
            logger=CSVLogger(folder) if logs else False,
            enable_checkpointing=logs,
            enable_progress_bar=logs,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(Module(), batches_of(work))
    return clock.timed(model, work.num_steps)


def _prepared(work: Work) -> nn.Module:
    """The network as `fit` has it before the first step."""
    model = work.build(work.settings)
    if work.settings.architecture.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if isinstance(model, ConvNet):
        rows = min(WHITENING_IMAGES, work.num_steps * work.settings.training.batch_size)
        model.fit_whitening(torch.from_numpy(normalise(work.data.train.images[:rows], work.data.mean, work.data.std)))
    return model


def _tensor_batches(work: Work) -> Batches:
    images, labels = _tensors(work)
    training = work.settings.training
    return Batches(
        images,
        labels,
        batch_size=training.batch_size,
        mean=work.data.mean,
        std=work.data.std,
        augmentation=work.settings.augmentation,
        seed=training.seed,
        drop_last=True,
    )


def _image_batches(work: Work) -> DataLoader[tuple[Tensor, Tensor]]:
    # Without workers: their CPU time cannot be read step by step, and is more in sum (see the loader's table).
    images = Transformed(*_tensors(work), transforms(work.settings.augmentation, work.data))
    return DataLoader(images, batch_size=work.settings.training.batch_size, shuffle=True, drop_last=True)


def _tensors(work: Work) -> tuple[Tensor, Tensor]:
    rows = work.num_steps * work.settings.training.batch_size
    images = torch.from_numpy(with_channels(work.data.train.images[:rows])).contiguous()
    return images, torch.from_numpy(work.data.train.labels[:rows])


def _convnet(settings: TrainConfig) -> nn.Module:
    torch.manual_seed(settings.training.seed)
    return models.build(
        settings.architecture,
        channels=settings.data.channels,
        size=settings.data.size,
        num_classes=len(settings.data.class_names),
    )


def _linear(settings: TrainConfig) -> nn.Module:
    torch.manual_seed(settings.training.seed)
    return Linear(settings.data.channels * settings.data.size**2, len(settings.data.class_names))


if __name__ == "__main__":
    run_one("loop")
