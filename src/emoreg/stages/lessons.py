"""What stage 1 teaches an encoder: stimuli, with the labels that the pretext asks for, and its task on them (ours)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from emoreg.config.recipe import PretrainRecipe
from emoreg.data.images.batches import SetQuota
from emoreg.data.images.image_set import ImageSet, fits_memory, load_images
from emoreg.data.images.table import Table
from emoreg.data.stimuli import WITH_CLASSES
from emoreg.data.stimuli.emotion import EmotionSpace
from emoreg.data.stimuli.stimulus_set import Labels, Stimuli
from emoreg.runtime.progress import Progress
from emoreg.stages.affective_heads import Head, check_labels, heads_of
from emoreg.stages.class_stimuli import read_stimuli
from emoreg.stages.pretext import (
    PretextTask,
    labelled_by_appearance,
    pretext_task,
    refuse_mixed_ratings,
    refuse_neutral,
    with_neutral_labels,
    with_shuffled_labels,
)
from emoreg.stages.stimulus_mixture import Cut, checked_quotas, cut_stimuli, join, refuse_one_class, views

if TYPE_CHECKING:
    from lightning_fabric import Fabric

GivenStimuli = tuple[Table, EmotionSpace]  # a caller's own, in place of those that a recipe names


class Lessons(NamedTuple):
    """The stimuli of a recipe of stage 1 and what is learned from them."""

    cuts: list[Cut]  # one per set, with the labels that are learned
    heads: tuple[Head, ...]
    images: ImageSet  # the training images of all sets together, on the device
    parts: list[ImageSet]  # those of each set, with its own labels
    quotas: tuple[SetQuota, ...]  # drawn from each set per epoch
    task: PretextTask

    @property
    def labels(self) -> str:
        """SHA-256 of the labels of the training images, as they were read; of labels by appearance, of their number."""
        digest = hashlib.sha256()
        for cut in self.cuts:
            digest.update(repr((cut.space.kind, cut.space.names)).encode())
            digest.update(cut.train.labels.tobytes())
        return digest.hexdigest()


def read_lessons(
    recipe: PretrainRecipe, fabric: Fabric, progress: Progress, given: GivenStimuli | None = None, tells: bool = True
) -> Lessons:
    """Read the stimuli of a recipe and decode its training images.

    Args:
        recipe: of stage 1.
        fabric: device and precision.
        progress: says what is left out.
        given: the caller's own stimuli in place of `recipe.stimuli`.
        tells: also what was read.

    Raises:
        UserError: missing or malformed sets; labels that cannot be learned.
    """
    cuts = _cuts(recipe, given, progress, tells)
    if recipe.pretext in ("affect", "shuffled"):
        for cut in cuts:
            refuse_one_class(cut)
    if recipe.pretext == "shuffled":
        cuts = with_shuffled_labels(cuts, recipe.seed)
    elif recipe.pretext == "neutral":
        refuse_neutral([cut.train.name for cut in cuts])
        cuts = with_neutral_labels(cuts)
    refuse_mixed_ratings(cuts, recipe.pretext, recipe.augment)
    heads = heads_of([(cut.train.name, cut.space) for cut in cuts])
    tables, limit = [cut.train for cut in cuts], recipe.training.memory_limit_gib
    # Of a union together one set, which is held whole or not at all.
    if not fits_memory(tables, recipe.stimuli.image_size, limit, progress):
        limit = 0.0
    loaded = [part for part in load_parts(tables, cuts, recipe, limit, progress) if part]
    images = (join(loaded, heads) if len(heads) > 1 else loaded[0]).to(fabric.device)
    parts = views(images, loaded)
    quotas = checked_quotas(parts, cuts)
    task = pretext_task(recipe.pretext, heads, [quota.per_epoch for quota in quotas], fabric)
    return Lessons(cuts, heads, images, parts, quotas, task)


def load_parts(
    tables: Sequence[Table | None], cuts: Sequence[Cut], recipe: PretrainRecipe, limit: float, progress: Progress
) -> list[ImageSet | None]:
    """The images of one part of each set, labelled as the pretext asks; None for a set without such a part.

    Args:
        tables: of each set.
        cuts: the sets.
        recipe: image size and pretext are used.
        limit: for the decoded pixels of each, in GiB.
        progress: shows how many images are decoded.
    """
    size, loaded = recipe.stimuli.image_size, list[ImageSet | None]()
    for table, cut in zip(tables, cuts, strict=True):
        settings = cut.settings
        part = load_images(table, size, settings.skip_unreadable, limit, progress, settings.fit) if table else None
        has_placeholders = recipe.pretext == "neutral" and cut.neutral is None
        loaded.append(labelled_by_appearance(part, progress) if part and has_placeholders else part)
    return loaded


def _cuts(recipe: PretrainRecipe, given: GivenStimuli | None, progress: Progress, tells: bool) -> list[Cut]:
    """Every set of the recipe in its parts; the first one is the caller's, if given."""
    cuts = []
    for settings in recipe.sets:
        if given is not None and settings is recipe.stimuli:
            table, space = given
            check_labels(table, space)
            own = Stimuli(table.name, table.images, (Labels(space, table.labels),))
            as_given = dataclasses.replace(settings, labels="published")
            cuts.append(cut_stimuli(own, as_given, recipe.seed, progress, recipe.edition))
        else:
            if settings.name in WITH_CLASSES and tells:
                progress.say(
                    f"{settings.name}: its classes are the stimuli of stage 1; they are no emotion, and serve "
                    "positive controls"
                )
            whole = read_stimuli(settings, recipe.seed)
            if tells:
                progress.tell(whole.notes, whole.left_out)
            cuts.append(cut_stimuli(whole, settings, recipe.seed, progress, recipe.edition))
    return cuts
