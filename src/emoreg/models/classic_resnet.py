"""The classic ResNets for 32x32 images, which timm does not have.

He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSIC_DEPTHS = (8, 14, 20, 32, 44, 56, 110)  # 6n + 2
CLASSIC_WIDTH = 16  # channels of the first stage


class _Block(nn.Module):
    """Two 3x3 convolutions and a parameter-free shortcut (option A: subsample, pad channels with zeros)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.new_channels = stride, channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        if self.stride != 1 or self.new_channels:
            half = self.new_channels // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.new_channels - half))
        return F.relu(out + x, inplace=True)


class ClassicResNet(nn.Module):
    """ResNet-(6n+2) for 32x32 images: three stages of n blocks, global average. Maps (B, 3, H, W) to (B, 4 * width).

    Args:
        depth: 6n + 2.
        width: channels of the first stage; the others have twice and four times as many. 16 in the paper.
        zero_gamma: start the last γ of each block at 0 instead of 1.
    """

    def __init__(self, depth: int, width: int = CLASSIC_WIDTH, zero_gamma: bool = False) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.num_features = 4 * width
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        layers: list[nn.Module] = []
        channels_in = width
        for channels, first_stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
            for index in range(blocks):
                layers.append(_Block(channels_in, channels, first_stride if index == 0 else 1))
                channels_in = channels
        self.blocks = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015, as the paper's section 3.4 says
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, _Block) and zero_gamma:
                nn.init.zeros_(module.bn2.weight)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Name patterns of the parameters of stem and blocks, in timm's format, for `optimizer.layer_decay`."""
        return {"stem": r"^conv1|bn1", "blocks": r"^blocks\.(\d+)"}

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 4 * width) of images (B, 3, H, W)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return torch.flatten(F.adaptive_avg_pool2d(self.blocks(x), 1), 1)
