"""The tables of the page as plain rows, and how their numbers are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from emoreg.report.analysis import Analysis, ArmResult, Cell, Experience
from emoreg.report.findings import points
from emoreg.report.statistics import ALPHA, Comparison, Interval

NOTHING = "–"
WITHOUT_STAGE_1 = "Without stage 1"
PRETEXTS = {"affect": "affect", "shuffled": "shuffled labels", "rotation": "rotation"}


class Entry(NamedTuple):
    """What stands in one place of a table."""

    value: str
    below: str = ""  # in small: its interval, range or remark
    strong: bool = False  # its Holm-corrected p is at most 0.05


@dataclass(frozen=True)
class Grid:
    """A table of the page."""

    name: str  # spoken
    caption: str
    headers: tuple[str, ...]
    groups: tuple[tuple[str, tuple[tuple[Entry, ...], ...]], ...]  # (heading, "" for none; rows)


def by_experience(cell: Cell) -> list[tuple[str | None, list[ArmResult]]]:
    """The arms in groups, in their order: those without stage 1 (None), then each experience's."""
    groups: dict[str | None, list[ArmResult]] = {None: []}
    for arm in cell.arms:
        groups.setdefault(arm.experience, []).append(arm)
    return [(experience, arms) for experience, arms in groups.items() if arms]


def heading(experience: str | None) -> str:
    """Of a group of arms."""
    return WITHOUT_STAGE_1 if experience is None else f"Experience: {experience}"


def control_within(label: str, arm: ArmResult) -> str:
    """The label of a control beside `arm`: without the experience that both have."""
    return label if arm.experience is None else label.removesuffix(f" ({arm.experience})")


def percent(fraction: float) -> str:
    """0.9512 is "95.12"; "–" for NaN."""
    return NOTHING if math.isnan(fraction) else f"{100 * fraction:.2f}"


def gain_points(fraction: float) -> str:
    """0.004 is "+0.40"; "–" for NaN."""
    return NOTHING if math.isnan(fraction) else points(fraction)


def p_value(p: float) -> str:
    """Three decimals; "–" for NaN."""
    return NOTHING if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def results_grid(cell: Cell) -> Grid:
    """All arms of a cell: accuracy, gain over Backbone, emotion effect, λ."""
    has_gain, has_effect = _has(cell, "gain"), _has(cell, "effect")
    has_lam = any(arm.lam for arm in cell.arms)
    headers = ["Arm", "Seeds", "Accuracy,\n%"]
    headers += ["Gain over\nBackbone,\npoints", "p,\nHolm", "Hedges'\ng"] if has_gain else []
    headers += ["Emotion\neffect,\npoints", "p,\nHolm"] if has_effect else []
    headers += ["λ at\nend"] if has_lam else []

    def row(arm: ArmResult) -> tuple[Entry, ...]:
        entries = [name_entry(arm), Entry(str(arm.accuracy.n)), measured(arm.accuracy, percent)]
        if has_gain:
            entries += _gain_entries(arm.gain)
        if has_effect:
            entries += _effect_entries(arm)
        return tuple(entries + ([lam_entry(arm)] if has_lam else []))

    caption = "Accuracy on the test split, mean over seeds; below it the 95 % interval."
    if has_gain:
        caption += " p: exact, paired by seed; below it corrected (Holm). Bold: the corrected p is at most 0.05."
    if has_effect:
        caption += (
            " Emotion effect: the difference to the best control, which is named below it; its p is of being above"
            " every control."
        )
    return Grid("Results", caption, tuple(headers), _grouped(cell, row))


def controls_grid(cell: Cell) -> Grid | None:
    """Every regulated arm minus every control of its cell; None without a control."""
    arms = [arm for arm in cell.arms if arm.effect is not None]
    names = list(dict.fromkeys(control_within(c, arm) for arm in arms for c, _ in _against(arm)))
    if not names:
        return None

    def row(arm: ArmResult) -> tuple[Entry, ...]:
        assert arm.effect is not None
        best = control_within(arm.effect.control, arm)
        of_control = {control_within(label, arm): difference for label, difference in arm.effect.against}
        return (Entry(arm.arm.label), *(_against_entry(of_control.get(name), name == best) for name in names))

    caption = (
        "Test accuracy of each regulated arm minus each control's, points, paired by seed; below it the 95 % interval "
        "and the exact p, not corrected. Best: the control that the emotion effect is the difference to."
    )
    return Grid("Differences to every control", caption, ("Arm", *names), _grouped(cell, row, only=arms))


