"""The pretext task of stage 1: what an encoder learns from affective stimuli, and its metrics.

Stated by the source (arXiv:2606.13081): the emotion that the images evoke. Ours are two controls, which see the same
images equally often and in the same order and learn nothing of emotion: permuted labels, and rotation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emoreg.config.schema import Pretext
from emoreg.data.images.batches import Batch, evaluation_batches
from emoreg.data.images.image_set import ImageSet
from emoreg.runtime.seeding import generator
from emoreg.stages.affective_heads import Head, affective_loss, joint_loss, measure_heads
from emoreg.stages.stimulus_mixture import Cut

if TYPE_CHECKING:
    from lightning_fabric import Fabric

TURNS = (0, 90, 180, 270)  # degrees, counter-clockwise: the classes of rotation


@dataclass(frozen=True)
class PretextTask:
    """What an encoder with a linear read-out learns.

    Args:
        outputs: width of the read-out.
        loss_of: maps (model, batch labelled as the stimuli are) to a scalar loss.
        measure: maps a model and its image sets, one per stimulus set (None without images), to metrics; None if there
            are no images at all.
        read_out: meaning of the outputs, for the metadata of the weights.
    """

    outputs: int
    loss_of: Callable[[nn.Module, Batch], Tensor]
    measure: Callable[[nn.Module, Sequence[ImageSet | None]], dict[str, float] | None]
    read_out: dict[str, Any]


def pretext_task(pretext: Pretext, heads: Sequence[Head], weights: Sequence[int], fabric: Fabric) -> PretextTask:
    """The task of a recipe; shuffled labels are learned by the same task as true ones.

    Args:
        pretext: name of the task.
        heads: one per stimulus set.
        weights: of the sets in the reported mean loss.
        fabric: device and precision.
    """
    return _rotation(fabric) if pretext == "rotation" else _affect(heads, weights, fabric)


def _affect(heads: Sequence[Head], weights: Sequence[int], fabric: Fabric) -> PretextTask:
    is_union = len(heads) > 1

    def loss_of(model: nn.Module, batch: Batch) -> Tensor:
        if is_union:
            return joint_loss(model(batch.images), batch.labels, heads)
        return affective_loss(model(batch.images), batch.labels, heads[0].space)

    def measure(model: nn.Module, sets: Sequence[ImageSet | None]) -> dict[str, float] | None:
        return measure_heads(model, sets, heads, weights, fabric)

    read_out: dict[str, Any] = {"space": dataclasses.asdict(heads[0].space)}
    if is_union:
        read_out = {"heads": [dataclasses.asdict(head) for head in heads]}
    return PretextTask(heads[-1].stop, loss_of, measure, read_out)


def _rotation(fabric: Fabric) -> PretextTask:
    def loss_of(model: nn.Module, batch: Batch) -> Tensor:
        rotated, turns = turned(batch.images)
        return F.cross_entropy(model(rotated), turns)

    def measure(model: nn.Module, sets: Sequence[ImageSet | None]) -> dict[str, float] | None:
        return measure_rotation(model, sets, fabric)

    return PretextTask(len(TURNS), loss_of, measure, {"turns": TURNS})


def with_shuffled_labels(cuts: Sequence[Cut], seed: int) -> list[Cut]:
    """The sets with the labels of their training images permuted, all labels of an image together.

    Validation and test images keep theirs, so that their metrics show whether anything about affect was learned.

    Args:
        cuts: one per stimulus set.
        seed: of the run; each set has its own permutation.
    """
    shuffled = []
    for number, cut in enumerate(cuts):
        order = torch.randperm(len(cut.train), generator=generator(seed, "shuffle", number)).numpy()
        train = dataclasses.replace(cut.train, labels=cut.train.labels[order])
        shuffled.append(dataclasses.replace(cut, train=train))
    return shuffled


def turned(images: Tensor) -> tuple[Tensor, Tensor]:
    """Each image rotated by a random number of quarter turns, which a network is to predict (Gidaris, Singh &
    Komodakis 2018, "Unsupervised representation learning by predicting image rotations").

    Gidaris et al. put all four rotations of an image into a batch. Here it is one (ours), so that a control takes as
    many images and steps as the arm that it controls for.

    Args:
        images: (B, 3, S, S). Draws come from torch's default generator, as dropout's do.

    Returns:
        The images in channels-last memory format, and the index of each one's angle in `TURNS`, int64 (B,).
    """
    turns = torch.randint(len(TURNS), (len(images),), device=images.device)
    half, quarter = (turns >= 2).view(-1, 1, 1, 1), (turns % 2 == 1).view(-1, 1, 1, 1)  # 270° is both
    images = torch.where(half, images.flip((2, 3)), images)
    images = torch.where(quarter, images.rot90(1, (2, 3)), images)
    return images.contiguous(memory_format=torch.channels_last), turns


@torch.no_grad()
def measure_rotation(model: nn.Module, sets: Sequence[ImageSet | None], fabric: Fabric) -> dict[str, float] | None:
    """Accuracy and loss (mean cross-entropy, nats) over all four rotations of every image; chance is 1/4 and ln 4.

    Args:
        model: maps images to (B, 4).
        sets: every image has the same weight; None for a set without images.
        fabric: device and precision.

    Returns:
        None if there are no images at all.
    """
    model.eval()
    loss, hits, count = 0.0, 0, 0
    for images in (images for images in sets if images is not None):
        for batch, _ in evaluation_batches(images):
            for turn in range(len(TURNS)):
                rotated = batch.rot90(turn, (2, 3)).contiguous(memory_format=torch.channels_last)
                with fabric.autocast():
                    outputs = model(rotated).float()
                truth = torch.full((len(batch),), turn, device=batch.device)
                loss += F.cross_entropy(outputs, truth, reduction="sum").item()
                hits += int((outputs.argmax(dim=1) == truth).sum())
                count += len(batch)
    return {"loss": loss / count, "accuracy": hits / count} if count else None
