"""Build networks for small images: convnet, vgg, and timm's with adapted stems. Knows nothing of training."""

import difflib
import inspect
from collections.abc import Iterator
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fashion.config.schema import ConfigError
from fashion.config.train import ArchitectureConfig
from fashion.training.convnet import ConvNet

OWN = ("convnet", "vgg")
"""Names that timm does not build."""
FIXED_GRIDS = {
    *("beit", "cait", "convit", "deit", "eva", "swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr"),
    *("tnt", "vision_transformer", "vision_transformer_relpos"),
}
"""Modules of timm whose networks are made for one image size."""


class DoesNotFit(ConfigError):
    """A network that cannot process images of this size."""


class Network(Protocol):
    """What training needs of a network: timm's interface."""

    num_features: int

    def forward_features(self, x: Tensor) -> Tensor: ...

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor: ...


def build(config: ArchitectureConfig, *, channels: int, size: int, num_classes: int) -> nn.Module:
    """Build a network that takes `(N, channels, size, size)` float32 and returns `(N, num_classes)` logits.

    Args:
        config: which network.
        channels: of an image.
        size: height and width of an image in pixels.
        num_classes: number of logits.

    Raises:
        ConfigError: timm has no network of that name, it does not accept the arguments, or its pretrained weights
            cannot be loaded.
    """
    if config.name in OWN:
        return keep_map(
            _own(config, channels, num_classes), channels=channels, size=size, min_final_map=config.min_final_map
        )
    try:
        model = _timm(config, channels, size, num_classes)
        return keep_map(model, channels=channels, size=size, min_final_map=config.min_final_map)
    except DoesNotFit:
        return _enlarged(config, channels, size, num_classes)


