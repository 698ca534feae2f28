"""Train one model with Fabric. Knows nothing of trials, runs, flows or files."""

import collections
import contextlib
import ctypes
import io
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fashion.config.train import ArchitectureConfig, AugmentationConfig, OptimizerConfig, TrainingConfig
from fashion.data.dataset import Split
from fashion.images.transform import normalise, with_channels
from fashion.storage.blobs import Store
from fashion.training import optimizers
from fashion.training.batches import Batches
from fashion.training.checkpoint import CHECKPOINT, load_checkpoint, random_state, set_random_state
from fashion.training.convnet import ConvNet

EVALUATION_BATCH = 1000
WHITENING_IMAGES = 5000
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of mallopt(3): how much free memory is given back, with -1 none; from which size memory is mapped, at most 32 MiB."""
CHANCE_STEPS = 20
"""Steps that any training is given before its loss is compared with guessing."""


class Diverged(RuntimeError):
    """The loss is not a number, or after a first look no better than guessing."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to."""

    epoch: int
    """From 1."""
    train_loss: float
    """Mean over the epoch's batches, with label smoothing and augmentation."""
    val_loss: float
    """Cross-entropy on the validation split, without either."""
    val_accuracy: float
    learning_rate: float
    """At the end of the epoch."""
    cpu_seconds: float
    """Processor time since the start of training, over all interruptions."""


@dataclass(frozen=True)
class Fitted:
    """A finished training."""

    history: list[Epoch]
    best: Epoch
    """The epoch whose weights the model holds now: the highest validation accuracy, the later one of equals."""
    precision: str
    num_threads: int
    device: str


OnEpoch = Callable[[Epoch, nn.Module], None]
OnRestored = Callable[[Sequence[Epoch]], None]
"""Called with the epochs that a stored state already holds, before the first step that follows."""
OnStep = Callable[[int, int, float], None]
"""Called with steps done, steps in all, and the last batch's loss."""


