"""Trainings as others write them, of a number of steps: what this project's is compared with. Knows no budgets.

- The course project that this one goes on from: timm's resnet18, Adam, Lightning's Trainer, torch's DataLoader.
- torchvision's reference recipe for classification, with its resnet18.
- A speed-run for CIFAR-10, airbench94 of Keller Jordan (arXiv:2404.00498), with one channel and on a processor.
"""

import contextlib
import io
import itertools
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import util
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from fashion.config.train import AugmentationConfig
from fashion.data.dataset import Dataset
from fashion.images.transform import with_channels
from fashion.training.batches import Batches
from fashion.training.fit import supported_precision
from tests.benchmarks.loader import Transformed

Images = Iterable[tuple[Tensor, Tensor]]
Factor = Callable[[float], float]
"""Of the learning rates, by the part of the schedule that is over, in [0, 1)."""


@dataclass(frozen=True)
class Recipe:
    """A training, but for its length."""

    batch_size: int
    build: Callable[[], nn.Module]
    batches: Callable[[Dataset, int], Images]
    """Of one epoch; the second argument is the number of images in a batch."""
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    factor: Factor
    label_smoothing: float = 0.0
    mixed: bool = False
    """Whether the network computes in bfloat16, where the processor can."""
    with_trainer: bool = False
    """Whether Lightning's Trainer runs it, not a loop of a few lines."""


def recipes() -> Mapping[str, Recipe]:
    """All of them by name; without Lightning's where it is not installed."""
    found = {
        "Lightning Trainer and DataLoader, timm's resnet18, Adam": Recipe(
            64,
            _timm_resnet,
            _rotated,
            lambda model: torch.optim.Adam(model.parameters(), 1e-3),
            lambda _: 1.0,
            with_trainer=True,
        ),
        "torchvision's reference recipe, resnet18": Recipe(32, _resnet, _resized_crops, _reference_sgd, _in_thirds),
        "airbench94's network and recipe": Recipe(
            1024, SpeedNet, _translated, _speed_sgd, _triangle, label_smoothing=0.2, mixed=True
        ),
    }
    has_lightning = util.find_spec("lightning") is not None
    return {name: each for name, each in found.items() if has_lightning or not each.with_trainer}


def train(recipe: Recipe, data: Dataset, steps: int, *, seed: int) -> nn.Module:
    """Train a network; it is returned for evaluation.

    Args:
        recipe: how.
        data: its training split is used.
        steps: of the optimizer, with a schedule of that length.
        seed: of weights, order and augmentation.
    """
    torch.manual_seed(seed)
    model = recipe.build()
    if isinstance(model, SpeedNet):
        model.fit_whitening(_normalised(data, 2000))
    model = model.to(memory_format=torch.channels_last).train()
    (_by_trainer if recipe.with_trainer else _by_loop)(recipe, model, data, steps)
    return model.eval()


