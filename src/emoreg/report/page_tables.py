"""The tables of the page as plain rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from emoreg.report.analysis import Analysis, ArmResult, CellResult, Effect, ExperienceResult
from emoreg.report.formatting import NOTHING, bounds, decimal, p_value, percent, points, scaled, seconds
from emoreg.report.statistics import Comparison, Interval

WITHOUT_STAGE_1 = "Without stage 1"
PRETEXTS = {"affect": "affect", "shuffled": "shuffled labels", "neutral": "neutral labels", "rotation": "rotation"}


class Entry(NamedTuple):
    """One cell of a table."""

    value: str
    below: str = ""  # in small type: an interval, a range or a remark
    strong: bool = False  # whether its Holm-corrected p is at most 0.05


ABSENT = Entry(NOTHING)
Row = tuple[Entry, ...]
Column = tuple[str, Callable[[ArmResult], Entry]]  # header; its entry for an arm


@dataclass(frozen=True)
class Grid:
    """A table of the page."""

    name: str  # for screen readers
    caption: str
    headers: tuple[str, ...]
    groups: tuple[tuple[str, tuple[Row, ...]], ...]  # (heading or "", rows)


def by_experience(cell: CellResult) -> list[tuple[str | None, list[ArmResult]]]:
    """The arms in groups, in their order: first those without stage 1 (None), then those of each experience."""
    groups: dict[str | None, list[ArmResult]] = {None: []}
    for arm in cell.arms:
        groups.setdefault(arm.experience, []).append(arm)
    return [(experience, arms) for experience, arms in groups.items() if arms]


def results_grid(cell: CellResult) -> Grid:
    """All arms of a cell: accuracy, gain over Backbone, emotion effect, λ."""
    columns: list[Column] = [ARM, ("Seeds", lambda arm: Entry(str(arm.accuracy.n)))]
    columns.append(("Accuracy,\n%", lambda arm: measured(arm.accuracy, percent)))
    caption = "Test accuracy: mean over seeds, with the 95 % interval below it."
    if any(arm.gain is not None for arm in cell.arms):
        columns += [
            ("Gain over\nBackbone,\npoints", lambda arm: difference_entry(arm.gain)),
            ("p,\nHolm", lambda arm: _p_entry(arm.gain)),
            ("Hedges'\ng", lambda arm: Entry(decimal(arm.gain.effect_size)) if arm.gain else ABSENT),
        ]
        caption += (
            " p: exact, paired by seed, with the Holm-corrected p below it. Bold: the corrected p is at most 0.05."
        )
    if any(arm.effect is not None for arm in cell.arms):
        columns += [("Emotion\neffect,\npoints", _effect_entry), ("p,\nHolm", lambda arm: _p_entry(arm.effect))]
        caption += (
            " Emotion effect: the difference to the best control, named below it; its p is for being above every"
            " control."
        )
    return _grid("Results", caption, [*columns, LAM] if any(arm.lam for arm in cell.arms) else columns, cell)


def controls_grid(cell: CellResult) -> Grid | None:
    """Every regulated arm minus every control of its cell; None without a control."""
    effects = [(arm, arm.effect) for arm in cell.arms if arm.effect is not None]
    controls = dict.fromkeys(arm.control_name(label) for arm, effect in effects for label, _ in effect.against)
    if not controls:
        return None
    columns: list[Column] = [("Arm", lambda arm: Entry(arm.arm.label))]
    columns += [(control, partial(_against_entry, control)) for control in controls]
    caption = (
        "Test accuracy of each regulated arm minus that of each control, in points, paired by seed, with the 95 % "
        "interval and the uncorrected exact p below it. Best: the control used for the emotion effect."
    )
    return _grid("Differences to every control", caption, columns, cell, lambda arm: arm.effect is not None)


def responses_grid(cell: CellResult) -> Grid | None:
    """Test accuracy of each response of a network with two branches; None without such a network."""
    if all(arm.responses is None for arm in cell.arms):
        return None
    columns = [
        ARM,
        ("Non-emotional\nalone, %", lambda arm: measured(arm.responses and arm.responses[0], percent)),
        ("Emotional\nalone, %", lambda arm: measured(arm.responses and arm.responses[1], percent)),
        ("Regulated,\n%", lambda arm: measured(arm.accuracy, percent)),
        LAM,
    ]
    caption = (
        "Test accuracy: mean over seeds, with the 95 % interval below it. Each response alone is that of its branch, "
        "as if λ were 0 or 1. Where one of them has a low accuracy, the other answers almost alone."
    )
    return _grid("Each response alone", caption, columns, cell, lambda arm: arm.responses is not None)


def calibration_grid(cell: CellResult) -> Grid:
    """How well the confidence of each arm matches its accuracy."""
    columns = [
        ARM,
        ("ECE,\n%", lambda arm: measured(arm.ece, percent)),
        ("Confidence\nminus accuracy,\npoints", lambda arm: Entry(points(arm.overconfidence))),
    ]
    caption = (
        "On the test split. ECE: expected calibration error, mean over seeds, with the 95 % interval below it. Mean "
        "confidence minus accuracy: above zero the network is overconfident."
    )
    return _grid("Calibration", caption, columns, cell)


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
        ("Gain over\nBackbone,\npoints", lambda arm: Entry(points(arm.gain.difference.mean)) if arm.gain else ABSENT),
    ]
    caption = (
        "Training time and images per second: mean over seeds. FLOPs: one forward pass on one image. Gain: mean over "
        "seeds."
    )
    return _grid("Cost", caption, columns, cell)


def overview_grid(analysis: Analysis) -> Grid:
    """Gains and effects of all cells side by side: a row per arm, a column per cell."""
    caption = (
        "Mean over seeds, with the 95 % interval below it. Bold: the p after Holm's correction over the whole study is "
        "at most 0.05."
    )
    groups = (
        ("Gain over Backbone, points", _across(analysis, lambda arm: difference_entry(arm.gain))),
        ("Emotion effect, points", _across(analysis, _effect_entry)),
    )
    headers = ("Arm", *(cell.title.replace(", ", ",\n") for cell in analysis.cells))
    return Grid("Overview", caption, headers, tuple(group for group in groups if group[1]))


def experience_grid(experiences: Sequence[ExperienceResult]) -> Grid:
    """What the encoders learned in stage 1."""
    metrics = list(dict.fromkeys(name for experience in experiences for name, _ in experience.metrics))
    groups: dict[str, list[Row]] = {}
    for experience in experiences:
        intervals = dict(experience.metrics)
        row = (
            Entry(PRETEXTS.get(experience.pretext, experience.pretext)),
            Entry(experience.backbone),
            Entry(str(max((interval.n for interval in intervals.values()), default=0) or NOTHING)),
            *(
                measured(intervals.get(name), percent if "accuracy" in name else partial(decimal, digits=3))
                for name in metrics
            ),
            Entry(seconds(experience.seconds)),
        )
        groups.setdefault(_heading(experience.label), []).append(row)
    caption = (
        "On the validation images of the stimuli: mean over seeds, with the 95 % interval below it. CCC: concordance "
        "correlation of predicted and rated emotion; 1 is perfect."
    )
    headers = ("Learned", "Backbone", "Seeds", *map(_metric_header, metrics), "Training,\ns per run")
    return Grid("What stage 1 learned", caption, headers, tuple((name, tuple(rows)) for name, rows in groups.items()))


def measured(interval: Interval | None, number: Callable[[float], str], strong: bool = False) -> Entry:
    """A mean with its interval below it."""
    if interval is None or math.isnan(interval.mean):
        return ABSENT
    return Entry(number(interval.mean), bounds(interval, number), strong)


def name_entry(arm: ArmResult) -> Entry:
    """The name of an arm; below it whether it is a control."""
    return Entry(arm.arm.label, "control" if arm.arm.is_control else "")


def lam_entry(arm: ArmResult) -> Entry:
    """Mean λ at the end of training; below it the range over seeds."""
    lam = [value for value in arm.lam if not math.isnan(value)]
    if not lam:
        return ABSENT
    low, high = decimal(min(lam)), decimal(max(lam))
    return Entry(decimal(sum(lam) / len(lam)), "" if low == high else f"{low}–{high}")


def difference_entry(judged: Comparison | Effect | None) -> Entry:
    """A mean difference in points with its interval; strong if its corrected p is at most 0.05."""
    return ABSENT if judged is None else measured(judged.difference, points, judged.is_significant)


ARM: Column = ("Arm", name_entry)
LAM: Column = ("λ at\nend", lam_entry)


def _grid(
    name: str,
    caption: str,
    columns: Sequence[Column],
    cell: CellResult,
    has_row: Callable[[ArmResult], bool] = lambda arm: True,
) -> Grid:
    """A row for each arm that has one, in groups by experience."""
    groups = [
        (experience, tuple(tuple(entry(arm) for _, entry in columns) for arm in arms if has_row(arm)))
        for experience, arms in by_experience(cell)
    ]
    has_headings = any(experience is not None for experience, _ in groups)
    return Grid(
        name,
        caption,
        tuple(header for header, _ in columns),
        tuple((_heading(experience) if has_headings else "", rows) for experience, rows in groups if rows),
    )


def _heading(experience: str | None) -> str:
    return WITHOUT_STAGE_1 if experience is None else f"Experience: {experience}"


def _across(analysis: Analysis, entry: Callable[[ArmResult], Entry]) -> tuple[Row, ...]:
    """A row for each arm that has an entry in some cell, a column per cell."""
    names = {arm.label: name_entry(arm)._replace(value=arm.label) for cell in analysis.cells for arm in cell.arms}
    columns = [{arm.label: entry(arm) for arm in cell.arms} for cell in analysis.cells]
    rows = [(name, *(column.get(label, ABSENT) for column in columns)) for label, name in names.items()]
    return tuple(row for row in rows if any(value != ABSENT for value in row[1:]))


def _effect_entry(arm: ArmResult) -> Entry:
    entry = difference_entry(arm.effect)
    if arm.effect is None:
        return entry
    return entry._replace(below=f"{entry.below}\nvs {arm.control_name(arm.effect.control)}".strip())


def _p_entry(judged: Comparison | Effect | None) -> Entry:
    if judged is None:
        return ABSENT
    corrected = "" if math.isnan(judged.p_holm) else f"Holm {p_value(judged.p_holm)}"
    return Entry(p_value(judged.p), corrected, judged.is_significant)


def _against_entry(control: str, arm: ArmResult) -> Entry:
    """The difference to one control, its interval and p, and whether it is the best one."""
    differences = (
        {arm.control_name(label): difference for label, difference in arm.effect.against} if arm.effect else {}
    )
    if arm.effect is None or control not in differences:
        return ABSENT
    difference = differences[control]
    entry = measured(difference.difference, points)
    p = "" if math.isnan(difference.p) else f"p {p_value(difference.p)}"
    best = "best" if control == arm.control_name(arm.effect.control) else ""
    return entry._replace(below="\n".join(filter(None, (entry.below, p, best))))


def _metric_header(name: str) -> str:
    words = name.replace("_", " ")
    words = words.replace("ccc", "CCC") if "ccc" in words else words.capitalize()
    return f"{words}, %" if "accuracy" in name else words
