"""A backbone small enough for tests."""

from __future__ import annotations

from torch import Tensor, nn


class TinyBackbone(nn.Module):
    """Maps (B, 3, H, W) to (B, width) with batch norm and dropout, which differ in training and evaluation."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.num_features = width
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(0.2)

    def forward(self, images: Tensor) -> Tensor:
        return self.dropout(self.norm(self.conv(images)).relu().mean(dim=(2, 3)))
