"""A finished classifier to be scored in suites, with its images and its outputs, and the result of scoring it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import TargetSettings
from emoreg.config.training import Device
from emoreg.data.embedded import without_unread_root
from emoreg.data.fingerprint import contents_of
from emoreg.data.given import contents_of_given
from emoreg.data.images.image_set import ImageSet
from emoreg.data.images.splits import at_most
from emoreg.data.images.table import Table
from emoreg.data.targets import read_target
from emoreg.data.targets.target import GIVEN_IMAGES, Target, check_target
from emoreg.errors import SettingError, UserError
from emoreg.models.regulation import RegulatedClassifier, Response
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.runtime.seeding import derive_seed
from emoreg.stages.classifier import load_classifier
from emoreg.stages.metrics import CHECKSUM_BYTES
from emoreg.stages.outputs import outputs_in_order
from emoreg.stages.target_images import load_target, parts_of
from emoreg.suites.options import OtherSet, WithSets
from emoreg.training.fabric import make_fabric, place, scoring_settings

if TYPE_CHECKING:
    from lightning_fabric import Fabric

BATCH = 256  # the same in every arm: the last digits of sums depend on it
MORE = "'emoreg[suites]'"  # for pip: the extra with the libraries of suites


class Outputs(NamedTuple):
    """A classifier's outputs for N images, on the CPU."""

    logits: Tensor  # z, float32 (N, K)
    energy: Tensor  # float64 (N,), from `energy_of`
    labels: Tensor  # int64 (N,)

    @property
    def accuracy(self) -> float:
        """Accuracy, in [0, 1]."""
        return (self.logits.argmax(dim=1) == self.labels).double().mean().item()


@dataclass(frozen=True)
class Subject:
    """A finished run of stage 2, ready to be scored.

    Args:
        run: the run.
        recipe: its recipe, with the current root of its images.
        classifier: on the device, in evaluation mode.
        fabric: device and precision.
        progress: shows progress.
        scored: images to score, on the device: the run's test images, or, if the test split stays unseen, its
            validation images.
        held_out: validation images beside test images: neither trained on nor scored; None if there are none. Who uses
            them first calls `refuse_changed_images`.
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
        """Whether the scored images are of the test split."""
        return self.recipe.target.test

    @property
    def name(self) -> str:
        """Name of the scored images in reports."""
        return "test images" if self.is_tested else "validation images"

    def predict(self, images: ImageSet) -> Outputs:
        """Compute the outputs for images, in their order."""
        return outputs_of(self.classifier, images, self.fabric)


@dataclass(frozen=True)
class Scored:
    """Figures of a suite.

    Args:
        figures: by name, in their order.
        images: a description of the images.
        checksums: of the images' pixels, by set.
    """

    figures: Mapping[str, float]
    images: str
    checksums: Mapping[str, str]


@torch.no_grad()
def outputs_of(classifier: RegulatedClassifier, images: ImageSet, fabric: Fabric) -> Outputs:
    """Compute the outputs of a classifier in evaluation mode for images, in their order; both are on the device."""
    logits, energies, labels = [], [], []
    for _, truth, response in outputs_in_order(images, fabric, classifier.respond, batch_size=BATCH):
        logits.append(response.logits.float().cpu())
        energies.append(energy_of(response, classifier.mix))
        labels.append(truth.cpu())
    return Outputs(torch.cat(logits), torch.cat(energies), torch.cat(labels))


def energy_of(response: Response, mix: str) -> Tensor:
    """The energy score log Σ exp z, (N,) on the CPU, which is high on images like the training images.

    Liu et al. 2020, with T = 1.

    If λ mixes probabilities, z are log-probabilities, whose energy is always 0. Then it is the mean of both responses'
    energies, weighted by λ (ours).
    """
    if response.emotional is None or response.lam is None or mix != "probabilities":
        return _doubled(response.logits).logsumexp(dim=1)
    lam = _doubled(response.lam).mean(dim=1)  # (N,) or (1,)
    non_emotional, emotional = (
        _doubled(part).logsumexp(dim=1) for part in (response.non_emotional, response.emotional)
    )
    return (1 - lam) * non_emotional + lam * emotional


def _doubled(values: Tensor) -> Tensor:
    """Convert to double precision on the CPU: Apple's GPUs have none."""
    return values.cpu().double()


def open_subject(
    run: Run,
    recipe: TrainRecipe,
    device: Device,
    model: RegulatedClassifier | None,
    data: Target | None,
    progress: Progress,
) -> Subject:
    """Load a run that `require_scorable` accepts, with its images; the arguments are those of `score_suites`.

    Raises:
        UserError: its images are missing, or have changed.
    """
    # A caller keeps training a model that is given: scoring changes which of its parameters have gradients.
    classifier, classes = load_classifier(run, copy.deepcopy(model))
    training = scoring_settings(recipe, run, device)
    fabric = make_fabric(training)
    _, validation, test = parts_of(target_of(run, recipe, classes, data), recipe)
    scored, held_out = (test, validation) if test is not None else (validation, None)
    assert scored is not None  # TargetSettings requires validation images if the test split stays unseen
    images = load_target(scored, recipe.target, training, fabric, progress)
    refuse_changed_images(run, recipe, images, "test" if test is not None else "validation")
    rest = None if held_out is None else load_target(held_out, recipe.target, training, fabric, progress)
    classifier.freeze_encoder = False  # otherwise gradients of attacks would not flow through the encoder
    return Subject(run, recipe, place(classifier, fabric).eval(), fabric, progress, images, rest)


