"""The usual recipe for CIFAR, as written by hand: the speed of emoreg is measured against it.

A torchvision data set in memory, transforms image by image, a DataLoader, float32, channels first. The network is the
same module as emoreg's, including what makes the module itself faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import CIFAR10

from emoreg.models.backbones import build_backbone
from emoreg.models.features import num_features

Images = Dataset[tuple[torch.Tensor, torch.Tensor]]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def cifar(pixels: NDArray[np.uint8], labels: list[int], transform: Callable[..., object]) -> Images:
    """Build torchvision's CIFAR-10 from pixels (N, 32, 32, 3) uint8, labels, and a transform of each PIL image."""
    images = CIFAR10.__new__(CIFAR10)  # without reading files
    images.data, images.targets = pixels, labels
    images.transform, images.target_transform = transform, None
    return images


def noise(count: int) -> Images:
    """Draw random images: speed does not depend on their content."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return cifar(pixels, draw.integers(0, 10, count).tolist(), augmented())


def augmented() -> transforms.Compose:
    return transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), plain()])


def plain() -> transforms.Compose:
    return transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


def loader(images: Images, batch_size: int, workers: int) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    return DataLoader(
        images,
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def training(name: str, batch_size: int, workers: int, steps: int, device: str) -> Callable[[], float]:
    """Return work that trains for some steps and returns images per second."""
    backbone = build_backbone(name)
    model = nn.Sequential(backbone, nn.Linear(num_features(backbone), 10)).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    data = loader(noise(max(20, steps) * batch_size), batch_size, workers)
    batches = iter(data)

    def work() -> float:
        nonlocal batches
        started = time.perf_counter()
        for _ in range(steps):
            batch = next(batches, None)
            if batch is None:
                batches = iter(data)
                batch = next(batches)
            images, labels = (part.to(device, non_blocking=True) for part in batch)
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()  # wait for the device
        return steps * batch_size / (time.perf_counter() - started)

    return work


def data(batch_size: int, workers: int, steps: int) -> Callable[[], float]:
    """Return work that only makes batches, an epoch of `steps`, and returns images per second."""
    batches = loader(noise(steps * batch_size), batch_size, workers)

    def work() -> float:
        started = time.perf_counter()
        for _ in batches:
            pass
        return steps * batch_size / (time.perf_counter() - started)

    return work
