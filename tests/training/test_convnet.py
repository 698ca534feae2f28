"""The small net: whitening, shapes, learning, export."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from fashion.config.train import OptimizerConfig
from fashion.training.convnet import ConvNet
from fashion.training.optimizers import build


def make_images(count: int, chans: int = 1, size: int = 28) -> Tensor:
    """Smooth random patterns: neighbouring pixels are correlated, as in pictures."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, chans, 7, 7, generator=generator)
    images = nn.functional.interpolate(coarse, size=size, mode="bilinear")
    images = images + 0.05 * torch.rand(images.shape, generator=generator)
    return (images - images.mean()) / images.std()


@pytest.mark.parametrize("chans", [1, 3])
def test_whitened_patches_have_identity_covariance(chans: int) -> None:
    images = make_images(500, chans)
    model = ConvNet(in_chans=chans)
    model.fit_whitening(images, epsilon=0.0)
    outputs = model.whitening(images)
    half = outputs.shape[1] // 2
    torch.testing.assert_close(outputs[:, :half], -outputs[:, half:])
    covariance = outputs[:, :half].transpose(0, 1).flatten(1).cov()
    torch.testing.assert_close(covariance, torch.eye(half), atol=2e-3, rtol=0)


def test_whitening_is_deterministic_and_frozen() -> None:
    images = make_images(100)
    models = [ConvNet() for _ in range(2)]
    for model in models:
        model.fit_whitening(images)
    assert torch.equal(models[0].whitening.weight, models[1].whitening.weight)
    assert not models[0].whitening.weight.requires_grad


@pytest.mark.parametrize(("chans", "classes", "size"), [(1, 10, 28), (3, 4, 32), (1, 2, 40)])
def test_shapes_follow_the_arguments(chans: int, classes: int, size: int) -> None:
    model = ConvNet(in_chans=chans, num_classes=classes, widths=(8, 12, 20)).eval()
    images = make_images(1, chans, size)
    features = model.forward_features(images)
    assert features.shape[:2] == (1, 20)
    assert model.forward_head(features, pre_logits=True).shape == (1, model.num_features)
    assert model.forward_head(features).shape == model(images).shape == (1, classes)
    assert model.num_classes == classes == model.get_classifier().out_features


def test_no_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="widths must name at least one stage"):
        ConvNet(widths=())


def test_overfits_64_images() -> None:
    torch.manual_seed(0)
    images, labels = make_images(64), torch.arange(64) % 10
    model = ConvNet(widths=(16, 32))
    model.fit_whitening(images)
    config = OptimizerConfig(
        name="muon",
        learning_rate=0.1,
        weight_decay=0.0,
        momentum=0.6,
        head_learning_rate=0.1,
        warmup_fraction=0.0,
        schedule="linear",
    )
    optimizer = build(model, config)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert (model.eval()(images).argmax(1) == labels).float().mean() == 1


def test_onnx_with_a_dynamic_batch_equals_torch(tmp_path: Path) -> None:
    model = ConvNet(widths=(8, 16)).eval()
    images = make_images(5)
    model.fit_whitening(images)
    path = tmp_path / "model.onnx"
    batch = torch.export.Dim("batch")
    torch.onnx.export(model, (images[:2],), path, dynamo=True, dynamic_shapes=({0: batch},), verbose=False)
    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name
    for count in (1, 5):
        (logits,) = session.run(None, {name: images[:count].numpy()})
        np.testing.assert_allclose(logits, model(images[:count]).detach().numpy(), atol=1e-4)
