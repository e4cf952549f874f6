"""Frames of runs with made-up accuracies, as `emoreg.analyse` takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from emoreg.report.run_frame import TWINS

Key = tuple[str, str | None]  # mode, experience
SD = 0.003  # standard deviation of a run


def study(means: Mapping[Key, float], seeds: int | Iterable[int] = 8, rng: int = 0, **more: Any) -> pd.DataFrame:
    """A run for each arm and seed, with accuracies normally distributed around the arm's mean, and further columns."""
    draw = np.random.default_rng(rng)
    seeds = range(seeds) if isinstance(seeds, int) else list(seeds)
    rows = [
        {"mode": mode, "experience": experience, "seed": seed, "accuracy": mean + SD * draw.normal(), **more}
        for (mode, experience), mean in means.items()
        for seed in seeds
    ]
    return pd.DataFrame(rows)


def arms(affect: float, twins: float, plain: float = 0.9, modes: Iterable[str] = ("learned",)) -> dict[Key, float]:
    """Mean accuracies of the regulated arms, all their twins, Backbone and ensemble."""
    means: dict[Key, float] = {}
    for mode in modes:
        means |= {(mode, "affect"): affect, **{(mode, twin): twins for twin in TWINS}}
    return means | {("none", None): plain, ("ensemble", None): plain}


def answers(accuracy: float, images: int, hard: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Right or wrong for each image: images with a low value of `hard` are easy in all runs, the rest is chance."""
    return (0.5 * hard + 0.5 * rng.random(images)) < accuracy