def fit(
    model: nn.Module,
    train: Split,
    val: Split,
    *,
    architecture: ArchitectureConfig,
    training: TrainingConfig,
    optimizer: OptimizerConfig,
    augmentation: AugmentationConfig,
    mean: Sequence[float],
    std: Sequence[float],
    num_classes: int,
    checkpoints: Store | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
    on_restored: OnRestored | None = None,
) -> Fitted:
    """Train `model` in place, and leave it on the CPU with its best epoch's weights.

    With `checkpoints`, all state is stored after each epoch, and a call that finds a stored state goes on from
    it: the result equals that of an uninterrupted training bit for bit, at an equal number of torch threads.
    `on_epoch` may raise to stop; it is called again for no epoch that was stored.

    Raises:
        Diverged: see there.
    """
    keep_freed_memory()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # names the precision at every training
    torch.set_num_threads(training.num_threads)
    torch.manual_seed(training.seed)
    torch.backends.cudnn.deterministic = True
    precision = supported_precision(architecture.precision)
    fabric = Fabric(accelerator="auto", devices=1, precision=precision)
    if architecture.channels_last:
        model = model.to(memory_format=torch.channels_last)

    batches = Batches(
        *_tensors(train, fabric.device),
        batch_size=min(training.batch_size, len(train.labels)),
        mean=mean,
        std=std,
        augmentation=augmentation,
        seed=training.seed,
        drop_last=True,
    )
    held_out = Batches(
        *_tensors(val, fabric.device),
        batch_size=EVALUATION_BATCH,
        mean=mean,
        std=std,
        augmentation=None,
        seed=0,
        drop_last=False,
        shuffle=False,
    )
    if isinstance(model, ConvNet):
        model.fit_whitening(torch.from_numpy(normalise(train.images[:WHITENING_IMAGES], mean, std)))

    wrapped, stepper = fabric.setup(model, optimizers.build(model, optimizer))
    averaged = _average(model, training.ema_decay)
    num_steps = training.num_epochs * len(batches)
    check_step = max(CHANCE_STEPS, math.ceil(training.patience_to_diverge * len(batches)))
    chance = math.log(num_classes)
    recent: collections.deque[Tensor] = collections.deque(maxlen=CHANCE_STEPS // 4)
    peaks = [group["lr"] for group in stepper.param_groups]

    history: list[Epoch] = []
    best: dict[str, Tensor] = {}
    seconds_before = 0.0
    stored = load_checkpoint(checkpoints, fabric.device)
    if stored is not None:
        model.load_state_dict(stored["model"])
        stepper.load_state_dict(stored["optimizer"])
        batches.load_state_dict(stored["batches"])
        if averaged is not None:
            averaged.load_state_dict(stored["averaged"])
        history = [Epoch(**epoch) for epoch in stored["history"]]
        best = stored["best"]
        seconds_before = history[-1].cpu_seconds
        recent.extend(stored["recent"])
        set_random_state(stored["random"])
        if on_restored is not None:
            on_restored(history)
    started = time.process_time() - seconds_before

    for epoch in range(len(history), training.num_epochs):
        wrapped.train()
        total = torch.zeros((), device=fabric.device)
        for index, (images, labels) in enumerate(batches):
            step = epoch * len(batches) + index
            for group, peak in zip(stepper.param_groups, peaks, strict=True):
                group["lr"] = peak * optimizers.learning_rate_factor(step, num_steps, optimizer)
            if architecture.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(wrapped(images), labels, label_smoothing=training.label_smoothing)
            fabric.backward(loss)
            if training.gradient_clip_norm is not None:
                fabric.clip_gradients(wrapped, stepper, max_norm=training.gradient_clip_norm)
            stepper.step()
            stepper.zero_grad()
            if averaged is not None:
                averaged.update_parameters(model)
            total += loss.detach()
            recent.append(loss.detach())
            if (step + 1) % CHANCE_STEPS == 0 and not torch.isfinite(recent[-1]):
                raise Diverged(_diverged(float(recent[-1]), step + 1, "not a number", optimizer))
            if step + 1 == check_step and not (late := float(torch.stack(tuple(recent)).mean())) < chance:
                raise Diverged(_diverged(late, step + 1, f"guessing has {chance:.3f}", optimizer))
            if on_step is not None:
                on_step(step + 1, num_steps, loss.item())
        train_loss = float(total) / len(batches)
        if not math.isfinite(train_loss):
            raise Diverged(_diverged(train_loss, (epoch + 1) * len(batches), "not a number", optimizer))

        evaluated = model if averaged is None else averaged.module
        val_loss, val_accuracy = score(evaluated, held_out, fabric)
        history.append(
            Epoch(
                epoch=epoch + 1,
                train_loss=train_loss,
                val_loss=val_loss,
                val_accuracy=val_accuracy,
                learning_rate=stepper.param_groups[0]["lr"],
                cpu_seconds=time.process_time() - started,
            )
        )
        if val_accuracy >= max(past.val_accuracy for past in history):
            best = {name: value.detach().clone() for name, value in evaluated.state_dict().items()}
        if on_epoch is not None:
            on_epoch(history[-1], evaluated)
        if checkpoints is not None:
            state = {
                "model": model.state_dict(),
                "optimizer": stepper.state_dict(),
                "batches": batches.state_dict(),
                "averaged": None if averaged is None else averaged.state_dict(),
                "history": [asdict(past) for past in history],
                "best": best,
                "recent": list(recent),
                "random": random_state(),
            }
            buffer = io.BytesIO()
            torch.save(state, buffer)
            checkpoints.put(CHECKPOINT, buffer.getvalue())

    model.load_state_dict(best)
    model.to("cpu")
    chosen = max(history, key=lambda past: (past.val_accuracy, past.epoch))
    return Fitted(history, chosen, precision, torch.get_num_threads(), str(fabric.device))


def keep_freed_memory() -> None:
    """Let this process keep what it frees, where it runs on glibc; elsewhere nothing is done.

    glibc gives each large tensor back to the system, and the next one of its size costs page faults again: thousands
    in each step of a small network.
    """
    with contextlib.suppress(OSError, AttributeError):
        for parameter, value in ((M_MMAP_THRESHOLD, 32 * 2**20), (M_TRIM_THRESHOLD, -1)):
            ctypes.CDLL("libc.so.6").mallopt(parameter, value)


def supported_precision(wanted: Literal["32-true", "bf16-mixed"]) -> Literal["32-true", "bf16-mixed"]:
    """The precision to train in: `wanted`, or 32 bit where the processor has no bfloat16 arithmetic."""
    on_cuda = torch.cuda.is_available()
    has_bf16 = torch.cuda.is_bf16_supported() if on_cuda else torch.cpu._is_avx512_bf16_supported()
    return wanted if has_bf16 else "32-true"


@torch.inference_mode()
def score(model: nn.Module, batches: Batches, fabric: Fabric) -> tuple[float, float]:
    """Mean cross-entropy and accuracy of `model` over `batches`, in eval mode."""
    model.eval()
    loss = correct = torch.zeros((), device=fabric.device)
    for images, labels in batches:
        with fabric.autocast():
            logits = model(images).float()
        loss = loss + F.cross_entropy(logits, labels, reduction="sum")
        correct = correct + (logits.argmax(1) == labels).sum()
    return float(loss) / len(batches.labels), float(correct) / len(batches.labels)


def _tensors(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(with_channels(split.images)).contiguous()
    return images.to(device), torch.from_numpy(split.labels).to(device, torch.int64)


def _average(model: nn.Module, decay: float | None) -> AveragedModel | None:
    if decay is None:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]


def _diverged(loss: float, step: int, compared: str, optimizer: OptimizerConfig) -> str:
    return (
        f"training diverged: loss {loss:.3f} after {step} steps ({compared}); "
        f"lower optimizer.learning_rate, now {optimizer.learning_rate:g}"
    )
