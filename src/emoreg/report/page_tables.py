"""The tables of the page as rows of text."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from emoreg.report.analysis import Analysis, ArmResult, CellResult, ContrastResult, Difference, StageOneResult
from emoreg.report.collapse import Frequency
from emoreg.report.contrast_kinds import KINDS, ContrastKind
from emoreg.report.formatting import (
    NOTHING,
    WITHOUT_INTERVALS,
    bounds,
    capital,
    count,
    coverage,
    decimal,
    p_value,
    percent,
    points,
    scaled,
    seconds,
)
from emoreg.report.run_frame import MODES, TWINS
from emoreg.report.statistics import ENOUGH, Interval
from emoreg.report.verdicts import Verdict

REFERENCES = "References"
REGULATION = "The regulation effect is the difference from the same two networks, trained apart and averaged."
UNTESTED = "Nothing is tested."  # in an exploration
UNDECIDED = {  # why there is no verdict
    Verdict.MISSING_TWIN: "missing twin",
    Verdict.TOO_FEW: "too few",
    Verdict.TIED: "seeds tie",
    Verdict.BETWEEN_LOOKS: "between looks",
    Verdict.COLLAPSED: "collapsed",
    Verdict.EXPLORATION: "exploration",
}
VERDICTS = {
    Verdict.ABOVE: "above",
    Verdict.NOT_ABOVE: "not above",
    Verdict.BELOW: "below",
    **{verdict: f"no verdict: {why}" for verdict, why in UNDECIDED.items()},
}


class Entry(NamedTuple):
    """One cell of a table."""

    value: str
    below: str = ""  # in small type: an interval, a range or a remark
    strong: bool = False  # in bold, as its test passed

    @property
    def in_line(self) -> str:
        """The value with what is below it in parentheses."""
        below = self.below.replace("\n", "; ")
        return f"{self.value} ({below})" if below else self.value


ABSENT = Entry(NOTHING)
Row = tuple[Entry, ...]
Column = tuple[str, Callable[[ArmResult], Entry]]  # header, and a function that makes an arm's entry


@dataclass(frozen=True)
class Grid:
    """A table of the page."""

    name: str  # for screen readers
    caption: str
    headers: tuple[str, ...]
    groups: tuple[tuple[str, tuple[Row, ...]], ...]  # (heading or "", rows)

    @property
    def has_figures(self) -> bool:
        """Whether anything is known of any row."""
        return any(entry != ABSENT for _, rows in self.groups for row in rows for entry in row[1:])

    @property
    def rows_of_text(self) -> list[list[str]]:
        """The rows of all groups, each entry in one line."""
        return [[entry.in_line for entry in row] for _, rows in self.groups for row in rows]


def in_groups(cell: CellResult) -> list[tuple[str, list[ArmResult]]]:
    """The references, then each regulated arm with its twins; a twin of several arms is listed with the first."""
    groups: list[tuple[str, list[ArmResult]]] = [(REFERENCES, list(cell.references))]
    seen: set[tuple[str | None, ...]] = set()
    for family in cell.families:
        groups.append((family.title, [arm for arm in family.arms if arm.arm not in seen]))
        seen |= {arm.arm for arm in family.arms}
    return [(title, arms) for title, arms in groups if arms]


def has_no_intervals(cell: CellResult) -> bool:
    """Whether too few seeds are finished for any interval."""
    return max((arm.score.n for arm in cell.arms), default=ENOUGH) < ENOUGH


def tested_in(contrasts_by_arm: Sequence[Container[str]]) -> list[ContrastKind]:
    """The kinds of contrasts that at least one regulated arm has."""
    return [kind for kind in KINDS.values() if any(kind.name in contrasts for contrasts in contrasts_by_arm)]


def regulation_note(kinds: Sequence[ContrastKind]) -> str:
    """For a caption: a definition of the regulation effect, if it is among the kinds."""
    return f" {REGULATION}" if any(kind.name == "regulation" for kind in kinds) else ""


def contrasts_grid(cell: CellResult) -> Grid | None:
    """The tested contrasts of every regulated arm; None if there are none."""
    regulated = cell.regulated
    kinds = tested_in([arm.contrasts for arm in regulated])
    if not kinds:
        return None
    names = [kind.name for kind in kinds]
    rows = []
    for arm in regulated:
        contrasts = [arm.contrasts.get(name) for name in names]
        seeds = max(contrast.size.n for contrast in contrasts if contrast) or arm.score.n
        rows.append((Entry(arm.label, count(seeds, "seed")), *(contrast_entry(each, seeds) for each in contrasts)))
    has_images = any(contrast.images for arm in regulated for contrast in arm.contrasts.values())
    widths = "interval over seeds and images (in brackets over seeds alone)" if has_images else "interval over seeds"
    p = ", and one-sided p, corrected for the number of arms" if cell.is_tested else ""
    caption = (
        f"Differences in {cell.outcome.words}, in points, paired by seed: mean, {widths}{p}.{regulation_note(kinds)} "
        "The label effect is the difference from the hardest of the twins fresh, moments and shuffled; the emotion "
        f"effect is that from the hardest of all five. {'Bold: the test passed.' if cell.is_tested else UNTESTED}"
    )
    return Grid("Contrasts", caption, ("Arm", *(kind.heading for kind in kinds)), (("", tuple(rows)),))


def accuracy_grid(cell: CellResult) -> Grid:
    """All arms of a cell: outcome, difference from Backbone, λ, collapsed runs and starved branches."""
    outcome = cell.outcome
    columns: list[Column] = [ARM, SEEDS, (outcome.title, lambda arm: measured(arm.score, percent))]
    caption = f"{capital(outcome.words)}: mean, with its 95 % interval below."
    if has_no_intervals(cell):
        caption += f" {WITHOUT_INTERVALS}"
    if any("gain" in arm.contrasts for arm in cell.arms):
        columns.append(
            ("Minus\nBackbone,\npoints", lambda arm: difference_entry(arm.contrasts.get("gain"), arm.score.n))
        )
        tested = "; tested only for regulated arms, among the contrasts" if cell.is_tested else ""
        caption += f" Minus Backbone: paired by seed, with its interval{tested}."
    if any(arm.lam for arm in cell.arms):
        columns.append(LAM)
    if any(arm.collapsed.count for arm in cell.arms):
        columns.append(("Collapsed", lambda arm: _frequency_entry(arm.collapsed)))
        caption += " Collapsed: runs that are not finite or hardly above chance; means over them say nothing."
    if any(arm.starved.runs for arm in cell.arms):
        columns.append(("Starved", lambda arm: _frequency_entry(arm.starved)))
        caption += (
            f" Starved: runs in which the {outcome.words} of one branch alone is less than half of the other's, on "
            "training images at the end. Below: the exact 95 % interval of the share."
        )
    return grid_of(capital(outcome.plural), caption, columns, cell)


def twins_grid(cell: CellResult) -> Grid | None:
    """Every regulated arm minus each of its twins; None if there are none."""
    regulated = [arm for arm in cell.arms if arm.twins]
    names = [name for name in TWINS if any(twin.against == name for arm in regulated for twin in arm.twins)]
    if not names:
        return None
    rows = tuple(
        (
            Entry(arm.label),
            *(difference_entry({twin.against: twin for twin in arm.twins}.get(name), arm.score.n) for name in names),
        )
        for arm in regulated
    )
    caption = (
        f"{capital(cell.outcome.words)} of each regulated arm minus that of its twins, in points, paired by seed, with "
        "its interval (95 % unless another width is given). Single twins are not tested: an arm must be above all of "
        "them."
    )
    return Grid("Differences from every twin", caption, ("Arm", *names), (("", rows),))


def responses_grid(cell: CellResult) -> Grid | None:
    """The outcome of each response of a network with two branches; None without such a network."""
    unit = cell.outcome.unit
    if all(arm.responses is None for arm in cell.arms):
        return None
    columns = [
        ARM,
        (f"Non-emotional\nalone, {unit}", lambda arm: measured(arm.responses and arm.responses[0], percent)),
        (f"Emotional\nalone, {unit}", lambda arm: measured(arm.responses and arm.responses[1], percent)),
        (f"Regulated,\n{unit}", lambda arm: measured(arm.score, percent)),
        LAM,
    ]
    caption = (
        f"{capital(cell.outcome.words)}: mean over seeds, with the 95 % interval below it. Each response alone is its "
        "branch without the other, as if λ were 0 or 1. Where one is low, the other decides almost alone."
    )
    return grid_of("Each response alone", caption, columns, cell, lambda arm: arm.responses is not None)


def calibration_grid(cell: CellResult) -> Grid | None:
    """How well the confidence of each arm matches its accuracy; None if the task is not classification."""
    if not cell.outcome.is_counted:
        return None
    columns = [
        ARM,
        ("ECE,\n%", lambda arm: measured(arm.ece, percent)),
        ("Confidence\nminus accuracy,\npoints", lambda arm: Entry(points(arm.overconfidence))),
    ]
    caption = (
        "ECE: expected calibration error, mean over seeds, with the 95 % interval below it. Mean confidence minus "
        "accuracy: above zero the network is overconfident."
    )
    return grid_of("Calibration", caption, columns, cell)


def cost_grid(cell: CellResult) -> Grid:
    """Training time, speed and size of each arm."""
    columns: list[Column] = [
        ARM,
        ("Training,\ns per run", lambda arm: Entry(seconds(arm.seconds))),
        (
            "Images\nper second",
            lambda arm: ABSENT if math.isnan(arm.images_per_second) else Entry(f"{arm.images_per_second:,.0f}"),
        ),
        ("Parameters", lambda arm: Entry(scaled(arm.parameters))),
        ("FLOPs", lambda arm: Entry(scaled(arm.flops))),
    ]
    caption = "Training time and images per second: mean over seeds. FLOPs: one forward pass on one image."
    return grid_of("Cost", caption, columns, cell)


def overview_grid(analysis: Analysis) -> Grid:
    """The tested contrasts of all cells side by side: a row per regulated arm, a column per cell."""
    caption = f"In points: mean, with its interval below. {UNTESTED}"
    if any(cell.is_tested for cell in analysis.cells):
        caption = (
            "In points: mean, with its interval, p and verdict below. Bold: the test passed, corrected for the arms of "
            "its cell."
        )
    groups = tuple(
        (f"{kind.heading.replace(chr(10), ' ')}, points", _across(analysis, kind.name)) for kind in KINDS.values()
    )
    headers = ("Arm", *(cell.title.replace(", ", ",\n") for cell in analysis.cells))
    return Grid("Overview", caption, headers, tuple(group for group in groups if group[1]))


def stage_one_grid(results: Sequence[StageOneResult]) -> Grid | None:
    """What the encoders learned in stage 1; None if there are none."""
    if not results:
        return None
    metrics = list(dict.fromkeys(name for result in results for name, _ in result.metrics))
    groups: dict[str, list[Row]] = {}
    for result in results:
        intervals = dict(result.metrics)
        row = (
            Entry(result.experience),
            Entry(result.backbone),
            Entry(str(max((interval.n for interval in intervals.values()), default=0) or NOTHING)),
            *(
                measured(intervals.get(name), percent if "accuracy" in name else partial(decimal, digits=3))
                for name in metrics
            ),
            Entry(seconds(result.seconds)),
        )
        groups.setdefault(f"Stimuli: {result.stimuli}", []).append(row)
    caption = (
        "On the validation images of the stimuli: mean over seeds, with the 95 % interval below it. CCC: concordance "
        "correlation of predicted and rated emotion; 1 is perfect."
    )
    headers = ("Experience", "Backbone", "Seeds", *map(_metric_header, metrics), "Training,\ns per run")
    return Grid("What stage 1 learned", caption, headers, tuple((name, tuple(rows)) for name, rows in groups.items()))


def measured(interval: Interval | None, number: Callable[[float], str], between: str = ", ") -> Entry:
    """A mean with its interval below it, in the format of `bounds`."""
    if interval is None or math.isnan(interval.mean):
        return ABSENT
    return Entry(number(interval.mean), bounds(interval, number, between))


def difference_entry(contrast: ContrastResult | None, seeds: int | None = None) -> Entry:
    """A mean in points with its interval below it, in the format of `limits_of`."""
    if contrast is None or math.isnan(contrast.size.mean):
        return ABSENT
    return Entry(points(contrast.size.mean), limits_of(contrast, seeds))


def contrast_entry(contrast: ContrastResult | None, seeds: int | None = None) -> Entry:
    """A mean in points with both intervals, p and verdict below it; bold if its test passed.

    Args:
        contrast: None for a dash.
        seeds: number of seeds that the row gives; another number is written beside the interval.
    """
    if contrast is None:
        return ABSENT
    lines = []
    if contrast.size.n:
        lines.append(limits_of(contrast, seeds))
        if contrast.images and not math.isnan(contrast.over_seeds.low):
            lines.append(f"[{bounds(contrast.over_seeds, points)}]")
        lines.append(contrast.versus)
    if not math.isnan(contrast.p):
        lines.append(f"p {p_value(contrast.p)}")
    if contrast.verdict is not Verdict.EXPLORATION:  # its cell's title says so
        lines.append(verdict_entry(contrast))
    return Entry(points(contrast.size.mean), "\n".join(filter(None, lines)), contrast.is_found)


def verdict_entry(contrast: ContrastResult) -> str:
    """The verdict of a contrast, with the number of seeds if an early look decided it; empty without a verdict."""
    if contrast.verdict is None:
        return ""
    at = contrast.found_at
    return VERDICTS[contrast.verdict] + ("" if at is None else f" at {count(at, 'seed')}")


def limits_of(
    contrast: Difference, seeds: int | None = None, number: Callable[[float], str] = points, between: str = ", "
) -> str:
    """The interval, with its width and seeds if they are unusual: "+0.10, +0.70 (99.7 %, 6 seeds)"."""
    limits, unusual = bounds(contrast.size, number, between), width_and_seeds(contrast, seeds)
    return f"{limits} ({unusual})".lstrip() if unusual else limits


def width_and_seeds(contrast: Difference, seeds: int | None = None) -> str:
    """The coverage of the interval if it is not 95 %, and the number of seeds if it is not `seeds`."""
    size, width = contrast.size, coverage(contrast.level)
    parts = [width] if width != "95 %" and not math.isnan(size.low) else []
    if seeds not in (None, size.n) and size.n > 1:  # "one seed" already replaces the interval
        parts.append(count(size.n, "seed"))
    return ", ".join(parts)


def lam_entry(arm: ArmResult) -> Entry:
    """Mean λ at the end of training, with the range over seeds below it."""
    lam = [value for value in arm.lam if not math.isnan(value)]
    if not lam:
        return ABSENT
    low, high = decimal(min(lam)), decimal(max(lam))
    return Entry(decimal(sum(lam) / len(lam)), "" if low == high else f"{low}–{high}")


ARM: Column = ("Arm", lambda arm: Entry(name_in_group(arm)))
LABEL: Column = ("Arm", lambda arm: Entry(arm.label))
SEEDS: Column = ("Seeds", lambda arm: Entry(str(arm.score.n)))
LAM: Column = ("λ at\nend", lam_entry)


def name_in_group(arm: ArmResult) -> str:
    """An arm's name under the heading of its group, which gives mode, variant and stimuli."""
    return arm.label if arm.role == MODES[arm.arm.mode] else arm.role


