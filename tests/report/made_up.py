"""A study that nobody ran, as the analysis would hand it to the report."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import pandas as pd

from emoreg.report.analysis import Analysis, ArmResult, CellResult, Effect, ExperienceResult
from emoreg.report.old_arms import ARMS
from emoreg.report.statistics import Interval, above_all, compare, interval

WITHOUT_STAGE_1 = ("backbone", "random_encoder", "ensemble")
METRIC = {"affect": "ccc", "shuffled": "ccc", "rotation": "accuracy"}
FACTS = (("Stimuli", "procedural: no person rated them"), ("Command", "emoreg study study.yaml"))


@functools.cache
def made_up(
    seeds: int = 3,
    epochs: int = 3,
    experiences: tuple[str, ...] = ("oasis",),
    arms: tuple[str, ...] = tuple(ARMS),
    classes: tuple[str, ...] = ("cat", "dog", "ship"),
    cells: tuple[tuple[str, str], ...] = (("cifar10", "resnet20"),),
    has_validation: bool = True,
    lambda_per_class: bool = False,
) -> Analysis:
    """Each arm is a little better than the one before, by an amount that differs from seed to seed."""
    made = [
        _cell(np.random.default_rng(number), *names, seeds, epochs, experiences, arms, classes, lambda_per_class)
        for number, names in enumerate(cells)
    ]
    ccc = interval([0.61 + 0.01 * seed for seed in range(seeds)])
    stage_1 = [
        ExperienceResult(
            label, pretext, "resnet20", (("accuracy" if pretext == "rotation" else "ccc", ccc), ("loss", ccc)), 41.0
        )
        for label in experiences
        for pretext in METRIC
    ]
    runs = seeds * (sum(len(cell.arms) for cell in made) + len(stage_1))
    analysis = Analysis(
        "A study",
        tuple(made),
        tuple(stage_1),
        tuple(range(seeds)),
        runs + 1,
        runs,
        (("run x", "out of memory"),),
        FACTS,
    )
    return corrected(analysis) if has_validation else without_validation(corrected(analysis))


def _cell(
    rng: np.random.Generator,
    target: str,
    backbone: str,
    seeds: int,
    epochs: int,
    experiences: tuple[str, ...],
    names: tuple[str, ...],
    classes: tuple[str, ...],
    lambda_per_class: bool,
) -> CellResult:
    level = 0.9 + rng.normal(0, 0.004, seeds)
    plain_classes = level - rng.normal(0, 0.03, (len(classes), 1)) + rng.normal(0, 0.01, (len(classes), seeds))
    arms: dict[tuple[str, str | None], ArmResult] = {}
    for place, name in enumerate(ARMS):
        if name not in names:
            continue
        for experience in (None,) if name in WITHOUT_STAGE_1 else experiences:
            accuracy = level if name == "backbone" else level + 0.001 * (place % 5) + rng.normal(0, 0.002, seeds)
            of_class = (
                plain_classes if name == "backbone" else plain_classes + rng.normal(0.002, 0.01, plain_classes.shape)
            )
            is_plain = name == "backbone"
            arms[name, experience] = ArmResult(
                name=name,
                arm=ARMS[name],
                experience=experience,
                accuracy=interval(list(accuracy)),
                validation=interval(list(accuracy + rng.normal(0, 0.003, seeds))),
                gain=None if is_plain or "backbone" not in names else compare(list(accuracy), list(level)),
                effect=None,
                lam=() if is_plain else tuple(rng.uniform(0.3, 0.6, seeds)),
                responses=None if is_plain else (interval(list(accuracy - 0.05)), interval(list(accuracy - 0.02))),
                ece=interval(list(rng.uniform(0.02, 0.05, seeds))),
                reliability=_reliability(rng),
                per_class_gain=()
                if is_plain or "backbone" not in names
                else tuple(interval(list(values)) for values in of_class - plain_classes),
                seconds=120.0 if is_plain else 215.0 + place,
                parameters=272_474 if is_plain else 545_588,
                flops=41_000_000 if is_plain else 82_000_000,
                images_per_second=5000.0,
                curves=_curves(rng, accuracy, epochs, len(classes) if lambda_per_class else 0, is_plain),
            )
    judged = []
    for (name, experience), result in arms.items():
        controls = [a for (n, e), a in arms.items() if ARMS[n].is_control and e in (None, experience)]
        if not ARMS[name].is_regulated or not controls:
            judged.append(result)
            continue
        against = tuple((c.label, compare(result.accuracy.values, c.accuracy.values)) for c in controls)
        best = max(range(len(controls)), key=lambda n: v.mean if (v := controls[n].validation) else 0)
        differences = [c.difference.mean for _, c in against]
        p = float(above_all(differences, [c.p for _, c in against]))
        judged.append(
            dataclasses.replace(
                result, effect=Effect(against[best][0], against[best][1].difference, against, p, math.nan)
            )
        )
    return CellResult(target, backbone, classes, tuple(judged))


def corrected(analysis: Analysis) -> Analysis:
    """With p's corrected for their number, roughly: what counts here is that they are shown."""
    cells = []
    for cell in analysis.cells:
        judged = []
        for arm in cell.arms:
            gain, effect = arm.gain, arm.effect
            if gain is not None:
                p = min(1.0, 4 * gain.p) if arm.arm.is_regulated and gain.difference.n > 1 else math.nan
                gain = dataclasses.replace(gain, p_holm=p)
            if effect is not None and effect.difference.n > 1:
                effect = dataclasses.replace(effect, p_holm=min(1.0, 4 * effect.p))
            judged.append(dataclasses.replace(arm, gain=gain, effect=effect))
        cells.append(dataclasses.replace(cell, arms=tuple(judged)))
    return dataclasses.replace(analysis, cells=tuple(cells))


