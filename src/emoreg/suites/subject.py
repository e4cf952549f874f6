"""What suites are scored on: a finished classifier with the images that it is scored on, and its answers to images."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import TargetSettings
from emoreg.config.target_words import ANSWERED
from emoreg.config.training import Device
from emoreg.data.images.augment import normalise
from emoreg.data.images.image_set import ImageSet
from emoreg.data.images.splits import at_most
from emoreg.data.targets import read_target
from emoreg.data.targets.target import GIVEN_IMAGES, Target
from emoreg.errors import SettingError, UserError
from emoreg.models.regulation import RegulatedClassifier, Response
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.runtime.seeding import derive_seed
from emoreg.stages.classifier import load_classifier
from emoreg.stages.classify import load_target, parts_of
from emoreg.stages.metrics import CHECKSUM_BYTES
from emoreg.suites.options import OtherSet
from emoreg.training.fabric import make_fabric, place, scoring

if TYPE_CHECKING:
    from lightning_fabric import Fabric

BATCH = 256  # images at a time, in every arm: the last digits of sums depend on it


class Answers(NamedTuple):
    """A classifier's answers to N images, on the CPU."""

    logits: Tensor  # z, float32 (N, K)
    energy: Tensor  # float64 (N,), of `energy_of`
    labels: Tensor  # int64 (N,)

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return (self.logits.argmax(dim=1) == self.labels).double().mean().item()


@dataclass(frozen=True)
class Subject:
    """A finished run of stage 2, ready to be scored.

    Args:
        run: its folder.
        recipe: its recipe, with the root where its images are now.
        classifier: on the device, in evaluation.
        fabric: device and precision.
        progress: for people.
        scored: the images that figures are of, on the device: the run's test images, or, of a run that leaves its
            test split unseen, its validation images.
        held_out: images that neither trained the run nor are scored, its validation images; None without any.
    """

    run: Run
    recipe: TrainRecipe
    classifier: RegulatedClassifier
    fabric: Fabric
    progress: Progress
    scored: ImageSet
    held_out: ImageSet | None

    @property
    def is_tested(self) -> bool:
        """Whether the images are of the test split."""
        return self.recipe.target.test

    @property
    def name(self) -> str:
        """Of the images, for reports."""
        return "test images" if self.is_tested else "validation images"

    @torch.no_grad()
    def answers(self, images: ImageSet) -> Answers:
        """The answers to images, in their order."""
        logits, energies, labels = [], [], []
        for pixels, truth, _ in images.batches(torch.arange(len(images)), BATCH):
            with self.fabric.autocast():
                response = self.classifier.respond(normalise(pixels))
            logits.append(response.logits.float().cpu())
            energies.append(energy_of(response, self.classifier.mix).cpu())
            labels.append(truth.cpu())
        return Answers(torch.cat(logits), torch.cat(energies), torch.cat(labels))


def energy_of(response: Response, mix: str) -> Tensor:
    """The energy score log Σ exp z, which is high on images like those of training (Liu et al. 2020, T = 1), (N,).

    Where λ mixes probabilities, z are log-probabilities, whose sum is always 1: there it is the mean of both
    responses' energies, weighted by λ (ours).
    """
    if response.emotional is None or response.lam is None or mix != "probabilities":
        return response.logits.double().logsumexp(dim=1)
    lam = response.lam.double().mean(dim=1)  # (N,) or (1,)
    parts = (part.double().logsumexp(dim=1) for part in (response.non_emotional, response.emotional))
    non_emotional, emotional = parts
    return (1 - lam) * non_emotional + lam * emotional


def refuse_task(target: TargetSettings, what: str) -> None:
    """UserError for a target that does not ask for one class of each image; `what` has it."""
    if target.task != "classification":
        raise UserError(f"{what} answers with {ANSWERED[target.task]}; suites score classifiers of one class an image")


