"""What an encoder's read-out of emotion is trained for and measured by, for each kind of label (ours).

An encoder that learns from several stimulus sets has a head for each. All heads together are one linear layer:
a head is a slice of its outputs, and of the labels that lie beside each other in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emoreg.data.images.batches import evaluation_batches
from emoreg.data.images.decode import ImageSet
from emoreg.data.images.table import Table
from emoreg.data.stimuli.emotion import EmotionSpace
from emoreg.errors import UserError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Head:
    """The read-out of one stimulus set: the outputs `start` to `stop` (not included) of all heads' outputs."""

    name: str  # of the set, in metrics
    space: EmotionSpace
    start: int
    stop: int

    @property
    def outputs(self) -> slice:
        """Where its outputs lie."""
        return slice(self.start, self.stop)


def heads_of(sets: Sequence[tuple[str, EmotionSpace]]) -> tuple[Head, ...]:
    """The heads of sets, given as (name, space), one behind the other; a name that comes again gets a number."""
    heads: list[Head] = []
    for name, space in sets:
        start, taken, unique = heads[-1].stop if heads else 0, {head.name for head in heads}, name
        while unique in taken:
            unique = f"{name}-{int(unique.removeprefix(name).removeprefix('-') or 1) + 1}"
        heads.append(Head(unique, space, start, start + len(space.names)))
    return tuple(heads)


def affective_loss(outputs: Tensor, labels: Tensor, space: EmotionSpace) -> Tensor:
    """The stage-1 loss for a space's kind of label (ours), the mean over the images.

    Args:
        outputs: (B, E).
        labels: category: int64 (B,), cross-entropy. votes: (B, E), counts or probabilities, KL divergence from
            the normalised votes. dimensions: (B, E) in [-1, 1], mean squared error.
        space: which of the three.
    """
    if space.kind == "category":
        return F.cross_entropy(outputs, labels)
    if space.kind == "votes":
        shares = labels / labels.sum(dim=1, keepdim=True)
        return F.kl_div(outputs.log_softmax(dim=1), shares, reduction="batchmean")
    return F.mse_loss(outputs.float(), labels)


def image_losses(outputs: Tensor, labels: Tensor, space: EmotionSpace) -> Tensor:
    """The loss of each image (B,); their mean is `affective_loss`. Arguments as there."""
    if space.kind == "category":
        return F.cross_entropy(outputs, labels, reduction="none")
    if space.kind == "votes":
        shares = labels / labels.sum(dim=1, keepdim=True)
        return F.kl_div(outputs.log_softmax(dim=1), shares, reduction="none").sum(dim=1)
    return F.mse_loss(outputs.float(), labels, reduction="none").mean(dim=1)