def grid_of(
    name: str,
    caption: str,
    columns: Sequence[Column],
    cell: CellResult,
    has_row: Callable[[ArmResult], bool] = lambda arm: True,
) -> Grid:
    """A table with a row for each arm that `has_row` accepts, in groups."""
    groups = [
        (title, tuple(tuple(entry(arm) for _, entry in columns) for arm in arms if has_row(arm)))
        for title, arms in in_groups(cell)
    ]
    return Grid(name, caption, tuple(header for header, _ in columns), tuple(group for group in groups if group[1]))


def _across(analysis: Analysis, name: str) -> tuple[Row, ...]:
    """A row for each regulated arm that has the contrast in at least one cell, with a column per cell."""
    columns = [
        {arm.label: contrast_entry(arm.contrasts.get(name), arm.score.n) for arm in cell.regulated}
        for cell in analysis.cells
    ]
    labels = dict.fromkeys(label for column in columns for label in column)
    rows = [(Entry(label), *(column.get(label, ABSENT) for column in columns)) for label in labels]
    return tuple(row for row in rows if any(value != ABSENT for value in row[1:]))


def _frequency_entry(frequency: Frequency) -> Entry:
    if not frequency.runs:
        return ABSENT
    return Entry(f"{frequency.count} of {frequency.runs}", f"{100 * frequency.low:.0f}–{100 * frequency.high:.0f} %")


def _metric_header(name: str) -> str:
    words = name.replace("_", " ")
    words = words.replace("ccc", "CCC") if "ccc" in words else words.capitalize()
    return f"{words}, %" if "accuracy" in name else words
