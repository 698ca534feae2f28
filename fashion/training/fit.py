"""Train one model with Fabric. Knows nothing of trials, runs, flows or files."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fashion.config.train import TrainConfig
from fashion.data.dataset import Dataset, Split
from fashion.images.malloc import keep_freed_memory
from fashion.images.transform import normalise, with_channels
from fashion.storage.blobs import Store
from fashion.training import checkpoint, distributed, optimizers
from fashion.training.batches import Batches
from fashion.training.convnet import ConvNet
from fashion.training.divergence import check_loss, divergence_error
from fashion.training.ranks import ALONE, Rank
from fashion.training.state import RECENT_LOSSES, Epoch, State

VALIDATION_BATCH = 1000
"""Images of 28x28 pixels; fewer of larger ones, as their activations need memory."""
WHITENING_IMAGES = 5000
"""Images of 28x28 pixels that whitening filters are computed from; fewer of larger ones."""
REFERENCE_PIXELS = 28 * 28


@dataclass(frozen=True)
class FitResult:
    """A finished training."""

    history: list[Epoch]
    best: Epoch
    """The epoch whose weights the model now has: the highest validation accuracy, the latest of equal ones."""
    precision: str
    """The precision that was used; see `supported_precision`."""
    num_threads: int
    """torch threads."""
    device: str
    world_size: int = 1
    """Ranks that trained together."""


OnEpoch = Callable[[Epoch, nn.Module], None]
"""Called after each epoch with its measurements and the model that was validated."""
OnRestored = Callable[[Sequence[Epoch]], None]
"""Called with the epochs of a loaded checkpoint, before the first step that follows."""
OnStep = Callable[[int, int, float], None]
"""Called with the steps done, the steps in total, and the last batch's loss: that of rank 0's share."""


def fit(
    model: nn.Module,
    dataset: Dataset,
    config: TrainConfig,
    *,
    rank: Rank = ALONE,
    offsets: NDArray[np.float32] | None = None,
    checkpoints: Store | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
    on_restored: OnRestored | None = None,
) -> FitResult:
    """Train `model` in place, and leave it on the CPU with its best epoch's weights.

    Several ranks call this alike, each in a process of its own, and end with the same weights. Only rank 0 stores
    checkpoints and calls what is passed to be called.

    Args:
        model: takes `(N, C, H, W)` float32 and gives `(N, classes)` logits.
        dataset: its train and val splits are used.
        config: its architecture, training, optimizer and augmentation groups are used. Its batch size is of all ranks
            together.
        rank: this process, of those that train together.
        offsets: `(classes,)` added to the logits in the loss alone; None for none.
        checkpoints: where the state is stored after each epoch. A call that finds a stored state continues from it;
            the result is bit for bit that of an uninterrupted training with the same number of torch threads and of
            ranks. With another number of ranks the rows and crops are still the same, dropout is not.
        on_epoch: may raise to stop, and that epoch is then not stored; not called for restored epochs.
        on_step: see `OnStep`.
        on_restored: see `OnRestored`.

    Raises:
        Diverged: the loss is NaN or infinite, or still no better than guessing when it is first checked.
    """
    training = config.training
    fabric = set_up(config, rank)
    state = initial_state(fabric, model, dataset, config, rank)
    state.offsets = None if offsets is None else torch.from_numpy(offsets).to(fabric.device)
    own_rows = Split(dataset.val.images[rank.rows], dataset.val.labels[rank.rows])
    val = ordered_batches(own_rows, dataset, fabric.device)
    if restore(fabric, state, checkpoints, config) and on_restored is not None and fabric.is_global_zero:
        on_restored(state.history)
    started = time.process_time() - (state.history[-1].cpu_seconds / fabric.world_size if state.history else 0.0)

    while len(state.history) < training.num_epochs:
        train_loss = train_epoch(fabric, state, config, on_step)
        distributed.average_buffers(fabric, *state.models)
        distributed.check_same_weights(fabric, state.evaluated)
        val_loss, val_accuracy = validate(fabric, state.evaluated, val)
        if not math.isfinite(val_loss):  # the last step's update can be the first that is not
            steps = (len(state.history) + 1) * len(state.batches)
            raise divergence_error(val_loss, steps, "not a finite number", config.optimizer)
        epoch = Epoch(
            epoch=len(state.history) + 1,
            train_loss=train_loss,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            learning_rate=state.optimizer.param_groups[0]["lr"],
            cpu_seconds=sum(distributed.gather(fabric, time.process_time() - started)),
        )
        state.history.append(epoch)
        if epoch == best_epoch(state.history):
            state.best = {name: value.detach().clone() for name, value in state.evaluated.state_dict().items()}
        if on_epoch is not None and fabric.is_global_zero:
            on_epoch(epoch, state.evaluated)
        if checkpoints is not None:
            random = distributed.gather(fabric, checkpoint.random_state(fabric.device))
            if fabric.is_global_zero:
                checkpoint.save(checkpoints, state.state_dict(random))

    model.load_state_dict(state.best)
    model.to("cpu")
    return FitResult(
        history=state.history,
        best=best_epoch(state.history),
        precision=supported_precision(config.architecture.precision),
        num_threads=torch.get_num_threads(),
        device=str(fabric.device),
        world_size=fabric.world_size,
    )


def set_up(config: TrainConfig, rank: Rank) -> Fabric:
    """Seed this process and set its threads, and choose the device and the precision."""
    keep_freed_memory()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it logs the precision at every training
    torch.set_num_threads(config.training.num_threads)
    torch.manual_seed(config.training.seed + rank.number)  # so that ranks drop different units
    torch.backends.cudnn.deterministic = True
    return distributed.connect(rank, supported_precision(config.architecture.precision))


def restore(fabric: Fabric, state: State, checkpoints: Store | None, config: TrainConfig) -> bool:
    """Continue from what rank 0 finds stored, on all ranks; return whether there is anything.

    Args:
        fabric: holds the device.
        state: of the training; changed in place.
        checkpoints: where states are stored.
        config: of the training.
    """
    content = checkpoint.read(checkpoints, state.state_dict([])) if fabric.is_global_zero else None
    content = fabric.broadcast(content)
    if content is None:
        return False
    stored = checkpoint.parse(content, fabric.device)
    state.load_state_dict(stored)
    if len(stored["random"]) == fabric.world_size:
        checkpoint.set_random_state(stored["random"][fabric.global_rank], fabric.device)
    else:  # there is no state for each rank; what they draw must differ by rank, and from what was drawn before
        steps = len(state.history) * len(state.batches)
        torch.manual_seed(config.training.seed + fabric.world_size * (1 + steps) + fabric.global_rank)
    return True


def initial_state(fabric: Fabric, model: nn.Module, dataset: Dataset, config: TrainConfig, rank: Rank) -> State:
    """Return the state before the first step, on Fabric's device.

    Args:
        fabric: holds the device and the precision.
        model: the network, not trained yet.
        dataset: its training split and statistics.
        config: of the training.
        rank: gets its rows of each batch.
    """
    if config.architecture.channels_last:
        model = model.to(memory_format=torch.channels_last)
    batches = Batches(
        *_tensors(dataset.train, fabric.device),
        batch_size=min(config.training.batch_size, len(dataset.train)),
        mean=dataset.mean,
        std=dataset.std,
        augmentation=config.augmentation,
        seed=config.training.seed,
        drop_last=True,
        rows=rank.rows,
    )
    if isinstance(model, ConvNet):
        count = _as_many(WHITENING_IMAGES, dataset)
        images = normalise(dataset.train.images[:count], dataset.mean, dataset.std)
        model.fit_whitening(torch.from_numpy(images))
    model = distributed.synchronized(fabric, model)
    wrapped, optimizer = fabric.setup(model, optimizers.build(model, config.optimizer))
    return State(model, wrapped, optimizer, batches, _average(model, config.training.ema_decay))


def ordered_batches(split: Split, dataset: Dataset, device: torch.device) -> Batches:
    """Return a split's rows in order and without augmentation.

    Args:
        split: the rows.
        dataset: its training split's mean and standard deviation normalise them.
        device: where the batches go.
    """
    return Batches(
        *_tensors(split, device),
        batch_size=_as_many(VALIDATION_BATCH, dataset),
        mean=dataset.mean,
        std=dataset.std,
        augmentation=None,
        seed=0,
        drop_last=False,
        shuffle=False,
    )


def train_epoch(fabric: Fabric, state: State, config: TrainConfig, on_step: OnStep | None = None) -> float:
    """Train on every batch once, and return the mean loss.

    Args:
        fabric: holds the device and the precision.
        state: of the training; advanced by one epoch.
        config: of the training.
        on_step: called after each step.

    Raises:
        Diverged: the loss is NaN or infinite, or still no better than guessing when it is first checked.
    """
    training, optimizer, num_batches = config.training, state.optimizer, len(state.batches)
    num_steps = training.num_epochs * num_batches
    before = len(state.history) * num_batches
    total = torch.zeros((), device=fabric.device)
    state.wrapped.train()
    for step, (images, labels) in enumerate(state.batches, start=before + 1):
        optimizers.set_learning_rate(optimizer, optimizers.learning_rate_factor(step - 1, num_steps, config.optimizer))
        if config.architecture.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        logits = state.wrapped(images) if state.offsets is None else state.wrapped(images) + state.offsets
        loss = F.cross_entropy(logits, labels, label_smoothing=training.label_smoothing)
        if fabric.world_size * len(labels) != state.batches.batch_size:
            # Gradients are averaged over ranks: a share of more rows counts for more.
            loss = loss * (fabric.world_size * len(labels) / state.batches.batch_size)
        fabric.backward(loss)
        if training.gradient_clip_norm is not None:
            fabric.clip_gradients(state.wrapped, optimizer, max_norm=training.gradient_clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        if state.averaged is not None:
            state.averaged.update_parameters(state.model)
        total += loss.detach()
        state.recent.append(loss.detach())
        if step <= RECENT_LOSSES:
            state.first.append(loss.detach())
        check_loss(fabric, state, step, config)
        if on_step is not None and fabric.is_global_zero:
            on_step(step, num_steps, loss.item())
    train_loss = float(distributed.mean(fabric, total)) / num_batches
    recent = distributed.mean(fabric, torch.stack(tuple(state.recent))).unbind()
    state.recent.clear()
    state.recent.extend(recent)
    if not math.isfinite(train_loss):
        raise divergence_error(train_loss, before + num_batches, "not a finite number", config.optimizer)
    return train_loss


@torch.inference_mode()
def validate(fabric: Fabric, model: nn.Module, batches: Batches) -> tuple[float, float]:
    """Return the mean cross-entropy and the accuracy, in [0, 1], of a network in eval mode.

    Args:
        fabric: holds the device and the precision.
        model: the network.
        batches: this rank's rows in order, without augmentation.
    """
    model.eval()
    loss = correct = torch.zeros((), device=fabric.device)
    for images, labels in batches:
        with fabric.autocast():
            logits = model(images).float()
        loss = loss + F.cross_entropy(logits, labels, reduction="sum")
        correct = correct + (logits.argmax(1) == labels).sum()
    rows = torch.tensor(float(len(batches.labels)), device=fabric.device)
    loss, correct, rows = distributed.total(fabric, torch.stack([loss, correct, rows])).unbind()
    return float(loss) / float(rows), float(correct) / float(rows)


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """The epoch of the highest validation accuracy, the latest of equal ones."""
    return max(history, key=lambda epoch: (epoch.val_accuracy, epoch.epoch))


def supported_precision(wanted: Literal["32-true", "bf16-mixed"]) -> Literal["32-true", "bf16-mixed"]:
    """The precision to train in: `wanted`, or 32 bit if the processor has no bfloat16 arithmetic."""
    on_cuda = torch.cuda.is_available()
    has_bf16 = torch.cuda.is_bf16_supported() if on_cuda else torch.cpu._is_avx512_bf16_supported()
    return wanted if has_bf16 else "32-true"


def _tensors(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(with_channels(split.images)).contiguous()
    return images.to(device), torch.from_numpy(split.labels).to(device, torch.int64)


def _as_many(count: int, dataset: Dataset) -> int:
    """How many images have as many pixels as `count` of 28x28; never more, and at least 16."""
    pixels = int(np.prod(dataset.train.images.shape[1:3]))
    return min(count, max(16, count * REFERENCE_PIXELS // pixels))


def _average(model: nn.Module, decay: float | None) -> AveragedModel | None:
    if decay is None:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]
