"""Tell a training that does not learn from its losses. Knows no steps and no checkpoints."""

import math

import torch
from lightning_fabric import Fabric

from fashion.config.train import OptimizerConfig, TrainConfig
from fashion.training import distributed
from fashion.training.state import State

CHANCE_STEPS = 20
"""Steps after which the loss is first compared with guessing, at the earliest."""
SLOW_START = 2
"""Times the loss of guessing that a loss may still be at the first look, if it has fallen: some networks begin so."""


class Diverged(RuntimeError):
    """The loss is NaN or infinite, or still no better than guessing when it is first checked."""


def check_loss(fabric: Fabric, state: State, step: int, config: TrainConfig) -> None:
    """Look at the loss at a few steps only: reading it waits for the device, and for the other ranks.

    Args:
        fabric: all ranks look at the mean of their losses, and end alike.
        state: its `recent` losses are looked at.
        step: from 1.
        config: of the training.

    Raises:
        Diverged: it is NaN or infinite; or no better than guessing, at the step that `patience_to_diverge` names if it
            has not fallen since the first steps, and half-way in any case. A training that ends before is looked at
            after its last step, as at the first look.
    """
    if step % CHANCE_STEPS == 0 and not math.isfinite(last := float(distributed.mean(fabric, state.recent[-1]))):
        raise divergence_error(last, step, "not a finite number", config.optimizer)
    num_steps = config.training.num_epochs * len(state.batches)
    patience = math.ceil(config.training.patience_to_diverge * len(state.batches))
    warm = math.ceil(config.optimizer.warmup_fraction * num_steps) + CHANCE_STEPS
    early = max(CHANCE_STEPS, patience, warm)
    late = max(early, num_steps // 2)
    if step in (early, late) or CHANCE_STEPS <= step == num_steps < early:
        recent = distributed.mean(fabric, torch.stack(tuple(state.recent)).mean())
        loss, chance = float(recent), math.log(len(config.data.class_names))
        may_be_slow = step < late and bool(state.first)  # a slow start may still be above guessing, but it falls
        began = float(distributed.mean(fabric, torch.stack(state.first).mean())) if may_be_slow else chance
        if not loss < max(chance, min(began, SLOW_START * chance)):  # so that NaN counts as diverged
            raise divergence_error(loss, step, f"guessing has {chance:.3f}", config.optimizer)


def divergence_error(loss: float, step: int, compared: str, optimizer: OptimizerConfig) -> Diverged:
    """Make the error.

    Args:
        loss: the mean of the last batches.
        step: after which it was looked at.
        compared: what it was compared with, in words.
        optimizer: whose learning rate may be too high.
    """
    return Diverged(
        f"training diverged: loss {loss:.3f} after {step} steps ({compared}); "
        f"lower optimizer.learning_rate, now {optimizer.learning_rate:g}"
    )
