"""Muon, the grouping of parameters, and the learning-rate schedule."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from fashion.config.train import OptimizerConfig
from fashion.training.convnet import ConvNet
from fashion.training.optimizers import Muon, build, learning_rate_factor, orthogonalized

CONFIG = OptimizerConfig(
    name="muon",
    learning_rate=0.1,
    weight_decay=0.01,
    momentum=0.6,
    head_learning_rate=0.2,
    warmup_fraction=0.2,
    schedule="linear",
)
NAMES = ("sgd", "adamw", "muon")


def named(name: str) -> OptimizerConfig:
    return dataclasses.replace(CONFIG, name=name, learning_rate=0.01 if name == "adamw" else 0.1)


@pytest.mark.parametrize("shape", [(32, 32), (64, 16), (16, 144)])
def test_orthogonalized_has_singular_values_near_one_and_the_same_directions(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    update = orthogonalized(matrix, steps=5)
    spectrum = left.T @ update @ right.T
    assert (spectrum - spectrum.diag().diag()).abs().max() < 1e-3
    # A direction that the gradient hardly has may stay small.
    assert ((spectrum.diag() > 0.6) & (spectrum.diag() < 1.3))[values > 0.05 * values[0]].all()


def test_muon_moves_a_convolution_by_a_near_orthogonal_matrix() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(16, 8, 3, 3))
    optimizer = Muon([weight], lr=0.1, momentum=0.0)
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    before = weight.detach().clone()
    optimizer.step()
    values = torch.linalg.svdvals(((before - weight.detach()) / 0.1).view(16, -1))
    assert values.min() > 0.5
    assert values.max() < 1.5


def test_muon_without_orthogonalisation_is_sgd_with_nesterov_momentum() -> None:
    torch.manual_seed(0)
    start = torch.randn(5, 3)
    ours, reference = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    muon = Muon([ours], lr=0.1, momentum=0.9, weight_decay=0.01, orthogonalize=False)
    sgd = torch.optim.SGD([reference], lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True)
    for _ in range(5):
        gradient = torch.randn(5, 3)
        ours.grad, reference.grad = gradient.clone(), gradient.clone()
        muon.step()
        sgd.step()
    torch.testing.assert_close(ours, reference)


@pytest.mark.parametrize("name", NAMES)
def test_every_trained_parameter_is_in_one_group_and_decay_spares_norms_and_biases(name: str) -> None:
    model = ConvNet(widths=(8, 16))
    optimizer = build(model, named(name))
    grouped = [param for group in optimizer.param_groups for param in group["params"]]
    trained = [param for param in model.parameters() if param.requires_grad]
    assert sorted(map(id, grouped)) == sorted(map(id, trained))
    for group in optimizer.param_groups:
        assert group["initial_lr"] == group["lr"]
        has_own_norm = group.get("orthogonalize", False)
        for param in group["params"]:
            assert (group["weight_decay"] > 0) == (param.ndim > 1 and not has_own_norm)


def test_muon_keeps_the_head_and_biases_out_of_orthogonalisation() -> None:
    model = ConvNet(widths=(8, 16))
    optimizer = build(model, CONFIG)
    orthogonalized_ids = {id(p) for g in optimizer.param_groups if g["orthogonalize"] for p in g["params"]}
    assert orthogonalized_ids == {id(conv.weight) for stage in model.stages for conv in (stage.conv1, stage.conv2)}
    assert {g["lr"] for g in optimizer.param_groups if not g["orthogonalize"]} == {0.2}


@pytest.mark.parametrize("name", NAMES)
def test_state_restores_bit_for_bit(name: str) -> None:
    def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        images = torch.randn(8, 1, 12, 12, generator=torch.Generator().manual_seed(seed))
        model(images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    torch.manual_seed(0)
    model, other = ConvNet(widths=(8,)), ConvNet(widths=(8,))
    optimizer, other_optimizer = build(model, named(name)), build(other, named(name))
    step(model, optimizer, 0)
    other.load_state_dict(model.state_dict())
    # Loading a state shares its tensors; a checkpoint file does not.
    other_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(model, optimizer, 1)
    step(other, other_optimizer, 1)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("num_steps", [1, 7, 200])
@pytest.mark.parametrize("warmup_fraction", [0.0, 0.3])
def test_learning_rate_climbs_to_one_and_falls_towards_zero(
    schedule: str, num_steps: int, warmup_fraction: float
) -> None:
    config = dataclasses.replace(CONFIG, schedule=schedule, warmup_fraction=warmup_fraction)
    factors = [learning_rate_factor(step, num_steps, config) for step in range(num_steps)]
    peak = factors.index(1.0)
    assert peak == int(warmup_fraction * num_steps)
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    if num_steps == 200:
        assert factors[-1] < 0.01
