"""The pretext task of stage 1: what an encoder learns from affective stimuli, and its metrics.

Stated by the source (arXiv:2606.13081): the emotion that the images evoke. Ours are the twins' tasks, which show the
same images equally often and in the same order but teach nothing about emotion: permuted labels, labels that are not
emotions, and rotation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from emoreg.config.augment import AugmentSettings
from emoreg.config.schema import Pretext
from emoreg.data.images.batches import Batch, evaluation_batch_size
from emoreg.data.images.image_set import ImageSet
from emoreg.data.stimuli.emotion import EmotionSpace
from emoreg.data.stimuli.stimulus_set import Labels
from emoreg.errors import SettingError
from emoreg.runtime.progress import Progress
from emoreg.runtime.seeding import generator
from emoreg.stages.affective_heads import Head, affective_loss, image_losses, joint_loss, measure_heads
from emoreg.stages.outputs import outputs_in_order
from emoreg.stages.stimulus_mixture import SplitStimuli

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Maps an encoder with its read-out, images (B, 3, H, W) -> (B, E), and a batch of stimuli to the mean loss.
StimulusLoss = Callable[[Callable[[Tensor], Tensor], Batch], Tensor]

TURNS = (0, 90, 180, 270)  # degrees, counter-clockwise: the classes of rotation

# The neutral label of a set that is published without one.
APPEARANCE = EmotionSpace("dimensions", ("brightness", "colourfulness"))
LUMA = (0.2126, 0.7152, 0.0722)  # weights of R, G and B: Rec. ITU-R BT.709, applied to gamma-encoded pixels
EXTREMELY_COLOURFUL = 109.0  # the highest of people's seven ratings: Hasler & Süsstrunk 2003, table 2


@dataclass(frozen=True)
class PretextTask:
    """The task that an encoder with a linear read-out learns.

    Args:
        outputs: width of the read-out.
        loss_of: the loss to minimise.
        measure: maps a model and its image sets, one per stimulus set (None without images), to metrics; None if there
            are no images at all.
        read_out: meaning of the outputs, for the metadata of the weights.
    """

    outputs: int
    loss_of: StimulusLoss
    measure: Callable[[nn.Module, Sequence[ImageSet | None]], dict[str, float] | None]
    read_out: dict[str, Any]


def pretext_task(pretext: Pretext, heads: Sequence[Head], weights: Sequence[int], fabric: Fabric) -> PretextTask:
    """Make the task of a recipe; shuffled and neutral labels are learned by the same task as true ones.

    Args:
        pretext: name of the task.
        heads: one per stimulus set.
        weights: of the sets in the reported mean loss.
        fabric: device and precision.
    """
    if pretext == "rotation":
        return PretextTask(len(TURNS), _rotation_loss, partial(measure_rotation, fabric=fabric), {"turns": TURNS})

    def loss_of(model: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        outputs, share = model(batch.images), batch.share
        if batch.partner_labels is None or share is None:
            return _label_loss(outputs, batch.labels, heads)
        own = _label_loss(outputs, batch.labels, heads, share)
        return own + _label_loss(outputs, batch.partner_labels, heads, 1 - share)

    read_out: dict[str, Any] = {"space": dataclasses.asdict(heads[0].space)}
    if len(heads) > 1:
        read_out = {"heads": [dataclasses.asdict(head) for head in heads]}
    measure = partial(measure_heads, heads=heads, weights=weights, fabric=fabric)
    return PretextTask(heads[-1].stop, loss_of, measure, read_out)


def _label_loss(outputs: Tensor, labels: Tensor, heads: Sequence[Head], shares: Tensor | None = None) -> Tensor:
    """The mean loss over a batch, with each image's loss multiplied by its share if given."""
    if len(heads) > 1:
        return joint_loss(outputs, labels, heads, shares)
    if shares is None:
        return affective_loss(outputs, labels, heads[0].space)
    return (image_losses(outputs, labels, heads[0].space) * shares).mean()


