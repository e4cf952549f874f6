from __future__ import annotations

import dataclasses
import math

import pytest

from emoreg.report.analysis import ArmResult, Effect
from emoreg.report.formatting import percent
from emoreg.report.page_tables import (
    Entry,
    Grid,
    by_experience,
    calibration_grid,
    controls_grid,
    cost_grid,
    experience_grid,
    measured,
    overview_grid,
    responses_grid,
    results_grid,
)
from emoreg.report.statistics import Comparison, Interval
from report.made_up import made_up

TWO = ("oasis", "emod")


def row_of(grid: Grid, heading: str, label: str) -> dict[str, Entry]:
    rows = next(rows for name, rows in grid.groups if name == heading)
    row = next(row for row in rows if row[0].value == label)
    headers = [header.replace("\n", " ") for header in grid.headers]
    return dict(zip(headers, row, strict=True))


def learned(p: float, p_holm: float) -> ArmResult:
    """An arm with a gain and an effect of 0.4 points, and these p's."""
    difference = Comparison(Interval(0.004, 0.001, 0.007, (0.003, 0.005)), p, p_holm, 1.5)
    arm = next(arm for arm in made_up().cells[0].arms if arm.name == "learned")
    effect = Effect(
        "shuffled_affect (oasis)", difference.difference, (("shuffled_affect (oasis)", difference),), p, p_holm
    )
    return dataclasses.replace(arm, gain=difference, effect=effect)


def test_arms_come_in_groups_those_without_stage_1_first() -> None:
    groups = by_experience(made_up(experiences=TWO).cells[0])
    assert [experience for experience, _ in groups] == [None, "oasis", "emod"]
    assert [arm.name for arm in groups[0][1]] == ["backbone", "random_encoder", "ensemble"]
    assert all(arm.experience == experience for experience, arms in groups for arm in arms)


def test_a_row_has_the_gain_the_effect_and_both_ps() -> None:
    cell = dataclasses.replace(made_up().cells[0], arms=(learned(0.031, 0.125),))
    row = row_of(results_grid(cell), "Experience: oasis", "Learn-E-Reg")
    assert row["Gain over Backbone, points"] == Entry("+0.40", "+0.10, +0.70")
    assert row["Hedges' g"].value == "1.50"
    assert row["Emotion effect, points"] == Entry("+0.40", "+0.10, +0.70\nvs shuffled_affect")
    assert [entry for entry in results_grid(cell).groups[0][1][0] if "Holm" in entry.below] == [
        Entry("0.031", "Holm 0.125"),
        Entry("0.031", "Holm 0.125"),
    ]


@pytest.mark.parametrize(("p_holm", "is_strong"), [(0.05, True), (0.051, False), (math.nan, False)])
def test_what_is_bold_is_decided_by_the_corrected_p(p_holm: float, is_strong: bool) -> None:
    cell = dataclasses.replace(made_up().cells[0], arms=(learned(0.01, p_holm),))
    entries = results_grid(cell).groups[0][1][0]
    assert sum(entry.strong for entry in entries) == (4 if is_strong else 0)


def test_every_regulated_arm_is_compared_with_every_control_of_its_experience() -> None:
    grid = controls_grid(made_up(experiences=TWO).cells[0])
    assert grid is not None
    assert grid.headers == ("Arm", "random_encoder", "shuffled_affect", "neutral_pretext", "ensemble")
    assert [(name, len(rows)) for name, rows in grid.groups] == [("Experience: oasis", 4), ("Experience: emod", 4)]
    for _, rows in grid.groups:
        assert all(sum(entry.below.endswith("best") for entry in row) == 1 for row in rows)
        assert all("p 0." in entry.below or "p 1." in entry.below for row in rows for entry in row[1:])


def test_a_control_that_one_arm_lacks_leaves_a_dash() -> None:
    cell = made_up(arms=("backbone", "learned", "random_learned", "random_encoder", "ensemble")).cells[0]
    first = cell.arms[1]
    assert first.effect is not None
    fewer = dataclasses.replace(first, effect=dataclasses.replace(first.effect, against=first.effect.against[:1]))
    grid = controls_grid(dataclasses.replace(cell, arms=(cell.arms[0], fewer, *cell.arms[2:])))
    assert grid is not None
    assert grid.groups[0][1][0][2] == Entry("–")


