"""All contrasts of a study with their sizes and verdicts, in one frame.

A regulated arm is a mode of the method with an encoder that experienced `affect`; its twins are the same with another
experience. Contrasts, each paired by seed:

    accuracy         of an arm itself; for several labels mean_average_precision, for values ccc
    gain             an arm minus Backbone
    over_ensemble    a regulated arm minus the ensemble of two plain backbones
    over_transfer    a regulated arm minus transfer: the encoder alone, fine-tuned without a second network
    regulation       a regulated arm minus unregulated: the same two networks, trained apart and averaged
    twin             a regulated arm minus one twin
    label            a regulated arm minus the hardest of the twins fresh, moments and shuffled
    emotion          a regulated arm minus the hardest of these and neutral and rotation

Only contrasts of regulated arms are tested; `accuracy` and `twin` are descriptive and never are. Statements about
accuracy hold for the other outcomes, except that only accuracy has right or wrong for each image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from emoreg.report.contrast_plan import PlannedContrast, planned_contrasts
from emoreg.report.contrast_sizes import Size, rows_of, sizes_of
from emoreg.report.own_results import runs_of
from emoreg.report.read_runs import ArrowFrame
from emoreg.report.run_frame import Cell, Runs
from emoreg.report.verdicts import NOTHING, Decision, decide, specific

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["purpose", "target", "backbone", "mode", "experience", "variant", "stimuli", "contrast", "against"]
COLUMNS += ["n", "images", "point", "low", "high", "low_seeds", "high_seeds", "p", "p_corrected", "p_below"]
COLUMNS += ["p_below_corrected", "level", "family", "decided_at", "extra_seeds", "missing", "collapsed", "mixed"]
COLUMNS += ["verdict"]


def analyse(frame: pd.DataFrame | ArrowFrame) -> pd.DataFrame:
    """Compare the arms of a study: every contrast with its size, interval, p and verdict.

    Tests are one-sided at 0.025, by a studentised bootstrap over seeds and test images (`statistics.estimate`), so that
    a contrast is `above` exactly if its 95 % interval is above 0, before the correction for the number of arms. Against
    several twins p is the largest, and the size is given against the hardest twin: the smallest mean (biased low), the
    smallest lower limit, and the smallest upper limit at 1 - 0.025 / k for k twins.

    The family of a test is the same contrast of all regulated arms (mode, variant, stimuli) of a target and backbone.
    It is corrected by Holm's method or, if looks are planned, by a level of 0.025 / m for each of m arms, spent over
    the looks (`looks.nominal_levels`). Seeds count from 0, or from the plan's first one. A look is complete when a
    contrast has all of its first seeds, and `above` at one look holds, unless a run collapses later or an arm is added,
    which lowers the level of all looks. Without a label effect there is no emotion effect. Intervals ignore the family.

    Args:
        frame: a frame of pandas, polars, DuckDB or pyarrow with a row per run and at least the columns `mode`,
            `experience`, `seed` and `accuracy`, or `arm`, `seed` and `accuracy`; docs/own-results.md lists the others.
            A study's table of results fits as it is.

    Returns:
        A row per contrast. Outcomes and differences are shares: 0.01 is a point. Columns:

        purpose, target, backbone, mode, experience, variant, stimuli: the arm; null if it has none.
        contrast, against: see above; against is the (hardest) twin's experience, or a reference's mode.
        n: number of seeds of the estimate, those of the last complete look; images: number of test images that the
            interval covers, 0 if right or wrong per image is missing or for different images and the interval is over
            seeds alone.
        point, low, high: mean difference with its limits over seeds and images; low_seeds, high_seeds: limits over
            seeds alone. NaN with one seed; at the ends of the range if the seeds do not determine a limit.
        p, p_below: one-sided, for above and, for practical contrasts, below; p_corrected, p_below_corrected: corrected
            for the family, to be compared with `level`. NaN if no verdict depends on them.
        level: one-sided level of the limits: 0.025, or the look's. family: number of arms in the family; 0 if nothing
            is tested.
        decided_at: number of seeds at the look that decided for above or below; extra_seeds: number of seeds beyond
            the plan, which are not used.
        missing: missing twins, comma-separated; collapsed: number of collapsed runs of the contrast.
        mixed: which of device, precision and edition differ between the runs of the contrast, comma-separated.
        verdict: a `Verdict`; null if nothing is tested.

    Raises:
        UserError: a column is unknown or missing, a value is wrong, or a run occurs twice.
    """
    return frame_of(judged_contrasts(runs_of(frame)))


class JudgedContrast(NamedTuple):
    """A contrast with its size and verdict; `analysis.ContrastResult` is what a report shows of it."""

    contrast: PlannedContrast
    size: Size  # with the seeds of its last complete look
    decision: Decision
    mixed: tuple[str, ...]  # properties in which its runs differ: device, precision, edition

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the size."""
        return self.contrast.looks[-1].seeds