def without_validation(analysis: Analysis) -> Analysis:
    """As if no images had been held out."""
    cells = []
    for cell in analysis.cells:
        arms = [
            dataclasses.replace(
                arm,
                validation=None,
                curves=arm.curves.drop(columns="val_accuracy"),
                effect=arm.effect and dataclasses.replace(arm.effect, by_validation=False),
            )
            for arm in cell.arms
        ]
        cells.append(dataclasses.replace(cell, arms=tuple(arms)))
    return dataclasses.replace(analysis, cells=tuple(cells))


def nothing(values: int = 0) -> Interval:
    """An interval without a value."""
    return Interval(math.nan, math.nan, math.nan, (math.nan,) * values)


def _reliability(rng: np.random.Generator) -> tuple[tuple[float, float, int], ...]:
    bins = []
    for number in range(15):
        confidence = (number + 0.5) / 15
        images = 0 if number < 4 else 10 * number**2
        accuracy = min(1.0, max(0.0, confidence - 0.05 + rng.normal(0, 0.03)))
        bins.append((confidence, accuracy, images) if images else (math.nan, math.nan, 0))
    return tuple(bins)


def _curves(rng: np.random.Generator, accuracy: np.ndarray, epochs: int, classes: int, is_plain: bool) -> pd.DataFrame:
    slopes = rng.normal(0, 0.02, (len(accuracy), max(classes, 1)))
    rows = []
    for seed, last in enumerate(accuracy):
        for epoch in range(1, epochs + 1):
            row = {"seed": seed, "epoch": epoch, "train_loss": 2 / epoch + rng.normal(0, 0.02)}
            row["val_accuracy"] = last - 0.5 / epoch + rng.normal(0, 0.004)
            if not is_plain:
                row["lambda"] = float(np.clip(0.5 + slopes[seed].mean() * epoch, 0, 1))
                row |= {f"lambda_{k}": float(np.clip(0.5 + slopes[seed, k] * epoch, 0, 1)) for k in range(classes)}
            rows.append(row)
    return pd.DataFrame(rows)
