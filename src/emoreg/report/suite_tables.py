"""The tables of suite scores, for the page and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from emoreg.report.analysis import Analysis, ArmResult, Difference, SuiteCell
from emoreg.report.contrast_kinds import ContrastKind
from emoreg.report.formatting import NOTHING, count, decimal, p_value, percent, points
from emoreg.report.page_tables import (
    ABSENT,
    ARM,
    LABEL,
    VERDICTS,
    Column,
    Entry,
    Grid,
    grid_of,
    limits_of,
    measured,
    tested_in,
)
from emoreg.report.paper_tables import markdown, markdown_grid
from emoreg.report.statistics import Interval
from emoreg.report.verdicts import Verdict
from emoreg.suites.figures import Figure

HEADING = "Beyond accuracy on the test split"
TITLES: Mapping[str, str] = {
    "corruptions": "Damaged images",
    "calibration": "Calibration, before and after temperature scaling",
    "out_of_distribution": "Images of other things",
    "adversarial": "Attacked images",
    "transfer": "Other targets",
    "human_uncertainty": "People's uncertainty",
}
ABOUT: Mapping[str, str] = {
    "corruptions": (
        "Accuracy on images with the 15 corruptions of Hendrycks and Dietterich (2019) at 5 severities, by the "
        "constants of ImageNet-C, which damage small images more than those of CIFAR-C: not comparable with published "
        "mean corruption errors."
    ),
    "calibration": (
        "ECE with 15 bins; Brier score, from 0 to 2; NLL in nats; for all of them lower is better. Scaled: z divided "
        "by the temperature with the lowest NLL on images that are not scored (Guo et al. 2017)."
    ),
    "out_of_distribution": (
        "How well a score separates the run's own images from others: AUROC (50 % is chance) and FPR95, the share of "
        "others accepted when 95 % of its own are; lower is better. Scores: the largest probability, and the energy "
        "(Liu et al. 2020); for arms that mix probabilities, the mean of both responses' energies weighted by λ."
    ),
    "adversarial": (
        "Accuracy under attackers who know the weights, with gradients through z. FGSM and PGD are weak attacks: under "
        "stronger ones it is lower. Means are over all eps, in units of 1/255."
    ),
    "transfer": (
        "Accuracy of linear classifiers (ridge regression) that learn another target from the frozen features of "
        "trained networks. All arms but Wide have the same number of backbone features; a second branch adds its own."
    ),
    "human_uncertainty": (
        "How close probabilities are to the distribution of people's answers for CIFAR-10's test images (CIFAR-10H, "
        "Peterson et al. 2019): mean cross-entropy and KL divergence in nats, lower is better; and the share of images "
        "classified as by most people."
    ),
}
RULES = (
    "These contrasts use the same tests as accuracy, over seeds alone, and are families of their own: one figure of "
    "each suite, corrected for the arms of a cell but not for the number of suites. They are exploratory unless they "
    "were planned before the first result, and hold only for the figure and the images that were scored."
)
WORDS = {Verdict.ABOVE: "better", Verdict.NOT_ABOVE: "not shown to be better", Verdict.BELOW: "worse"}


@dataclass(frozen=True)
class SuiteSection:
    """A suite in one cell: a description, the figures of all arms, and the contrasts of regulated arms."""

    key: str  # id on the page
    title: str
    about: str
    figures: Grid
    contrasts: Grid | None  # None if there are none


def suite_sections(analysis: Analysis, in_markdown: bool = False) -> tuple[SuiteSection, ...]:
    """The suites of all cells, in the order of the cells.

    Args:
        analysis: the study.
        in_markdown: write rows without the headings of their groups, and intervals beside their means.
    """
    many = len({id(each.cell) for each in analysis.suites}) > 1
    return tuple(_section(number, each, many, in_markdown) for number, each in enumerate(analysis.suites, 1))


def _section(number: int, suite: SuiteCell, many: bool, in_markdown: bool) -> SuiteSection:
    title = TITLES[suite.suite]
    about = f"{ABOUT[suite.suite]} Scored: {suite.images}."
    if suite.other_options:
        about += f" Left out: {count(suite.other_options, 'run')} scored with other options, or on other images."
    return SuiteSection(
        f"suite-{number}",
        f"{title}: {suite.cell.title}" if many else title,
        about,
        _figures_grid(suite, title, in_markdown),
        _contrasts_grid(suite, title, _between(in_markdown)),
    )


def _between(in_markdown: bool) -> str:
    """The separator of the limits of an interval; in Markdown as in its other tables."""
    return " to " if in_markdown else ", "


def _figures_grid(suite: SuiteCell, title: str, in_markdown: bool) -> Grid:
    columns: list[Column] = [LABEL if in_markdown else ARM]
    between = _between(in_markdown)
    for figure in suite.figures:

        def entry(arm: ArmResult, figure: Figure = figure) -> Entry:
            number = percent if figure.is_share else partial(decimal, digits=3)
            return measured(suite.values[arm.arm][figure.name], number, between)

        columns.append((f"{figure.title}{', %' if figure.is_share else ''}".replace(", ", ",\n", 1), entry))
    caption = f"Mean over seeds, with the 95 % interval {'beside' if in_markdown else 'below'} it."
    return grid_of(title, caption, columns, suite.cell, lambda arm: arm.arm in suite.values)


def _contrasts_grid(suite: SuiteCell, title: str, between: str) -> Grid | None:
    arms = [arm for arm in suite.cell.arms if arm.arm in suite.contrasts]
    kinds = tested_in([suite.contrasts[arm.arm] for arm in arms])
    if not kinds:
        return None
    figure = suite.figures[0]
    rows = []
    for arm in arms:
        contrasts = suite.contrasts[arm.arm]
        seeds = max(contrast.size.n for contrast in contrasts.values())
        entries = (_entry(contrasts.get(kind.name), figure, kind, between, seeds) for kind in kinds)
        rows.append((Entry(arm.label, count(seeds, "seed")), *entries))
    unit = ", in points" if figure.is_share else ""
    better = "below zero is better" if figure.lower_is_better else "above zero is better"
    name = figure.title if figure.title[:2].isupper() else figure.title[0].lower() + figure.title[1:]
    caption = (
        f"Differences in {name}{unit}, paired by seed; {better}. Interval over seeds, 95 % unless another width is "
        "given; p one-sided, corrected for the arms. Bold: the test passed."
    )
    return Grid(f"{title}: contrasts", caption, ("Arm", *(kind.heading for kind in kinds)), (("", tuple(rows)),))


def _entry(contrast: Difference | None, figure: Figure, kind: ContrastKind, between: str, seeds: int) -> Entry:
    """A mean with its interval, p and verdict below it; bold if its test passed and later seeds still show it."""
    if contrast is None or not contrast.size.n:
        return ABSENT
    number = points if figure.is_share else _signed
    lines = [limits_of(contrast, seeds, number, between)]
    if kind.twins and contrast.against:
        lines.append(f"vs {contrast.against}")
    if not math.isnan(contrast.p):
        lines.append(f"p {p_value(contrast.p)}")
    if contrast.verdict is not None:
        at = "" if contrast.found_at is None else f" at {count(contrast.found_at, 'seed')}"
        faded = ", no longer shown" if contrast.has_faded else ""
        lines.append((WORDS.get(contrast.verdict) or VERDICTS[contrast.verdict]) + at + faded)
    is_shown = contrast.is_found and not contrast.has_faded
    return Entry(number(contrast.size.mean), "\n".join(filter(None, lines)), is_shown)


def _signed(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{value:+z.3f}".replace("-", "−")


def markdown_suites(analysis: Analysis) -> str:
    """The sections in Markdown; "" if there are none."""
    sections = suite_sections(analysis, in_markdown=True)
    if not sections:
        return ""
    blocks = [f"## {HEADING}", markdown(RULES)]
    for section in sections:
        blocks += [f"**{markdown(section.title)}**", markdown(section.about)]
        blocks += [markdown_grid(grid) for grid in (section.figures, section.contrasts) if grid is not None]
    return "\n\n".join(blocks)


def suite_records(analysis: Analysis) -> list[dict[str, object]]:
    """All figures and contrasts as records for JSON, with null for missing values."""
    records: list[dict[str, object]] = []
    for suite in analysis.suites:
        where = {"suite": suite.suite, "target": suite.cell.target, "backbone": suite.cell.backbone}
        for arm, values in suite.values.items():
            for name, interval in values.items():
                figure = {"figure": name, "contrast": None, "n": interval.n}
                records.append({**where, **arm._asdict(), **figure, **_limits(interval)})
        for arm, contrasts in suite.contrasts.items():
            for name, one in contrasts.items():
                own = {"figure": suite.figures[0].name, "contrast": name, "against": one.against, "n": one.size.n}
                verdict = None if one.verdict is None else str(one.verdict)
                test = {"level": one.level, "p_corrected": _or_null(one.p), "decided_at": one.decided_at}
                records.append({**where, **arm._asdict(), **own, **_limits(one.size), **test, "verdict": verdict})
    return records


def _limits(interval: Interval) -> dict[str, float | None]:
    return {"point": _or_null(interval.mean), "low": _or_null(interval.low), "high": _or_null(interval.high)}


def _or_null(value: float) -> float | None:
    return value if math.isfinite(value) else None
