"""Read a sweep's file: a recipe, and values to try for some of its settings (docs/study.md has an example)."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from emoreg.config.read_recipe import all_settings, build, read_recipe, typed_values
from emoreg.config.recipe import PretrainRecipe, Recipe, TrainRecipe, resolved
from emoreg.config.rules import check_at_least, check_rule
from emoreg.config.schema import Task
from emoreg.config.setting_types import options_of
from emoreg.config.strict_yaml import read_yaml
from emoreg.errors import SettingError, nearest
from emoreg.runtime.seeding import generator

Metric = Literal["accuracy", "balanced_accuracy", "macro_f1", "top5_accuracy", "mean_average_precision", "ccc", "loss"]
MAX_TRIALS = 10_000
DIGITS = 4  # significant digits of a drawn number, so that it can be read and written down
METRICS: Mapping[Task, tuple[Metric, ...]] = {
    "classification": ("accuracy", "balanced_accuracy", "macro_f1", "top5_accuracy", "loss"),
    "multilabel": ("mean_average_precision", "macro_f1", "loss"),
    "regression": ("ccc", "loss"),
}
DECIDED = {  # settings that the sweep decides
    "seed": "set seeds, the number of runs of each trial",
    "edition": "set it in the recipe",
    "target.test": "the test split stays unseen in a sweep: validation images choose",
}


@dataclass(frozen=True)
class SweepFile:
    """The keys of a sweep's file."""

    recipe: str | None = None
    """Recipe that the values are laid over, relative to the sweep's file. null for the defaults."""
    stage: Literal["train", "pretrain"] = "train"
    """Command that the recipe is for."""
    method: Literal["grid", "random"] = "grid"
    """grid (every combination of the listed values) or random (each trial draws every setting independently; Bergstra &
    Bengio 2012: better than a grid if only some of the settings matter)."""
    trials: int = 20
    """Trials of method random, at most 10,000. Adding more later does not change the earlier ones."""
    seed: int = 0
    """Seed of the draws of method random, at least 0."""
    seeds: int = 1
    """Runs of each trial, with seeds from 0; their mean decides. At most 100."""
    metric: Metric | None = None
    """The metric on validation images that decides: accuracy, balanced_accuracy, macro_f1, top5_accuracy,
    mean_average_precision, ccc or loss. null for accuracy; with several labels per image for mean_average_precision,
    with values for ccc. Stage 1 on several stimulus sets has only loss."""
    search: Mapping[str, Any] = field(default_factory=dict)
    """Settings to try, in their sections: a list of values, or with method random a range: low and high, and log: true
    to draw evenly in the logarithm."""

    def __post_init__(self) -> None:
        check_at_least(0, self, "seed")
        check_rule(self, ("trials",), lambda trials: 1 <= trials <= MAX_TRIALS, f"be 1 to {MAX_TRIALS:,}")
        check_rule(self, ("seeds",), lambda seeds: 1 <= seeds <= 100, "be 1 to 100")


@dataclass(frozen=True)
class Range:
    """A range of numbers, including both limits."""

    low: float = 0.0
    high: float = 1.0
    log: bool = False
    """Whether to draw evenly in the logarithm."""

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            if not math.isfinite(getattr(self, name)):
                raise SettingError(name, "must be finite")
        if self.low >= self.high:
            raise SettingError("high", f"must be above low ({self.low:g}), not {self.high:g}")
        if self.log and self.low <= 0:
            raise SettingError("low", f"must be above 0 with log: true, not {self.low:g}")

    def at(self, share: float, whole: bool) -> float | int:
        """Return the number at a share in [0, 1) of the range, a whole one if `whole`."""
        low, high = (math.ceil(self.low), math.floor(self.high) + 1) if whole else (self.low, self.high)
        first, last = (math.log(low), math.log(high)) if self.log else (low, high)
        place = first + share * (last - first)
        value = math.exp(place) if self.log else place
        if whole:
            return min(math.floor(value), math.floor(self.high))
        return min(max(float(f"{value:.{DIGITS}g}"), low), high)


@dataclass(frozen=True)
class Trial:
    """Values of the settings that a sweep tries.

    Args:
        number: from 1.
        values: by dotted key.
        recipes: one per seed; they leave the test split unseen.
        chosen: the recipe to write if this trial is the best, with `seed` and `target.test` of the sweep's recipe.
    """

    number: int
    values: Mapping[str, Any]
    recipes: tuple[Recipe, ...]
    chosen: Recipe


