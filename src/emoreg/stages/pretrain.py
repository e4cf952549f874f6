"""Stage 1: pre-train an emotional encoder on affective stimuli (its "artificial subjective experience").

Stated by the source (arXiv:2606.13081): the encoder, of the backbone's family, is pre-trained on images labelled with
the emotion that they evoke. Ours: the losses and metrics for each kind of label, and the twins' pretext tasks
(`pretext.py`).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from emoreg.config.recipe import PretrainRecipe, require_recipe, with_stems
from emoreg.config.schema import BackboneSettings
from emoreg.config.setting_types import path_of
from emoreg.data.given import GivenStimuli, check_stimuli
from emoreg.data.images.image_set import ImageSet
from emoreg.data.images.table import Table
from emoreg.data.stimuli.emotion import EmotionSpace
from emoreg.errors import UserError, shortened
from emoreg.models.backbones import build_backbone, channels_last, stem_note
from emoreg.models.features import num_features, pooled_features, require_features, require_network
from emoreg.models.weight_source import with_sources
from emoreg.runs.run import WEIGHTS, Run, open_run
from emoreg.runtime.progress import Progress
from emoreg.runtime.seeding import drawn_from
from emoreg.stages.given_model import architecture_of
from emoreg.stages.inputs import inputs_of
from emoreg.stages.leaks import record_seen
from emoreg.stages.origins import mark_experience, mark_trained, warn_if_trained
from emoreg.stages.pretext import chance_of
from emoreg.stages.probe import probe_outputs, refuse_other_outputs
from emoreg.stages.stage1_data import load_parts, read_stage1_data
from emoreg.training.launch import RunContext, launch
from emoreg.training.loop import fit
from emoreg.training.step import Objective


class AffectiveModel(nn.Module):
    """An emotional encoder e with a linear read-out of emotion, or of a twin's pretext task.

    Args:
        encoder: maps (B, 3, H, W) to (B, De) and has `num_features` = De.
        outputs: E, the number of categories, dimensions or quarter turns.
    """

    def __init__(self, encoder: nn.Module, outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(num_features(encoder), outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits or values (B, E) of images (B, 3, H, W)."""
        return self.head(pooled_features(self.encoder, images, self.head.in_features, "encoder"))


def pretrain(
    recipe: PretrainRecipe,
    out: Path | str,
    stimuli: tuple[Table, EmotionSpace] | None = None,
    progress: Progress | None = None,
    encoder: nn.Module | None = None,
) -> Run:
    """Train an emotional encoder, or resume a run that was stopped.

    An encoder learns several sets (`recipe.also`) at the same time, with a head for each. `recipe.pretext` is the task
    that it learns; images, splits, order, augmentation and steps do not depend on it.

    Args:
        recipe: all settings.
        out: the run folder; a finished run is returned as it is.
        stimuli: your own affective images and labels instead of `recipe.stimuli.name`; for any pretext.
        progress: None prints to the terminal.
        encoder: a network of your own, trained in place: any module that maps images (B, 3, S, S) to features
            (B, num_features). The run records it instead of the recipe's backbone. To load its weights, give
            `load_encoder` a network built with the same code.

    Raises:
        UserError: bad input of any kind, in one line.
    """
    recipe, progress = with_sources(require_recipe(recipe, PretrainRecipe, "pretrain")), progress or Progress()
    recipe = with_stems(recipe)
    if stimuli is not None:
        check_stimuli(stimuli)
    if encoder is not None:
        require_network(encoder, "encoder")
        require_features(encoder, recipe.stimuli.image_size, "encoder")
        recipe = dataclasses.replace(recipe, backbone=architecture_of(encoder))
    elif note := stem_note(recipe.backbone, recipe.stimuli.image_size):
        progress.detail(note)
    given, inputs = _Given(stimuli, encoder), inputs_of(recipe, stimuli, encoder)
    was_finished = Run(path_of(out, "out")).is_finished
    run = launch(out, recipe, _pretrain, given, progress, inputs)
    if encoder is not None:
        # Needed if other processes trained copies, if the run was finished already, or if optimizer.ema averages.
        _load_weights(encoder, run, compare=was_finished)
    return run


