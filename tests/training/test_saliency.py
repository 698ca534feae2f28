"""Saliency maps against gradients that are known."""

import numpy as np
import pytest
import torch
from torch import nn

from fashion.training.convnet import ConvNet
from fashion.training.saliency import saliency


class Linear(nn.Module):
    """A network whose gradient is a row of its weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Linear(channels * 6 * 5, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(images.flatten(1))
        return logits


@pytest.mark.parametrize("channels", [1, 3])
def test_map_of_a_linear_network_is_the_weights_of_the_chosen_class(channels: int) -> None:
    torch.manual_seed(0)
    model, images = Linear(channels), torch.randn(4, channels, 6, 5)
    rows = model.layer.weight[model(images).argmax(1)].detach().abs().view(4, channels, 6, 5).amax(1)
    expected = rows / rows.amax((1, 2), keepdim=True)
    np.testing.assert_allclose(saliency(model, images), expected, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_shape_and_range(channels: int) -> None:
    torch.manual_seed(0)
    maps = saliency(ConvNet(in_chans=channels, widths=(8, 16)), torch.randn(5, channels, 28, 28))
    assert maps.shape == (5, 28, 28)
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    assert maps.max(axis=(1, 2)) == pytest.approx(1)


def test_each_map_depends_on_its_own_image_alone() -> None:
    torch.manual_seed(0)
    model, images = ConvNet(widths=(8, 16)).train(), torch.randn(5, 1, 28, 28)
    np.testing.assert_allclose(saliency(model, images)[2:3], saliency(model, images[2:3]), atol=1e-4)


def test_a_network_that_looks_at_nothing_gives_zeros() -> None:
    model = Linear(1)
    nn.init.zeros_(model.layer.weight)
    assert (saliency(model, torch.randn(2, 1, 6, 5)) == 0).all()


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(training: bool) -> None:
    torch.manual_seed(0)
    model = ConvNet(widths=(8,), drop_rate=0.5).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.randn(3, 1, 28, 28)
    with torch.no_grad():
        first = saliency(model, images)
    assert model.training is training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(param.grad is None for param in model.parameters())
    assert not images.requires_grad
    np.testing.assert_array_equal(first, saliency(model, images))
