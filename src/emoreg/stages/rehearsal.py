"""Rehearsal: stage 2 goes on showing an encoder the stimuli of its stage 1, so that it does not forget them (ours).

Robins 1995, "Catastrophic forgetting, rehearsal and pseudorehearsal". The encoder alone is rehearsed, through the
read-out that stage 1 has trained and that now stays as it is. Every twin rehearses what it has learned itself; a fresh
encoder, and one that keeps only moments, have learned nothing that could be rehearsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call

from emoreg.config.recipe import TrainRecipe
from emoreg.data.images.augment import normalise
from emoreg.data.images.batches import Batch, SetQuota, mixed_order
from emoreg.data.images.image_set import ImageSet
from emoreg.errors import SettingError, UserError
from emoreg.runtime.progress import Progress
from emoreg.runtime.seeding import generator
from emoreg.stages.inputs import inputs_of
from emoreg.stages.lessons import read_lessons
from emoreg.stages.pretext import StimulusLoss
from emoreg.stages.pretrain import experience_run

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Rehearsal(nn.Module):
    """w · the loss of stage 1, of as many stimuli as a step has images.

    They come in one random order, again and again: which ones follows from the number of images before, which a
    checkpoint holds, and not from what is learned, so that all twins see the same ones. The running statistics of the
    encoder's batch norms are left to the images of the target. Processes that share a step rehearse the same stimuli.

    Args:
        weight: w, above 0.
        head: read-out of the encoder's features; it is not trained.
        stimuli: held in memory, labelled as stage 1 had them.
        quotas: of an epoch of stage 1.
        loss_of: of stage 1.
        mirrors: mirror every other stimulus left to right, in the next pass the others.
        seed: of the order.
    """

    order: Tensor  # int64 (M,), rows of an epoch of stage 1
    seen: Tensor  # int64 (), stimuli so far

    def __init__(
        self,
        weight: float,
        head: nn.Linear,
        stimuli: ImageSet,
        quotas: Sequence[SetQuota],
        loss_of: StimulusLoss,
        mirrors: bool,
        seed: int,
    ) -> None:
        super().__init__()
        self.weight, self.stimuli, self.loss_of, self.mirrors = weight, stimuli, loss_of, mirrors
        self.head = head.requires_grad_(False)
        order = mixed_order(quotas, seed, 0, generator(seed, "rehearsal"))
        self.register_buffer("order", order.to(stimuli.labels.device), persistent=False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64, device=stimuli.labels.device))
        self._outside_of_graphs = torch.compiler.disable(type(self)._next)

    def forward(self, encoder: nn.Module, count: int) -> Tensor:
        """The weighted loss of the next `count` stimuli, a scalar."""
        batch: Batch = self._outside_of_graphs(self, count)
        buffers = {name: buffer.clone() for name, buffer in encoder.named_buffers()}

        def read_out(images: Tensor) -> Tensor:
            outputs: Tensor = self.head(functional_call(encoder, buffers, (images,)))
            return outputs

        return self.weight * self.loss_of(read_out, batch)

    @torch.no_grad()
    def _next(self, count: int) -> Batch:
        numbers = self.seen + torch.arange(count, device=self.seen.device)
        passes, places = numbers // len(self.order), numbers % len(self.order)
        self.seen += count
        pixels, labels, rows = next(self.stimuli.batches(self.order[places], count))
        images = normalise(pixels)
        if self.mirrors:
            is_mirrored = (places + passes) % 2 == 1
            images = torch.where(is_mirrored[:, None, None, None], images.flip(3), images)
        return Batch(images, labels, rows)


def read_rehearsal(recipe: TrainRecipe, fabric: Fabric, progress: Progress) -> Rehearsal | None:
    """The rehearsal that a recipe asks for, of the stimuli of its experience; None for none.

    Raises:
        UserError: the stimuli are not there as they were in stage 1, or do not fit into memory.
    """
    settings = recipe.encoder
    if not settings.rehearsal or settings.experience is None:
        return None
    run, first = experience_run(settings.experience)
    try:
        lessons = read_lessons(first, fabric, progress, tells=False)
    except UserError as error:
        mend = "start it where stage 1 was started, if paths are relative, or pre-train again"
        raise UserError(f"encoder.rehearsal: the stimuli of {run.folder} cannot be read: {error}; {mend}") from None
    images, told = lessons.images, (run.final["stimuli"], run.final["images"])
    then, now = run.inputs.data, inputs_of(first).data
    is_other = any(then[section].sha256 != now[section].sha256 for section in then.keys() & now.keys())
    if is_other or told != (images.table.name, len(images)):
        raise UserError(
            f"encoder.rehearsal: {run.folder} learned from {told[1]:,} images of {told[0]}, and now there are "
            f"{len(images):,} of {images.table.name}{', of other contents' if is_other else ''}; rehearsal needs the "
            "stimuli as they were, read from files"
        )
    if images.pixels is None:
        reason = f"needs the {len(images):,} images of {images.table.name} in memory, where they do not fit"
        raise SettingError("encoder.rehearsal", f"{reason}; set it to 0, or pre-train with fewer (stimuli.limit)")
    weights = {name.removeprefix("head."): part for name, part in run.weights()[0].items() if name.startswith("head.")}
    head = nn.Linear(weights["weight"].shape[1], weights["weight"].shape[0])
    head.load_state_dict(weights)
    mirrors = first.augment.flip
    return Rehearsal(settings.rehearsal, head, images, lessons.quotas, lessons.task.loss_of, mirrors, recipe.seed).to(
        fabric.device
    )