def judged_contrasts(runs: Runs) -> list[JudgedContrast]:
    """Judge every contrast of the runs' scores, of which more is better."""
    contrasts = [contrast for cell in runs.cells for contrast in planned_contrasts(runs, cell)]
    sizes = sizes_of(runs, contrasts)
    families: dict[tuple[Cell, str], list[int]] = defaultdict(list)
    for place, contrast in enumerate(contrasts):
        if contrast.is_tested:
            families[contrast.cell, contrast.name].append(place)
    decisions = [NOTHING] * len(contrasts)
    for (cell, _), places in families.items():
        arms = sum(arm.is_regulated for arm in runs.planned[cell])
        decided = decide([contrasts[place] for place in places], [sizes[place] for place in places], arms)
        for place, decision in zip(places, decided, strict=True):
            decisions[place] = decision
    labels = {
        (contrast.cell, contrast.arm): decision
        for contrast, decision in zip(contrasts, decisions, strict=True)
        if contrast.name == "label"
    }
    results = []
    for contrast, of_looks, decision in zip(contrasts, sizes, decisions, strict=True):
        is_emotion = contrast.name == "emotion"
        final = specific(decision, labels[contrast.cell, contrast.arm]) if is_emotion else decision
        results.append(JudgedContrast(contrast, of_looks[-1], final, _mixed(runs, contrast)))
    return results


def _mixed(runs: Runs, contrast: PlannedContrast) -> tuple[str, ...]:
    """The properties in which the runs of a contrast differ."""
    arms, seeds = runs.cells[contrast.cell], contrast.looks[-1].seeds
    rows = [row for arm in (contrast.arm, *contrast.others) if arm for row in rows_of(arms[arm], seeds)]
    return tuple(name for name, values in runs.facts.items() if len({values[row] for row in rows}) > 1)


def frame_of(contrasts: Iterable[JudgedContrast]) -> pd.DataFrame:
    """The frame that `analyse` describes: a row per contrast."""
    import pandas as pd

    return pd.DataFrame([_row(*one) for one in contrasts], columns=COLUMNS)


def _row(contrast: PlannedContrast, size: Size, decision: Decision, mixed: Sequence[str]) -> dict[str, Any]:
    look = contrast.looks[-1]
    return {
        **contrast.cell._asdict(),
        **contrast.arm._asdict(),
        "contrast": contrast.name,
        "against": size.against,
        "n": len(look.seeds),
        "images": size.images,
        **{name: getattr(size, name) for name in ("point", "low", "high", "low_seeds", "high_seeds")},
        **{name: getattr(decision, name) for name in ("p", "p_corrected", "p_below", "p_below_corrected")},
        "level": look.level,
        "family": decision.family,
        "decided_at": decision.decided_at,
        "extra_seeds": contrast.extra,
        "missing": ", ".join(contrast.missing) or None,
        "collapsed": size.collapsed,
        "mixed": ", ".join(mixed) or None,
        "verdict": decision.verdict and str(decision.verdict),
    }
