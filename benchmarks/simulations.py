"""Simulate the error rates of emoreg's tests, the coverage of its intervals, and its power.

    python benchmarks/simulations.py                      # 25 minutes on one core
    python benchmarks/simulations.py --studies 2000       # a quick look

Last seen: 183 numbers, from 20,000 studies (4,000 with test images, 2,500 for the power of emoreg.analyse). Of these 86
have a limit, and none missed it (benchmarks/seen/simulations.json).

A simulated study has an arm with the experience affect, its five twins, and Backbone; runs have a standard deviation of
0.3 points. Studies are judged by `estimate`, the engine of `emoreg.analyse`, many at a time. The first studies of each
setting with twins are also judged by `emoreg.analyse` itself, which must agree; so are all studies for power, except
with few seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

import emoreg
from emoreg.report.looks import nominal_levels
from emoreg.report.power import given_spread, simulate_power
from emoreg.report.run_frame import TWINS
from emoreg.report.statistics import LEVEL, estimate, image_variance, p_above
from emoreg.runs.provenance import environment

Array = NDArray[np.float64]
SD, POINT = 0.003, 0.01  # standard deviation of a run, and one point; accuracies are shares
LABEL, EMOTION = 3, 5  # number of twins in the contrasts
CHECKED = 10  # studies of each setting that emoreg.analyse also judges


def _dropping(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    drop, probability = 6.0, 0.1
    raw = rng.normal(size=shape) - drop * ((rng.random(shape) < probability) - probability)
    return raw / np.sqrt(1 + drop**2 * probability * (1 - probability))


# Draws an array of this shape of deviations with mean 0 and variance 1.
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]
SHAPES: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "gamma of shape 4, left-skewed": lambda rng, shape: (4 - rng.gamma(4, size=shape)) / 2,
    "exponential, left-skewed": lambda rng, shape: 1 - rng.exponential(size=shape),
    "t of 3 degrees of freedom": lambda rng, shape: rng.standard_t(3, size=shape) / np.sqrt(3),
    "one in ten drops by six deviations": _dropping,
    "rounded to whole deviations": lambda rng, shape: np.round(rng.normal(size=shape)),
}
# Limits for the distributions that the tests are made for. For others the results are printed, without a limit.
LEVELS = {"normal": 0.03, "gamma of shape 4, left-skewed": 0.04, "exponential, left-skewed": 0.05}  # at most, 12 seeds
COVERAGES = {"normal": 0.94, "gamma of shape 4, left-skewed": 0.92, "exponential, left-skewed": 0.92}  # at least


@dataclass(frozen=True)
class Row:
    """One number of a table, with its limits."""

    table: str  # level, coverage, power
    setting: str
    contrast: str
    seeds: str  # "12", or looks: "6, 12"
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def holds(self) -> bool:
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=20_000)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the tables to FILE")
    options = parser.parse_args()
    started, rows = time.monotonic(), []
    for part in (one_pair, twins, looks, several_arms, test_images, few_seeds, power):
        for row in part(options.studies):
            limit = f"at most {row.most:g}" if row.most else f"at least {row.least:g}" if row.least else ""
            verdict = "" if row.holds else "  <-- MISSED"
            what = f"{row.setting}; {row.seeds} seeds"
            print(f"{row.table:9} {row.contrast:9} {what:72} {row.value:.4f}  {limit}{verdict}", flush=True)
            rows.append(row)
    missed = [row for row in rows if not row.holds]
    print(f"{len(rows)} numbers, {len(missed)} missed their limit, {time.monotonic() - started:.0f} s")
    if options.json:
        record = {"studies": options.studies, "rows": [asdict(row) for row in rows], "command": sys.argv}
        options.json.write_text(json.dumps({**record, **environment()}, indent=2, default=str), encoding="utf-8")
    return 1 if missed else 0


def one_pair(studies: int) -> Iterator[Row]:
    """Simulate gains with differences of each distribution; and accuracies, which have the same kind of interval."""
    for shape, draw in SHAPES.items():
        for seeds in (5, 8, 12):
            differences = SD * draw(np.random.default_rng(seeds), (studies, seeds))
            found = estimate(differences)
            is_required = seeds == 12 or (seeds == 8 and shape == "normal")
            level = LEVELS.get(shape) if is_required else None
            yield Row("level", shape, "gain", str(seeds), float((found.p_above <= LEVEL).mean()), most=level)
            held = (found.low <= 0) & (found.high >= 0)
            least = COVERAGES.get(shape) if is_required else None
            yield Row("coverage", shape, "gain", str(seeds), float(held.mean()), least)
            accuracy = estimate(0.9 + np.round(differences, 4))
            held = (np.maximum(accuracy.low, 0) <= 0.9) & (np.minimum(accuracy.high, 1) >= 0.9)
            yield Row("coverage", f"{shape}, 10,000 test images", "accuracy", str(seeds), float(held.mean()), least)


def study(rng: np.random.Generator, studies: int, seeds: int, twin_means: Array, plain: float) -> Array:
    """Draw accuracies (studies, 1 + 5 + 1, seeds): arm, twins, Backbone. Means are how far they are below the arm."""
    means = 0.9 - np.concatenate([[0.0], twin_means, [plain]])
    return means[:, None] + SD * rng.normal(size=(studies, len(means), seeds))


def twins(studies: int) -> Iterator[Row]:
    """Simulate label and emotion effects when one to five twins are as good as the arm, and the others a point worse.

    Backbone is always a point worse: the mode gains a point, emotion nothing.
    """
    for seeds in (8, 12):
        for tied in range(1, EMOTION + 1):
            means = np.where(np.arange(EMOTION) < tied, 0.0, POINT)
            accuracy = study(np.random.default_rng(10 * seeds + tied), studies, seeds, means, POINT)
            differences = accuracy[:, :1] - accuracy[:, 1:-1]
            _check(accuracy)
            upper = np.array([[LEVEL / LABEL, LEVEL / EMOTION]] * differences[..., 0].size)
            found = estimate(differences.reshape(-1, seeds), 0.0, LEVEL, upper)
            ps, lows = (values.reshape(studies, EMOTION) for values in (found.p_above, found.low))
            for place, (contrast, number) in enumerate((("label", LABEL), ("emotion", EMOTION))):
                if tied > number:
                    continue
                p, low = ps[:, :number].max(axis=1), lows[:, :number].min(axis=1)
                high = found.high[:, place].reshape(studies, EMOTION)[:, :number].min(axis=1)
                setting = f"mode worth a point, {tied} of {number} twins as good as the arm"
                yield Row("level", setting, contrast, str(seeds), float((p <= LEVEL).mean()), most=0.03)
                held = (low <= 0) & (high >= 0)
                yield Row("coverage", setting, contrast, str(seeds), float(held.mean()), least=0.94)


def looks(studies: int) -> Iterator[Row]:
    """Simulate planned looks, and what testing at the full level each time would do."""
    for at in ((4, 8), (6, 8), (6, 12), (4, 8, 12), (5, 6, 7, 8, 9, 10, 11, 12)):
        levels = nominal_levels(at, LEVEL)
        accuracy = study(np.random.default_rng(at[0]), studies, at[-1], np.zeros(EMOTION), 0.0)
        differences = (accuracy[:, :1] - accuracy[:, 1:]).reshape(-1, at[-1])
        passed = np.zeros((4, studies), dtype=bool)
        for seeds, level in zip(at, levels, strict=True):
            p = p_above(differences[:, :seeds], is_early=seeds < at[-1]).reshape(studies, -1)
            passed[0] |= p[:, -1] <= level
            passed[1] |= p[:, :LABEL].max(axis=1) <= level
            passed[2] |= p[:, :EMOTION].max(axis=1) <= level
            passed[3] |= p_above(differences[:, :seeds].reshape(studies, -1, seeds)[:, -1]) <= LEVEL
        shown, shares = ", ".join(map(str, at)), passed.mean(axis=1).tolist()
        for name, share in zip(("gain", "label", "emotion"), shares, strict=False):
            yield Row("level", "nothing differs, planned looks", name, shown, share, most=0.03)
        yield Row("level", "nothing differs, looks at the full level", "gain", shown, shares[3])
        final = estimate(differences.reshape(studies, -1, at[-1])[:, -1], 0.0, levels[-1])
        held = (final.low <= 0) & (final.high >= 0)
        yield Row("coverage", "at the last of planned looks", "gain", shown, float(held.mean()), 0.94)


def several_arms(studies: int) -> Iterator[Row]:
    """Simulate a family of four arms, none better than their common Backbone: how often any of them is found."""
    for seeds in (8, 12):
        accuracy = SD * np.random.default_rng(seeds).normal(size=(studies, 5, seeds))
        p = p_above((accuracy[:, 1:] - accuracy[:, :1]).reshape(-1, seeds)).reshape(studies, 4)
        share = float((p.min(axis=1) <= LEVEL / 4).mean())
        yield Row(
            "level", "nothing differs, any of four arms by Holm's correction", "gain", str(seeds), share, most=0.03
        )


def test_images(studies: int) -> Iterator[Row]:
    """Simulate random seeds and 400 random test images, whose difficulty differs between the two arms."""
    images, studies = 400, min(studies, 4000)
    for share, setting in ((0.0, "images alike"), (1.5, "images that one arm finds hard")):
        for seeds in (8, 12):
            rng = np.random.default_rng(seeds)
            above, above_seeds, held, held_seeds = [], [], [], []
            for _ in range(studies // 50):
                hard = 1.2 + rng.normal(size=(50, 1, 1, images)) + share * rng.normal(size=(50, 2, 1, images))
                z = hard + 0.1 * rng.normal(size=(50, 2, seeds, 1))
                right = rng.random(z.shape) < 1 / (1 + np.exp(-z))
                table = right[:, 0].astype(np.int64) - right[:, 1]
                by_seed = table.mean(axis=2)
                v = [image_variance(one.sum(axis=0), float((one**2).sum()), one.mean(axis=1)) for one in table]
                both, alone = estimate(by_seed, np.array(v)), estimate(by_seed)
                above.append(np.maximum(both.p_above, alone.p_above) <= LEVEL)
                above_seeds.append(alone.p_above <= LEVEL)
                low, high = np.minimum(both.low, alone.low), np.maximum(both.high, alone.high)
                held.append((low <= 0) & (high >= 0))
                held_seeds.append((alone.low <= 0) & (alone.high >= 0))
            found = {"": (above, held), ", by an interval over seeds alone": (above_seeds, held_seeds)}
            for how, (passed, kept) in found.items():
                most, least = (0.03, 0.94) if not how else (None, None)
                yield Row("level", f"{setting}{how}", "gain", str(seeds), float(np.mean(passed)), most=most)
                yield Row("coverage", f"{setting}{how}", "gain", str(seeds), float(np.mean(kept)), least=least)


def power(studies: int) -> Iterator[Row]:
    """Simulate how often emoreg.analyse finds an effect of half a point, compared with what `emoreg power` says."""
    studies, effect = max(200, studies // 8), 0.5
    for at in ((8,), (12,), (16,), (6, 12)):
        ((predicted, _),) = simulate_power(given_spread(100 * SD), effect, [at[-1]], at[:-1])
        rng = np.random.default_rng(at[-1])
        accuracy = study(rng, studies, at[-1], np.full(EMOTION, effect / 100), effect / 100)
        verdicts = [_analysed(one, at) for one in accuracy]
        for name in ("gain", "label", "emotion"):
            share = float(np.mean([of_study[name] == "above" for of_study in verdicts]))
            seeds, off = ", ".join(map(str, at)), abs(share - getattr(predicted, name))
            yield Row("power", "half a point", name, seeds, share)
            yield Row("power", "half a point, distance to what emoreg power says", name, seeds, off, most=0.03)


def few_seeds(studies: int) -> Iterator[Row]:
    """Simulate how often half a point is found with few seeds, by emoreg's test and by a paired t test."""
    for seeds in (5, 6, 7, 8, 12):
        accuracy = study(np.random.default_rng(seeds), studies, seeds, np.full(EMOTION, POINT / 2), POINT / 2)
        differences = (accuracy[:, :1] - accuracy[:, 1:]).reshape(-1, seeds)
        of_student = scipy.stats.ttest_1samp(differences, 0, axis=1, alternative="greater").pvalue
        for how, p in (("", p_above(differences)), (", by a paired t test", of_student)):
            by_study = p.reshape(studies, -1) <= LEVEL
            found = by_study[:, -1], by_study[:, :LABEL].all(axis=1), by_study[:, :EMOTION].all(axis=1)
            for name, passed in zip(("gain", "label", "emotion"), found, strict=True):
                yield Row("power", f"half a point, few seeds{how}", name, str(seeds), float(passed.mean()))


