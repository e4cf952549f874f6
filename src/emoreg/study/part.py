"""A part of a study: the runs of some targets, backbones, stimuli, variants or modes, to be done for now.

The study stays whole: its table has every run that is planned, and the families of its tests every arm.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from emoreg.errors import UserError, nearest
from emoreg.study.arms import REGULATED
from emoreg.study.plan import PlannedRun

FACTORS = ("target", "backbone", "stimuli", "variant", "mode")


def part_of(planned: Sequence[PlannedRun], only: Collection[str]) -> list[PlannedRun]:
    """The runs that a part of a study needs, in the order of the plan.

    Labels of one factor add up, those of several restrict each other: a run is in the part if each of its factors that
    any label is of has one of them. What has no such factor stays: with labels of stimuli the references and `fresh`,
    with modes the references, so that the part can be compared with them. The runs of stage 1 are those that it needs.

    Args:
        planned: from `plan_runs`.
        only: labels of targets, backbones, stimuli or variants, and modes; none for all runs.

    Raises:
        UserError: no such label; names the nearest.
    """
    if not only:
        return list(planned)
    stage_2 = [run for run in planned if run.mode is not None]
    known = {factor: {label for run in stage_2 if (label := _label(run, factor))} for factor in FACTORS}
    wanted = _wanted(known, only)
    kept = [run for run in stage_2 if all(_label(run, factor) in (None, *wanted[factor]) for factor in wanted)]
    needed = {run.needs for run in kept}
    of_stage_2 = {(run.id, run.variant) for run in kept}
    return [run for run in planned if (run.id in needed if run.mode is None else (run.id, run.variant) in of_stage_2)]


def _label(run: PlannedRun, factor: str) -> str | None:
    if factor == "mode":
        return run.mode if run.mode in REGULATED else None
    label: str | None = getattr(run, factor)
    return label


def _wanted(known: Mapping[str, Collection[str]], only: Iterable[str]) -> dict[str, set[str]]:
    """The labels that are asked for, by factor. UserError for one that no factor has."""
    wanted: dict[str, set[str]] = {}
    for label in only:
        factors = [factor for factor, labels in known.items() if label in labels]
        if not factors:
            every = sorted({each for labels in known.values() for each in labels})
            close = nearest(label, every) or f" (known: {', '.join(every[:16])}, …)"
            raise UserError(f"--only: no target, backbone, stimulus set, variant or mode is called '{label}'{close}")
        for factor in factors:
            wanted.setdefault(factor, set()).add(label)
    return wanted
