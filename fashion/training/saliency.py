"""Which pixels a prediction depends on: the gradient of the largest logit (Simonyan et al. 2013, arXiv:1312.6034)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def saliency(model: nn.Module, images: Tensor) -> NDArray[np.float32]:
    """The absolute derivative of each image's largest logit.

    Args:
        model: run in eval mode, then returned to its mode.
        images: `(N, C, H, W)` float32, normalised.

    Returns:
        `(N, H, W)`, the largest over channels; each map is scaled to [0, 1].
    """
    was_training = model.training
    device = next(model.parameters()).device
    inputs = images.detach().to(device).requires_grad_()
    with torch.enable_grad():
        largest = model.eval()(inputs).amax(dim=1).sum()
        (gradient,) = torch.autograd.grad(largest, inputs)
    model.train(was_training)
    maps = gradient.abs().amax(dim=1)
    peak = maps.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)
    scaled: NDArray[np.float32] = (maps / peak).cpu().numpy()
    return scaled