def _by_loop(recipe: Recipe, model: nn.Module, data: Dataset, steps: int) -> None:
    optimizer = recipe.optimizer(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: recipe.factor(min(step / steps, 1.0)))
    is_mixed = recipe.mixed and supported_precision("bf16-mixed") == "bf16-mixed"
    for images, labels in itertools.islice(_endless(recipe, data), steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
            logits = model(images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()


def _by_trainer(recipe: Recipe, model: nn.Module, data: Dataset, steps: int) -> None:
    from lightning import pytorch as lightning
    from lightning.pytorch.loggers import CSVLogger

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            loss = F.cross_entropy(self.model(batch[0]), batch[1])
            self.log("train/loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> Any:
            return recipe.optimizer(self.model)

    with quiet_lightning() as folder:
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=steps,
            logger=CSVLogger(folder),
            default_root_dir=folder,
            enable_model_summary=False,
        )
        trainer.fit(Module(), recipe.batches(data, recipe.batch_size))


@contextlib.contextmanager
def quiet_lightning() -> Iterator[str]:
    """A folder for what Lightning writes while the block runs, in which nothing of what it says is printed."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield folder


def _endless(recipe: Recipe, data: Dataset) -> Iterator[tuple[Tensor, Tensor]]:
    batches = recipe.batches(data, recipe.batch_size)
    while True:
        yield from batches


def _tensors(data: Dataset) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(with_channels(data.train.images)).contiguous(), torch.from_numpy(data.train.labels)


def _normalised(data: Dataset, count: int) -> Tensor:
    images = torch.from_numpy(with_channels(data.train.images[:count])).float() / 255
    return (images - data.mean[0]) / data.std[0]


def _loader(data: Dataset, batch_size: int, *steps: nn.Module) -> Images:
    to_float = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(data.mean), list(data.std))]
    rows = Transformed(*_tensors(data), v2.Compose([*steps, *to_float]))
    return DataLoader(rows, batch_size=batch_size, shuffle=True, drop_last=True)


def _rotated(data: Dataset, batch_size: int) -> Images:
    return _loader(data, batch_size, v2.RandomRotation([-5.0, 5.0]))


def _resized_crops(data: Dataset, batch_size: int) -> Images:
    crop = v2.RandomResizedCrop(data.train.images.shape[1], antialias=True)
    return _loader(data, batch_size, crop, v2.RandomHorizontalFlip())


def _translated(data: Dataset, batch_size: int) -> Images:
    augmentation = AugmentationConfig(2, "alternating", 0.0, (0.02, 0.2))
    return Batches(
        *_tensors(data),
        batch_size=batch_size,
        mean=data.mean,
        std=data.std,
        augmentation=augmentation,
        seed=int(torch.randint(2**31, (1,))),
        drop_last=True,
    )


def _timm_resnet() -> nn.Module:
    import timm

    return timm.create_model("resnet18", in_chans=1, num_classes=10)


def _resnet() -> nn.Module:
    from torchvision.models import resnet18

    return _AsColour(resnet18(num_classes=10))


class _AsColour(nn.Module):
    """torchvision's networks have three channels."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.expand(-1, 3, -1, -1))
        return logits


def _reference_sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)


def _in_thirds(done: float) -> float:
    """A tenth after each third, as after 30 and 60 of 90 epochs."""
    return float(0.1 ** int(3 * done)) if done < 1 else 0.01


def _triangle(done: float) -> float:
    """Up to 1 within 23 % of the schedule, then down to 0.07."""
    return 0.2 + 0.8 * done / 0.23 if done < 0.23 else 1 - 0.93 * (done - 0.23) / 0.77


class SpeedNet(nn.Module):
    """Whitened patches of 2x2 pixels, then three blocks of two convolutions."""

    def __init__(self, widths: tuple[int, int, int] = (64, 256, 256)) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(1, 8, 2)
        self.whiten.weight.requires_grad = False
        channels = [8, *widths]
        self.blocks = nn.Sequential(*(_block(*pair) for pair in itertools.pairwise(channels)), nn.MaxPool2d(3))
        self.head = nn.Linear(channels[-1], 10, bias=False)

    def fit_whitening(self, images: Tensor) -> None:
        """Set the first filters to the directions in which patches vary, scaled to variance 1, and to their negatives.

        Args:
            images: (N, 1, H, W), normalised.
        """
        patches = F.unfold(images, 2).transpose(1, 2).reshape(-1, 4)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (values + 5e-4).sqrt()).T.reshape(-1, 1, 2, 2)
        self.whiten.weight.data = torch.cat([filters, -filters])
        nn.init.zeros_(self.whiten.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(F.gelu(self.whiten(images))).flatten(1)) / 9
        return logits


def _block(inputs: int, outputs: int) -> nn.Module:
    layers = [_conv(inputs, outputs), nn.MaxPool2d(2), _norm(outputs), nn.GELU()]
    return nn.Sequential(*layers, _conv(outputs, outputs), _norm(outputs), nn.GELU())


def _conv(inputs: int, outputs: int) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight.data[:inputs])
    return conv


def _norm(channels: int) -> nn.Module:
    norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad = False
    return norm


def _speed_sgd(model: nn.Module) -> torch.optim.Optimizer:
    # The paper's rates are of a loss that is a sum over 1,024 examples; this one is a mean.
    scale = 1024 * (1 + 1 / (1 - 0.85))
    rate, decay = 1024 * 11.5 / scale, 0.0153 / 11.5
    trained = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    biases = [each for name, each in trained if name.endswith("bias")]
    others = [each for name, each in trained if not name.endswith("bias")]
    groups: list[dict[str, Any]] = [{"params": biases, "lr": 64 * rate, "weight_decay": decay / 64}, {"params": others}]
    return torch.optim.SGD(groups, rate, momentum=0.85, nesterov=True, weight_decay=decay)
