"""Speeds that were measured on a GPU, for those who plan without one: docs/speed.md says how."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from emoreg.config.augment import AugmentSettings
from emoreg.config.recipe import Recipe, TrainRecipe
from emoreg.config.schema import BackboneSettings
from emoreg.runtime.progress import about
from emoreg.study.costs import seconds_of
from emoreg.study.image_counts import CountedSets
from emoreg.study.kinds_of_run import kind_of

GPU, SIZE = "NVIDIA H200", 32  # pixels


class Speed(NamedTuple):
    """Images per second of a training without the second network, and with it."""

    plain: int
    regulated: int


# By backbone and images per step: with SGD, crop and flip, in bf16, not compiled (benchmarks/seen/h200.json). It is the
# launching of kernels that takes the time there, which does not grow as a network's arithmetic does: what was not
# measured is not estimated.
MEASURED: Mapping[tuple[str, int], Speed] = {
    ("resnet18", 128): Speed(13_250, 5_933),
    ("resnet20", 128): Speed(10_803, 6_827),
    ("resnet20", 512): Speed(46_193, 25_627),
}


def gpu_estimate(recipes: Iterable[Recipe], counted: CountedSets) -> str | None:
    """How long those of the runs take on one such GPU whose speed was measured there, in a line; None if none was.

    Args:
        recipes: of runs, whatever device they name.
        counted: from `count_images`.
    """
    seconds, found, total = 0.0, dict[str, None](), 0
    runs = list(recipes)
    for recipe in runs:
        counts, speed = counted.of(recipe), _speed(kind_of(recipe))
        if counts is not None and speed is not None:
            seconds, total = seconds + seconds_of(recipe, counts, 1 / speed), total + 1
            found[f"{recipe.backbone.name} in batches of {recipe.training.batch_size}"] = None
    if not total:
        return None
    which = "it takes" if len(runs) == 1 else "they take"
    if total < len(runs):
        which = f"{total:,} of them ({', '.join(found)}) take"
    return f"{which} {about(seconds)} on one {GPU}, one at a time, by the speeds of docs/speed.md (crop and flip, bf16)"


def _speed(kind: TrainRecipe) -> int | None:
    """Images per second of a kind of step; None if it was not measured."""
    backbone, training = kind.backbone, kind.training
    measured = MEASURED.get((backbone.name, training.batch_size))
    plain = TrainRecipe(
        target=dataclasses.replace(kind.target, image_size=SIZE),
        backbone=BackboneSettings(backbone.name).for_images(SIZE),
        augment=kind.augment,
        training=dataclasses.replace(training, compile=False, cuda_graphs=False, initial_scale=1.0),
    )
    if measured is None or kind.augment.policy != AugmentSettings().policy:
        return None
    if kind == plain:
        return measured.plain
    regulated = dataclasses.replace(plain, encoder=kind.encoder, regulation=kind.regulation)
    is_alike = not kind.encoder.frozen and kind.encoder_backbone == plain.backbone
    return measured.regulated if kind == regulated and is_alike else None
