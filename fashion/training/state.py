"""What changes in a training, and what a checkpoint holds of it. Knows no steps and no Fabric."""

import collections
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from fashion.training.batches import Batches

RECENT_LOSSES = 5
"""Batches whose losses are held: the last ones, and the first ones."""


@dataclass(frozen=True)
class Epoch:
    """Measurements of one epoch."""

    epoch: int
    """From 1."""
    train_loss: float
    """Mean over the epoch's batches, with label smoothing and augmentation."""
    val_loss: float
    """Cross-entropy on the validation split, without label smoothing and augmentation."""
    val_accuracy: float
    """In [0, 1]."""
    learning_rate: float
    """At the end of the epoch."""
    cpu_seconds: float
    """Processor time since the start of training, over all interruptions."""


@dataclass
class State:
    """Everything that changes in a training, and that a checkpoint holds."""

    model: nn.Module
    wrapped: nn.Module
    """`model` as Fabric runs it, in the configured precision."""
    optimizer: torch.optim.Optimizer
    batches: Batches
    """Of the training split."""
    averaged: AveragedModel | None
    """Exponential moving average of the weights, where one is configured."""
    offsets: Tensor | None = None
    """(classes,) added to the logits in the loss alone; None for none. It does not change."""
    history: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the best epoch."""
    recent: collections.deque[Tensor] = field(default_factory=lambda: collections.deque(maxlen=RECENT_LOSSES))
    """Losses of the last batches."""
    first: list[Tensor] = field(default_factory=list)
    """Losses of the first batches, as many."""

    @property
    def models(self) -> tuple[nn.Module, ...]:
        """The model, and the average where there is one."""
        return (self.model,) if self.averaged is None else (self.model, self.averaged.module)

    @property
    def evaluated(self) -> nn.Module:
        """The model that is validated and kept: the average where there is one."""
        return self.model if self.averaged is None else self.averaged.module

    def state_dict(self, random: list[dict[str, Any]]) -> dict[str, Any]:
        """A checkpoint's content.

        Args:
            random: the states of the ranks' random generators; all else is equal on all ranks.
        """
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "batches": self.batches.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "history": [asdict(epoch) for epoch in self.history],
            "best": self.best,
            "recent": list(self.recent),
            "first": self.first,
            "random": random,
        }

    def load_state_dict(self, stored: dict[str, Any]) -> None:
        """Continue bit for bit where `state_dict` was taken, once `restore_random` has set the generators."""
        self.model.load_state_dict(stored["model"])
        self.optimizer.load_state_dict(stored["optimizer"])
        self.batches.load_state_dict(stored["batches"])
        if self.averaged is not None:
            self.averaged.load_state_dict(stored["averaged"])
        self.history = [Epoch(**epoch) for epoch in stored["history"]]
        self.best = stored["best"]
        self.recent.extend(stored["recent"])
        self.first = stored.get("first", [])  # checkpoints of older versions have none