def _rotation_loss(model: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
    rotated, turns = turned(batch.images)  # both parts of a mixed image are turned alike
    return F.cross_entropy(model(rotated), turns)


def chance_of(images: ImageSet | None, space: EmotionSpace, pretext: Pretext) -> float | None:
    """The accuracy of always predicting the most frequent class; None without images or without classes.

    Args:
        images: on which accuracy is measured.
        space: of their labels.
        pretext: name of the task; in rotation all four turns are equally frequent.
    """
    if images is None or not len(images):
        return None
    if pretext == "rotation":
        return 1 / len(TURNS)
    if space.kind == "dimensions":
        return None
    classes = images.labels if space.kind == "category" else images.labels.argmax(dim=1)
    return int(classes.bincount().max()) / len(images)


def with_shuffled_labels(splits: Sequence[SplitStimuli], seed: int) -> list[SplitStimuli]:
    """Permute the labels of the training images of each set, all labels of an image together.

    Validation and test images keep theirs, so that their metrics show whether anything about affect was learned.

    A set that occurs again, with other labels, gets the same permutation, so that an image gets both labels of one
    other image. If a kind of label leaves images out (such as ties), this holds as far as possible: an image whose
    source has no label takes the next source on its cycle of the permutation. Images that the first occurrence left out
    are permuted among themselves.

    Args:
        splits: one per stimulus set.
        seed: of the run; each set has its own permutation.
    """
    shuffled = []
    sources: dict[tuple[str, str, Path], dict[int, int]] = {}  # for each set, the row whose labels a row gets
    for number, split in enumerate(splits):
        own, rows = generator(seed, "shuffle", number), split.rows[0]
        place = split.train.name, split.settings.name, Path(split.settings.root or "")
        if place in sources:
            order = _same_order(rows, sources[place], own)
        else:
            order = torch.randperm(len(rows), generator=own).numpy()
            sources[place] = dict(zip(rows.tolist(), rows[order].tolist(), strict=True))
        train = dataclasses.replace(split.train, labels=split.train.labels[order])
        shuffled.append(dataclasses.replace(split, train=train))
    return shuffled


def _same_order(rows: NDArray[np.int64], sources: dict[int, int], draw: torch.Generator) -> NDArray[np.int64]:
    """For each of the `rows`, the index of the row whose label it gets, as far as possible by `sources`."""
    index_of = {row: index for index, row in enumerate(rows.tolist())}
    order = np.arange(len(rows))
    for row, index in index_of.items():
        if row in sources:
            source = sources[row]
            while source not in index_of:  # ends at the row itself at the latest
                source = sources[source]
            order[index] = index_of[source]
    new = np.array([index for row, index in index_of.items() if row not in sources], np.int64)
    order[new] = new[torch.randperm(len(new), generator=draw).numpy()]
    return order


def refuse_mixed_ratings(splits: Sequence[SplitStimuli], pretext: Pretext, augment: AugmentSettings) -> None:
    """Raise SettingError if mixed images would get mixed ratings, which have no meaning.

    A mixture of two images has shares of two categories or distributions. But what it evokes is not the mean of two
    ratings: randomly mixed images with numbers for labels get arbitrary ones (Yao et al. 2022, "C-Mixup"). Rotation
    needs no label: both images of a mixture are turned alike.

    Args:
        splits: with the labels to learn.
        pretext: the task that is learned from them.
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
    """Give all images of the sets labels that are not emotions.

    They are published ones if the set has them (OASIS's Category), else labels in APPEARANCE, which are zeros until the
    images are decoded: see `labelled_by_appearance`. Raise SettingError for procedural stimuli.
    """
    relabelled = []
    for split in splits:
        if split.train.name == "procedural":
            raise SettingError(
                "pretext",
                "must not be neutral with procedural stimuli: their emotion is computed from brightness and colour, so "
                "these are not a neutral label; choose rated stimuli, or leave the twin neutral out",
            )
        count = int(np.concatenate(split.rows).max()) + 1
        relabelled.append(split.relabelled(split.neutral or Labels(APPEARANCE, np.zeros((count, 2), np.float32))))
    return relabelled


def labelled_by_appearance(images: ImageSet, progress: Progress) -> ImageSet:
    """Label images by `appearance`, from their pixels at the network's size (ours).

    A label depends on its own image only. Augmentation does not change it: flips do not affect it, and the zero padding
    of crops, which darkens, is off by default in stage 1.

    Args:
        images: on any device; a set too large to hold in memory is read once.
        progress: shows how many images are measured.
    """
    parts = []
    with progress.task(f"colours of {images.table.name}", len(images), "images") as advance:
        for pixels, _, _ in images.batches(torch.arange(len(images)), evaluation_batch_size(images.image_size)):
            parts.append(appearance(pixels))
            advance(len(pixels))
    labels = torch.cat(parts)
    return dataclasses.replace(
        images, table=dataclasses.replace(images.table, labels=labels.cpu().numpy()), labels=labels
    )


def appearance(pixels: Tensor) -> Tensor:
    """Return the brightness and colourfulness of images, each in [-1, 1] like ratings.

    Brightness is the mean luma, from black (-1) to white (1). Colourfulness is the measure M of Hasler & Süsstrunk 2003
    ("Measuring colorfulness in natural images"), fitted to people's ratings, from none (-1) to "extremely colourful"
    (1; values above are clipped). The scales are ours. For OASIS at 32 pixels their standard deviations are 0.28 and
    0.46; those of valence and arousal are 0.42 and 0.27.

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
    """Rotate each image by a random number of quarter turns, which a network learns to predict.

    Gidaris, Singh & Komodakis 2018, "Unsupervised representation learning by predicting image rotations", put all four
    rotations of an image into a batch. Here it is one (ours), so that a twin takes as many images and steps as its arm.

    Args:
        images: (B, 3, S, S). Turns are drawn from torch's default generator, like dropout.

    Returns:
        The images in channels-last memory format, and the index of each image's angle in `TURNS`, int64 (B,).
    """
    turns = torch.randint(len(TURNS), (len(images),), device=images.device)
    return turned_by(images, turns), turns


def turned_by(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate each of the images (B, 3, S, S) by the angle in `TURNS` with its index, int64 (B,); channels last."""
    half, quarter = (turns >= 2).view(-1, 1, 1, 1), (turns % 2 == 1).view(-1, 1, 1, 1)  # 270° is both
    images = torch.where(half, images.flip((2, 3)), images)
    images = torch.where(quarter, images.rot90(1, (2, 3)), images)
    return images.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def measure_rotation(model: nn.Module, sets: Sequence[ImageSet | None], fabric: Fabric) -> dict[str, float] | None:
    """Measure accuracy and loss (mean cross-entropy, nats) over all four rotations of every image.

    Args:
        model: maps images to (B, 4).
        sets: every image has the same weight; None for a set without images.
        fabric: device and precision.

    Returns:
        None if there are no images at all.
    """

    def all_turns(batch: Tensor) -> list[Tensor]:
        turns = torch.arange(len(TURNS), device=batch.device)
        return [model(turned_by(batch, turn.expand(len(batch)))).float() for turn in turns]

    model.eval()
    loss, hits, count = 0.0, 0, 0
    for images in (images for images in sets if images is not None):
        for _, _, of_turns in outputs_in_order(images, fabric, all_turns):
            for turn, outputs in enumerate(of_turns):
                truth = torch.full((len(outputs),), turn, device=outputs.device)
                loss += F.cross_entropy(outputs, truth, reduction="sum").item()
                hits += int((outputs.argmax(dim=1) == truth).sum())
                count += len(outputs)
    return {"loss": loss / count, "accuracy": hits / count} if count else None
