"""The definition of a study: targets, backbones, arms, seeds, and the recipes of all its runs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from emoreg.config.recipe import EDITION, PretrainRecipe, Recipe, TrainRecipe
from emoreg.config.setting_types import typed_value
from emoreg.errors import SettingError
from emoreg.study.arms import PlannedArm, factorial
from emoreg.study.kept_data import KeptData
from emoreg.study.machine import Machine, has_auto
from emoreg.suites.options import Suite

Purpose = Literal["exploration", "confirmation"]

# Explorations have seeds of their own, so that no run both chooses a setting and confirms it. All fit into 16 bits.
SEEDS: Mapping[Purpose | None, range] = {
    "exploration": range(1_000, 65_536),
    "confirmation": range(1_000),
    None: range(1_000),
}


@dataclass(frozen=True)
class StimuliRecipe:
    """Stage 1 on one or more stimulus sets; each experience sets the pretext, each run the seed."""

    label: str  # in reports
    recipe: PretrainRecipe


@dataclass(frozen=True)
class Variant:
    """Settings of networks with two branches; each arm sets the mode and the experience, each run the seed."""

    label: str | None  # in reports; None for the only one
    recipe: TrainRecipe
    stimuli: tuple[StimuliRecipe, ...]


@dataclass(frozen=True)
class GridPoint:
    """A target with a backbone, on which the arms are compared."""

    target: str  # label in reports
    backbone: str  # label in reports
    recipe: TrainRecipe  # of the references; without variants, of all arms
    stimuli: tuple[StimuliRecipe, ...]  # of the same
    variants: tuple[Variant, ...] = ()

    @property
    def regulated(self) -> tuple[Variant, ...]:
        """The variants to run: at least one."""
        return self.variants or (Variant(None, self.recipe, self.stimuli),)


@dataclass(frozen=True)
class Study:
    """The definition of a study."""

    name: str
    grid: tuple[GridPoint, ...]
    arms: tuple[PlannedArm, ...] = factorial()
    seeds: int = 8  # planned
    looks: tuple[int, ...] | None = None  # None for one look at all seeds
    run_seeds: int | None = None  # to run for now; None for all planned ones
    first_seed: int | None = None  # None for the first one of the purpose
    purpose: Purpose | None = "confirmation"  # None in the first edition
    machine: Machine | None = None  # what `auto` stands for; None for this machine
    edition: int = EDITION
    data: tuple[KeptData, ...] = ()  # checksums of its images
    suites: tuple[Suite, ...] = ()  # for every finished run of stage 2
    is_smoke: bool = field(default=False, compare=False)  # only checks that it runs: its plan may change
    values: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    """The values of its file, which give the same study when written as YAML. None for a study made in Python."""
    read_as: str | None = field(default=None, compare=False, repr=False)
    """How keys of the first edition in its file were interpreted; None if it has none."""

    def __post_init__(self) -> None:
        for point in self.grid if isinstance(self.grid, tuple | list) else (self.grid,):
            if not isinstance(point, GridPoint):
                raise SettingError("grid", f"must be a tuple of GridPoint, not of {type(point).__name__}")
        for name in ("seeds", "run_seeds", "first_seed"):
            typed_value(int | None, getattr(self, name), name)
        self._check_looks()
        self._check_first_seed()

    def _check_looks(self) -> None:
        """Raise SettingError unless the looks ascend from at least 1 to all seeds."""
        looks, seeds = self.looks, self.seeds
        if looks is None:
            return
        if not looks or looks[-1] != seeds:
            raise SettingError("looks", f"must end with all {seeds} seeds, not be {list(looks)}")
        if looks[0] < 1 or any(one >= after for one, after in itertools.pairwise(looks)):
            raise SettingError("looks", f"must ascend from at least 1, not be {list(looks)}")

    def _check_first_seed(self) -> None:
        """Raise SettingError if the seeds from the first on are outside the range of the purpose."""
        allowed, count, first = SEEDS[self.purpose], max(self.seeds, self.run_seeds or 0), self.first_seed
        if first is not None and not allowed.start <= first <= allowed.stop - count:
            limits = f"{allowed.start:,} to {allowed.stop - count:,}"
            reason = f"must be {limits} for {count:,} seeds of purpose {self.purpose}, not {first}"
            raise SettingError("first_seed", reason)

    @property
    def recipes(self) -> list[Recipe]:
        """All base recipes of both stages."""
        recipes: list[Recipe] = []
        for point in self.grid:
            parts: list[GridPoint | Variant] = [point, *point.variants]
            for each in parts:
                recipes += [each.recipe, *(stimuli.recipe for stimuli in each.stimuli)]
        return recipes

    @property
    def seed_numbers(self) -> range:
        """The seeds to run."""
        first = SEEDS[self.purpose].start if self.first_seed is None else self.first_seed
        return range(first, first + (self.run_seeds or self.seeds))


def needs_machine(study: Study) -> bool:
    """Return whether the machine decides the study's ids. In the first edition `auto` itself is part of an id."""
    return study.edition > 1 and study.machine is None and any(map(has_auto, study.recipes))


def scored_in(study: Study, suites: Sequence[Suite]) -> Study:
    """Set the suites of a study, also in the values of its file."""
    written = [{suite.name: asdict(suite.options)} for suite in suites]
    values = None if study.values is None else {**study.values, "suites": written}
    return replace(study, suites=tuple(suites), values=values)
