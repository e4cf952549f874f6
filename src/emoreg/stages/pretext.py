"""The pretext task of stage 1: what an encoder learns from affective stimuli, and its metrics.

Stated by the source (arXiv:2606.13081): the emotion that the images evoke. Ours are the twins' tasks, which show the
same images equally often and in the same order and teach nothing of emotion: permuted labels, labels that are no
emotion, and rotation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from emoreg.config.augment import AugmentSettings
from emoreg.config.schema import Pretext
from emoreg.data.images.batches import Batch, evaluation_batches
from emoreg.data.images.image_set import ImageSet
from emoreg.data.stimuli.emotion import EmotionSpace
from emoreg.data.stimuli.stimulus_set import Labels
from emoreg.errors import SettingError
from emoreg.runtime.progress import Progress
from emoreg.runtime.seeding import generator
from emoreg.stages.affective_heads import Head, affective_loss, image_losses, joint_loss, measure_heads
from emoreg.stages.stimulus_mixture import SplitStimuli

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# The mean loss of a read-out, images (B, 3, H, W) -> (B, E), over a batch that is labelled as the stimuli are.
StimulusLoss = Callable[[Callable[[Tensor], Tensor], Batch], Tensor]

TURNS = (0, 90, 180, 270)  # degrees, counter-clockwise: the classes of rotation

# The neutral label of a set that is published without one.
APPEARANCE = EmotionSpace("dimensions", ("brightness", "colourfulness"))
LUMA = (0.2126, 0.7152, 0.0722)  # of R, G and B: Rec. ITU-R BT.709, applied to the pixels as they are, gamma-encoded
EXTREMELY_COLOURFUL = 109.0  # the highest of the seven steps that people told apart: Hasler & Süsstrunk 2003, table 2


@dataclass(frozen=True)
class PretextTask:
    """What an encoder with a linear read-out learns.

    Args:
        outputs: width of the read-out.
        loss_of: what is minimised.
        measure: maps a model and its image sets, one per stimulus set (None without images), to metrics; None if there
            are no images at all.
        read_out: meaning of the outputs, for the metadata of the weights.
    """

    outputs: int
    loss_of: StimulusLoss
    measure: Callable[[nn.Module, Sequence[ImageSet | None]], dict[str, float] | None]
    read_out: dict[str, Any]


def pretext_task(pretext: Pretext, heads: Sequence[Head], weights: Sequence[int], fabric: Fabric) -> PretextTask:
    """The task of a recipe; shuffled and neutral labels are learned by the same task as true ones.

    Args:
        pretext: name of the task.
        heads: one per stimulus set.
        weights: of the sets in the reported mean loss.
        fabric: device and precision.
    """
    return _rotation(fabric) if pretext == "rotation" else _affect(heads, weights, fabric)


def _affect(heads: Sequence[Head], weights: Sequence[int], fabric: Fabric) -> PretextTask:
    is_union = len(heads) > 1

    def loss_of(model: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        outputs = model(batch.images)
        if batch.partner_labels is None or batch.share is None:
            return loss_by(outputs, batch.labels)
        return loss_by(outputs, batch.labels, batch.share) + loss_by(outputs, batch.partner_labels, 1 - batch.share)

    def loss_by(outputs: Tensor, labels: Tensor, shares: Tensor | None = None) -> Tensor:
        if is_union:
            return joint_loss(outputs, labels, heads, shares)
        if shares is None:
            return affective_loss(outputs, labels, heads[0].space)
        return (image_losses(outputs, labels, heads[0].space) * shares).mean()

    def measure(model: nn.Module, sets: Sequence[ImageSet | None]) -> dict[str, float] | None:
        return measure_heads(model, sets, heads, weights, fabric)

    read_out: dict[str, Any] = {"space": dataclasses.asdict(heads[0].space)}
    if is_union:
        read_out = {"heads": [dataclasses.asdict(head) for head in heads]}
    return PretextTask(heads[-1].stop, loss_of, measure, read_out)


def _rotation(fabric: Fabric) -> PretextTask:
    def loss_of(model: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        rotated, turns = turned(batch.images)  # both parts of a mixed image by the same turn
        return F.cross_entropy(model(rotated), turns)

    def measure(model: nn.Module, sets: Sequence[ImageSet | None]) -> dict[str, float] | None:
        return measure_rotation(model, sets, fabric)

    return PretextTask(len(TURNS), loss_of, measure, {"turns": TURNS})


def chance_of(images: ImageSet | None, space: EmotionSpace, pretext: Pretext) -> float | None:
    """The accuracy of whoever always gives the most frequent answer; None without images, or where there is none.

    Args:
        images: that the accuracy is measured on.
        space: of their labels.
        pretext: name of the task; of four quarter turns each is a quarter of the answers.
    """
    if images is None or not len(images):
        return None
    if pretext == "rotation":
        return 1 / len(TURNS)
    if space.kind == "dimensions":
        return None
    answers = images.labels if space.kind == "category" else images.labels.argmax(dim=1)
    return int(answers.bincount().max()) / len(images)


def with_shuffled_labels(splits: Sequence[SplitStimuli], seed: int) -> list[SplitStimuli]:
    """The sets with the labels of their training images permuted, all labels of an image together.

    Validation and test images keep theirs, so that their metrics show whether anything about affect was learned.

    A set that occurs again, under other labels, is permuted as at its first time: an image gets both labels of one
    other image. Where a kind of label leaves images out (ties, say), this holds as far as it can: an image whose
    new label is left out gets the next one on its cycle of the permutation that is not. Images that the first
    occurrence left out are permuted among themselves.

    Args:
        splits: one per stimulus set.
        seed: of the run; each set has its own permutation.
    """
    shuffled = []
    first: dict[tuple[str, str, Path], dict[int, int]] = {}  # of each set: which image's labels an image gets, by rows
    for number, split in enumerate(splits):
        own, rows = generator(seed, "shuffle", number), split.rows[0]
        earlier = first.get(place := (split.train.name, split.settings.name, Path(split.settings.root or "")))
        if earlier is None:
            order = torch.randperm(len(rows), generator=own).numpy()
            first[place] = dict(zip(rows.tolist(), rows[order].tolist(), strict=True))
        else:
            order = _order_as_before(rows, earlier, own)
        train = dataclasses.replace(split.train, labels=split.train.labels[order])
        shuffled.append(dataclasses.replace(split, train=train))
    return shuffled


def _order_as_before(rows: NDArray[np.int64], earlier: dict[int, int], draw: torch.Generator) -> NDArray[np.int64]:
    """For each of the `rows` the place among them of the row whose label it gets, as far as possible by `earlier`."""
    place = {row: index for index, row in enumerate(rows.tolist())}
    order = np.arange(len(rows))
    for row, index in place.items():
        if row in earlier:
            source = earlier[row]
            while source not in place:  # ends at the row itself, if not before
                source = earlier[source]
            order[index] = place[source]
    new = np.array([index for row, index in place.items() if row not in earlier], np.int64)
    order[new] = new[torch.randperm(len(new), generator=draw).numpy()]
    return order


def refuse_neutral(sets: Sequence[str]) -> None:
    """SettingError for the pretext `neutral` with procedural stimuli, given the names of the sets."""
    if "procedural" in sets:
        raise SettingError(
            "pretext",
            "must not be neutral with procedural stimuli: their emotion is computed from brightness and colour, so "
            "these are no neutral label; choose rated stimuli, or leave the twin neutral out",
        )


def refuse_mixed_ratings(splits: Sequence[SplitStimuli], pretext: Pretext, augment: AugmentSettings) -> None:
    """SettingError where mixed images would get mixed ratings, which have no meaning.

    Of a category or a distribution a mixture has shares. A rating between two images' is not what their mixture evokes:
    mixed at random, images with numbers for labels have arbitrary ones (Yao et al. 2022, "C-Mixup"). Rotation needs
    no label: both images of a mixture are turned alike.

    Args:
        splits: with the labels that are learned.
        pretext: what is learned from them.
        augment: of the recipe.
    """
    if augment.mixing is None or pretext == "rotation":
        return
    for split in splits:
        if split.space.kind == "dimensions":
            raise SettingError(
                f"augment.{augment.mixing}",
                f"must be 0 where images have ratings ({split.train.name}: {', '.join(split.space.names)}): what a "
                "mixture of two images evokes is not the mean of what they evoke; categories and distributions can "
                "be mixed",
            )


def with_neutral_labels(splits: Sequence[SplitStimuli]) -> list[SplitStimuli]:
    """The sets with labels that are no emotion, for all their images.

    A published one where the set has it (OASIS's Category). Else labels in APPEARANCE, zeros until the images are
    decoded: see `labelled_by_appearance`.
    """
    relabelled = []
    for split in splits:
        count = int(np.concatenate(split.rows).max()) + 1
        relabelled.append(split.relabelled(split.neutral or Labels(APPEARANCE, np.zeros((count, 2), np.float32))))
    return relabelled


def labelled_by_appearance(images: ImageSet, progress: Progress) -> ImageSet:
    """The same images, labelled with what they look like, from their pixels at the network's size (ours).

    A label depends on its own image alone. It has no part in augmentation: flips leave it as it is, and the zero
    padding of crops, which darkens, is off by default in stage 1.

    Args:
        images: on any device; a set too large to hold in memory is read once.
        progress: shows how many images are measured.
    """
    parts = []
    with progress.task(f"colours of {images.table.name}", len(images), "images") as advance:
        for pixels, _, _ in images.batches(torch.arange(len(images)), 512):
            parts.append(appearance(pixels))
            advance(len(pixels))
    labels = torch.cat(parts)
    return dataclasses.replace(
        images, table=dataclasses.replace(images.table, labels=labels.cpu().numpy()), labels=labels
    )


def appearance(pixels: Tensor) -> Tensor:
    """Brightness and colourfulness of images, each in [-1, 1] as ratings are.

    Brightness is the mean luma, from black (-1) to white (1). Colourfulness is the measure M of Hasler & Süsstrunk 2003
    ("Measuring colorfulness in natural images"), which followed people's ratings, from none (-1) to "extremely
    colourful" (1; what is above is clipped). The scales are ours. Over OASIS at 32 pixels their deviations are 0.28 and
    0.46, those of valence and arousal 0.42 and 0.27.

    Args:
        pixels: uint8 (B, 3, H, W).

    Returns:
        float32 (B, 2), on the same device.
    """
    channels = pixels.flatten(2).float()  # (B, 3, H·W), 0 to 255
    brightness = (channels.mean(dim=2) * channels.new_tensor(LUMA)).sum(dim=1)
    red, green, blue = channels.unbind(dim=1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue], dim=1)  # (B, 2, H·W): rg and yb
    deviation = opponents.var(dim=2, correction=0).sum(dim=1).sqrt()
    colourfulness = deviation + 0.3 * opponents.mean(dim=2).square().sum(dim=1).sqrt()
    labels = torch.stack([brightness / 255, colourfulness / EXTREMELY_COLOURFUL], dim=1)
    return (2 * labels - 1).clamp(-1, 1)


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
    return turned_by(images, turns), turns


def turned_by(images: Tensor, turns: Tensor) -> Tensor:
    """Images (B, 3, S, S), each rotated by the angle in `TURNS` of its index, int64 (B,); channels last."""
    half, quarter = (turns >= 2).view(-1, 1, 1, 1), (turns % 2 == 1).view(-1, 1, 1, 1)  # 270° is both
    images = torch.where(half, images.flip((2, 3)), images)
    images = torch.where(quarter, images.rot90(1, (2, 3)), images)
    return images.contiguous(memory_format=torch.channels_last)


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
                truth = torch.full((len(batch),), turn, device=batch.device)
                with fabric.autocast():
                    outputs = model(turned_by(batch, truth)).float()
                loss += F.cross_entropy(outputs, truth, reduction="sum").item()
                hits += int((outputs.argmax(dim=1) == truth).sum())
                count += len(batch)
    return {"loss": loss / count, "accuracy": hits / count} if count else None