def _frame(accuracy: Array) -> pd.DataFrame:
    """Convert one study (7, seeds) to a table for emoreg.analyse."""
    names = [("learned", name) for name in ("affect", *TWINS)] + [("none", None)]
    return pd.DataFrame(
        [
            {"mode": mode, "experience": experience, "seed": seed, "accuracy": value}
            for (mode, experience), of_arm in zip(names, accuracy, strict=True)
            for seed, value in enumerate(of_arm)
        ]
    )


def _analysed(accuracy: Array, at: tuple[int, ...]) -> dict[str, str]:
    frame = _frame(accuracy)
    if len(at) > 1:
        frame = frame.assign(planned_seeds=at[-1], looks=pd.Series([list(at)] * len(frame)))
    found = emoreg.analyse(frame)
    return dict(found.loc[found["verdict"].notna(), ["contrast", "verdict"]].to_numpy())


def _check(accuracy: Array) -> None:
    """Assert that emoreg.analyse agrees with this script on the first studies."""
    for one in accuracy[:CHECKED]:
        found = emoreg.analyse(_frame(one)).set_index("contrast")
        for contrast, number in (("label", LABEL), ("emotion", EMOTION)):
            of_twins = estimate(one[:1] - one[1 : 1 + number], 0.0, LEVEL, LEVEL / number)
            expected = of_twins.p_above.max(), of_twins.low.min(), of_twins.high.min()
            np.testing.assert_allclose(found.loc[contrast, ["p", "low", "high"]].to_numpy(dtype=float), expected)


if __name__ == "__main__":
    sys.exit(main())