def responses_grid(cell: Cell) -> Grid | None:
    """What each response of a network with two branches is worth by itself; None without such a network."""
    arms = [arm for arm in cell.arms if arm.responses is not None]
    if not arms:
        return None

    def row(arm: ArmResult) -> tuple[Entry, ...]:
        assert arm.responses is not None
        alone = (measured(response, percent) for response in arm.responses)
        return name_entry(arm), *alone, measured(arm.accuracy, percent), lam_entry(arm)

    caption = (
        "Test accuracy, mean over seeds; below it the 95 % interval. Either response is that of its own branch, as "
        "if λ were 0 or 1. Where one of them is hardly right, the other answers almost alone."
    )
    headers = ("Arm", "Non-emotional\nalone, %", "Emotional\nalone, %", "Regulated,\n%", "λ at\nend")
    return Grid("Each response alone", caption, headers, _grouped(cell, row, only=arms))


def calibration_grid(cell: Cell) -> Grid:
    """How well the confidence of each arm fits its accuracy."""

    def row(arm: ArmResult) -> tuple[Entry, ...]:
        images = sum(count for _, _, count in arm.reliability)
        excess = [(confidence - accuracy) * count for confidence, accuracy, count in arm.reliability if count]
        overconfidence = math.fsum(excess) / images if images else math.nan
        return name_entry(arm), measured(arm.ece, percent), Entry(gain_points(overconfidence))

    caption = (
        "On the test split. ECE: expected calibration error, mean over seeds; below it the 95 % interval. Mean "
        "confidence minus accuracy: above zero the network is more confident than it is right."
    )
    headers = ("Arm", "ECE,\n%", "Confidence\nminus accuracy,\npoints")
    return Grid("Calibration", caption, headers, _grouped(cell, row))


def cost_grid(cell: Cell) -> Grid:
    """What each arm costs."""

    def row(arm: ArmResult) -> tuple[Entry, ...]:
        speed = NOTHING if math.isnan(arm.images_per_second) else f"{arm.images_per_second:,.0f}"
        size, flops = scaled(arm.parameters), scaled(arm.flops)
        gain = Entry(NOTHING if arm.gain is None else gain_points(arm.gain.difference.mean))
        return name_entry(arm), Entry(seconds(arm.seconds)), Entry(speed), Entry(size), Entry(flops), gain

    caption = "Time and images per second: of training, mean over seeds. FLOPs: of one forward pass on one image."
    headers = (
        "Arm",
        "Training,\ns per run",
        "Images\nper second",
        "Parameters",
        "FLOPs",
        "Gain over\nBackbone,\npoints",
    )
    return Grid("Cost", caption, headers, _grouped(cell, row))


def overview_grid(analysis: Analysis) -> Grid:
    """Gains and effects of all cells side by side: a row an arm, a column a cell."""

    def gain(arm: ArmResult) -> Entry | None:
        return None if arm.gain is None else _gain_entries(arm.gain)[0]

    def effect(arm: ArmResult) -> Entry | None:
        return None if arm.effect is None else _effect_entries(arm)[0]

    caption = (
        "Mean over seeds, points; below it the 95 % interval. Bold: the p after Holm's correction over the whole study "
        "is at most 0.05."
    )
    groups = [
        (f"{name}, points", _across(analysis, of))
        for name, of in (("Gain over Backbone", gain), ("Emotion effect", effect))
    ]
    headers = ("Arm", *(cell.title.replace(", ", ",\n") for cell in analysis.cells))
    return Grid("Overview", caption, headers, tuple(group for group in groups if group[1]))


def experience_grid(experiences: Sequence[Experience]) -> Grid:
    """What the encoders learned in stage 1."""
    metrics = list(dict.fromkeys(name for experience in experiences for name, _ in experience.metrics))
    groups: dict[str, list[tuple[Entry, ...]]] = {}
    for experience in experiences:
        of_name = dict(experience.metrics)
        row = (
            Entry(PRETEXTS.get(experience.pretext, experience.pretext)),
            Entry(experience.backbone),
            Entry(str(max((i.n for i in of_name.values()), default=0) or NOTHING)),
            *(measured(of_name.get(name), percent if "accuracy" in name else _decimals) for name in metrics),
            Entry(seconds(experience.seconds)),
        )
        groups.setdefault(heading(experience.label), []).append(row)
    caption = (
        "On the validation images of the stimuli, mean over seeds; below it the 95 % interval. CCC: concordance "
        "correlation of predicted and rated emotion, 1 at best."
    )
    headers = ("Learned", "Backbone", "Seeds", *map(_metric, metrics), "Training,\ns per run")
    return Grid("What stage 1 learned", caption, headers, tuple((name, tuple(rows)) for name, rows in groups.items()))


def measured(interval: Interval | None, number: Callable[[float], str], strong: bool = False) -> Entry:
    """A mean, and below it the interval."""
    if interval is None or math.isnan(interval.mean):
        return Entry(NOTHING)
    return Entry(number(interval.mean), bounds(interval, number), strong)


