"""speednet: a small, wide network that learns in a few epochs, for exploration.

Our own code, after Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (arXiv:2404.00498), section 3: a
whitening first layer, three blocks of two wide convolutions that start as the identity and halve the map, and batch
norms without γ. Left out are the larger learning rate for the norms' β, and what is not part of a network: lookahead,
test-time augmentation.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SPEEDNET = "speednet"
SPEEDNET_WIDTH = 64  # channels of the first block; the others have four times as many, as in the paper
SMALLEST = 9  # pixels a side: the first layer leaves 8, and three poolings leave 1

# The paper computes the whitening from the training images. Here it has a closed form, so that a network needs no data
# and all encoders have the same. The eigenvectors of the covariance of 2x2 patches of natural images are, nearly,
# products of an opponent colour (Ohta et al. 1980; Ruderman et al. 1998) and a pattern of the 2x2 cosine transform
# (Ahmed et al. 1974). DEVIATIONS are the standard deviations of these products, about zero, over all 2x2 patches of
# CIFAR-10's 50,000 training images after `data.images.augment.normalise`. Divided by them, the patches' covariance has
# eigenvalues from 0.82 to 1.18; the exact eigenvectors would give 1.
COLOURS = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))  # brightness, red to blue, magenta to green
PATTERNS = ((1.0, 1.0, 1.0, 1.0), (1.0, -1.0, 1.0, -1.0), (1.0, 1.0, -1.0, -1.0), (1.0, -1.0, -1.0, 1.0))
DEVIATIONS = ((3.534, 0.637, 0.696, 0.260), (1.048, 0.132, 0.143, 0.0448), (0.469, 0.0714, 0.0754, 0.0267))
EPSILON = 5e-4  # added to variances, as in the paper: limits the noise of the rarest patterns

# Of the running statistics. Trainings are short, and the paper's 0.4 is noisy for batches of less than 1,000.
MOMENTUM = 0.2
SCALE = 1 / 9  # of the features. The paper scales the logits, which is equivalent with a linear head


def whitening_filters() -> Tensor:
    """The filters of the first layer and their negatives, (24, 3, 2, 2)."""
    colours, patterns = F.normalize(torch.tensor(COLOURS)), F.normalize(torch.tensor(PATTERNS))
    scales = (torch.tensor(DEVIATIONS).square() + EPSILON).rsqrt()  # (3, 4)
    filters = torch.einsum("ij,ic,jp->ijcp", scales, colours, patterns).reshape(-1, 3, 2, 2)
    return torch.cat([filters, -filters])


class _Whitening(nn.Module):
    """A 2x2 convolution with fixed filters and a trained bias. Maps (B, 3, H, W) to (B, 24, H - 1, W - 1)."""

    weight: Tensor  # a buffer, so that it is not trained

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", whitening_filters())
        self.bias = nn.Parameter(torch.zeros(len(self.weight)))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias)


def _convolution(channels_in: int, channels: int) -> nn.Conv2d:
    """A 3x3 convolution. The first filters start as the identity of one input channel each, the others as usual."""
    layer = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight[: min(channels_in, channels)])
    return layer


def _norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with γ fixed at 1: a buffer, so that it is not trained."""
    norm = nn.BatchNorm2d(channels, momentum=MOMENTUM)
    del norm.weight
    norm.register_buffer("weight", torch.ones(channels))
    return norm


class _Block(nn.Module):
    """Two convolutions with batch norm and GELU; the first one halves the map by max pooling."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _convolution(channels_in, channels), _norm(channels)
        self.conv2, self.norm2 = _convolution(channels, channels), _norm(channels)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(self.pool(self.conv1(x))))
        return F.gelu(self.norm2(self.conv2(x)))


class SpeedNet(nn.Module):
    """Map images (B, 3, H, W) of at least 9 pixels a side to (B, 4 * width).

    The features are each channel's largest value in the last map, times 1/9.

    Args:
        width: channels of the first block; the second and the third have four times as many. 64 in the paper.
    """

    def __init__(self, width: int = SPEEDNET_WIDTH) -> None:
        super().__init__()
        self.num_features = 4 * width
        self.whitening = _Whitening()
        channels = (len(self.whitening.bias), width, 4 * width, 4 * width)
        self.blocks = nn.Sequential(*(_Block(*pair) for pair in pairwise(channels)))

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Name patterns of the parameters of stem and blocks, in timm's format, for `optimizer.layer_decay`."""
        return {"stem": r"^whitening", "blocks": r"^blocks\.(\d+)"}

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 4 * width) of images (B, 3, H, W)."""
        return SCALE * self.blocks(F.gelu(self.whitening(x))).amax(dim=(2, 3))