def embed(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Run a network once for its `(N, classes)` logits and its `(N, D)` embedding before the classifier."""
    network = cast(Network, model)
    features = network.forward_features(images)
    return network.forward_head(features), network.forward_head(features, pre_logits=True)


def check_name(name: str) -> None:
    """Check that there is a network of this name.

    Raises:
        ConfigError: there is none; the message has similar names.
    """
    import timm

    if name in OWN or timm.is_model(name):
        return
    known = [*OWN, *timm.list_models()]
    near = difflib.get_close_matches(name, known, n=5) or timm.list_models(f"*{name[:6]}*")[:5]
    hint = f"near: {', '.join(near)}" if near else "timm.list_models() lists them"
    raise ConfigError(f"architecture.name={name}: there is no such network; {hint}")


def keep_map(model: nn.Module, *, channels: int, size: int, min_final_map: int) -> nn.Module:
    """Remove strides, first ones first, until the last feature map is at least `min_final_map` pixels high.

    Stock stems are made for 224 pixels: of a 28 pixel image they leave a single pixel. A network whose features are
    not a map, as of a transformer, is not changed.

    Args:
        model: changed in place.
        channels: of an image.
        size: height and width of an image in pixels.
        min_final_map: in pixels.

    Raises:
        DoesNotFit: the network cannot process such images.
        ConfigError: its last map can never be that high.
    """
    for stride in _strides(model):
        if _final_map(model, channels, size) >= min_final_map:
            break
        stride()
    try:
        height = _map_height(model, channels, size)
    except Exception as error:  # the network's code may raise anything
        raise DoesNotFit(
            f"architecture: this network cannot be fitted to images of {size} pixels and {channels} channels "
            f"({_sentence(error)}); choose another"
        ) from error
    if height < min_final_map:
        raise ConfigError(
            f"architecture.min_final_map={min_final_map}: the last map of this network is {height} pixels high at "
            "most; choose a smaller value"
        )
    return model


class Enlarged(nn.Module):
    """Resizes images to the one size that a network is made for."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network, self.size = network, size
        self.num_features: int = cast(Network, network).num_features

    def forward_features(self, x: Tensor) -> Tensor:
        enlarged = F.interpolate(x, size=(self.size, self.size), mode="bilinear", align_corners=False)
        return cast(Network, self.network).forward_features(enlarged)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return cast(Network, self.network).forward_head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _arguments(config: ArchitectureConfig, channels: int, num_classes: int) -> dict[str, Any]:
    return {
        "in_chans": channels,
        "num_classes": num_classes,
        "drop_rate": config.drop_rate,
        **({} if config.drop_path_rate is None else {"drop_path_rate": config.drop_path_rate}),
        **config.kwargs,
    }


def _enlarged(config: ArchitectureConfig, channels: int, size: int, num_classes: int) -> nn.Module:
    network = _create(config, size, _arguments(config, channels, num_classes))
    stock: int = cast(Any, network).default_cfg["input_size"][-1]
    model = Enlarged(network, stock)
    return keep_map(model, channels=channels, size=size, min_final_map=1)


def _timm(config: ArchitectureConfig, channels: int, size: int, num_classes: int) -> nn.Module:
    check_name(config.name)
    arguments = _arguments(config, channels, num_classes)
    if not _takes_image_size(config.name):
        return _create(config, size, arguments)
    arguments = {"img_size": size, **arguments}
    model = _create(config, size, arguments)
    patches: Any = getattr(model, "patch_embed", None)
    if patches is not None and "patch_size" not in config.kwargs:
        # Patches of 16 leave one token of a 28 pixel image, and drop the 12 pixels that are no whole patch.
        stock = patches.patch_size[0]
        largest = min(stock, size // config.min_final_map)
        patch_size = max((side for side in range(1, largest + 1) if size % side == 0), default=stock)
        if patch_size != stock:
            model = _create(config, size, {**arguments, "patch_size": patch_size})
    return model


def _create(config: ArchitectureConfig, size: int, arguments: dict[str, Any]) -> nn.Module:
    import timm

    try:
        return timm.create_model(config.name, pretrained=config.pretrained, **arguments)
    except Exception as error:  # the network's code and the download may raise anything
        reason = _sentence(error)
        if config.pretrained:
            raise ConfigError(
                f"architecture.pretrained=true: the weights of {config.name} could not be loaded ({reason}); "
                "connect to the internet or set architecture.pretrained=false"
            ) from error
        raise ConfigError(
            f"architecture.name={config.name} cannot be built for {size} pixels with {config.kwargs}: {reason}; "
            f"{_takes(_class(config.name))}"
        ) from error


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _class(name: str) -> type[nn.Module]:
    import timm

    with torch.device("meta"):  # no weights are made: some networks have billions
        return type(timm.create_model(name))


def _takes(network: type[nn.Module]) -> str:
    """What `architecture.kwargs` may hold."""
    parameters = inspect.signature(network.__init__).parameters.values()
    names = [each.name for each in parameters if each.name != "self" and each.kind is not each.VAR_KEYWORD]
    return f"{network.__name__} takes {', '.join(names)}"


def _takes_image_size(name: str) -> bool:
    """True if timm's network is a transformer over patches of a fixed grid."""
    import timm

    module = timm.models.model_entrypoint(name).__module__
    return module.rsplit(".", 1)[-1] in FIXED_GRIDS


def _own(config: ArchitectureConfig, channels: int, num_classes: int) -> nn.Module:
    if config.pretrained:
        raise ConfigError(f"architecture.pretrained=true: there are no published weights of {config.name}")
    try:
        if config.name == "vgg":
            return _vgg(config, channels, num_classes)
        return ConvNet(in_chans=channels, num_classes=num_classes, drop_rate=config.drop_rate, **config.kwargs)
    except (KeyError, TypeError, ValueError) as error:
        takes = "vgg takes cfg and head_width" if config.name == "vgg" else _takes(ConvNet)
        raise ConfigError(
            f"architecture.kwargs={config.kwargs} do not make a {config.name}: {error}; {takes}"
        ) from error


def _vgg(config: ArchitectureConfig, channels: int, num_classes: int) -> nn.Module:
    from timm.layers.classifier import ClassifierHead
    from timm.models.vgg import VGG, ConvMlp

    kwargs = dict(config.kwargs)
    layers, width = list(kwargs.pop("cfg")), int(kwargs.pop("head_width"))
    model = VGG(
        layers,
        num_classes=num_classes,
        in_chans=channels,
        drop_rate=config.drop_rate,
        norm_layer=nn.BatchNorm2d,
        **kwargs,
    )
    # timm's head is for 7x7 maps and has 100 M weights; for these maps the same modules have 0.7 M.
    model.pre_logits = ConvMlp(model.num_features, width, kernel_size=3, drop_rate=config.drop_rate)
    model.head = ClassifierHead(width, num_classes, drop_rate=config.drop_rate)
    model.head_hidden_size = width
    return cast(nn.Module, model)


def _strides(model: nn.Module) -> Iterator[Any]:
    """Ways to remove one stride each, in the order of the network's modules."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and max(child.stride) > 1:
                yield lambda conv=child: setattr(conv, "stride", (1, 1))
            elif isinstance(child, nn.MaxPool2d | nn.AvgPool2d) and child.stride not in (1, (1, 1)):
                yield lambda parent=parent, name=name: setattr(parent, name, nn.Identity())


def _final_map(model: nn.Module, channels: int, size: int) -> int:
    """Like `_map_height`, but 0 if shapes do not match.

    They do not if pools leave no pixel, or if a block lost its stride and its shortcut still has one.
    """
    try:
        return _map_height(model, channels, size)
    except Exception:  # keep_map reports the last one
        return 0


@torch.inference_mode()
def _map_height(model: nn.Module, channels: int, size: int) -> int:
    """Height of the last feature map in pixels; `size` if the features are not one map."""
    was_training = model.training
    try:
        features = cast(Network, model.eval()).forward_features(torch.zeros(1, channels, size, size))
        cast(Network, model).forward_head(features)
    finally:
        model.train(was_training)
    # Some networks return several maps, or tokens.
    return features.shape[2] if isinstance(features, Tensor) and features.ndim == 4 else size
