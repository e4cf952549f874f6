"""The contrasts of a cell of a study, with the seeds at each of their looks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from emoreg.report.contrast_kinds import KINDS, OVER_TWINS, PRACTICAL
from emoreg.report.looks import nominal_levels
from emoreg.report.run_frame import EXPLORATION, TWINS, WITHOUT_EXPERIENCE, Arm, Cell, Runs
from emoreg.report.statistics import LEVEL

BACKBONE, ENSEMBLE = Arm("none", None, None, None), Arm("ensemble", None, None, None)


@dataclass(frozen=True)
class Look:
    """One analysis of a contrast."""

    seeds: tuple[int, ...]
    level: float  # one-sided level of the limits
    number: int | None  # index among the planned looks; None for what is shown before the first
    is_early: bool = False  # more looks are planned


@dataclass(frozen=True)
class PlannedContrast:
    """An arm minus others, all on the same seeds; `contrasts.JudgedContrast` adds its size and verdict."""

    cell: Cell
    arm: Arm
    name: str
    others: tuple[Arm | None, ...]  # None: nothing is subtracted, for the arm's own outcome
    missing: tuple[str, ...]  # twins without a finished run
    unplanned: tuple[str, ...]  # missing twins that are not in the plan
    looks: tuple[Look, ...]  # the complete ones, or one before the first; the last is shown
    planned: tuple[int, ...]  # numbers of seeds at all looks, including those to come
    seeds: int  # number of planned seeds that are finished
    extra: int  # number of seeds beyond the plan
    lacking: tuple[tuple[Arm, tuple[int, ...]], ...] = ()  # without a plan: arms, and the seeds that only others have

    @property
    def is_tested(self) -> bool:
        """Whether it has a verdict."""
        return self.arm.is_regulated and self.name in KINDS

    @property
    def complete(self) -> int:
        """How many of the planned looks are complete."""
        return 0 if self.looks[-1].number is None else len(self.looks)

    @property
    def is_at_look(self) -> bool:
        """Whether its seeds are those of a planned look."""
        return self.complete > 0 and len(self.looks[-1].seeds) == self.seeds


def planned_contrasts(runs: Runs, cell: Cell) -> Iterable[PlannedContrast]:
    """All contrasts of a cell, arm by arm."""
    arms = runs.cells[cell]
    for arm in arms:
        yield _contrast(runs, cell, arm, runs.outcomes[cell].name, [None])
        for kind in PRACTICAL if arm.is_regulated else PRACTICAL[:1]:  # references and twins have only the gain
            reference = reference_of(arms, arm, kind.reference)
            if reference is not None and reference != arm:
                yield _contrast(runs, cell, arm, kind.name, [reference])
        if not arm.is_regulated:
            continue
        twins = {name: twin for name in TWINS if (twin := twin_of(arms, arm, name)) is not None}
        for twin in twins.values():
            yield _contrast(runs, cell, arm, "twin", [twin])
        for kind in OVER_TWINS:
            others = [twins[name] for name in kind.twins if name in twins]
            missing = tuple(name for name in kind.twins if name not in twins)
            unplanned = tuple(name for name in missing if twin_of(runs.planned[cell], arm, name) is None)
            yield _contrast(runs, cell, arm, kind.name, others, missing, unplanned)


def between_looks(runs: Runs) -> str | None:
    """A message that verdicts wait for the next planned look; None if a tested contrast of a confirmation is at one.

    If nothing is tested because no regulated arm is finished, all contrasts count.
    """
    plans = [plan for (cell, _), plan in runs.plans.items() if cell.purpose != EXPLORATION]
    contrasts = [one for cell in runs.cells for one in planned_contrasts(runs, cell)]
    contrasts = [one for one in contrasts if one.is_tested] or contrasts
    if not plans or any(one.is_at_look for one in contrasts):
        return None
    furthest = max(contrasts, key=lambda one: one.seeds, default=None)
    seeds, looks, complete = 0, plans[0].looks, 0
    if furthest is not None:
        seeds, looks, complete = furthest.seeds, furthest.planned, furthest.complete
    since = f" (those of the look at {looks[complete - 1]} stand)" if complete else ""
    return f"{seeds} of {looks[-1]} planned seeds are complete: verdicts wait for the look at {looks[complete]}{since}"


def twin_of(arms: Iterable[Arm], arm: Arm, experience: str) -> Arm | None:
    """The twin of an arm with this experience. A fresh encoder has seen no stimuli, so one twin serves all of them."""
    return _own_or_shared(arms, arm._replace(experience=experience))


def reference_of(arms: Iterable[Arm], arm: Arm, mode: str) -> Arm | None:
    """The reference of an arm with this mode; if it has an encoder, that of the arm's variant and stimuli."""
    own = Arm(mode, None, None, None) if mode in WITHOUT_EXPERIENCE else arm._replace(mode=mode)
    return _own_or_shared(arms, own)


def _own_or_shared(arms: Iterable[Arm], own: Arm) -> Arm | None:
    return next((arm for arm in (own, own._replace(stimuli=None)) if arm in arms), None)


def _contrast(
    runs: Runs,
    cell: Cell,
    arm: Arm,
    name: str,
    others: Sequence[Arm | None],
    missing: tuple[str, ...] = (),
    unplanned: tuple[str, ...] = (),
) -> PlannedContrast:
    arms, plan = runs.cells[cell], runs.plans.get((cell, arm))
    compared = [arm, *(other for other in others if other is not None)]
    common = [seed for seed in arms[arm] if all(seed in arms[each] for each in compared)] if others else []
    if plan is None or cell.purpose == EXPLORATION:
        look = Look(tuple(common), LEVEL, 0)
        number, lacking = len(common), _lacking(arms, compared)
        return PlannedContrast(
            cell, arm, name, tuple(others), missing, unplanned, (look,), (number,), number, 0, lacking
        )
    seeds = [seed for seed in common if seed in plan.numbers]
    # An arm's own outcome is not tested, so looking at it often does no harm.
    at = plan.looks if others != [None] else plan.looks[-1:]
    levels = nominal_levels(at, LEVEL)
    looks = [
        Look(tuple(seeds[:number]), levels[place], place, number < at[-1])
        for place, number in enumerate(at)
        if seeds[:number] == list(plan.numbers[:number])
    ]
    looks = looks or [Look(tuple(seeds), levels[0], None, len(at) > 1)]
    extra = len(common) - len(seeds)
    return PlannedContrast(cell, arm, name, tuple(others), missing, unplanned, tuple(looks), at, len(seeds), extra)


def _lacking(arms: Mapping[Arm, Mapping[int, int]], compared: Sequence[Arm]) -> tuple[tuple[Arm, tuple[int, ...]], ...]:
    """The arms that lack seeds which others have, and these seeds."""
    seeds = sorted(set().union(*(arms[arm] for arm in compared)))
    lacking = [(arm, tuple(seed for seed in seeds if seed not in arms[arm])) for arm in compared]
    return tuple((arm, missing) for arm, missing in lacking if missing)
