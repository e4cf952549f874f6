"""Stage 2: a classifier is trained on its target, regulated or plain, and measured once on the test split."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from emoreg.config.outcomes import OUTCOMES
from emoreg.config.recipe import TrainRecipe, require_recipe
from emoreg.config.schema import TargetLabels, TargetSettings, Task
from emoreg.config.setting_types import path_of
from emoreg.config.target_words import OUTPUTS
from emoreg.config.training import TrainingSettings
from emoreg.data.fingerprint import checksum_of_images
from emoreg.data.images.batches import training_batches
from emoreg.data.images.image_set import ImageSet, load_images
from emoreg.data.images.splits import at_most
from emoreg.data.images.table import Table
from emoreg.data.targets import read_target, with_notes_on_classes
from emoreg.data.targets.target import (
    GIVEN_IMAGES,
    Target,
    check_target,
    require_measurable,
    require_two_classes,
    scale_note,
)
from emoreg.data.targets.training_part import training_part
from emoreg.errors import Diverged, SettingError, UserError
from emoreg.models.backbones import stem_note
from emoreg.models.features import require_kept
from emoreg.models.regulation import RegulatedClassifier
from emoreg.models.regulation_loss import require_classifier
from emoreg.models.relatives.heads import RelativeHead
from emoreg.models.takeover import NormMatch, estimate_statistics
from emoreg.models.weight_source import with_sources
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.runtime.seeding import derive_seed, generator
from emoreg.stages.class_weights import class_weights, describe_class_weights
from emoreg.stages.classification_loss import classification_loss
from emoreg.stages.classifier import build_matched, check_encoder, load_classifier, with_encoder_architecture
from emoreg.stages.confusion import remark_on_answers
from emoreg.stages.given_model import GIVEN, as_given, is_recorded
from emoreg.stages.inputs import inputs_of
from emoreg.stages.lambda_warmup import warming_up
from emoreg.stages.leaks import record_seen, refuse_leaks, tell_shared
from emoreg.stages.metrics import count_flops, measure
from emoreg.stages.origins import Experience, experiences_of, fingerprint, mark_trained, tell_if_trained
from emoreg.stages.pretrain import fit_of
from emoreg.stages.probe import probed
from emoreg.stages.rehearsal import read_rehearsal
from emoreg.training.launch import RunContext, launch
from emoreg.training.loop import fit

LABELS_OF: Mapping[Task, TargetLabels] = {"multilabel": "multilabel", "regression": "dimensions"}
TRAINING_IMAGES = 10_000  # that accuracies at the end and statistics at the beginning are taken from, at most

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def train(
    recipe: TrainRecipe,
    out: Path | str,
    model: RegulatedClassifier | None = None,
    progress: Progress | None = None,
    data: Target | None = None,
) -> Run:
    """Train a classifier and measure it once on the test split, or resume a run that was stopped.

    Args:
        recipe: all settings.
        out: the run folder; a finished run is returned as it is.
        model: your own classifier around any two modules, trained in place: it ends with the weights that the run
            keeps, in evaluation. Of the recipe's backbone, encoder and regulation settings, learning rates and a frozen
            encoder's views alone are then used; the run records the model's own mode and architectures in place of the
            others.
        progress: None shows it in the terminal, `emoreg.Progress(quiet=True)` warnings alone.
        data: your own images in place of `recipe.target.name` and root; the recipe is stored with the name
            "given:<name of the training table>". Its other settings of the target hold, but for `classes`: the classes
            are those of `data`.

    Raises:
        UserError: bad input of any kind, in one line.
    """
    recipe = with_sources(require_recipe(recipe, TrainRecipe, "train"))
    progress = progress or Progress()
    before = Run(path_of(out, "out"))
    was_finished = before.is_finished
    if data is not None:
        check_target(data)
        if not was_finished:  # an earlier emoreg has trained with one class
            require_two_classes(data)
        recipe = _of_given_images(recipe, data)
    if model is not None:
        require_classifier(model, "model")
        require_kept(model, "model")
        recipe = as_given(recipe, model, before)
    else:
        check_encoder(recipe)
        recipe = with_encoder_architecture(recipe)
        if note := stem_note(recipe.backbone, recipe.target.image_size):
            progress.detail(note)
    check_augment(recipe)
    given, inputs = _Given(model, data), inputs_of(recipe, data, model)
    scale = None if model is None else model.gradient_scale
    try:
        run = launch(out, recipe, _train, given, progress, inputs)
    finally:
        if model is not None:
            model.gradient_scale = scale  # as the caller's own loop may have it, whose loss is another
    if model is not None:
        # Other processes train copies, a finished run trains nothing, and optimizer.ema averages.
        load_classifier(run, model, compare=was_finished)
    return run


def _of_given_images(recipe: TrainRecipe, data: Target) -> TrainRecipe:
    if recipe.target.classes is not None:
        raise SettingError("target.classes", "must be null with data=, which names its classes: give those alone")
    own = recipe.target.labels if recipe.target.task == data.task else "majority"
    labels = LABELS_OF.get(data.task, own)
    named = dataclasses.replace(recipe.target, name=f"{GIVEN_IMAGES}{data.train.name}", root=None, labels=labels)
    return dataclasses.replace(recipe, target=named)


def check_augment(recipe: TrainRecipe) -> None:
    """SettingError for mixed images that are rated. Not in the recipe itself: earlier runs are still read."""
    if recipe.augment.mixing and recipe.target.task == "regression":
        reason = f"must be 0 with target.labels {recipe.target.labels}: a mixture of images is not rated as their mean"
        raise SettingError(f"augment.{recipe.augment.mixing}", reason)


class _Given(NamedTuple):
    """What the caller brings in place of what the recipe names."""

    model: RegulatedClassifier | None
    data: Target | None


class _Images(NamedTuple):
    """Those of a run; to validate and to test in the leading process alone, and where there are any."""

    train: ImageSet
    validation: ImageSet | None
    test: ImageSet | None


def _train(context: RunContext[TrainRecipe], given: _Given) -> None:
    model = given.model
    fabric, run, recipe, progress = context.fabric, context.run, context.recipe, context.progress
    is_given = given.data is not None
    target = read_target(recipe.target, recipe.edition) if given.data is None else with_notes_on_classes(given.data)
    if context.is_leader:
        progress.tell((*target.notes, *filter(None, [scale_note(target)])), target.left_out)
    classifier, matched = _classifier_for(target, recipe, model)
    experiences = experiences_of(classifier)
    images, validation, test = parts = _load(context, target, is_given)
    if test is not None:
        _refuse_leaks(context, experiences, test, target.train, "encoder.experience" if model is None else "model")
    if model is None:
        _finish_takeover(context, classifier, matched, images)
    context.record_session(experience=fingerprint(experiences), model="the recipe's" if model is None else GIVEN)

    encoder = "backbone." if recipe.regulation.mode == "transfer" and model is None else "encoder."
    factors = {encoder: recipe.encoder.lr_factor, "regulation.": recipe.regulation.lr_factor}
    weights = class_weights(recipe.loss.class_weights, images.labels, target.classes)
    if weights is not None:
        progress.detail(f"{run.folder.name}: {describe_class_weights(weights, target.classes)}")
    rehearsal = read_rehearsal(recipe, fabric, progress)
    loss_of = classification_loss(classifier, images, recipe, weights, rehearsal)
    clip_groups = classifier.branches() if recipe.edition > 1 else ()  # the first edition clipped both together
    if model is not None:
        tell_if_trained(run, "model", model, progress)
        mark_trained(model, run)
    curves = _Curves(classifier, validation, fabric, target.classes)
    with warming_up(classifier, recipe.regulation.warmup) as prepare:
        kept, seconds = fit(
            context,
            classifier,
            loss_of,
            images,
            curves.score,
            lr_factors=factors,
            clip_groups=clip_groups,
            observe=curves.observe,
            own_rule=classifier.head.learn if isinstance(classifier.head, RelativeHead) else None,
            prepare=prepare,
        )
    assert isinstance(kept, RegulatedClassifier)
    if context.is_leader:
        facts = {"takeover": matched and matched._asdict(), "seconds": seconds}
        _finish(context, kept, target, parts, facts)


def _refuse_leaks(
    context: RunContext[TrainRecipe], experiences: Sequence[Experience], test: ImageSet, train: Table, key: str
) -> None:
    """As `refuse_leaks`, of the recipe's experience or of those of the caller's model."""
    progress = context.progress
    for experience in experiences:
        if experience.is_there:
            refuse_leaks(experience.folder, test, train, progress, fit_of(experience.folder), key)
        else:
            why = "is gone, or not as its weights were loaded" if experience.is_placed else "is known by its name alone"
            progress.say(
                f"{context.run.folder.name}: {experience.folder} {why}: not checked whether it was trained on test "
                f"images of {test.table.name}"
            )


class _Curves:
    """What metrics.csv has of each epoch, beside the training loss."""

    def __init__(
        self, classifier: RegulatedClassifier, validation: ImageSet | None, fabric: Fabric, classes: Sequence[str]
    ) -> None:
        self.classifier, self.validation, self.fabric, self.classes = classifier, validation, fabric, classes
        self.share: float | None = None

    def observe(self) -> None:
        """Called while the gradients of a step are there."""
        share = gradient_share(self.classifier)
        self.share = self.share if share is None else share

    def score(self, candidate: nn.Module) -> dict[str, float]:
        """Called at the end of an epoch with what is trained, or its average."""
        assert isinstance(candidate, RegulatedClassifier)
        validation = self.validation
        measured = {} if validation is None else measure(candidate, validation, self.fabric, names=self.classes)
        lam = _lambda_values(candidate, measured) or []
        row = {"lambda": fmean(lam)} if lam else {}
        if len(lam) > 1:
            row |= {f"lambda_{number}": value for number, value in enumerate(lam)}
        if measured:
            row |= {f"val_{name}": measured[name] for name in (OUTCOMES[candidate.task].name, "loss")}
        if self.share is not None:
            row["gradient_share"] = self.share
        return row | trunk_norms(self.classifier)  # of what is trained


def _load(context: RunContext[TrainRecipe], target: Target, is_given: bool) -> _Images:
    """The images of a run; what they are is recorded, and told where its caller gave the same ones twice."""
    recipe, progress = context.recipe, context.progress
    tables = parts_of(target, recipe, progress)

    def loaded(table: Table) -> ImageSet:
        return load_target(table, recipe.target, recipe.training, context.fabric, progress)

    train = loaded(tables[0])
    if context.is_leader and train.pixels is not None:  # of a larger set every image would have to be read once more
        record_seen(context.run, [train], progress)
    validation, test = (loaded(table) if table and context.is_leader else None for table in tables[1:])
    if is_given and context.is_leader:
        tell_shared(context.run, validation, test, progress)
    return _Images(train, validation, test)


def _finish(
    context: RunContext[TrainRecipe],
    classifier: RegulatedClassifier,
    target: Target,
    images: _Images,
    facts: Mapping[str, Any],
) -> None:
    """Measure a trained classifier and finish its run. `Diverged` if its answers are not finite.

    Args:
        context: the run.
        classifier: to measure and to keep.
        target: the whole task.
        images: of the run.
        facts: more for final.json.
    """
    train, validation, test = images
    fabric, run, names = context.fabric, context.run, target.classes
    measured = {
        "test": measure(classifier, test, fabric, each_image=True, names=names) if test else None,
        "validation": measure(classifier, validation, fabric, names=names) if validation else None,
    }
    for split, metrics in measured.items():
        if metrics is not None and not math.isfinite(metrics["loss"]):  # its accuracy is that of a constant answer
            raise Diverged(f"the loss on the {split} images is {metrics['loss']} at the end of training")
    for split, metrics in measured.items():
        if metrics is not None and (remark := remark_on_answers(metrics, names, f"{split} images")):
            # While a study runs nothing is said of the test images: who sees that is tempted to stop it.
            say = context.progress.detail if split == "test" else context.progress.say
            say(f"{run.folder.name}: {remark}")
    final: dict[str, Any] = {
        **measured,
        "train": _measure_training(classifier, train, context.recipe.seed, fabric),
        "lambda": _lambda_values(classifier, measured["test"] or measured["validation"] or {}),
        "images_per_second": float(run.metrics["images_per_second"].median()),
        "parameters": sum(p.numel() for p in classifier.parameters()),
        "flops": count_flops(classifier, context.recipe.target.image_size, fabric),
        "classes": list(names),
        "target": {
            "classes": target.whole or len(names),
            "is_published_test": target.whole is None
            and target.has_published_test
            and test is not None
            and len(test) == len(target.test),  # none was skipped as unreadable
        },
        "images": {"train": len(train), "validation": len(validation or ()), "test": len(test or ())},
        # By which evaluate knows these images, also where they are left unseen.
        "test_images_checksum": checksum_of_images(target.test),
        **facts,
    }
    metadata: dict[str, Any] = {"stage": 2, "classes": names}
    if is_recorded(context.recipe):
        metadata |= probed(classifier, context.recipe.target.image_size)
    run.finish(classifier.state_dict(), metadata, final)


def _classifier_for(
    target: Target, recipe: TrainRecipe, model: RegulatedClassifier | None
) -> tuple[RegulatedClassifier, NormMatch | None]:
    """The caller's own classifier, or the recipe's, as `build_matched`. UserError for one that answers other things."""
    classifier, matched = (model, None) if model is not None else build_matched(recipe, len(target.classes))
    if classifier.task != target.task:
        raise SettingError("model", f"is for {classifier.task}, and the target asks for {target.task} (task=)")
    if classifier.num_classes != len(target.classes):
        outputs = f"{classifier.num_classes} {OUTPUTS[classifier.task]}"
        raise UserError(f"the model has {outputs}, the target {len(target.classes)}")
    return classifier, matched


def parts_of(
    target: Target, recipe: TrainRecipe, progress: Progress | None = None
) -> tuple[Table, Table | None, Table | None]:
    """The training images of a run, its validation images and those that are scored at the end, as its recipe has it.

    Args:
        target: the whole task.
        recipe: of the run.
        progress: says what is cut; None for silence.

    Raises:
        UserError: as `training_part`; test images from which nothing could be told.
    """
    asked = recipe.target
    train, validation = training_part(target, asked, recipe.seed, recipe.edition, progress)
    if not asked.test:
        return train, validation, None
    test = target.test
    if asked.test_limit is not None:
        test = test.take(at_most(np.arange(len(test)), test.labels, asked.test_limit, recipe.seed))
    require_measurable(test, target.task)
    return train, validation, test


def _finish_takeover(
    context: RunContext[TrainRecipe], classifier: RegulatedClassifier, matched: NormMatch | None, images: ImageSet
) -> None:
    """Say which filters of the encoder were scaled, and estimate the running statistics of its batch norms.

    That is done on training images, augmented as in training.
    """
    recipe, fabric, run = context.recipe, context.fabric, context.run
    if matched is not None:
        context.progress.detail(
            f"{run.folder.name}: {matched.scaled:,} filters of the encoder get the norms of a fresh draw; left as they "
            f"are: {matched.quiet:,} of almost no variance, {matched.elsewhere:,} that feed no batch norm alone"
        )
    if recipe.encoder.takeover != "shrunk" or run.has_begun:  # a checkpoint has the statistics
        return
    classifier.to(fabric.device)
    encoder = classifier.encoder or classifier.backbone  # in mode transfer it is the only network
    batches = training_batches(images, recipe.training.batch_size, recipe.augment, recipe.seed, epoch=0)
    enough = -(-TRAINING_IMAGES // recipe.training.batch_size)
    torch.manual_seed(derive_seed(recipe.seed, "statistics"))  # of all devices; each epoch seeds them anew
    with fabric.autocast():
        estimate_statistics(encoder, (batch.images for batch in itertools.islice(batches, enough)))


def _measure_training(
    classifier: RegulatedClassifier, images: ImageSet, seed: int, fabric: Fabric
) -> dict[str, Any] | None:
    """What each response gets right of training images as they are, to see one that has starved; None without two."""
    if classifier.encoder is None:
        return None
    drawn = torch.randperm(len(images), generator=generator(seed, "training images"))[:TRAINING_IMAGES]
    measured = measure(classifier, images, fabric, drawn.sort().values)
    outcome = OUTCOMES[classifier.task].name
    return {name: measured[name] for name in (outcome, f"{outcome}_non_emotional", f"{outcome}_emotional", "images")}


def gradient_share(classifier: RegulatedClassifier) -> float | None:
    """‖g_n‖ / (‖g_n‖ + ‖g_e‖) over the parameters of the trunks, backbone and encoder, in [0, 1].

    None without an emotional branch, where a trunk is frozen, and where no gradient flows.
    """
    if classifier.encoder is None:
        return None
    trunks = (classifier.backbone, classifier.encoder)
    gradients = [[p.grad for p in trunk.parameters() if p.grad is not None] for trunk in trunks]
    own, other = (_norm(of_trunk) for of_trunk in gradients)
    return own / (own + other) if all(gradients) and own + other > 0 else None


def trunk_norms(classifier: RegulatedClassifier) -> dict[str, float]:
    """norm_non_emotional and norm_emotional: ‖θ‖ over the parameters of backbone and encoder; empty without two."""
    if classifier.encoder is None:
        return {}
    trunks = {"non_emotional": classifier.backbone, "emotional": classifier.encoder}
    return {f"norm_{name}": _norm([p.detach() for p in trunk.parameters()]) for name, trunk in trunks.items()}


def _norm(tensors: list[Tensor]) -> float:
    return nn.utils.get_total_norm(tensors).item()


def _lambda_values(classifier: RegulatedClassifier, measured: Mapping[str, Any]) -> list[float] | None:
    """λ: one value, one per class, or, with one per image, the mean over measured images; None if there is none."""
    if classifier.lam is not None:
        return classifier.lam.flatten().tolist()
    return [measured["lambda"]] if "lambda" in measured else None


def load_target(
    table: Table, target: TargetSettings, training: TrainingSettings, fabric: Fabric, progress: Progress
) -> ImageSet:
    """Images of a target, on the device if they fit into memory."""
    limit = training.memory_limit_gib
    images = load_images(table, target.image_size, target.skip_unreadable, limit, progress, target.fit)
    return images.to(fabric.device)
