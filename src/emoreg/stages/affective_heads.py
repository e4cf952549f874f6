"""Losses and metrics of an encoder's emotion read-out, for each kind of label (ours).

An encoder that learns from several stimulus sets has one head per set. All heads form one linear layer: a head is a
slice of its outputs, and of the joint labels, which have the same layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emoreg.data.images.image_set import ImageSet
from emoreg.data.stimuli.emotion import EmotionSpace
from emoreg.stages.outputs import outputs_in_order

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Head:
    """The read-out of one stimulus set: outputs `start` to `stop` (exclusive) of the joint linear layer."""

    name: str  # of the set; a prefix of its metrics
    space: EmotionSpace
    start: int
    stop: int

    @property
    def outputs(self) -> slice:
        """The head's columns in the joint outputs."""
        return slice(self.start, self.stop)


def heads_of(sets: Sequence[tuple[str, EmotionSpace]]) -> tuple[Head, ...]:
    """Make one head per set, given as (name, space), side by side; a repeated name gets a number."""
    heads: list[Head] = []
    for name, space in sets:
        start = heads[-1].stop if heads else 0
        taken, unique, number = {head.name for head in heads}, name, 2
        while unique in taken:
            unique, number = f"{name}-{number}", number + 1
        heads.append(Head(unique, space, start, start + len(space.names)))
    return tuple(heads)


def affective_loss(outputs: Tensor, labels: Tensor, space: EmotionSpace) -> Tensor:
    """The stage-1 loss (ours), averaged over the images.

    Args:
        outputs: (B, E).
        labels: of kind category, int64 (B,), for the cross-entropy; votes, counts or probabilities (B, E), for the KL
            divergence from the normalised votes; dimensions, (B, E) in [-1, 1], for the mean squared error.
        space: of the labels; its kind determines the loss.
    """
    if space.kind == "category":
        return F.cross_entropy(outputs, labels)
    if space.kind == "votes":
        shares = labels / labels.sum(dim=1, keepdim=True)
        return F.kl_div(outputs.float().log_softmax(dim=1), shares, reduction="batchmean")
    return F.mse_loss(outputs.float(), labels)


def image_losses(outputs: Tensor, labels: Tensor, space: EmotionSpace) -> Tensor:
    """The loss of each image (B,), whose mean is `affective_loss`; with the same arguments."""
    if space.kind == "category":
        return F.cross_entropy(outputs, labels, reduction="none")
    if space.kind == "votes":
        shares = labels / labels.sum(dim=1, keepdim=True)
        return F.kl_div(outputs.float().log_softmax(dim=1), shares, reduction="none").sum(dim=1)
    return F.mse_loss(outputs.float(), labels, reduction="none").mean(dim=1)


def joint_labels(labels: Sequence[Tensor], heads: Sequence[Head]) -> Tensor:
    """Concatenate the labels of several sets: float32 (N, 1 + ΣE).

    Column 0 is the index of the image's head. The other columns hold labels in the order of the outputs, categories as
    one-hot. Columns of the heads of other sets are filled with 1, a valid label of every kind, so that their losses are
    finite before they are masked.
    """
    width = heads[-1].stop
    parts = []
    for number, (own, head) in enumerate(zip(labels, heads, strict=True)):
        part = torch.ones(len(own), 1 + width, device=own.device)
        part[:, 0] = number
        is_category = head.space.kind == "category"
        part[:, 1 + head.start : 1 + head.stop] = F.one_hot(own, len(head.space.names)) if is_category else own
        parts.append(part)
    return torch.cat(parts)


