"""Exported networks compute what trained ones do, and one that does not is refused."""

import io
import re
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from fashion.config.compose import CONFIGS, compose
from fashion.config.train import load_train_config
from fashion.data.dataset import Dataset
from fashion.images.transform import normalise
from fashion.model.predictor import OnnxNetwork
from fashion.training import models
from fashion.training.convnet import ConvNet
from fashion.training.export import INT8_AGREEMENT, TOLERANCE, ExportDiffers, export
from fashion.training.quantization import quantize

ARCHITECTURES = [*sorted(file.stem for file in (CONFIGS / "architecture").glob("*.yaml")), "pit_ti_224"]


def settled(model: nn.Module, data: Dataset) -> nn.Module:
    """Give norms the statistics of real images, so that outputs are of the size that training leaves."""
    inputs = torch.from_numpy(normalise(data.train.images[:32], data.mean, data.std))
    model.train()
    with torch.no_grad():
        for _ in range(5):
            model(inputs)
    return model


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.slow
def test_every_architecture_equals_torch(name: str, small_dataset: Dataset) -> None:
    torch.manual_seed(0)
    word = {"timm": "architecture.name=test_resnet", "pit_ti_224": f"architecture.name={name}"}
    of = load_train_config(compose([word.get(name, f"architecture={name}")])).architecture
    model = settled(models.build(of, channels=1, size=28, num_classes=10), small_dataset)
    count = 10 if name == "pit_ti_224" else 50  # it enlarges images 64 times
    images = small_dataset.val.images[:count]
    exported = export(model, images, mean=small_dataset.mean, std=small_dataset.std)
    assert exported.rows == count
    assert exported.label_agreement == 1
    assert exported.max_difference <= TOLERANCE

    inputs = normalise(images, small_dataset.mean, small_dataset.std)
    with torch.inference_mode():
        expected = [output.numpy() for output in models.embed(model.eval(), torch.from_numpy(inputs))]
    network = OnnxNetwork(exported.onnx)
    for batch in (1, 3, count):  # the batch is dynamic
        for ours, theirs in zip(network(inputs[:batch]), expected, strict=True):
            np.testing.assert_allclose(ours, theirs[:batch], atol=TOLERANCE, rtol=1e-4)
    weights = load_safetensors(exported.weights)
    again = models.build(of, channels=1, size=28, num_classes=10)
    again.load_state_dict(weights)
    with torch.inference_mode():
        np.testing.assert_array_equal(again.eval()(torch.from_numpy(inputs)), model(torch.from_numpy(inputs)))


@pytest.mark.slow
def test_colour_and_channels_last(small_dataset: Dataset) -> None:
    torch.manual_seed(0)
    model: nn.Module = ConvNet(in_chans=3, num_classes=4, widths=(8, 16)).to(memory_format=torch.channels_last)
    images = np.random.default_rng(0).integers(0, 256, (6, 20, 20, 3), dtype=np.uint8)
    exported = export(model, images, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    graph = onnx.load(io.BytesIO(exported.onnx)).graph
    assert [entry.name for entry in graph.input] == ["image"]
    assert [entry.name for entry in graph.output] == ["logits", "embedding"]
    assert [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim][1:] == [3, 20, 20]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param


@pytest.mark.slow
def test_in_int8_a_network_is_smaller_and_labels_nearly_all_alike(small_dataset: Dataset) -> None:
    torch.manual_seed(0)
    model = settled(ConvNet(in_chans=1, num_classes=10, widths=(16, 32)), small_dataset)
    images, normal = small_dataset.val.images[:50], {"mean": small_dataset.mean, "std": small_dataset.std}
    plain, small = export(model, images, **normal), export(model, images, **normal, precision="int8")
    assert (plain.precision, small.precision) == ("float32", "int8")
    assert len(small.onnx) < len(plain.onnx) / 2
    assert small.weights == plain.weights
    kinds = {node.op_type for node in onnx.load(io.BytesIO(small.onnx)).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert small.label_agreement >= INT8_AGREEMENT
    assert TOLERANCE < small.max_difference < np.inf  # it is another network
    inputs = normalise(images, **normal)
    logits, embeddings = OnnxNetwork(small.onnx)(inputs[:3])  # the batch is dynamic
    assert (logits.shape, logits.dtype, embeddings.dtype) == ((3, 10), np.float32, np.float32)
    # Equal rows give equal numbers in any batch.
    np.testing.assert_array_equal(OnnxNetwork(small.onnx)(inputs)[0][:3].argmax(1), logits.argmax(1))


def test_quantisation_without_images_is_refused() -> None:
    with pytest.raises(ValueError, match="needs images for the ranges of activations, got none"):
        quantize(b"", np.empty((0, 1, 28, 28), np.float32))


@pytest.mark.slow
def test_a_network_that_cannot_be_quantised_says_what_to_do(
    small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = settled(ConvNet(in_chans=1, num_classes=10, widths=(8,)), small_dataset)
    monkeypatch.setattr("fashion.training.export.INT8_AGREEMENT", 1.1)
    with pytest.raises(ExportDiffers, match=r"in int8 the network labels .* train with export.precision=float32"):
        export(model, small_dataset.val.images[:20], mean=small_dataset.mean, std=small_dataset.std, precision="int8")


class TwoFaced(ConvNet):
    """Computes one thing in torch and another when it is exported."""

    def __init__(self, wrong: float) -> None:
        super().__init__(widths=(8,))
        self.wrong = wrong

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        outputs = super().forward_head(x, pre_logits)
        return outputs * self.wrong if torch.compiler.is_exporting() else outputs


class TwoAlike(ConvNet):
    """Two classes have the same logit but for a rounding, which is another one once it is exported."""

    def __init__(self, apart: float) -> None:
        super().__init__(widths=(8,))
        self.apart = apart

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        outputs = super().forward_head(x, pre_logits)
        if pre_logits:
            return outputs
        first, second = (self.apart, 0.0) if torch.compiler.is_exporting() else (0.0, self.apart)
        largest = outputs.amax(dim=1, keepdim=True) + 1
        return torch.cat([largest + first, largest + second, outputs[:, 2:]], dim=1)


@pytest.mark.slow
def test_a_near_tie_that_rounding_decides_is_no_difference(small_dataset: Dataset) -> None:
    torch.manual_seed(0)
    model, images = settled(TwoAlike(1e-5), small_dataset), small_dataset.val.images[:20]
    exported = export(model, images, mean=small_dataset.mean, std=small_dataset.std)
    assert exported.label_agreement == 0
    assert 0 < exported.max_difference <= TOLERANCE


@pytest.mark.slow
def test_a_label_that_changes_by_more_than_rounding_is_refused(small_dataset: Dataset) -> None:
    torch.manual_seed(0)
    model, images = settled(TwoAlike(8e-4), small_dataset), small_dataset.val.images[:20]
    with pytest.raises(ExportDiffers, match=r"labels agree on 0.00%, logits differ by up to 0\.000"):
        export(model, images, mean=small_dataset.mean, std=small_dataset.std)


@pytest.mark.parametrize("wrong", [1.01, -1.0, float("nan")])
@pytest.mark.slow
def test_a_network_that_changed_on_the_way_is_refused(wrong: float, small_dataset: Dataset) -> None:
    torch.manual_seed(0)
    with pytest.raises(ExportDiffers, match="differs from the trained one on 20 images: labels agree on") as caught:
        export(TwoFaced(wrong), small_dataset.val.images[:20], mean=small_dataset.mean, std=small_dataset.std)
    difference: Any = re.search(r"by up to (\S+)$", str(caught.value))
    assert not float(difference[1]) <= TOLERANCE
