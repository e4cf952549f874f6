"""The analysis of a made-up study."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
import pandas as pd

from emoreg.report.analyse_table import analyse
from emoreg.report.analysis import Analysis
from emoreg.report.statistics import Interval
from result_rows import SINGLE, TWINS, WITHOUT_EXPERIENCE, results, stage_1, stage_2

ARMS = (
    *("none", "ensemble", "wide", "transfer", "learned", "learned fresh", "learned moments", "learned shuffled"),
    *("learned neutral", "learned rotation", "fixed", "fixed shuffled"),
)
FEW = ("none", "learned", "learned fresh", "learned shuffled")
FACTS = (("Stimuli", "procedural: no person rated them"), ("Command", "emoreg study study.yaml"))


@functools.cache
def made_up(
    seeds: int = 4,
    epochs: int = 3,
    stimuli: tuple[str, ...] = ("oasis",),
    arms: tuple[str, ...] = ARMS,
    classes: tuple[str, ...] = ("cat", "dog", "ship"),
    cells: tuple[tuple[str, str], ...] = (("cifar10", "resnet20"),),
    has_validation: bool = True,
    lambda_per_class: bool = False,
) -> Analysis:
    """An analysis in which each arm is a little better than the one before, by an amount that varies with the seed."""
    table = made_up_table(seeds, epochs, stimuli, arms, classes, cells, has_validation, lambda_per_class)
    analysis = analyse("A study", table)
    failures = (("run x", "out of memory"),)
    return dataclasses.replace(analysis, planned=len(table) + 1, failures=failures, facts=FACTS)


def between_looks() -> Analysis:
    """A study with 8 of 12 planned seeds and looks at 6 and 12; its arm is two points above Backbone."""
    means = {"none": 0.90, "learned": 0.92, **{f"learned {twin}": 0.90 for twin in TWINS}}
    draw = np.random.default_rng(0)
    accuracies = {name: [round(mean + 0.003 * draw.normal(), 4) for _ in range(8)] for name, mean in means.items()}
    plan: dict[str, Any] = {"purpose": "confirmation", "planned_seeds": 12, "looks": [6, 12]}
    return analyse("A study", results(stage_2(accuracies, **plan)))


def made_up_table(
    seeds: int,
    epochs: int,
    stimuli: tuple[str, ...],
    arms: tuple[str, ...],
    classes: tuple[str, ...],
    cells: tuple[tuple[str, str], ...],
    has_validation: bool,
    lambda_per_class: bool,
) -> pd.DataFrame:
    """The table of results of the study that `made_up` analyses."""
    rows: list[dict[str, Any]] = []
    for place, (target, backbone) in enumerate(cells):
        rng = np.random.default_rng(place)
        level = 0.9 + rng.normal(0, 0.004, seeds)
        for number, name in enumerate(arms):
            is_shared = name.split()[0] in WITHOUT_EXPERIENCE or name.endswith(" fresh")
            for label in (None,) if is_shared else stimuli:
                accuracy = level if name == "none" else level + 0.001 * (number % 5) + rng.normal(0, 0.002, seeds)
                own = stage_2(
                    {name: list(accuracy)}, target, backbone, label, validation=None if has_validation else {}
                )
                for row in own:
                    curves = _curves(rng, row, epochs, len(classes), lambda_per_class)
                    if not has_validation:
                        del curves["epochs.val_accuracy"]
                    rows.append(row | _measured(rng, row, classes) | curves)
    cccs = [0.61 + 0.01 * seed for seed in range(seeds)]
    for label in stimuli:
        rows += stage_1("affect", cccs, label, "resnet20") + stage_1("shuffled", cccs, label, "resnet20")
        rotation = stage_1("rotation", cccs, label, "resnet20")
        rows += [row | {"validation_ccc": math.nan, "validation_accuracy": row["validation_ccc"]} for row in rotation]
    return results(rows)


def nothing(values: int = 0) -> Interval:
    """An interval without a value."""
    return Interval(math.nan, math.nan, math.nan, (math.nan,) * values)


def _measured(rng: np.random.Generator, row: dict[str, Any], classes: tuple[str, ...]) -> dict[str, Any]:
    accuracy, has_two = row["test_accuracy"], row["mode"] not in SINGLE
    confidence = [(number + 0.5) / 15 if number > 3 else math.nan for number in range(15)]
    counts = [0 if number < 4 else 10 * number**2 for number in range(15)]
    measured: dict[str, Any] = {
        "classes": list(classes),
        "images_train": 50_000,
        "test_per_class": list(accuracy + rng.normal(0, 0.02, len(classes))),
        "test_reliability_confidence": confidence,
        "test_reliability_accuracy": [min(1.0, max(0.0, value - 0.05 + rng.normal(0, 0.03))) for value in confidence],
        "test_reliability_count": counts,
        "recipe.target.name": "digits",
        "recipe.loss.regulated": 0.5 if has_two else 1.0,
        "recipe.loss.non_emotional": 0.75 if has_two else 0.0,
        "recipe.loss.emotional": 0.75 if has_two else 0.0,
        "recipe.loss.budget": "matched",
        "recipe.regulation.lam": 0.5,
        "recipe.optimizer.name": "sgd",
    }
    if has_two:
        measured |= {"test_accuracy_non_emotional": accuracy - 0.05, "test_accuracy_emotional": accuracy - 0.02}
        measured |= {"train_accuracy_non_emotional": 0.9, "train_accuracy_emotional": 0.95}
        measured["lambda"] = rng.uniform(0.3, 0.6)
    return measured


def _curves(
    rng: np.random.Generator, row: dict[str, Any], epochs: int, classes: int, lambda_per_class: bool
) -> dict[str, Any]:
    at = np.arange(1, epochs + 1)
    curves = {
        "epoch": at,
        "train_loss": 2 / at + rng.normal(0, 0.02, epochs),
        "val_accuracy": row["test_accuracy"] - 0.5 / at + rng.normal(0, 0.004, epochs),
        "norm_non_emotional": 20 + at,
    }
    if row["mode"] not in SINGLE:
        slopes = rng.normal(0, 0.02, classes)
        curves |= {
            "lambda": np.clip(0.5 + slopes.mean() * at, 0, 1),
            "gradient_share": 0.5 + 0.01 * at,
            "norm_emotional": 21 + at,
        }
        if lambda_per_class:
            curves |= {f"lambda_{k}": np.clip(0.5 + slope * at, 0, 1) for k, slope in enumerate(slopes)}
    return {f"epochs.{name}": list(values) for name, values in curves.items()}
