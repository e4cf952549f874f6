"""Select a part of a study to run for now, by targets, backbones, stimuli, variants or modes.

The study stays whole: its table has all planned runs, and the families of its tests all arms.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from emoreg.errors import UserError, nearest
from emoreg.study.arms import REGULATED
from emoreg.study.plan import PlannedRun

FACTORS = ("target", "backbone", "stimuli", "variant", "mode")


def part_of(planned: Sequence[PlannedRun], only: Collection[str]) -> list[PlannedRun]:
    """The runs that a part of a study needs, in the order of the plan.

    Labels of the same factor are alternatives; labels of different factors must all hold. A run without the factor
    stays, for comparison: references and `fresh` with labels of stimuli, references with modes. The part includes the
    runs of stage 1 that it needs.

    Args:
        planned: from `plan_runs`.
        only: labels of targets, backbones, stimuli or variants, and modes; none for all runs.

    Raises:
        UserError: unknown label; the error names the closest match.
    """
    if not only:
        return list(planned)
    stage_2 = [run for run in planned if run.mode is not None]
    known = {factor: {label for run in stage_2 if (label := _label(run, factor))} for factor in FACTORS}
    wanted = _wanted(known, only)
    kept = [run for run in stage_2 if all(_label(run, factor) in (None, *wanted[factor]) for factor in wanted)]
    needed = {run.needs for run in kept}
    kept_rows = {run.row for run in kept}
    return [run for run in planned if run.id in needed or run.row in kept_rows]


def _label(run: PlannedRun, factor: str) -> str | None:
    if factor == "mode":
        return run.mode if run.mode in REGULATED else None
    label: str | None = getattr(run, factor)
    return label


def _wanted(known: Mapping[str, Collection[str]], only: Iterable[str]) -> dict[str, set[str]]:
    """The labels of `only` by factor. Raises UserError for one that no factor has."""
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
