"""Stage 2: a classifier is trained on its target, regulated or plain, and measured once on the test split."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from emoreg.config.recipe import TrainRecipe, require_recipe, with_stems
from emoreg.config.schema import BackboneSettings, EncoderSettings, TargetSettings
from emoreg.config.setting_types import path_of
from emoreg.config.target_words import describe_target
from emoreg.config.training import Device, TrainingSettings
from emoreg.data.fingerprint import contents_of
from emoreg.data.images.batches import Batch, training_batches
from emoreg.data.images.image_set import ImageSet, load_images
from emoreg.data.images.splits import cut_validation, few
from emoreg.data.images.table import Table
from emoreg.data.targets import is_own_test_split, read_for_scoring, read_target
from emoreg.data.targets.target import GIVEN_IMAGES, Target, check_target
from emoreg.errors import Diverged, SettingError, UserError, is_plain, shortened
from emoreg.models.backbones import build_backbone, channels_last, stem_note
from emoreg.models.gradient_budget import UNSCALED, matched_scale
from emoreg.models.regulation import RegulatedClassifier, regulation_loss
from emoreg.models.regulation_loss import require_classifier
from emoreg.models.takeover import NormMatch, estimate_statistics, keep_moments, match_norms, shrink_and_perturb
from emoreg.runs.inputs import weights_checksum
from emoreg.runs.run import WEIGHTS, Run, open_run
from emoreg.runtime.places import portable
from emoreg.runtime.progress import Progress
from emoreg.runtime.seeding import derive_seed, drawn_from, generator
from emoreg.stages.class_weights import class_weights, describe_class_weights
from emoreg.stages.confusion import remark_on_answers
from emoreg.stages.frozen_features import FrozenFeatures
from emoreg.stages.given_model import GIVEN, as_given, refuse_without
from emoreg.stages.inputs import inputs_of
from emoreg.stages.leaks import count_trained_on, record_seen, refuse_leaks
from emoreg.stages.metrics import count_flops, measure
from emoreg.stages.pretrain import encoder_architecture, fit_of, load_encoder
from emoreg.training.fabric import make_fabric
from emoreg.training.launch import RunContext, launch
from emoreg.training.loop import fit
from emoreg.training.step import LossOf

TRAINING_IMAGES = 10_000  # that accuracies at the end and statistics at the beginning are taken from, at most

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def build_classifier(recipe: TrainRecipe, num_classes: int) -> RegulatedClassifier:
    """The classifier that a recipe describes, its emotional encoder taken over from its experience.

    Backbone, heads and the start of λ are the same in every mode of the same seed, whatever the encoder has experienced
    and however it is taken over, so that arms differ in nothing but the emotional branch. After a shrunk takeover the
    running statistics of batch norms do not fit; `train` estimates them anew.

    Raises:
        UserError: unknown architecture; no finished stage-1 run; an encoder of another architecture; a takeover that
            is impossible for it, or without anything to take over.
    """
    recipe = require_recipe(recipe, TrainRecipe, "build_classifier")
    return _build(recipe, num_classes)[0]


def _build(recipe: TrainRecipe, num_classes: int) -> tuple[RegulatedClassifier, NormMatch | None]:
    """As `build_classifier`; also what a norm-matched takeover has done."""
    size, regulation, mode = recipe.target.image_size, recipe.regulation, recipe.regulation.mode
    encoder: nn.Module | None = None
    matched: NormMatch | None = None
    if mode == "transfer":
        backbone, matched = _build_encoder(recipe)
        mode = "none"  # one network, which is the encoder
    else:
        with drawn_from(recipe.seed, "backbone"):
            backbone = build_backbone(recipe.backbone, size)
        if mode != "none":
            encoder, matched = _build_encoder(recipe)
    with drawn_from(recipe.seed, "heads"):
        classifier = RegulatedClassifier(
            backbone,
            encoder,
            num_classes,
            mode=mode,
            granularity=regulation.granularity,
            mix=regulation.mix,
            lam=regulation.lam,
            freeze_encoder=recipe.encoder.frozen,
            seed=derive_seed(recipe.seed, "lambda"),
        )
    return channels_last(classifier), matched


def _build_encoder(recipe: TrainRecipe) -> tuple[nn.Module, NormMatch | None]:
    """The emotional encoder as training begins, and what a norm-matched takeover has done."""
    settings, size = recipe.encoder, recipe.target.image_size
    _check_takeover(settings)
    if settings.experience is None:
        with drawn_from(recipe.seed, "encoder"):
            return build_backbone(recipe.encoder_backbone, size, "encoder.backbone"), None
    with drawn_from(recipe.seed, "encoder"):
        encoder = load_encoder(settings.experience, settings.backbone, size)
    if settings.takeover == "as_is" and not settings.moments_only:
        return encoder, None
    with drawn_from(recipe.seed, "encoder"):  # θ₀, the weights of the twin `fresh` of this seed
        fresh = build_backbone(_encoder_architecture(recipe), size, "encoder.backbone")
    matched = None
    if settings.takeover == "norm_matched":
        matched = match_norms(encoder, fresh)
    elif settings.takeover == "shrunk":
        shrink_and_perturb(encoder, fresh, settings.shrink)
    if settings.moments_only:
        keep_moments(encoder, fresh)
    return encoder, matched


def _check_takeover(settings: EncoderSettings) -> None:
    """SettingError where there is nothing to take over."""
    if settings.experience is None:
        without = "without encoder.experience: there is nothing to take over"
        if settings.takeover != "as_is":
            raise SettingError("encoder.takeover", f"must be as_is {without}, not {settings.takeover}")
        if settings.moments_only:
            raise SettingError("encoder.moments_only", f"must be false {without}")


def _check_encoder(recipe: TrainRecipe) -> None:
    """SettingError for settings of the encoder that mean nothing in a training of this mode."""
    encoder = recipe.encoder
    if recipe.regulation.mode == "transfer":
        if encoder.experience is None:
            raise SettingError("encoder.experience", "must name a stage-1 run with regulation.mode transfer, not null")
        if encoder.frozen:
            raise SettingError("encoder.frozen", "must be false with regulation.mode transfer, which fine-tunes")
    _check_takeover(encoder)


def with_encoder_architecture(recipe: TrainRecipe) -> TrainRecipe:
    """The recipe with the architectures written out, so that either network can be built alone."""
    own = recipe.encoder.backbone
    if recipe.regulation.mode != "none" and (own is None or own.stem == "auto"):
        architecture = _encoder_architecture(recipe)
        recipe = dataclasses.replace(recipe, encoder=dataclasses.replace(recipe.encoder, backbone=architecture))
    return with_stems(recipe)


def _encoder_architecture(recipe: TrainRecipe) -> BackboneSettings:
    """Architecture of the encoder: as asked, or that of its experience, or else the backbone's."""
    if recipe.encoder.experience is None:
        return recipe.encoder_backbone
    there, own = encoder_architecture(recipe.encoder.experience), recipe.encoder.backbone
    if own is not None:  # its weights come from stage 1, and so does a stem that is left to the images
        return dataclasses.replace(own.untrained, stem=there.stem if own.stem == "auto" else own.stem)
    if (
        there.name == recipe.backbone.name
    ):  # γ of a fresh draw: as in the twin `fresh`, which is built like the backbone
        return dataclasses.replace(there, zero_gamma=recipe.backbone.zero_gamma)
    return there


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
        model: your own classifier around any two modules, trained in place. Of the recipe's backbone, encoder and
            regulation settings, learning rates and a frozen encoder's views alone are then used; the run records the
            model's own mode and architectures in place of the others.
        progress: None shows it in the terminal.
        data: your own images in place of `recipe.target.name` and root; the recipe is stored with the name
            "given:<name of the training table>". Its other settings of the target hold.

    Raises:
        UserError: bad input of any kind, in one line.
    """
    recipe = require_recipe(recipe, TrainRecipe, "train")
    progress = progress or Progress()
    if data is not None:
        check_target(data)
        named = dataclasses.replace(recipe.target, name=f"{GIVEN_IMAGES}{data.train.name}", root=None)
        recipe = dataclasses.replace(recipe, target=named)
    if model is not None:
        require_classifier(model, "model")
        recipe = as_given(recipe, model, Run(path_of(out, "out")))
    else:
        _check_encoder(recipe)
        recipe = with_encoder_architecture(recipe)
        if note := stem_note(recipe.backbone, recipe.target.image_size):
            progress.detail(note)
    given, inputs = _Given(model, data), inputs_of(recipe, data is not None, model is not None)
    return launch(out, recipe, _train, given, progress, inputs)


class _Given(NamedTuple):
    """What the caller brings in place of what the recipe names."""

    model: RegulatedClassifier | None
    data: Target | None


def _train(context: RunContext[TrainRecipe], given: _Given) -> None:
    model = given.model
    fabric, run, recipe, progress = context.fabric, context.run, context.recipe, context.progress
    target = read_target(recipe.target, recipe.edition) if given.data is None else given.data
    if context.is_leader:
        progress.tell(target.notes, target.left_out)
    classifier, matched = (model, None) if model is not None else _build(recipe, len(target.classes))
    if classifier.num_classes != len(target.classes):
        raise UserError(f"the model has {classifier.num_classes} classes, the target {len(target.classes)}")
    asked = recipe.target
    train_table, validation_table = cut_validation(
        target.train,
        asked.validation,
        asked.limit,
        recipe.seed,
        asked.per_class,
        target.classes,
        target.validation,
        recipe.edition,
        progress,
    )
    images = _load(train_table, recipe.target, recipe.training, fabric, progress)
    if context.is_leader and images.pixels is not None:  # of a larger set every image would have to be read once more
        record_seen(run, [images], progress)
    validation, test = (
        _load(table, recipe.target, recipe.training, fabric, progress) if table and context.is_leader else None
        for table in (validation_table, _tested(target.test, recipe))
    )
    if test is not None and model is None and recipe.encoder.experience is not None:
        refuse_leaks(recipe.encoder.experience, test, target.train, progress, fit_of(recipe.encoder.experience))
    if matched is not None:
        progress.detail(
            f"{run.folder.name}: {matched.scaled:,} filters of the encoder get the norms of a fresh draw; left as they "
            f"are: {matched.quiet:,} of almost no variance, {matched.elsewhere:,} that feed no batch norm alone"
        )
    if model is None and recipe.encoder.takeover == "shrunk" and not run.has_begun:  # a checkpoint has the statistics
        _estimate_statistics(classifier, images, recipe, fabric)
    context.record_session(
        experience=_fingerprint(recipe.encoder.experience) if model is None else None,
        model="the recipe's" if model is None else GIVEN,
    )

    curves: dict[str, float] = {}

    def observe() -> None:
        share = gradient_share(classifier)
        curves.update({} if share is None else {"gradient_share": share})

    def score(candidate: nn.Module) -> dict[str, float]:
        assert isinstance(candidate, RegulatedClassifier)
        measured = {} if validation is None else measure(candidate, validation, fabric)
        lam = _lambda_values(candidate, measured)
        row = {} if lam is None else {"lambda": fmean(lam)}
        if lam is not None and len(lam) > 1:
            row |= {f"lambda_{number}": value for number, value in enumerate(lam)}
        if measured:
            row |= {f"val_{name}": measured[name] for name in ("accuracy", "loss")}
        return row | curves | trunk_norms(classifier)  # of what is trained: `candidate` may be its average

    encoder = "backbone." if recipe.regulation.mode == "transfer" and model is None else "encoder."
    factors = {encoder: recipe.encoder.lr_factor, "regulation.": recipe.regulation.lr_factor}
    weights = class_weights(recipe.loss.class_weights, images.labels, target.classes)
    if weights is not None:
        progress.detail(f"{run.folder.name}: {describe_class_weights(weights, target.classes)}")
    loss_of = classification_loss(classifier, images, recipe, weights)
    clip_groups = classifier.branches() if recipe.edition > 1 else ()  # the first edition clipped both together
    kept, seconds = fit(context, classifier, loss_of, images, score, factors, clip_groups=clip_groups, observe=observe)
    assert isinstance(kept, RegulatedClassifier)
    if not context.is_leader:
        return
    measured = {
        "test": measure(kept, test, fabric, each_image=True) if test else None,
        "validation": measure(kept, validation, fabric) if validation else None,
    }
    _refuse_divergence(run, measured)
    for split, metrics in measured.items():
        if metrics is not None and (remark := remark_on_answers(metrics, target.classes, f"{split} images")):
            progress.say(f"{run.folder.name}: {remark}")
    final: dict[str, Any] = {
        **measured,
        "train": _measure_training(kept, images, recipe.seed, fabric),
        "takeover": matched and matched._asdict(),
        "lambda": _lambda_values(kept, measured["test"] or measured["validation"] or {}),
        "seconds": seconds,
        "images_per_second": float(run.metrics["images_per_second"].median()),
        "parameters": sum(p.numel() for p in kept.parameters()),
        "flops": count_flops(kept, asked.image_size, fabric),
        "classes": list(target.classes),
        "target": {
            "classes": target.whole or len(target.classes),
            "is_published_test": target.whole is None
            and target.has_published_test
            and test is not None
            and len(test) == len(target.test),  # none was skipped as unreadable
        },
        "images": {"train": len(images), "validation": len(validation or ()), "test": len(test or ())},
    }
    run.finish(kept.state_dict(), {"stage": 2, "classes": target.classes}, final)


def _tested(test: Table, recipe: TrainRecipe) -> Table | None:
    """The test images that are scored at the end; None if the split stays unseen."""
    asked = recipe.target
    if not asked.test or asked.test_limit is None:
        return test if asked.test else None
    return test.take(few(np.arange(len(test)), test.labels, asked.test_limit, recipe.seed))


def _estimate_statistics(
    classifier: RegulatedClassifier, images: ImageSet, recipe: TrainRecipe, fabric: Fabric
) -> None:
    """Estimate the running statistics of the encoder's batch norms on training images, augmented as in training."""
    classifier.to(fabric.device)
    encoder = classifier.encoder or classifier.backbone  # in mode transfer it is the only network
    batches = training_batches(images, recipe.training.batch_size, recipe.augment, recipe.seed, epoch=0)
    enough = -(-TRAINING_IMAGES // recipe.training.batch_size)
    with fabric.autocast(), drawn_from(recipe.seed, "statistics"):
        estimate_statistics(encoder, (batch.images for batch in itertools.islice(batches, enough)))


def _measure_training(
    classifier: RegulatedClassifier, images: ImageSet, seed: int, fabric: Fabric
) -> dict[str, Any] | None:
    """Accuracy of each response on training images as they are, to see a branch that has starved; None without two."""
    if classifier.encoder is None:
        return None
    drawn = torch.randperm(len(images), generator=generator(seed, "training images"))[:TRAINING_IMAGES]
    measured = measure(classifier, images, fabric, drawn.sort().values)
    return {name: measured[name] for name in ("accuracy", "accuracy_non_emotional", "accuracy_emotional", "images")}


def _refuse_divergence(run: Run, measured: Mapping[str, Mapping[str, Any] | None]) -> None:
    """`Diverged` if the answers on a split are not finite: their accuracy would be that of a constant answer."""
    for split, metrics in measured.items():
        if metrics is not None and not math.isfinite(metrics["loss"]):
            raise Diverged(
                f"{run.folder}: the loss on the {split} images is {metrics['loss']} at the end of training: it has "
                "diverged; lower optimizer.lr, or set optimizer.clip_norm or optimizer.warmup, in another run"
            )


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


def classification_loss(
    classifier: RegulatedClassifier, images: ImageSet, recipe: TrainRecipe, of_classes: Tensor | None = None
) -> LossOf:
    """The loss that trains a classifier on batches of `images`, with the features of a frozen encoder made cheap.

    Args:
        classifier: its encoder is looked up where it is frozen.
        images: the training images.
        recipe: loss, encoder and augment are used.
        of_classes: from `class_weights`.

    Raises:
        SettingError: a matched budget for a classifier of your own one branch of which gets no gradient.
    """
    loss, has_two = recipe.loss, classifier.encoder is not None  # your own classifier's mode need not be the recipe's
    weights, scale = loss.weights(has_two), UNSCALED
    if has_two and loss.budget == "matched":
        scale = matched_scale(weights, classifier.regulation.expected_start)
    features: FrozenFeatures | None = None
    if classifier.encoder is not None and classifier.freeze_encoder:
        seed = derive_seed(recipe.seed, "views")
        features = FrozenFeatures(classifier.encoder, images, recipe.encoder.views, recipe.augment, seed)

    def loss_of(model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, RegulatedClassifier)
        response = model.respond(batch.images, None if features is None else features(batch), scale)
        labels = batch.targets(model.num_classes)
        return regulation_loss(response, labels, weights, loss.label_smoothing, of_classes)

    return loss_of


def evaluate(
    run: Run | Path | str,
    data: str | None = None,
    device: Device = "auto",
    model: RegulatedClassifier | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Metrics of a finished run on its own test split, or on other labelled images.

    The run's own test split was scored once, when training ended; scoring it again says so in a line.

    Args:
        run: the run or its folder.
        data: a target's name ("cifar10"), or a folder or zip of `[test/]<class>/*.jpg|png` whose classes the
            run knows; None for the run's own test split.
        device: as training.device.
        model: for a run that trained your own model, one built alike.
        progress: where it is shown; None for the terminal.

    Returns:
        target, what was scored in words; `measure`'s metrics; images_trained_on, how many of the images the run was
        trained on (None where it has no record of these); images_per_second; and classes, their names in the order of
        per_class and confusion.

    Raises:
        UserError: unfinished run; missing images; classes that the run does not know; the own test split of a run
            that leaves it unseen (target.test).
    """
    progress = progress or Progress()
    run = open_run(run)
    recipe = run.recipe
    if not isinstance(recipe, TrainRecipe):
        raise UserError(f"{run.folder} is a run of stage 1; evaluate takes a classifier's")
    training = dataclasses.replace(recipe.training, device=device)
    fabric = make_fabric(training)
    classifier, classes = load_classifier(run, model)
    target = recipe.target
    if data is not None and _is_own(run, target, data):
        target, data = dataclasses.replace(target, root=data), None
    table = read_for_scoring(target, data, classes, progress, recipe.edition)
    is_own = is_own_test_split(target, data)
    if is_own:
        progress.say(
            f"{run.folder.name}: another look at its test images, which were scored when training ended; choices made "
            "from it bias what is reported on them"
        )
    images = _load(table, recipe.target, training, fabric, progress)
    trained_on = count_trained_on(run, images, progress)
    if trained_on is None and not is_own:
        progress.say(
            f"{run.folder.name} holds no record of its training images, as runs of earlier versions and of sets too "
            "large to hold in memory: not checked whether these are among them"
        )
    classifier = classifier.to(fabric.device)
    begun = time.perf_counter()
    metrics = measure(classifier, images, fabric)
    speed = len(images) / (time.perf_counter() - begun)
    if remark := remark_on_answers(metrics, classes):
        progress.say(f"{run.folder.name}: {remark}")
    what = describe_run(run) if is_own else f"{portable(str(data), run.folder)}, {len(classes)} classes"
    return {
        "target": what,
        **metrics,
        "images_trained_on": trained_on,
        "images_per_second": speed,
        "classes": list(classes),
    }


def describe_run(run: Run) -> str:
    """The target of a finished run of stage 2 in words, see `describe_target`. UserError if its files are damaged."""
    recipe, final = run.recipe, run.final
    assert isinstance(recipe, TrainRecipe)
    return describe_target(recipe.target, len(final.get("classes") or ()) or None, whole_of(final))


def whole_of(final: Mapping[str, Any]) -> int | None:
    """Number of classes of a run's whole target, from its final.json; None in that of an earlier emoreg."""
    told = final.get("target")
    found = told.get("classes") if isinstance(told, Mapping) else None
    return found if type(found) is int and found > 0 else None


def _is_own(run: Run, target: TargetSettings, data: str) -> bool:
    """Whether the images of a run are at `data` now, whatever their path was."""
    was, now = run.inputs.data.get("target"), contents_of(dataclasses.replace(target, root=data))
    return was is not None and now is not None and was.sha256 == now.sha256 is not None


def load_classifier(run: Run, model: RegulatedClassifier | None = None) -> tuple[RegulatedClassifier, tuple[str, ...]]:
    """The trained classifier of a finished run, in evaluation, and its classes' names.

    Args:
        run: of stage 2.
        model: for a run that trained your own model, one built alike.

    Raises:
        UserError: unfinished run, or weights of another architecture.
    """
    recipe = run.recipe
    if not isinstance(recipe, TrainRecipe):
        raise UserError(f"{run.folder} is a run of stage 1; it holds no classifier")
    weights, metadata = run.weights()
    names = metadata.get("classes")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and is_plain(name) for name in names):
        raise UserError(f"{run.folder / WEIGHTS} does not say what its classes are called: it is damaged")
    classes = tuple(names)
    if model is not None:
        require_classifier(model, "model")
    else:
        refuse_without(run)
        # The run's own weights replace those of its experience, which need not be there any more.
        own = recipe.encoder.backbone
        untrained = dataclasses.replace(
            recipe.encoder, experience=None, takeover="as_is", moments_only=False, backbone=own and own.untrained
        )
        plain = dataclasses.replace(recipe, encoder=untrained, backbone=recipe.backbone.untrained)
        model = build_classifier(plain, len(classes))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{run.folder / WEIGHTS} holds weights of another architecture: {shortened(str(error), 300)}"
        ) from None
    return model.eval(), classes


def _load(
    table: Table, target: TargetSettings, training: TrainingSettings, fabric: Fabric, progress: Progress
) -> ImageSet:
    limit = training.memory_limit_gib
    images = load_images(table, target.image_size, target.skip_unreadable, limit, progress, target.fit)
    return images.to(fabric.device)


def _fingerprint(experience: str | None) -> dict[str, str] | None:
    """Which experience an encoder has had: its folder's name, and the checksum of its weights."""
    if experience is None:
        return None
    checksum = weights_checksum(Path(experience) / WEIGHTS)
    return None if checksum is None else {"folder": Path(experience).name, "sha256": checksum}
