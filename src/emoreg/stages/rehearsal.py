"""Rehearsal: stage 2 goes on showing an encoder the stimuli of its stage 1, so that it does not forget them (ours).

Robins 1995, "Catastrophic forgetting, rehearsal and pseudorehearsal". The encoder alone is rehearsed, through the
read-out that stage 1 has trained and that now stays as it is. Every twin rehearses what it has learned itself; a fresh
encoder, and one that keeps only moments, have learned nothing that could be rehearsed.
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
from emoreg.stages.pretrain import experience_run, load_read_out
from emoreg.stages.stage1_data import Stage1Data, read_stage1_data

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Rehearsal(nn.Module):
    """w · the loss of stage 1, of as many stimuli as a step has images.

    They come in one random order, again and again: which ones follows from the number of images before, which a
    checkpoint holds, and not from what is learned, so that all twins see the same ones. The running statistics of the
    encoder's batch norms are left to the images of the target.

    Args:
        weight: w, above 0.
        head: read-out of the encoder's features; it is not trained.
        stimuli: held in memory, labelled as stage 1 had them.
        quotas: of an epoch of stage 1.
        loss_of: of stage 1.
        mirrors: mirror every other stimulus left to right, in the next pass the others.
        turns: turn a stimulus by another quarter turn in every other pass, which is then its label; stage 1 of the twin
            rotation draws its turns.
        seed: of the order.
        part: (index, number) of the processes that share a step and its stimuli.
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
        part: tuple[int, int] = (0, 1),
    ) -> None:
        super().__init__()
        self.weight, self.stimuli, self.loss_of = weight, stimuli, loss_of
        self.mirrors, self.turns, self.part = mirrors, turns, part
        self.head = head.requires_grad_(False)
        order = mixed_order(quotas, seed, 0, generator(seed, "rehearsal"))
        self.register_buffer("order", order.to(stimuli.labels.device), persistent=False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64, device=stimuli.labels.device))
        self._outside_of_graphs = torch.compiler.disable(type(self)._next)  # not bound, so that copies have their own

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
        index, processes = self.part
        numbers = self.seen + index + processes * torch.arange(count, device=self.seen.device)
        self.seen += processes * count
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


def read_rehearsal(recipe: TrainRecipe, fabric: Fabric, progress: Progress) -> Rehearsal | None:
    """The rehearsal that a recipe asks for, of the stimuli of its experience; None for none.

    Raises:
        UserError: the stimuli are not there as they were in stage 1, or do not fit into memory.
    """
    settings = recipe.encoder
    if not settings.rehearsal or settings.experience is None:
        return None
    run, first = experience_run(settings.experience)
    training = replace(first.training, memory_limit_gib=recipe.training.memory_limit_gib)
    try:
        data = read_stage1_data(replace(first, training=training), fabric, progress, tells=False)
    except UserError as error:
        mend = "rehearsal reads them where stage 1 did: put them, or a link to them, there"
        raise UserError(f"encoder.rehearsal: the stimuli of {run.folder} cannot be read: {error}; {mend}") from None
    images = data.images
    if (other := _difference(run, first, data)) is not None:
        reason = "rehearsal needs the stimuli as they were, read from files"
        raise UserError(f"encoder.rehearsal: {run.folder} learned from {other}; {reason}")
    if images.pixels is None:
        reason = f"needs the {len(images):,} images of {images.table.name} in memory, where they do not fit"
        mend = "raise training.memory_limit_gib, set it to 0, or pre-train with fewer (stimuli.limit)"
        raise SettingError("encoder.rehearsal", f"{reason}; {mend}")
    turns = first.pretext == "rotation"
    rehearsal = Rehearsal(
        settings.rehearsal,
        load_read_out(run, data.task.outputs),
        images,
        data.quotas,
        loss_of_classes if turns else data.task.loss_of,
        first.augment.flip,
        turns,
        recipe.seed,
        (fabric.global_rank, fabric.world_size),
    )
    return rehearsal.to(fabric.device)


def _difference(run: Run, recipe: PretrainRecipe, data: Stage1Data) -> str | None:
    """What a run of stage 1 learned from, and what is there in its place now; None where it is the same."""
    count, name = run.final.get("images"), run.final.get("stimuli")
    if (count, name) != (len(data.images), data.images.table.name):
        return f"{count} images of {name}, and now there are {len(data.images)} of {data.images.table.name}"
    if run.final.get("labels", data.labels) != data.labels:
        return "other labels of the same images"
    then, now = run.inputs.data, inputs_of(recipe).data  # of stimuli that were given in Python never the same
    is_other = any(then[section].sha256 != now[section].sha256 for section in then.keys() & now.keys())
    return "images of other contents" if is_other else None


def loss_of_classes(read_out: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
    """The mean cross-entropy of a read-out, images (B, 3, S, S) -> logits (B, E), over labels int64 (B,)."""
    return F.cross_entropy(read_out(batch.images), batch.labels)
