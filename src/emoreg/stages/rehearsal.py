"""Rehearsal: stage 2 continues to train an encoder on the stimuli of stage 1, so that it does not forget them (ours).

Robins 1995, "Catastrophic forgetting, rehearsal and pseudorehearsal". Only the encoder is trained, through the fixed
read-out of stage 1. Every twin rehearses what it has learned itself; `fresh` and `moments` have learned nothing that
could be rehearsed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.data.images.augment import normalise
from emoreg.data.images.batches import Batch, SetQuota, mixed_order
from emoreg.data.images.image_set import ImageSet
from emoreg.errors import SettingError, UserError
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.runtime.seeding import generator
from emoreg.stages.inputs import inputs_of
from emoreg.stages.pretext import TURNS, StimulusLoss, turned_by
from emoreg.stages.pretrain import experience_run, load_stage1_head
from emoreg.stages.stage1_data import Stage1Data, read_stage1_data

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Rehearsal(nn.Module):
    """w times the loss of stage 1, on as many stimuli as a step has images.

    The stimuli repeat in one random order. The next ones follow from the number of stimuli so far, which a checkpoint
    keeps, so that all twins see the same ones. They do not update the running statistics of the encoder's batch norms.

    Args:
        weight: w, above 0.
        head: read-out of the encoder's features; it is not trained.
        stimuli: in memory, with the labels of stage 1.
        quotas: of an epoch of stage 1.
        loss_of: of stage 1.
        mirrors: mirror every other stimulus left to right, and in the next pass the others.
        turns: for the twin rotation: after every second pass, turn each stimulus by another quarter turn, its label.
            (Stage 1 draws turns at random.)
        seed: of the order.
        part: of a step's images and stimuli, if several processes share them: this process's first one, the one after
            its last, and their number in all processes. None for a single process.
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
        turns: bool,
        seed: int,
        part: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        self.weight, self.stimuli, self.loss_of = weight, stimuli, loss_of
        self.mirrors, self.turns, self.part = mirrors, turns, part
        self.taken = 0  # of this process's stimuli of the current step
        self.head = head.requires_grad_(False)
        order = mixed_order(quotas, seed, 0, generator(seed, "rehearsal"))
        self.register_buffer("order", order.to(stimuli.labels.device), persistent=False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64, device=stimuli.labels.device))
        self._outside_of_graphs = torch.compiler.disable(type(self)._next)  # unbound, so that copies use themselves

    def forward(self, encoder: nn.Module, count: int) -> Tensor:
        """Return the weighted loss of the next `count` stimuli, a scalar."""
        batch: Batch = self._outside_of_graphs(self, count)
        buffers = {name: buffer.clone() for name, buffer in encoder.named_buffers()}

        def read_out(images: Tensor) -> Tensor:
            outputs: Tensor = self.head(functional_call(encoder, buffers, (images,)))
            return outputs

        return self.weight * self.loss_of(read_out, batch)

    @torch.no_grad()
    def _next(self, count: int) -> Batch:
        first, last, size = self.part or (0, count, count)
        numbers = self.seen + first + self.taken + torch.arange(count, device=self.seen.device)
        self.taken += count
        if first + self.taken >= last:  # processes may have different numbers, so all count whole steps
            self.seen += size
            self.taken = 0
        passes, places = numbers // len(self.order), numbers % len(self.order)
        pixels, labels, rows = next(self.stimuli.batches(self.order[places], count))
        images = normalise(pixels)
        if self.mirrors:
            is_mirrored = (places + passes) % 2 == 1
            images = torch.where(is_mirrored[:, None, None, None], images.flip(3), images)
        if self.turns:
            labels = (places + passes // 2) % len(TURNS)
            images = turned_by(images, labels)
        return Batch(images, labels, rows)


def read_rehearsal(
    recipe: TrainRecipe, fabric: Fabric, progress: Progress, batch_size: int | None = None
) -> Rehearsal | None:
    """Make the rehearsal of a recipe, with the stimuli of its experience; None if it has none.

    Args:
        recipe: of stage 2.
        fabric: device, and the processes that share a step.
        progress: reports the decoding of the stimuli.
        batch_size: images in a step, over all processes; None for training.batch_size.

    Raises:
        UserError: the stimuli are missing, have changed since stage 1, or do not fit into memory.
    """
    settings = recipe.encoder
    if not settings.rehearsal or settings.experience is None:
        return None
    run, first = experience_run(settings.experience)
    training = replace(first.training, memory_limit_gib=recipe.training.memory_limit_gib)
    try:
        data = read_stage1_data(replace(first, training=training), fabric, progress, verbose=False)
    except UserError as error:
        hint = "rehearsal reads them where stage 1 did: put them, or a link to them, there"
        raise UserError(f"encoder.rehearsal: the stimuli of {run.folder} cannot be read: {error}; {hint}") from None
    images = data.images
    if (difference := _difference(run, first, data)) is not None:
        reason = "rehearsal needs the stimuli as they were, read from files"
        raise UserError(f"encoder.rehearsal: {run.folder} learned from {difference}; {reason}")
    if images.pixels is None:
        reason = f"needs the {len(images):,} images of {images.table.name} in memory, where they do not fit"
        hint = "raise training.memory_limit_gib, set it to 0, or pre-train with fewer (stimuli.limit)"
        raise SettingError("encoder.rehearsal", f"{reason}; {hint}")
    turns = first.pretext == "rotation"
    size, rank, processes = batch_size or recipe.training.batch_size, fabric.global_rank, fabric.world_size
    part = (size * rank // processes, size * (rank + 1) // processes, size) if processes > 1 else None
    rehearsal = Rehearsal(
        settings.rehearsal,
        load_stage1_head(run, data.task.outputs),
        images,
        data.quotas,
        loss_of_classes if turns else data.task.loss_of,
        first.augment.flip,
        turns,
        recipe.seed,
        part,
    )
    return rehearsal.to(fabric.device)


def _difference(run: Run, recipe: PretrainRecipe, data: Stage1Data) -> str | None:
    """Describe what a run of stage 1 learned from if the stimuli differ now; None if they do not."""
    count, name = run.final.get("images"), run.final.get("stimuli")
    if (count, name) != (len(data.images), data.images.table.name):
        return f"{count} images of {name}, and now there are {len(data.images)} of {data.images.table.name}"
    if run.final.get("labels", data.labels) != data.labels:
        return "other labels of the same images"
    then, now = run.inputs.data, inputs_of(recipe).data  # user-supplied stimuli always differ
    differs = any(then[section].sha256 != now[section].sha256 for section in then.keys() & now.keys())
    return "images of other contents" if differs else None


def loss_of_classes(read_out: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
    """The mean cross-entropy of a read-out, images (B, 3, S, S) -> logits (B, E), with labels int64 (B,)."""
    return F.cross_entropy(read_out(batch.images), batch.labels)
