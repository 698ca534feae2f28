"""Networks: every file of configs/architecture, and any name of timm, at the size of small images."""

import dataclasses
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from fashion.config.compose import CONFIGS, compose
from fashion.config.schema import ConfigError
from fashion.config.train import ArchitectureConfig, load_train_config
from fashion.data.dataset import Dataset, Split
from fashion.training import models, recipe

ARCHITECTURES = sorted(file.stem for file in (CONFIGS / "architecture").glob("*.yaml"))


def architecture(*words: str, **changes: Any) -> ArchitectureConfig:
    return dataclasses.replace(load_train_config(compose(words)).architecture, **changes)


def build(of: ArchitectureConfig, channels: int = 1, size: int = 28, num_classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return models.build(of, channels=channels, size=size, num_classes=num_classes)


def final_shape(model: nn.Module, channels: int, size: int) -> tuple[int, ...]:
    with torch.inference_mode():
        features = model.eval().forward_features(torch.zeros(2, channels, size, size))  # type: ignore[operator]
    return tuple(features.shape)


class TestArchitectures:
    @pytest.mark.parametrize("name", ARCHITECTURES)
    @pytest.mark.parametrize(("channels", "size", "num_classes"), [(1, 28, 10), (3, 64, 3)])
    @pytest.mark.slow
    def test_builds_with_a_useful_last_map(self, name: str, channels: int, size: int, num_classes: int) -> None:
        of = architecture(f"architecture={name}")
        if "patch_size" in of.kwargs and size == 64:
            of = dataclasses.replace(of, kwargs={**of.kwargs, "patch_size": 8})  # 7 does not divide 64
        model = build(of, channels, size, num_classes)
        shape = final_shape(model, channels, size)
        side = shape[2] if len(shape) == 4 else int(shape[1] ** 0.5)
        assert side >= of.min_final_map
        images = torch.randn(2, channels, size, size)
        logits, embedding = models.embed(model.eval(), images)
        assert logits.shape == (2, num_classes)
        assert embedding.shape[0] == 2
        assert embedding.ndim == 2
        torch.testing.assert_close(logits, model(images))

    @pytest.mark.parametrize(
        ("name", "batch_size", "num_epochs", "learning_rate"),
        [
            ("convnet", 8, 8, None),
            ("vgg", 16, 28, None),
            ("resnet", 8, 16, None),
            ("mobilenet", 8, 25, None),
            ("visiontransformer", 8, 18, None),
            ("xcitnano", 8, 14, None),
            ("efficientnet", 16, 35, 0.002),
            ("timm", 8, 35, None),
        ],
    )
    @pytest.mark.slow
    def test_overfits_32_images(
        self, name: str, batch_size: int, num_epochs: int, learning_rate: float | None, small_dataset: Dataset
    ) -> None:
        words = [f"architecture={name}", "architecture.drop_rate=0", "training.label_smoothing=0"]
        words += ["augmentation.flip=none", "augmentation.crop_padding=0", "training.ema_decay=null"]
        words += [f"training.batch_size={batch_size}", f"training.num_epochs={num_epochs}", "training.min_steps=0"]
        words += [f"optimizer.learning_rate={learning_rate}"] if learning_rate else []
        words += ["architecture.name=test_resnet"] if name == "timm" else []  # is for any name: a small one
        settings = load_train_config(compose(words))
        if settings.architecture.drop_path_rate:
            settings = dataclasses.replace(
                settings, architecture=dataclasses.replace(settings.architecture, drop_path_rate=0.0)
            )
        few = Split(small_dataset.train.images[:32], small_dataset.train.labels[:32])
        _, result = recipe.train(settings, dataclasses.replace(small_dataset, train=few, val=few))
        assert result.history[-1].val_accuracy >= 0.95

    def test_the_list_above_is_complete(self) -> None:
        marks = self.test_overfits_32_images.pytestmark  # type: ignore[attr-defined]
        (mark,) = (mark for mark in marks if mark.name == "parametrize")
        assert sorted(parameters[0] for parameters in mark.args[1]) == ARCHITECTURES


class TestKeepMap:
    def test_strides_go_first_ones_first_and_no_more_than_needed(self) -> None:
        shapes = {
            rows: final_shape(build(architecture("architecture=resnet", min_final_map=rows)), 1, 28)[2]
            for rows in (1, 2, 4, 7)
        }
        assert shapes == {1: 1, 2: 2, 4: 4, 7: 7}

    def test_more_than_there_are_pixels_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"min_final_map=40: the last map of this network is 28 pixels high"):
            build(architecture("architecture=resnet", min_final_map=40))

    def test_pools_that_leave_nothing_are_removed(self) -> None:
        model = build(architecture("architecture=convnet", kwargs={"widths": [8, 8, 8, 8, 8]}))
        assert final_shape(model, 1, 28)[2] >= 3

    def test_mode_is_kept(self) -> None:
        model = build(architecture("architecture=resnet"))
        assert model.training