def bounds(interval: Interval, number: Callable[[float], str]) -> str:
    """The interval of a mean, or why there is none."""
    if interval.n == 1:
        return "one seed"
    return "" if math.isnan(interval.low) else f"{number(interval.low)}, {number(interval.high)}"


def seconds(duration: float) -> str:
    """Whole seconds; one decimal below ten."""
    return NOTHING if math.isnan(duration) else f"{duration:,.{0 if duration >= 10 else 1}f}"


def is_shown(p_holm: float) -> bool:
    """Whether a corrected p is at most 0.05. False for NaN."""
    return p_holm <= ALPHA


def _grouped(
    cell: Cell, row: Callable[[ArmResult], tuple[Entry, ...]], only: Sequence[ArmResult] | None = None
) -> tuple[tuple[str, tuple[tuple[Entry, ...], ...]], ...]:
    names = [experience for experience, _ in by_experience(cell)]
    groups = []
    for experience, arms in by_experience(cell):
        rows = tuple(row(arm) for arm in arms if only is None or any(arm is one for one in only))
        if rows:
            groups.append((heading(experience) if names != [None] else "", rows))
    return tuple(groups)


def _across(analysis: Analysis, of: Callable[[ArmResult], Entry | None]) -> tuple[tuple[Entry, ...], ...]:
    columns = [{arm.label: entry for arm in cell.arms if (entry := of(arm))} for cell in analysis.cells]
    arms = {arm.label: arm for cell in analysis.cells for arm in cell.arms}
    return tuple(
        (
            Entry(label, "control" if arm.arm.is_control else ""),
            *(column.get(label, Entry(NOTHING)) for column in columns),
        )
        for label, arm in arms.items()
        if any(label in column for column in columns)
    )


def name_entry(arm: ArmResult) -> Entry:
    """The arm, and below it whether it is a control."""
    return Entry(arm.arm.label, "control" if arm.arm.is_control else "")


def _has(cell: Cell, what: str) -> bool:
    return any(getattr(arm, what) is not None for arm in cell.arms)


def _gain_entries(gain: Comparison | None) -> list[Entry]:
    if gain is None:
        return [Entry(NOTHING)] * 3
    shown = is_shown(gain.p_holm)
    size = NOTHING if math.isnan(gain.effect_size) else f"{gain.effect_size:.2f}".replace("-", "−")
    return [measured(gain.difference, gain_points, shown), _p_entry(gain.p, gain.p_holm), Entry(size)]


def _effect_entries(arm: ArmResult) -> list[Entry]:
    effect = arm.effect
    if effect is None:
        return [Entry(NOTHING)] * 2
    size = measured(effect.size.difference, gain_points, is_shown(effect.p_holm))
    versus = f"vs {control_within(effect.control, arm)}"
    return [size._replace(below=f"{size.below}\n{versus}".strip()), _p_entry(effect.p, effect.p_holm)]


def _p_entry(p: float, p_holm: float) -> Entry:
    return Entry(p_value(p), "" if math.isnan(p_holm) else f"Holm {p_value(p_holm)}", is_shown(p_holm))


def _against(arm: ArmResult) -> tuple[tuple[str, Comparison], ...]:
    return () if arm.effect is None else arm.effect.against


def _against_entry(difference: Comparison | None, is_best: bool) -> Entry:
    if difference is None:
        return Entry(NOTHING)
    entry = measured(difference.difference, gain_points)
    p = "" if math.isnan(difference.p) else f"p {p_value(difference.p)}"
    return entry._replace(below="\n".join(filter(None, (entry.below, p, "best" if is_best else ""))))


def lam_entry(arm: ArmResult) -> Entry:
    """λ at the end of training: mean, and below it the range over seeds."""
    lam = [value for value in arm.lam if not math.isnan(value)]
    if not lam:
        return Entry(NOTHING)
    low, high = f"{min(lam):.2f}", f"{max(lam):.2f}"
    return Entry(f"{sum(lam) / len(lam):.2f}", "" if low == high else f"{low}–{high}")


def scaled(count: float) -> str:
    """11,173,962 is "11.2 M"; "–" where it was not counted."""
    if not count > 0:
        return NOTHING
    scale, unit = next(((s, u) for s, u in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if count >= s), (1.0, ""))
    return f"{count / scale:.1f}{unit}" if unit else f"{count:.0f}"


def _decimals(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _metric(name: str) -> str:
    words = name.replace("_", " ")
    words = words.replace("ccc", "CCC") if "ccc" in words else words.capitalize()
    return f"{words}, %" if "accuracy" in name else words