def joint_labels(labels: Sequence[Tensor], heads: Sequence[Head]) -> Tensor:
    """The labels of several sets in one tensor, set behind set: float32 (N, 1 + ΣE).

    Column 0 says whose image it is, the number of its head. The rest are the heads' labels as the outputs lie;
    a category is 1 in its place. Where an image has no label it stands 1, a valid label of any kind, so that
    losses there are finite before they are masked.
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


def joint_loss(outputs: Tensor, labels: Tensor, heads: Sequence[Head]) -> Tensor:
    """The loss of a batch from several sets: each image counts for its own head only, all images alike (ours).

    Masked instead of indexed: how many images a set has in a batch is known to the device alone, and asking
    would make the loop wait for it.

    Args:
        outputs: (B, ΣE).
        labels: (B, 1 + ΣE), of `joint_labels`.
        heads: of the sets.
    """
    total = outputs.new_zeros((), dtype=torch.float32)
    for number, head in enumerate(heads):
        own = labels[:, 1 + head.start : 1 + head.stop]
        own = own.argmax(dim=1) if head.space.kind == "category" else own
        losses = image_losses(outputs[:, head.outputs], own, head.space)
        total = total + torch.where(labels[:, 0] == number, losses, 0.0).sum()
    return total / len(outputs)


def affective_metrics(outputs: Tensor, labels: Tensor, space: EmotionSpace) -> dict[str, float]:
    """Metrics of all outputs (N, E) against all labels: the loss, and accuracy or CCC.

    For votes the accuracy counts the most-voted category. The concordance correlation coefficient (CCC,
    Lin 1989) of each dimension lies in [-1, 1]; `ccc` is their mean.
    """
    from torchmetrics.functional.regression import concordance_corrcoef

    metrics = {"loss": affective_loss(outputs, labels, space).item()}
    if space.kind == "dimensions":
        if len(outputs) < 2:
            return metrics  # a correlation needs two points
        ccc = concordance_corrcoef(outputs.float(), labels).nan_to_num(0.0).reshape(-1).tolist()  # 0 for a constant
        return metrics | {"ccc": sum(ccc) / len(ccc)} | {f"ccc_{n}": c for n, c in zip(space.names, ccc, strict=True)}
    truth = labels if space.kind == "category" else labels.argmax(dim=1)
    return metrics | {"accuracy": (outputs.argmax(dim=1) == truth).float().mean().item()}


@torch.no_grad()
def measure_affect(
    model: nn.Module, images: ImageSet, space: EmotionSpace, fabric: Fabric, outputs: slice = slice(None)
) -> dict[str, float]:
    """Metrics of an affective model on all of `images`; see `affective_metrics`.

    Args:
        model: gives (B, E), or (B, ΣE) of several heads.
        images: with labels in `space`.
        space: of the labels.
        fabric: device and precision.
        outputs: which of the model's belong to `space`.
    """
    model.eval()
    with fabric.autocast():
        pairs = [(model(batch)[:, outputs].float(), labels) for batch, labels in evaluation_batches(images)]
    values, labels = (torch.cat(part) for part in zip(*pairs, strict=True))
    return affective_metrics(values, labels, space)


def measure_heads(
    model: nn.Module, sets: Sequence[ImageSet | None], heads: Sequence[Head], weights: Sequence[int], fabric: Fabric
) -> dict[str, float] | None:
    """Metrics of every head on its own set; None if there are no images at all.

    Args:
        model: gives (B, ΣE).
        sets: one a head; None for no images.
        heads: of the sets.
        weights: of the sets in the mean loss.
        fabric: device and precision.

    Returns:
        For one head `affective_metrics`. For several the same with the set's name before each ("oasis_ccc"), and
        loss, the weighted mean.
    """
    found = [
        (head, weight, measure_affect(model, images, head.space, fabric, head.outputs))
        for images, head, weight in zip(sets, heads, weights, strict=True)
        if images is not None
    ]
    if not found:
        return None
    if len(heads) == 1:
        return found[0][2]
    mean = sum(weight * metrics["loss"] for _, weight, metrics in found) / sum(weight for _, weight, _ in found)
    named = {f"{head.name}_{key}": value for head, _, metrics in found for key, value in metrics.items()}
    return {"loss": mean, **named}


def check_labels(table: Table, space: EmotionSpace) -> None:
    """UserError for labels that the space does not have; names set and row."""
    count, width = len(table), len(space.names)
    dtype, shape = ("int64", (count,)) if space.kind == "category" else ("float32", (count, width))
    if (str(table.labels.dtype), table.labels.shape) != (dtype, shape):
        raise UserError(
            f"{table.name}: labels of {table.labels.dtype} {table.labels.shape}; "
            f"of kind '{space.kind}' with {width} names they must be {dtype} {shape}"
        )
    labels = torch.from_numpy(table.labels)
    if space.kind == "category":
        wrong = (labels < 0) | (labels >= len(space.names))
        allowed = f"0 to {len(space.names) - 1}"
    elif space.kind == "votes":
        wrong = ~torch.isfinite(labels).all(dim=1) | (labels < 0).any(dim=1) | (labels.sum(dim=1) <= 0)
        allowed = "not negative, and not all zero"
    else:
        wrong = ~(labels.abs() <= 1).all(dim=1)
        allowed = "-1 to 1"
    if wrong.any():
        row = int(wrong.nonzero()[0])
        where = f" ({table.images[row]})" if isinstance(table.images, list) else ""
        raise UserError(
            f"{table.name}: label out of range in row {row}{where}: {labels[row].tolist()}; "
            f"a label of kind '{space.kind}' must be {allowed}"
        )
