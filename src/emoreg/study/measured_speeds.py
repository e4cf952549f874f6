"""Speeds that were measured on a GPU (docs/speed.md), to plan studies on a machine without one."""

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
    """Images per second in training without the second network, and with it."""

    plain: int
    regulated: int


# By backbone and images per step: with SGD, crop and flip, in bf16, not compiled (benchmarks/seen/h200.json). Launching
# kernels takes most of the time, which does not scale with a network's arithmetic: other networks are not estimated.
MEASURED: Mapping[tuple[str, int], Speed] = {
    ("resnet18", 128): Speed(13_250, 5_933),
    ("resnet20", 128): Speed(10_803, 6_827),
    ("resnet20", 512): Speed(46_193, 25_627),
}


def gpu_estimate(recipes: Iterable[Recipe], counted: CountedSets) -> str | None:
    """A line on how long runs take on one such GPU, if their speed was measured there; None if that of no run was.

    Args:
        recipes: of the runs, for any device.
        counted: from `count_images`.
    """
    seconds, networks = list[float](), dict[str, None]()
    runs = list(recipes)
    for recipe in runs:
        counts, speed = counted.of(recipe), _speed(kind_of(recipe))
        if counts is not None and speed is not None:
            seconds.append(seconds_of(recipe, counts, 1 / speed))
            networks[f"{recipe.backbone.name} in batches of {recipe.training.batch_size}"] = None
    if not seconds:
        return None
    which = "it takes" if len(runs) == 1 else "they take"
    if len(seconds) < len(runs):
        which = f"{len(seconds):,} of them ({', '.join(networks)}) take"
    total = about(sum(seconds))
    return f"{which} {total} on one {GPU}, one at a time, by the speeds of docs/speed.md (crop and flip, bf16)"


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
    has_two_alike = not kind.encoder.frozen and kind.encoder_backbone == plain.backbone
    return measured.regulated if kind == regulated and has_two_alike else None