class TestAnyName:
    @pytest.mark.parametrize(
        "name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit_relpos", "test_nfnet"]
    )
    def test_builds_and_learns(self, name: str) -> None:
        model = build(architecture(f"architecture.name={name}")).train()
        nn.functional.cross_entropy(model(torch.randn(4, 1, 28, 28)), torch.arange(4)).backward()
        assert all(param.grad is not None for param in model.get_classifier().parameters())  # type: ignore[operator]

    @pytest.mark.parametrize("name", ["test_vit", "vit_tiny_patch16_224", "eva02_tiny_patch14_224"])
    @pytest.mark.parametrize(("size", "patch_size"), [(28, 7), (64, 16), (30, 10)])
    def test_patches_cover_the_image_and_are_several(self, name: str, size: int, patch_size: int) -> None:
        model = build(architecture(f"architecture.name={name}"), size=size)
        patches: Any = model.patch_embed
        expected = min(patch_size, 16) if "eva" not in name or size != 64 else 8  # 14 does not divide 64
        assert patches.patch_size == (expected, expected)
        assert patches.grid_size[0] * expected == size
        assert model.eval()(torch.zeros(1, 1, size, size)).shape == (1, 10)

    def test_configured_patches_stay(self) -> None:
        model: Any = build(architecture("architecture=visiontransformer"))
        assert model.patch_embed.grid_size == (4, 4)

    def test_unknown_name_is_refused_with_near_ones(self) -> None:
        for call in (lambda: build(architecture("architecture.name=resnet19")), lambda: models.check_name("resnet19")):
            with pytest.raises(
                ConfigError, match=r"architecture.name=resnet19: there is no such network; near: .*resnet18"
            ):
                call()
        with pytest.raises(ConfigError, match=r"architecture.name=zzz: .*; timm.list_models\(\) lists them"):
            models.check_name("zzz")

    def test_names_that_exist_pass(self) -> None:
        for name in ("convnet", "vgg", "resnet18", "resnet18.a1_in1k"):
            models.check_name(name)

    @pytest.mark.parametrize("name", ["mixer_s32_224", "pit_ti_224", "crossvit_tiny_240"])
    def test_a_network_of_one_size_looks_at_enlarged_images(self, name: str) -> None:
        model = build(architecture(f"architecture.name={name}")).eval()
        with torch.inference_mode():
            logits, embedding = models.embed(model, torch.rand(2, 1, 28, 28))
        assert logits.shape == (2, 10)
        assert embedding.ndim == 2
        assert (embedding[0] != embedding[1]).any()

    def test_network_that_does_not_fit_is_refused(self) -> None:
        sentence = "this network cannot be fitted to images of 28 pixels and 1 channels"
        with pytest.raises(ConfigError, match=sentence):
            build(architecture("architecture.name=csatv2"))  # takes colours only

    @pytest.mark.parametrize(
        ("word", "kwargs"),
        [
            ("architecture=resnet", {"speed": 3}),
            ("architecture=convnet", {"speed": 3}),
            ("architecture=convnet", {"widths": []}),
            ("architecture=vgg", {}),
            ("architecture=visiontransformer", {"embed_dim": 10, "num_heads": 3}),
        ],
    )
    def test_arguments_that_a_network_does_not_take_are_refused(self, word: str, kwargs: dict[str, Any]) -> None:
        of = architecture(word, kwargs=kwargs)
        with pytest.raises(ConfigError, match=rf"{of.name}.* takes \w+, |vgg takes cfg and head_width"):
            build(of)


class TestPretrained:
    @pytest.mark.slow
    def test_offline_is_a_sentence(self) -> None:
        # In a process of its own: huggingface_hub reads its environment when it is imported.
        code = (
            "from fashion.config.compose import compose\n"
            "from fashion.config.schema import ConfigError\n"
            "from fashion.config.train import load_train_config\n"
            "from fashion.training import models\n"
            "words = ['architecture.name=resnet10t', 'architecture.pretrained=true']\n"
            "settings = load_train_config(compose(words))\n"
            "try: models.build(settings.architecture, channels=1, size=28, num_classes=10)\n"
            "except ConfigError as error: print(error)"
        )
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent", "TORCH_HOME": "/nonexistent"}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        (sentence,) = done.stdout.splitlines()
        assert sentence.startswith("architecture.pretrained=true: the weights of resnet10t could not be loaded (")
        assert sentence.endswith("connect to the internet or set architecture.pretrained=false")

    @pytest.mark.parametrize("name", ["convnet", "vgg"])
    def test_own_networks_have_none(self, name: str) -> None:
        with pytest.raises(ConfigError, match=f"there are no published weights of {name}"):
            build(architecture(f"architecture={name}", pretrained=True))