class _Given(NamedTuple):
    """User-supplied replacements of what the recipe names."""

    stimuli: GivenStimuli | None
    encoder: nn.Module | None


def _pretrain(context: RunContext[PretrainRecipe], given: _Given) -> None:
    fabric, run, recipe, progress = context.fabric, context.run, context.recipe, context.progress
    data = read_stage1_data(recipe, fabric, progress, given.stimuli, context.is_leader)
    splits, parts, task = data.splits, data.parts, data.task
    if context.is_leader:
        record_seen(run, parts, progress)

    def load(tables: list[Table | None]) -> list[ImageSet | None]:
        if not context.is_leader:
            return [None] * len(splits)
        loaded = load_parts(tables, splits, recipe, recipe.training.memory_limit_gib, progress)
        return [part and part.to(fabric.device) for part in loaded]

    validation, test = load([split.validation for split in splits]), load([split.test for split in splits])
    with drawn_from(recipe.seed, "encoder"):
        size = recipe.stimuli.image_size
        encoder = build_backbone(recipe.backbone, size) if given.encoder is None else given.encoder
        model = AffectiveModel(encoder, task.outputs)
    channels_last(model)
    context.record_session()

    def score(candidate: nn.Module) -> dict[str, float]:
        metrics = task.measure(candidate, validation) or {}
        return {f"val_{name}": value for name, value in metrics.items()}

    if given.encoder is not None:
        warn_if_trained(run, "encoder", given.encoder, progress)
        mark_trained(given.encoder, run)
    mixture = data.quotas if len(splits) > 1 else ()
    kept, seconds = fit(context, Objective(model, task.loss_of), data.images, score, mixture)
    if not context.is_leader:
        return
    counts = zip(data.heads, splits, parts, validation, test, data.quotas, strict=True)
    final: dict[str, Any] = {
        "stimuli": data.images.table.name,
        "images": len(data.images),
        "labels": data.labels,
        "sets": {
            head.name: {
                "train": len(part),
                "validation": len(unseen or ()),
                "test": len(tested or ()),
                "left_out": split.left_out,
                "an_epoch": quota.per_epoch,
                "chance": chance_of(unseen, head.space, recipe.pretext),
            }
            for head, split, part, unseen, tested, quota in counts
        },
        "validation": task.measure(kept, validation),
        "test": task.measure(kept, test),
        "train": task.measure(kept, parts),
        "seconds": seconds,
        "parameters": sum(p.numel() for p in kept.parameters()),
    }
    metadata = {"stage": 1, "image_size": size, "pretext": recipe.pretext, **task.read_out}
    if given.encoder is not None:
        assert isinstance(kept, AffectiveModel)
        metadata |= probe_outputs(kept.encoder, size)
    run.finish(kept.state_dict(), metadata, final)


def load_encoder(
    experience: Run | Path | str,
    expected: BackboneSettings | None = None,
    image_size: int | None = None,
    encoder: nn.Module | None = None,
) -> nn.Module:
    """Load the emotional encoder of a finished stage-1 run.

    Args:
        experience: the run or its folder.
        expected: the architecture that stage 2 expects; None accepts any.
        image_size: of stage 2, in pixels; a ViT's position embeddings must fit it. None for stage 1's.
        encoder: for a run that trained your own network, one built with the same code; gets the run's weights.
            `expected` and `image_size` are then ignored.

    Raises:
        UserError: no finished stage-1 run, or an encoder of another architecture.
    """
    run, recipe = experience_run(experience)
    if encoder is not None:
        require_network(encoder, "encoder")
        return _load_weights(encoder, run)
    stored = encoder_architecture(experience)
    if expected is not None:
        _require_architecture(expected, stored, run)
    image_size = image_size or recipe.stimuli.image_size
    fault = f"({stored.name}, {recipe.stimuli.image_size} pixels) does not fit {image_size} pixels"
    return _load_weights(build_backbone(stored, image_size), run, fault)