def open_subject(
    run: Run,
    recipe: TrainRecipe | None = None,
    device: Device = "auto",
    model: RegulatedClassifier | None = None,
    data: Target | None = None,
    progress: Progress | None = None,
) -> Subject:
    """Load a finished run of stage 2 with the images that it is scored on.

    Args:
        run: of stage 2.
        recipe: its recipe with the root where its images are now; None for the run's own.
        device: as training.device.
        model: for a run that trained your own model, one built alike.
        data: for a run that was given its images in Python, the same.
        progress: where it is shown; None for the terminal.

    Raises:
        UserError: a run of stage 1, or not finished, or without weights; images that are missing, or not those that the
            run was scored on.
    """
    progress = progress or Progress()
    own = run.recipe
    if not isinstance(own, TrainRecipe):
        raise UserError(f"{run.folder} is a run of stage 1; suites score classifiers")
    recipe = recipe or own
    refuse_task(own.target, str(run.folder))
    final = run.final
    classifier, classes = load_classifier(run, model)
    if data is None and recipe.target.name.startswith(GIVEN_IMAGES):
        raise UserError(
            f"{run.folder} was trained on images that were given in Python ({recipe.target.name}): give them again, "
            "emoreg.score_suites(..., data=...)"
        )
    training = scoring(recipe, run, device)
    fabric = make_fabric(training)
    target = read_target(recipe.target, recipe.edition) if data is None else data
    if tuple(target.classes) != classes:
        raise UserError(f"{run.folder}: the classes of {recipe.target.name} are not those that it was trained on")
    _, validation, test = parts_of(target, recipe)
    scored, held_out = (test, validation) if test is not None else (validation, None)
    assert scored is not None  # a target without test images has validation images: TargetSettings says so
    images = load_target(scored, recipe.target, training, fabric, progress)
    _refuse_others(run, final, images, "test" if test is not None else "validation")
    rest = None if held_out is None else load_target(held_out, recipe.target, training, fabric, progress)
    classifier.freeze_encoder = False  # else no gradient of an attack would flow through the encoder
    return Subject(run, recipe, place(classifier, fabric).eval(), fabric, progress, images, rest)


def other_target(subject: Subject, sets: Sequence[OtherSet], number: int) -> tuple[Target, TargetSettings]:
    """One of the other sets, to be read at the size of the run's target. SettingError names its entry."""
    own = subject.recipe.target
    settings = sets[number].target(own.image_size, own.fit)
    try:
        return read_target(settings), settings
    except SettingError as error:
        key = error.key.removeprefix("target.")
        if key in ("image_size", "fit"):  # of the run's target: another set has none of its own
            reason = f"is a pack of another {key}: pack it again for {getattr(settings, key)}, or give its files"
            raise SettingError(f"sets[{number}].root", reason) from None
        raise SettingError(f"sets[{number}].{key}", error.reason) from None


def _refuse_others(run: Run, final: Mapping[str, Any], images: ImageSet, split: str) -> None:
    """UserError if these are not the images that the run was scored on."""
    was = final.get(split) or {}
    count, checksum = was.get("images"), was.get("checksum")
    is_other = count is not None and count != len(images)
    if not is_other and checksum is not None and images.pixels is not None:
        is_other = checksum_of(images) != checksum
    if is_other:
        raise UserError(
            f"{run.folder}: the {split} images are not those that the run was scored on when training ended; bring "
            "back what it was begun with"
        )


def checksum_of(images: ImageSet) -> str:
    """A digest of the pixels in their order, as in a run's final.json."""
    checksum = hashlib.blake2b(digest_size=CHECKSUM_BYTES)
    for pixels, _, _ in images.batches(torch.arange(len(images)), BATCH):
        checksum.update(pixels.permute(0, 2, 3, 1).cpu().numpy().tobytes())
    return checksum.hexdigest()


def drawn(images: ImageSet, limit: int | None, seed: int) -> ImageSet:
    """At most `limit` of the images, drawn by seed with the classes in proportion, in their order; None for all."""
    if limit is None or limit >= len(images):
        return images
    return _take(images, drawn_rows(images.labels.cpu().numpy(), limit, seed))


def drawn_rows(labels: NDArray[np.int64] | NDArray[np.float32], limit: int, seed: int) -> NDArray[np.int64]:
    """Rows of at most `limit` images, as `drawn`, by the labels of all."""
    return at_most(np.arange(len(labels)), labels, limit, derive_seed(seed, "suites"))


def _take(images: ImageSet, rows: NDArray[np.int64]) -> ImageSet:
    """The images of these rows, in this order."""
    index = torch.from_numpy(rows).to(images.labels.device)
    table = images.table.take(rows)
    pixels = images.pixels
    if pixels is not None:
        pixels = pixels.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)
    return ImageSet(table, images.image_size, pixels, images.labels.index_select(0, index), images.fit)


def with_pixels(images: ImageSet, pixels: Tensor) -> ImageSet:
    """The same labels with other pixels, uint8 (N, 3, S, S)."""
    return dataclasses.replace(images, pixels=pixels.to(images.labels.device))
