"""Stage 1: an emotional encoder learns from affective stimuli (its "artificial subjective experience").

Stated by the source (arXiv:2606.13081): the encoder, of the backbone's family, is pre-trained on images that
are labelled with the emotion that they evoke. Ours: the losses and metrics for each kind of label.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emoreg.backbones import build_backbone, num_features
from emoreg.emotion import EmotionSpace
from emoreg.errors import UserError
from emoreg.images.batches import evaluation_batches
from emoreg.images.decode import ImageSet, load_images
from emoreg.images.splits import cut_validation
from emoreg.images.table import Table
from emoreg.progress import Progress
from emoreg.randomness import drawn_from
from emoreg.run import Run, record_session, start_run
from emoreg.settings import BackboneSettings, PretrainRecipe
from emoreg.stimuli import read_stimuli
from emoreg.stimuli.stimuli import choose_labels
from emoreg.training import fit, make_fabric

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class AffectiveModel(nn.Module):
    """An emotional encoder e with a linear read-out of emotion.

    Args:
        encoder: maps (B, 3, H, W) to (B, De) and has `num_features` = De.
        outputs: E, the number of categories or dimensions.
    """

    def __init__(self, encoder: nn.Module, outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(num_features(encoder), outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Logits or values (B, E) of images (B, 3, H, W)."""
        return self.head(self.encoder(images))


def affective_loss(outputs: Tensor, labels: Tensor, space: EmotionSpace) -> Tensor:
    """The stage-1 loss for a space's kind of label (ours).

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
        ccc = concordance_corrcoef(outputs.float(), labels).reshape(-1).tolist()
        return metrics | {"ccc": sum(ccc) / len(ccc)} | {f"ccc_{n}": c for n, c in zip(space.names, ccc, strict=True)}
    truth = labels if space.kind == "category" else labels.argmax(dim=1)
    return metrics | {"accuracy": (outputs.argmax(dim=1) == truth).float().mean().item()}


def pretrain(
    recipe: PretrainRecipe,
    out: Path | str,
    stimuli: tuple[Table, EmotionSpace] | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train an emotional encoder, or go on with a run that was stopped.

    Args:
        recipe: all settings.
        out: the run folder; a finished run is returned as it is.
        stimuli: your own affective images in place of `recipe.stimuli.name`.
        progress: where it is shown; None for the terminal.

    Raises:
        UserError: bad input of any kind, in one line.
    """
    progress = progress or Progress()
    run = start_run(out, recipe)
    if run.is_finished:
        return run
    fabric = make_fabric(recipe.training)
    table, space = stimuli or choose_labels(read_stimuli(recipe.stimuli, recipe.seed), recipe.stimuli.labels)[:2]
    check_labels(table, space)
    train_table, validation_table = cut_validation(table, recipe.stimuli.validation, recipe.stimuli.limit, recipe.seed)

    def load(part: Table) -> ImageSet:
        settings = recipe.stimuli
        limit = recipe.training.memory_limit_gib
        return load_images(part, settings.image_size, settings.skip_unreadable, limit, progress).to(fabric.device)

    images = load(train_table)
    validation = load(validation_table) if validation_table else None
    with drawn_from(recipe.seed, "encoder"):
        model = AffectiveModel(build_backbone(recipe.backbone, recipe.stimuli.image_size), len(space.names))
    model.to(memory_format=torch.channels_last)
    record_session(run, {"device": str(fabric.device), "precision": fabric._precision.precision})

    def score(candidate: nn.Module) -> dict[str, float]:
        if validation is None:
            return {}
        metrics = measure_affect(candidate, validation, space, fabric)
        return {f"val_{name}": value for name, value in metrics.items()}

    def loss_of(model: nn.Module, batch: Tensor, labels: Tensor) -> Tensor:
        return affective_loss(model(batch), labels, space)

    kept, seconds = fit(model, loss_of, images, score, recipe, {}, run, fabric, progress)
    final: dict[str, Any] = {
        "stimuli": table.name,
        "images": len(images),
        "validation": measure_affect(kept, validation, space, fabric) if validation else None,
        "train": measure_affect(kept, images, space, fabric),
        "seconds": seconds,
        "parameters": sum(p.numel() for p in kept.parameters()),
    }
    metadata = {"stage": 1, "space": dataclasses.asdict(space), "image_size": recipe.stimuli.image_size}
    run.finish(kept.state_dict(), metadata, final)
    return run


@torch.no_grad()
def measure_affect(model: nn.Module, images: ImageSet, space: EmotionSpace, fabric: Fabric) -> dict[str, float]:
    """Metrics of an affective model on all of `images`; see `affective_metrics`."""
    model.eval()
    with fabric.autocast():
        pairs = [(model(batch).float(), labels) for batch, labels in evaluation_batches(images)]
    outputs, labels = (torch.cat(part) for part in zip(*pairs, strict=True))
    return affective_metrics(outputs, labels, space)


def load_encoder(
    experience: Path | str, expected: BackboneSettings | None = None, image_size: int | None = None
) -> nn.Module:
    """The emotional encoder of a finished stage-1 run.

    Args:
        experience: its run folder.
        expected: the architecture that stage 2 asks for; None takes what is there.
        image_size: of stage 2, in pixels; a ViT's position embeddings must fit it. None for stage 1's.

    Raises:
        UserError: no finished stage-1 run, or an encoder of another architecture.
    """
    run, recipe = _experience_run(experience)
    there = encoder_architecture(experience)
    if expected is not None and expected != there:
        raise UserError(
            f"encoder.experience: {experience} holds an encoder of another architecture, {there.name}, "
            f"not {expected.name} as encoder.backbone asks: leave encoder.backbone out, or pre-train that one"
        )
    weights, _ = run.weights()
    image_size = image_size or recipe.stimuli.image_size
    encoder = build_backbone(there, image_size)
    prefix = "encoder."
    try:
        encoder.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise UserError(
            f"encoder.experience: the encoder in {experience} ({there.name}, {recipe.stimuli.image_size} pixels) "
            f"does not fit {image_size} pixels: {detail}"
        ) from None
    return encoder


def encoder_architecture(experience: Path | str) -> BackboneSettings:
    """The architecture of a stage-1 run's encoder. UserError if there is no such run."""
    backbone = _experience_run(experience)[1].backbone
    return dataclasses.replace(backbone, pretrained=False)  # its weights come from the run


def _experience_run(experience: Path | str) -> tuple[Run, PretrainRecipe]:
    if not Path(experience).is_dir():
        raise UserError(f"encoder.experience: no run folder {experience}; make it with 'emoreg pretrain RECIPE'")
    run = Run(Path(experience))
    recipe = run.recipe
    if not isinstance(recipe, PretrainRecipe):
        raise UserError(f"encoder.experience: {experience} is a run of stage 2, not of stage 1")
    return run, recipe


def check_labels(table: Table, space: EmotionSpace) -> None:
    """UserError for labels that the space does not have; names set and row."""
    labels = torch.from_numpy(table.labels)
    if space.kind == "category":
        wrong = (labels < 0) | (labels >= len(space.names))
        allowed = f"0 to {len(space.names) - 1}"
    else:
        if labels.ndim != 2 or labels.shape[1] != len(space.names):
            raise UserError(f"{table.name}: labels of shape {tuple(labels.shape)} for {len(space.names)} names")
        if space.kind == "votes":
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