def _require_architecture(expected: BackboneSettings, stored: BackboneSettings, run: Run) -> None:
    """Raise UserError unless a run's encoder has the expected architecture; initialisation does not matter."""
    stem = stored.stem if expected.stem == "auto" else expected.stem
    expected = dataclasses.replace(expected.untrained, zero_gamma=stored.zero_gamma, stem=stem)
    differences = [
        f"{field.name} {getattr(stored, field.name)}, not {getattr(expected, field.name)}"
        for field in dataclasses.fields(stored)
        if getattr(stored, field.name) != getattr(expected, field.name)
    ]
    if differences:
        raise UserError(
            f"encoder.experience: {run.folder} holds an encoder of another architecture than encoder.backbone "
            f"({'; '.join(differences)}): leave encoder.backbone out, or pre-train that one"
        )


def _load_weights(encoder: nn.Module, run: Run, fault: str = "", compare: bool = True) -> nn.Module:
    """Load the weights of a stage-1 run into an encoder, in place.

    Args:
        encoder: perhaps user-supplied.
        run: of stage 1.
        fault: what is wrong if they do not fit; by default for a user-supplied encoder.
        compare: its outputs must match the run's. Training may have changed state that no state dict holds, so the
            encoder that was just trained is not compared.
    """
    fault = fault or f"is of another architecture than encoder, a {type(encoder).__name__}"
    weights, metadata = run.weights()
    prefix = "encoder."
    try:
        encoder.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    except RuntimeError as error:
        detail = shortened(str(error), 300)
        raise UserError(f"encoder.experience: the encoder in {run.folder} {fault}: {detail}") from None
    if compare:
        refuse_other_outputs(run, "encoder", encoder, metadata)
    mark_experience(encoder, run)
    return encoder


def load_stage1_head(run: Run, outputs: int) -> nn.Linear:
    """Load the linear read-out De -> E of a finished stage-1 run; raise UserError unless E is `outputs`."""
    prefix = "head."
    weights = {name.removeprefix(prefix): part for name, part in run.weights()[0].items() if name.startswith(prefix)}
    try:
        head = nn.Linear(weights["weight"].shape[1], outputs)
        head.load_state_dict(weights)
    except (KeyError, IndexError, RuntimeError):
        raise UserError(f"{run.folder / WEIGHTS} is damaged: it holds no read-out of {outputs} outputs") from None
    return head


def encoder_architecture(experience: Run | Path | str) -> BackboneSettings:
    """Return the architecture of a stage-1 run's encoder.

    Raises:
        UserError: no such run, or one that trained a user-supplied network.
    """
    run, recipe = experience_run(experience)
    if recipe.backbone.is_own:
        raise UserError(
            f"encoder.experience: {run.folder} trained a network of your own, which no recipe describes: build one "
            "with the same code, load it by emoreg.load_encoder(run, encoder=...), and pass that to RegulatedClassifier"
        )
    return with_stems(recipe).backbone.untrained  # its weights come from the run


def experience_run(experience: Run | Path | str) -> tuple[Run, PretrainRecipe]:
    """Open a finished run of stage 1 and return it with its recipe. Raise UserError if there is none."""
    run = open_run(experience)
    if not run.folder.is_dir():
        raise UserError(f"encoder.experience: no run folder {run.folder}; make it with 'emoreg pretrain RECIPE'")
    recipe = run.recipe
    if not isinstance(recipe, PretrainRecipe):
        raise UserError(f"encoder.experience: {experience} is a run of stage 2, not of stage 1")
    try:
        run.require_finished()
    except UserError as error:
        raise UserError(f"encoder.experience: {error}") from None
    return run, recipe
