"""A small full-resolution convolutional net for minutes on a CPU. Knows nothing of training or of timm.

Its interface is timm's (`num_features`, `forward_features`, `forward_head`), so that building, exporting and
explaining a model need no case for it.

The shape follows Jordan, "94% on CIFAR-10 in 3.29 seconds" (2024, arXiv:2404.00498): a frozen whitening
convolution, stages of [conv, pool, norm, activation, conv, norm, activation], global maximum, linear layer. The last
stage pools before it convolves: a fifth less work.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Stage(nn.Module):
    """Two 3x3 convolutions; the first is pooled, so that only one of them works at the larger size.

    With `pool_first` neither does: cheaper, and little is lost on maps of a few pixels.
    """

    def __init__(self, in_chans: int, out_chans: int, *, pool_first: bool = False) -> None:
        super().__init__()
        self.pool_first = pool_first
        self.conv1 = nn.Conv2d(in_chans, out_chans, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.norm1 = scale_free_norm(out_chans)
        self.conv2 = nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False)
        self.norm2 = scale_free_norm(out_chans)
        for conv in (self.conv1, self.conv2):
            # The input passes unchanged at first: as good as a residual connection, at no cost.
            nn.init.dirac_(conv.weight[: conv.in_channels])

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(self.pool(x)) if self.pool_first else self.pool(self.conv1(x))
        x = nn.functional.relu(self.norm1(x))
        return nn.functional.relu(self.norm2(self.conv2(x)))


def scale_free_norm(num_chans: int) -> nn.BatchNorm2d:
    """Batch norm that learns only the bias: the next layer can scale, and a step has one reduction less."""
    norm = nn.BatchNorm2d(num_chans, momentum=0.4)
    norm.weight.requires_grad = False
    return norm


class ConvNet(nn.Module):
    """Images (N, in_chans, H, W) float32 to logits (N, num_classes); H and W at least 2 ** len(widths) + 2.

    Call `fit_whitening` with training images before the first step; the first layer is random until then.
    """

    def __init__(
        self,
        in_chans: int = 1,
        num_classes: int = 10,
        widths: Sequence[int] = (16, 64, 128),
        drop_rate: float = 0.0,
        num_filters: int = 8,
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        if not widths:
            raise ValueError(f"widths must name at least one stage, got {widths}")
        num_filters = min(num_filters, in_chans * kernel_size**2)
        self.num_classes = num_classes
        self.num_features = widths[-1]
        self.whitening = nn.Conv2d(in_chans, 2 * num_filters, kernel_size, bias=False)
        self.whitening.weight.requires_grad = False
        inputs = (2 * num_filters, *widths[:-1])
        last = len(widths) - 1
        self.stages = nn.Sequential(
            *(
                Stage(chans, width, pool_first=0 < index == last)
                for index, (chans, width) in enumerate(zip(inputs, widths, strict=True))
            )
        )
        self.dropout = nn.Dropout(drop_rate)
        self.head = nn.Linear(self.num_features, num_classes)

    @torch.no_grad()
    def fit_whitening(self, images: Tensor, epsilon: float = 5e-4) -> None:
        """Set the first layer so that its outputs over `images` are uncorrelated and of variance about one.

        Args:
            images: (N, in_chans, H, W) float32, normalised training images; a few thousand do.
            epsilon: added to each variance, so that directions without signal are not amplified.
        """
        conv = self.whitening
        size = conv.kernel_size[0]
        patches = images.unfold(2, size, 1).unfold(3, size, 1)  # (N, C, H', W', size, size)
        vectors = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, conv.weight[0].numel()).double()
        variances, directions = torch.linalg.eigh(vectors.T.cov())
        filters = (directions / (variances + epsilon).sqrt()).T.flip(0)[: conv.out_channels // 2]
        # The sign of an eigenvector is arbitrary: fix it by a vector orthogonal to no symmetric pattern.
        filters = filters * (filters @ 0.7 ** torch.arange(filters.shape[1]).to(filters)).sign().unsqueeze(1)
        filters = filters.reshape(-1, *conv.weight.shape[1:])
        # Each filter and its negative, for the rectifier that follows drops one sign.
        conv.weight.copy_(torch.cat([filters, -filters]))

    def get_classifier(self) -> nn.Linear:
        """The last layer."""
        return self.head

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map: (N, num_features, H', W')."""
        x = nn.functional.relu(self.whitening(x))
        features: Tensor = self.stages(x)
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (N, num_classes), or with `pre_logits` the embedding (N, num_features)."""
        x = self.dropout(x.amax(dim=(2, 3)))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))