def test_each_response_alone_is_shown_with_the_regulated_one() -> None:
    grid = responses_grid(made_up().cells[0])
    assert grid is not None
    assert [name for name, _ in grid.groups] == ["Without stage 1", "Experience: oasis"]
    assert "Backbone" not in [row[0].value for _, rows in grid.groups for row in rows]
    row = row_of(grid, "Experience: oasis", "Learn-E-Reg")
    alone, emotional, regulated = (float(entry.value) for entry in list(row.values())[1:4])
    assert (alone, emotional) == pytest.approx((regulated - 5, regulated - 2), abs=0.011)
    assert responses_grid(made_up(arms=("backbone",)).cells[0]) is None


def test_columns_that_no_arm_has_are_left_out() -> None:
    headers = results_grid(made_up(arms=("backbone",)).cells[0]).headers
    assert [header.replace("\n", " ") for header in headers] == ["Arm", "Seeds", "Accuracy, %"]
    assert controls_grid(made_up(arms=("backbone", "learned")).cells[0]) is None


def test_the_overview_has_a_column_a_cell_and_gains_apart_from_effects() -> None:
    analysis = made_up(cells=(("cifar10", "resnet20"), ("cifar100", "vit")))
    grid = overview_grid(analysis)
    assert grid.headers == ("Arm", "cifar10,\nresnet20", "cifar100,\nvit")
    assert [(name, len(rows)) for name, rows in grid.groups] == [
        ("Gain over Backbone, points", 8),
        ("Emotion effect, points", 4),
    ]
    second = next(arm for arm in analysis.cells[1].arms if arm.name == "learned")
    assert second.gain is not None
    row = row_of(grid, "Gain over Backbone, points", "Learn-E-Reg (oasis)")
    assert row["cifar100, vit"] == measured(second.gain.difference, lambda x: f"{100 * x:+.2f}".replace("-", "−"))


def test_each_pretext_of_stage_1_has_a_metric_of_its_own() -> None:
    grid = experience_grid(made_up().experiences)
    assert grid.headers[:6] == ("Learned", "Backbone", "Seeds", "CCC", "Loss", "Accuracy, %")
    rotation = row_of(grid, "Experience: oasis", "rotation")
    assert (rotation["CCC"].value, rotation["Accuracy, %"].value, rotation["Seeds"].value) == ("–", "62.00", "3")


def test_confidence_above_accuracy_is_counted_by_images() -> None:
    cell = made_up(arms=("backbone",)).cells[0]
    bins = ((0.5, 0.4, 30), (math.nan, math.nan, 0), (0.9, 0.9, 10))
    grid = calibration_grid(dataclasses.replace(cell, arms=(dataclasses.replace(cell.arms[0], reliability=bins),)))
    assert grid.groups[0][1][0][-1].value == "+7.50"


def test_cost_that_was_not_measured_is_a_dash() -> None:
    cell = made_up(arms=("backbone",)).cells[0]
    unknown = dataclasses.replace(cell.arms[0], seconds=math.nan, images_per_second=math.nan, flops=0)
    assert [entry.value for entry in cost_grid(dataclasses.replace(cell, arms=(unknown,))).groups[0][1][0]] == [
        "Backbone",
        "–",
        "–",
        "272.5 k",
        "–",
        "–",
    ]


@pytest.mark.parametrize(
    ("interval", "entry"),
    [
        (None, Entry("–")),
        (Interval(math.nan, math.nan, math.nan, ()), Entry("–")),
        (Interval(0.9, math.nan, math.nan, (0.9,)), Entry("90.00", "one seed")),
        (Interval(0.9, 0.89, 0.91, (0.9, 0.9)), Entry("90.00", "89.00, 91.00")),
    ],
)
def test_a_mean_has_its_interval_below_it_or_why_there_is_none(interval: Interval | None, entry: Entry) -> None:
    assert measured(interval, percent) == entry