def joint_loss(outputs: Tensor, labels: Tensor, heads: Sequence[Head], shares: Tensor | None = None) -> Tensor:
    """The loss of a batch drawn from several sets: every image has the same weight, in the head of its set only (ours).

    Losses are masked, not indexed: the number of images per set is known on the device only, and reading it would
    synchronise.

    Args:
        outputs: (B, ΣE).
        labels: (B, 1 + ΣE), from `joint_labels`.
        heads: one per set.
        shares: weights of the images' losses (B,); None for 1.
    """
    total = outputs.new_zeros((), dtype=torch.float32)
    for number, head in enumerate(heads):
        own = labels[:, 1 + head.start : 1 + head.stop]
        own = own.argmax(dim=1) if head.space.kind == "category" else own
        losses = image_losses(outputs[:, head.outputs], own, head.space)
        losses = losses if shares is None else losses * shares
        total = total + torch.where(labels[:, 0] == number, losses, 0.0).sum()
    return total / len(outputs)


def affective_metrics(outputs: Tensor, labels: Tensor, space: EmotionSpace) -> dict[str, float]:
    """Metrics of outputs (N, E) and labels: the loss, and accuracy or CCC.

    For votes, accuracy compares the most-voted categories. `ccc` is the mean over the dimensions of the concordance
    correlation coefficient (Lin 1989), in [-1, 1].
    """
    metrics = {"loss": affective_loss(outputs, labels, space).item()}
    if space.kind == "dimensions":
        if len(outputs) < 2:
            return metrics  # a correlation needs two points
        ccc = concordance(outputs, labels).tolist()
        named = {f"ccc_{name}": value for name, value in zip(space.names, ccc, strict=True)}
        return metrics | {"ccc": sum(ccc) / len(ccc)} | named
    truth = labels if space.kind == "category" else labels.argmax(dim=1)
    return metrics | {"accuracy": (outputs.argmax(dim=1) == truth).float().mean().item()}


def concordance(outputs: Tensor, labels: Tensor) -> Tensor:
    """Concordance correlation coefficient (Lin 1989) of each column of (N, E), N > 1: (E,) in [-1, 1], 0 for constants.

    Not torchmetrics', because importing that takes twice as long as importing PyTorch.
    """
    x, y = outputs.cpu().double(), labels.cpu().double()  # Apple's GPUs have no double precision
    covariance = ((x - x.mean(dim=0)) * (y - y.mean(dim=0))).sum(dim=0) / (len(x) - 1)
    spread = x.var(dim=0) + y.var(dim=0) + (x.mean(dim=0) - y.mean(dim=0)) ** 2
    return (2 * covariance / spread).nan_to_num(0.0)


@torch.no_grad()
def _measure_head(model: nn.Module, images: ImageSet, head: Head, fabric: Fabric) -> dict[str, float]:
    """`affective_metrics` of one head on all images of its set."""
    model.eval()
    parts = outputs_in_order(images, fabric, lambda batch: model(batch)[:, head.outputs].float())
    pairs = [(outputs, truth) for _, truth, outputs in parts]
    values, labels = (torch.cat(part) for part in zip(*pairs, strict=True))
    return affective_metrics(values, labels, head.space)


def measure_heads(
    model: nn.Module, sets: Sequence[ImageSet | None], heads: Sequence[Head], weights: Sequence[int], fabric: Fabric
) -> dict[str, float] | None:
    """Measure every head on its own set.

    Args:
        model: maps images to (B, ΣE).
        sets: one per head; None for a set without images.
        heads: one per set.
        weights: of the sets in the mean loss.
        fabric: device and precision.

    Returns:
        With one head, `affective_metrics`. With several, the same with the set's name as a prefix ("oasis_ccc"), and
        loss, the weighted mean. None if there are no images at all.
    """
    measured = [
        (head, weight, _measure_head(model, images, head, fabric))
        for images, head, weight in zip(sets, heads, weights, strict=True)
        if images is not None
    ]
    if not measured:
        return None
    if len(heads) == 1:
        return measured[0][2]
    mean = sum(weight * metrics["loss"] for _, weight, metrics in measured) / sum(weight for _, weight, _ in measured)
    named = {f"{head.name}_{key}": value for head, _, metrics in measured for key, value in metrics.items()}
    return {"loss": mean, **named}