@dataclass(frozen=True)
class Sweep:
    """All different trials of a sweep."""

    name: str
    file: SweepFile
    trials: tuple[Trial, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Dotted keys of the settings that differ between trials; of all settings if none differs."""
        first = self.trials[0].values
        differing = [key for key in first if any(trial.values[key] != first[key] for trial in self.trials)]
        return tuple(differing or first)


def read_sweep(path: Path) -> Sweep:
    """Read a sweep, and check the recipes of all its trials.

    Raises:
        UserError: unreadable file.
        SettingError: a wrong key or value; names file, line and key, or the trial and its values.
    """
    values, lines = read_yaml(path)
    given = dict(values) if isinstance(values, Mapping) else values
    search = given.pop("search", None) if isinstance(given, dict) else None
    typed = typed_values(SweepFile, given, lines, path)
    try:
        if search is not None and not isinstance(search, Mapping):
            raise SettingError("search", f"must be a mapping of sections and settings, not {search!r}")
        file = dataclasses.replace(build(SweepFile(), typed), search=search or {})
        kind: type[Recipe] = TrainRecipe if file.stage == "train" else PretrainRecipe
        options = dict(_options(kind, file.search, "", file.method))
        if not options:
            raise SettingError("search", "names no setting: give one a list of values, or a range")
    except SettingError as error:
        raise error.at(path, lines.get(error.key)) from None
    base = None if file.recipe is None else path.parent / file.recipe
    trials: list[Trial] = []
    seen: set[str] = set()
    for number, tried in enumerate(_combinations(file, options, kind), 1):
        try:
            trial = _trial(number, tried, kind, base, file)
        except SettingError as error:
            if error.path is not None:
                raise
            shown = ", ".join(f"{key} {value}" for key, value in tried.items())
            raise SettingError(error.key, f"{error.reason} (trial {number}: {shown})", path) from None
        content = repr(resolved(trial.chosen))
        if content not in seen:
            seen.add(content)
            trials.append(trial)
    return Sweep(path.stem, file, tuple(trials))


def _options(kind: type, search: Mapping[str, Any], place: str, method: str) -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of the settings to try, each with its list of values or `Range`."""
    known = all_settings(kind)
    for name, value in search.items():
        key = f"{place}{name}"
        if key in known:
            yield key, _option(key, value, method)
        elif isinstance(value, Mapping) and any(other.startswith(f"{key}.") for other in known):
            yield from _options(kind, value, f"{key}.", method)
        else:
            raise SettingError(f"search.{key}", f"unknown setting{nearest(key, known)}")


def _option(key: str, value: Any, method: str) -> list[Any] | Range:
    if key in DECIDED:
        raise SettingError(f"search.{key}", f"cannot be tried: {DECIDED[key]}")
    if isinstance(value, list) and value:
        return value
    is_range = isinstance(value, Mapping)
    if is_range and method == "random":
        try:
            return build(Range(), value)
        except SettingError as error:
            raise error.within(f"search.{key}") from None
    wanted = "a list of values" + (", or a range {low: X, high: Y}" if method == "random" else "")
    hint = "; ranges are for method random" if is_range else ""
    raise SettingError(f"search.{key}", f"must be {wanted}, not {value!r}{hint}")


def _combinations(file: SweepFile, options: Mapping[str, Any], kind: type) -> Iterator[dict[str, Any]]:
    """Yield the values of each trial. Those of a random trial depend only on its number, the seed and the key."""
    if file.method == "grid":
        count = math.prod(len(values) for values in options.values())
        if count > MAX_TRIALS:
            raise SettingError("search", f"has {count:,} combinations; the limit is {MAX_TRIALS:,}")
        for values in itertools.product(*options.values()):
            yield dict(zip(options, values, strict=True))
        return
    whole = {key for key, hint in all_settings(kind).items() if int in options_of(hint)}
    for number in range(1, file.trials + 1):
        yield {key: _drawn(option, file.seed, number, key, key in whole) for key, option in options.items()}


def _drawn(option: Sequence[Any] | Range, seed: int, number: int, key: str, whole: bool) -> Any:
    share = torch.rand((), generator=generator(seed, "sweep", number, key), dtype=torch.float64).item()
    if isinstance(option, Range):
        return option.at(share, whole)
    return option[int(share * len(option))]


def _trial(number: int, tried: Mapping[str, Any], kind: type[Recipe], base: Path | None, file: SweepFile) -> Trial:
    chosen = read_recipe(kind, base, dict(tried))
    blind = chosen
    if not any(settings.validation for settings in chosen.sections.values()):
        section = next(iter(chosen.sections))
        raise SettingError(f"{section}.validation", "must be above 0: validation images choose the best trial")
    _check_metric(chosen, file.metric)
    if isinstance(chosen, TrainRecipe):
        blind = dataclasses.replace(chosen, target=dataclasses.replace(chosen.target, test=False))
    recipes = tuple(dataclasses.replace(blind, seed=seed) for seed in range(file.seeds))
    return Trial(number, tried, recipes, chosen)


def _check_metric(recipe: Recipe, metric: Metric | None) -> None:
    """Raise SettingError if runs of the recipe do not have the metric; stage 1 shows only later which labels it has."""
    known: tuple[Metric, ...] = ("accuracy", "ccc", "loss")
    where = "in stage 1"
    if isinstance(recipe, TrainRecipe):
        known, where = METRICS[recipe.target.task], f"with target.labels {recipe.target.labels}"
    elif recipe.pretext == "rotation":
        known, where = ("accuracy", "loss"), "with pretext rotation"
    elif recipe.also:
        known, where = ("loss",), "with several stimulus sets, which have no other metric in common"
    if metric not in known and (metric is not None or known == ("loss",)):
        raise SettingError("metric", f"must be {' or '.join(known)} {where}, not {metric or 'null'}")
