"""Stage 2: train a classifier on its target, regulated or plain, and measure it once on the test split."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from emoreg.config.recipe import TrainRecipe, require_recipe
from emoreg.config.schema import LABELS_OF
from emoreg.config.setting_types import path_of
from emoreg.config.target_words import OUTPUTS
from emoreg.config.unused import unused_settings
from emoreg.data.images.batches import training_batches
from emoreg.data.images.image_set import ImageSet
from emoreg.data.images.table import Table
from emoreg.data.targets import read_target, with_notes_on_classes
from emoreg.data.targets.target import GIVEN_IMAGES, Target, check_target, require_two_classes, scale_note
from emoreg.errors import SettingError, UserError
from emoreg.models.backbones import stem_note
from emoreg.models.features import require_kept
from emoreg.models.regulation import RegulatedClassifier
from emoreg.models.regulation_loss import require_classifier
from emoreg.models.relatives.heads import RelativeHead
from emoreg.models.takeover import NormMatch, estimate_statistics
from emoreg.models.weight_source import with_sources
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.runtime.seeding import derive_seed
from emoreg.stages.class_weights import class_weights, describe_class_weights
from emoreg.stages.classification_loss import classification_loss
from emoreg.stages.classifier import build_matched, check_encoder, load_classifier, with_encoder_architecture
from emoreg.stages.given_model import GIVEN, as_given
from emoreg.stages.inputs import inputs_of
from emoreg.stages.lambda_warmup import warming_up
from emoreg.stages.leaks import record_seen, refuse_leaks, report_shared
from emoreg.stages.origins import LoadedExperience, experience_record, experiences_of, mark_trained, warn_if_trained
from emoreg.stages.pretrain import experience_run
from emoreg.stages.rehearsal import read_rehearsal
from emoreg.stages.run_metrics import TRAINING_IMAGES, Curves, measure_and_finish
from emoreg.stages.target_images import TargetImages, load_parts_of
from emoreg.training.launch import RunContext, launch
from emoreg.training.loop import fit
from emoreg.training.step import LossOf, Objective


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
        model: your own classifier around any two modules. It is trained in place and ends in evaluation mode, with the
            weights that the run keeps. Of the recipe's backbone, encoder and regulation, only learning rates, the
            anchor, λ's warm-up and a frozen encoder's views are used; the run records the model's own mode and
            architectures instead of the rest.
        progress: None prints to the terminal, `emoreg.Progress(quiet=True)` prints warnings only.
        data: your own images instead of `recipe.target.name` and root; the recipe is stored with the name
            "given:<name of the training table>". The other settings of the target apply, except `classes`: the classes
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
        if not was_finished:  # earlier versions trained with a single class
            require_two_classes(data)
        recipe = _with_given_images(recipe, data)
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
    if model is None:
        return launch(out, recipe, _train, given, progress, inputs)
    scale = model.gradient_scale
    try:
        run = launch(out, recipe, _train, given, progress, inputs)
    finally:
        model.gradient_scale = scale  # for a loss in the caller's own loop
    # Needed if other processes trained copies, if the run was finished already, or if optimizer.ema averages.
    load_classifier(run, model, compare=was_finished)
    return run


def _with_given_images(recipe: TrainRecipe, data: Target) -> TrainRecipe:
    if recipe.target.classes is not None:
        raise SettingError("target.classes", "must be null with data=, which names its classes: give those alone")
    kind_of_classes = recipe.target.labels if recipe.target.task == "classification" else "majority"
    labels = LABELS_OF.get(data.task, kind_of_classes)
    target = dataclasses.replace(recipe.target, name=f"{GIVEN_IMAGES}{data.train.name}", root=None, labels=labels)
    return dataclasses.replace(recipe, target=target)


def check_augment(recipe: TrainRecipe) -> None:
    """Raise SettingError for mixing of rated images. Recipes do not check it, so that earlier runs stay readable."""
    if recipe.augment.mixing and recipe.target.task == "regression":
        reason = f"must be 0 with target.labels {recipe.target.labels}: a mixture of images is not rated as their mean"
        raise SettingError(f"augment.{recipe.augment.mixing}", reason)


class _Given(NamedTuple):
    """User-supplied replacements of what the recipe names."""

    model: RegulatedClassifier | None
    data: Target | None


def _train(context: RunContext[TrainRecipe], given: _Given) -> None:
    recipe, model = context.recipe, given.model
    if context.is_leader and model is None and not context.run.has_begun:
        context.progress.report_notes(list(unused_settings(recipe)))
    target = _read_target(context, given.data)
    classifier, matched = (model, None) if model is not None else build_matched(recipe, len(target.classes))
    _require_outputs(classifier, target)
    experiences = experiences_of(classifier)
    images = load_parts_of(context, target)
    _check_images(context, given, experiences, images, target.train)
    if model is None:
        _finish_takeover(context, classifier, matched, images.train)
    session_model = "the recipe's" if model is None else GIVEN
    context.record_session(experience=experience_record(experiences), model=session_model)
    loss_of = _loss(context, classifier, images.train, target.classes)
    if model is not None:
        warn_if_trained(context.run, "model", model, context.progress)
        mark_trained(model, context.run)
    curves = Curves(classifier, images.validation, context.fabric, target.classes)
    encoder_prefix = "backbone." if recipe.regulation.mode == "transfer" and model is None else "encoder."
    with warming_up(classifier, recipe.regulation.warmup) as prepare:
        objective = Objective(
            classifier,
            loss_of,
            lr_factors={encoder_prefix: recipe.encoder.lr_factor, "regulation.": recipe.regulation.lr_factor},
            clip_groups=classifier.branches() if recipe.edition > 1 else (),  # the first edition clipped all together
            own_rule=classifier.head.learn if isinstance(classifier.head, RelativeHead) else None,
            prepare=prepare,
        )
        kept, seconds = fit(context, objective, images.train, curves.score, observe=curves.observe)
    assert isinstance(kept, RegulatedClassifier)
    if context.is_leader:
        facts = {"takeover": matched and matched._asdict(), "seconds": seconds}
        measure_and_finish(context, kept, target, images, facts)


def _read_target(context: RunContext[TrainRecipe], data: Target | None) -> Target:
    """Return the caller's target, or else read the recipe's; print its notes."""
    settings, edition = context.recipe.target, context.recipe.edition
    target = read_target(settings, edition) if data is None else with_notes_on_classes(data)
    if context.is_leader:
        scale = scale_note(target)
        context.progress.report_notes(target.notes if scale is None else (*target.notes, scale), target.left_out)
    return target


def _require_outputs(classifier: RegulatedClassifier, target: Target) -> None:
    """Raise UserError unless a classifier has the task and the number of outputs that the target needs."""
    if classifier.task != target.task:
        raise SettingError("model", f"is for {classifier.task}, and the target is for {target.task} (task=)")
    if classifier.num_classes != len(target.classes):
        outputs = f"{classifier.num_classes} {OUTPUTS[classifier.task]}"
        raise UserError(f"the model has {outputs}, the target {len(target.classes)}")


def _check_images(
    context: RunContext[TrainRecipe],
    given: _Given,
    experiences: Sequence[LoadedExperience],
    images: TargetImages,
    train: Table,
) -> None:
    """Record the training images; refuse test images on which an experience was trained. Only the leader does so."""
    run, progress, test = context.run, context.progress, images.test
    if context.is_leader and images.train.pixels is not None:  # a larger set would have to be read once more
        record_seen(run, [images.train], progress)
    if context.is_leader and given.data is not None:
        report_shared(run, train.name, images.validation, test, progress)
    if test is None:
        return
    key = "encoder.experience" if given.model is None else "model"
    for experience in experiences:
        if experience.is_available:
            fit_of_stage1 = experience_run(experience.folder)[1].stimuli.fit
            refuse_leaks(experience.folder, test, train, progress, fit_of_stage1, key)
        else:
            why = "is gone or has other weights now" if experience.is_located else "is known by its name only"
            progress.say(
                f"{run.folder.name}: {experience.folder} {why}: not checked whether it was trained on test images of "
                f"{test.table.name}"
            )


def _loss(
    context: RunContext[TrainRecipe], classifier: RegulatedClassifier, images: ImageSet, classes: Sequence[str]
) -> LossOf:
    """The loss of the recipe, with its class weights and rehearsal."""
    recipe, progress = context.recipe, context.progress
    weights = class_weights(recipe.loss.class_weights, images.labels, classes)
    if weights is not None:
        progress.detail(f"{context.run.folder.name}: {describe_class_weights(weights, classes)}")
    batch_size = min(recipe.training.batch_size, len(images))
    rehearsal = read_rehearsal(recipe, context.fabric, progress, batch_size)
    return classification_loss(classifier, images, recipe, weights, rehearsal)


def _finish_takeover(
    context: RunContext[TrainRecipe], classifier: RegulatedClassifier, matched: NormMatch | None, images: ImageSet
) -> None:
    """Report a norm-matched takeover; after a shrunk one, estimate batch statistics on augmented training images."""
    recipe, fabric, run = context.recipe, context.fabric, context.run
    if matched is not None:
        context.progress.detail(
            f"{run.folder.name}: {matched.scaled:,} filters of the encoder get the norms of a fresh draw; unchanged: "
            f"{matched.quiet:,} with almost no variance, {matched.elsewhere:,} that do not feed a batch norm alone"
        )
    if recipe.encoder.takeover != "shrunk" or run.has_begun:  # a checkpoint has the statistics
        return
    classifier.to(fabric.device)
    encoder = classifier.encoder or classifier.backbone  # in mode transfer it is the only network
    batches = training_batches(images, recipe.training.batch_size, recipe.augment, recipe.seed, epoch=0)
    enough = -(-TRAINING_IMAGES // recipe.training.batch_size)
    torch.manual_seed(derive_seed(recipe.seed, "statistics"))  # on all devices; each epoch seeds them anew
    with fabric.autocast():
        estimate_statistics(encoder, (batch.images for batch in itertools.islice(batches, enough)))