def target_of(run: Run, recipe: TrainRecipe, classes: tuple[str, ...], data: Target | None) -> Target:
    """Return `data`, the images that a run was given in Python, or else read the target of its recipe.

    Raises:
        UserError: the images are missing, are not given again, or have other classes than the run's classifier.
    """
    if data is None and recipe.target.name.startswith(GIVEN_IMAGES):
        raise UserError(
            f"{run.folder} was trained on images that were given in Python ({recipe.target.name}): pass them again in "
            "Python (data=)"
        )
    target = read_target(without_unread_root(recipe.target), recipe.edition) if data is None else data
    if tuple(target.classes) != classes:
        raise UserError(f"{run.folder}: the classes of {recipe.target.name} are not those that it was trained on")
    return target


def refuse_other_images(run: Run, data: Target) -> None:
    """Raise UserError for images that differ from those that the run was given in Python, if these are known."""
    check_target(data)
    was, now = run.inputs.data.get("target"), contents_of_given(data)
    is_given = isinstance(run.recipe, TrainRecipe) and run.recipe.target.name.startswith(GIVEN_IMAGES)
    if is_given and was is not None and now is not None and was.sha256 != now.sha256:
        what = f"{was.describe('images')} then, {now.describe('images')} now"
        raise SettingError(
            "data", f"must be what {run.folder} was trained on, with its labels and classes ({what}): give the same"
        )


def other_target(subject: Subject, sets: Sequence[OtherSet], number: int) -> tuple[Target, TargetSettings]:
    """Open one of the other sets, at the size of the run's target. Raises SettingError with the key of its entry."""
    target = subject.recipe.target
    if _is_own(sets[number], target):
        raise SettingError(f"sets[{number}]", "is the run's own target; name other sets, or classes that it lacks")
    settings = sets[number].target(target.image_size, target.fit)
    try:
        return read_target(settings), settings
    except SettingError as error:
        key = error.key.removeprefix("target.")
        if key in ("image_size", "fit"):  # settings of the run's target, which the entry does not have
            reason = f"is a pack of another {key}: pack it again for {getattr(settings, key)}, or give its files"
            raise SettingError(f"sets[{number}].root", reason) from None
        raise SettingError(f"sets[{number}].{key}", error.reason) from None


def _is_own(other: OtherSet, target: TargetSettings) -> bool:
    """Whether another set is the run's own, whose test split may stay unseen, rather than other classes of it."""
    has_same_name = other.name.lower() == target.name.lower() != "folder"
    has_same_root = False
    if other.root is not None and target.root is not None:
        has_same_root = Path(other.root).resolve() == Path(target.root).resolve()
    are_others = other.classes is not None and target.classes is not None and not {*other.classes} & {*target.classes}
    return (has_same_name or has_same_root) and not are_others


def load_drawn(subject: Subject, table: Table, settings: TargetSettings, options: WithSets) -> ImageSet:
    """Decode images of another set, those that the options draw."""
    if options.images is not None:
        table = table.take(drawn_rows(table.labels, options.images, options.seed))
    return load_target(table, settings, subject.recipe.training, subject.fabric, subject.progress)


def refuse_changed_images(run: Run, recipe: TrainRecipe, images: ImageSet, split: str) -> None:
    """Raise UserError if these are not the images that the run was scored on, by their number or checksum.

    Without a checksum, as of validation images, it is refused that the contents of the whole set have changed: the
    split would be drawn otherwise, and might have images that the run was trained on.
    """
    recorded = run.final.get(split) or {}
    count, checksum = recorded.get("images"), recorded.get("checksum")
    is_checked = checksum is not None and images.pixels is not None
    if count not in (None, len(images)) or (is_checked and checksum_of(images) != checksum):
        raise UserError(
            f"{run.folder}: the {split} images are not those that the run was scored on when training ended; restore "
            "the original ones"
        )
    if is_checked or recipe.target.name.startswith(GIVEN_IMAGES):  # the latter are for refuse_other_images
        return
    then, now = run.inputs.data.get("target"), contents_of(recipe.target)
    if then is not None and now is not None and then.sha256 != now.sha256:
        raise UserError(
            f"{run.folder}: its images have changed since it was trained ({then} then, {now} now), so its {split} "
            "images are not known: restore the original ones"
        )


def checksum_of(images: ImageSet) -> str:
    """The checksum of the pixels in their order, as in a run's final.json."""
    checksum = hashlib.blake2b(digest_size=CHECKSUM_BYTES)
    for pixels, _, _ in images.batches(torch.arange(len(images)), BATCH):
        checksum.update(pixels.permute(0, 2, 3, 1).cpu().numpy().tobytes())
    return checksum.hexdigest()


def drawn(images: ImageSet, limit: int | None, seed: int) -> ImageSet:
    """Draw at most `limit` images by seed, with the classes in proportion, and keep their order; None for all."""
    if limit is None or limit >= len(images):
        return images
    rows = drawn_rows(images.labels.cpu().numpy(), limit, seed)
    index = torch.from_numpy(rows).to(images.labels.device)
    pixels = images.pixels
    if pixels is not None:
        pixels = pixels.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)
    labels = images.labels.index_select(0, index)
    return ImageSet(images.table.take(rows), images.image_size, pixels, labels, images.fit)


def drawn_rows(labels: NDArray[np.int64] | NDArray[np.float32], limit: int, seed: int) -> NDArray[np.int64]:
    """The rows of the images that `drawn` draws, from the labels of all."""
    return at_most(np.arange(len(labels)), labels, limit, derive_seed(seed, "suites"))
