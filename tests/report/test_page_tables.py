from __future__ import annotations

import dataclasses
import math

import pytest

from emoreg.report.analyse_table import analyse
from emoreg.report.analysis import ContrastResult
from emoreg.report.collapse import Frequency
from emoreg.report.formatting import percent, points
from emoreg.report.page_tables import (
    Entry,
    Grid,
    accuracy_grid,
    calibration_grid,
    contrast_entry,
    contrasts_grid,
    cost_grid,
    in_groups,
    measured,
    overview_grid,
    responses_grid,
    stage_one_grid,
    twins_grid,
)
from emoreg.report.paper_claims import claims_grid
from emoreg.report.statistics import Interval
from emoreg.report.verdicts import Verdict
from narrow import present
from report.made_up import FEW, between_looks, made_up, made_up_table
from result_rows import TWINS

NAN = math.nan
TWO = ("oasis", "emod")
SIZE = Interval(0.004, 0.001, 0.007, (0.003, 0.005))
GAIN = ContrastResult(
    name="gain",
    against="none",
    size=SIZE,
    over_seeds=Interval(0.004, 0.002, 0.006, SIZE.values),
    level=0.025,
    images=10_000,
    p=0.012,
    family=1,
    missing=(),
    smallest=0.003,
    collapsed=0,
    extra_seeds=0,
    mixed=(),
    next_look=None,
    decided_at=None,
    verdict=Verdict.ABOVE,
)


def row_of(grid: Grid, heading: str, label: str) -> dict[str, Entry]:
    rows = next(rows for name, rows in grid.groups if name == heading)
    row = next(row for row in rows if row[0].value == label)
    headers = [header.replace("\n", " ") for header in grid.headers]
    return dict(zip(headers, row, strict=True))


def test_arms_come_in_groups_references_first_and_each_once() -> None:
    groups = in_groups(made_up(stimuli=TWO).cells[0])
    assert [title for title, _ in groups] == [
        "References",
        "E-Reg (oasis)",
        "E-Reg (emod)",
        "Learn-E-Reg (oasis)",
        "Learn-E-Reg (emod)",
    ]
    arms = [arm.label for _, of_group in groups for arm in of_group]
    assert len(arms) == len(set(arms)) == len(made_up(stimuli=TWO).cells[0].arms)


def test_a_contrast_has_both_widths_its_p_and_its_verdict() -> None:
    assert contrast_entry(GAIN) == Entry("+0.40", "+0.10, +0.70\n[+0.20, +0.60]\np 0.012\nabove", True)
    without_images = dataclasses.replace(GAIN, images=0)
    assert contrast_entry(without_images).below == "+0.10, +0.70\np 0.012\nabove"
    label = dataclasses.replace(GAIN, name="label", against="shuffled", verdict=Verdict.NOT_ABOVE)
    assert contrast_entry(label) == Entry("+0.40", "+0.10, +0.70\n[+0.20, +0.60]\nvs shuffled\np 0.012\nnot above")
    assert contrast_entry(None) == Entry("–")


def test_a_missing_interval_leaves_no_text() -> None:
    few = Interval(0.004, NAN, NAN, (0.003, 0.005))
    entry = contrast_entry(dataclasses.replace(GAIN, size=few, over_seeds=few, level=0.0015, verdict=Verdict.TOO_FEW))
    assert entry == Entry("+0.40", "p 0.012\nno verdict: too few")
    assert accuracy_grid(made_up(3, arms=FEW).cells[0]).caption.count("Below four seeds there are no intervals.") == 1


def test_the_limits_of_a_look_give_their_coverage() -> None:
    look = dataclasses.replace(GAIN, level=0.0015, images=0)
    assert contrast_entry(look).below.startswith("+0.10, +0.70 (99.7 %)\n")


@pytest.mark.parametrize("verdict", [v for v in Verdict if v not in (Verdict.ABOVE, Verdict.BELOW)])
def test_what_was_not_found_is_never_bold(verdict: Verdict) -> None:
    entry = contrast_entry(dataclasses.replace(GAIN, verdict=verdict))
    assert not entry.strong
    is_untested = verdict is Verdict.EXPLORATION  # said once, by the caption
    assert entry.below.endswith("not above") or ("no verdict: " in entry.below) != is_untested


def test_a_contrast_without_any_twin_is_a_dash_with_the_reason() -> None:
    nothing = Interval(NAN, NAN, NAN, ())
    missing = dataclasses.replace(GAIN, name="emotion", against=None, size=nothing, over_seeds=nothing, p=NAN)
    entry = contrast_entry(dataclasses.replace(missing, verdict=Verdict.MISSING_TWIN))
    assert entry == Entry("–", "no verdict: missing twin")


def test_every_regulated_arm_has_a_row_of_contrasts_and_no_other() -> None:
    grid = contrasts_grid(made_up().cells[0])
    assert grid is not None
    assert [header.replace("\n", " ") for header in grid.headers] == [
        "Arm",
        "Gain over Backbone",
        "Over the ensemble",
        "Over transfer",
        "Label effect",
        "Emotion effect",
    ]
    assert [row[0] for row in grid.groups[0][1]] == [Entry("E-Reg", "4 seeds"), Entry("Learn-E-Reg", "4 seeds")]
    assert contrasts_grid(made_up(arms=("none",)).cells[0]) is None


def test_columns_that_no_arm_has_are_left_out() -> None:
    headers = accuracy_grid(made_up(arms=("none",)).cells[0]).headers
    assert [header.replace("\n", " ") for header in headers] == ["Arm", "Seeds", "Accuracy, %"]
    grid = contrasts_grid(made_up(arms=("none", "learned")).cells[0])
    assert grid is not None and "Over the\nensemble" not in grid.headers
    assert twins_grid(made_up(arms=("none", "learned")).cells[0]) is None


def test_collapsed_runs_and_starved_branches_are_listed_with_the_accuracies() -> None:
    cell = made_up(arms=FEW).cells[0]
    collapsed = dataclasses.replace(cell.arms[1], collapsed=Frequency(1, 4, 0.006, 0.806))
    grid = accuracy_grid(dataclasses.replace(cell, arms=(cell.arms[0], collapsed, *cell.arms[2:])))
    row = row_of(grid, "Learn-E-Reg", "affect")
    assert row["Collapsed"] == Entry("1 of 4", "1–81 %")
    assert row["Starved"].value == "0 of 4"
    assert row_of(grid, "References", "Backbone")["Starved"] == Entry("–")
    assert "Collapsed" not in accuracy_grid(cell).headers


def test_every_regulated_arm_is_compared_with_each_of_its_twins() -> None:
    grid = twins_grid(made_up().cells[0])
    assert grid is not None
    assert grid.headers == ("Arm", *TWINS)
    fixed, learned = grid.groups[0][1]
    assert [entry.value == "–" for entry in fixed[1:]] == [True, True, False, True, True]
    assert all(entry.value != "–" for entry in learned[1:])


def test_each_response_alone_is_shown_with_the_regulated_one() -> None:
    grid = responses_grid(made_up().cells[0])
    assert grid is not None
    assert [name for name, _ in grid.groups] == ["References", "E-Reg", "Learn-E-Reg"]
    assert [row[0].value for row in grid.groups[0][1]] == ["Ensemble"]
    row = row_of(grid, "Learn-E-Reg", "affect")
    alone, emotional, regulated = (float(entry.value) for entry in list(row.values())[1:4])
    assert (alone, emotional) == pytest.approx((regulated - 5, regulated - 2), abs=0.011)
    assert responses_grid(made_up(arms=("none",)).cells[0]) is None


def test_the_overview_has_a_column_per_cell_and_a_group_per_contrast() -> None:
    analysis = made_up(cells=(("cifar10", "resnet20"), ("cifar100", "vit")))
    grid = overview_grid(analysis)
    assert grid.headers == ("Arm", "cifar10,\nresnet20", "cifar100,\nvit")
    assert [(name, len(rows)) for name, rows in grid.groups] == [
        ("Gain over Backbone, points", 2),
        ("Over the ensemble, points", 2),
        ("Over transfer, points", 2),
        ("Label effect, points", 2),
        ("Emotion effect, points", 2),
    ]
    second = next(arm for arm in analysis.cells[1].arms if arm.label == "Learn-E-Reg")
    row = row_of(grid, "Gain over Backbone, points", "Learn-E-Reg")
    assert row["cifar100, vit"] == contrast_entry(second.contrasts["gain"])


def test_the_papers_claim_is_shown_with_the_largest_gain_and_the_ensembles() -> None:
    analysis = made_up()
    assert claims_grid(analysis) is None  # digits
    cell = dataclasses.replace(analysis.cells[0], benchmark="cifar10")
    largest = max((arm for arm in cell.arms if arm.arm.is_regulated), key=lambda arm: arm.contrasts["gain"].size.mean)
    grid = claims_grid(dataclasses.replace(analysis, cells=(cell,)))
    assert grid is not None
    ((_, (row,)),) = grid.groups
    target, paper, ours, ensemble, images = row
    assert (target.value, paper.value, images.value) == ("CIFAR-10", "up to +1.57", "50,000")
    assert ours.value == points(largest.contrasts["gain"].size.mean) and ours.below.endswith(largest.label)
    assert ensemble.value == points(cell.references[1].contrasts["gain"].size.mean)


def test_each_experience_of_stage_1_has_its_own_metric() -> None:
    grid = stage_one_grid(made_up().stage_1)
    assert grid is not None
    assert grid.headers[:6] == ("Experience", "Backbone", "Seeds", "CCC", "Loss", "Accuracy, %")
    rotation = row_of(grid, "Stimuli: oasis", "rotation")
    assert (rotation["CCC"].value, rotation["Accuracy, %"].value, rotation["Seeds"].value) == ("–", "62.50", "4")
    assert stage_one_grid(()) is None


def test_confidence_above_accuracy_is_counted_by_images() -> None:
    cell = made_up(arms=("none",)).cells[0]
    bins = ((0.5, 0.4, 30), (NAN, NAN, 0), (0.9, 0.9, 10))
    grid = calibration_grid(dataclasses.replace(cell, arms=(dataclasses.replace(cell.arms[0], reliability=bins),)))
    assert present(grid).groups[0][1][0][-1].value == "+7.50"


def test_cost_that_was_not_measured_is_a_dash() -> None:
    cell = made_up(arms=("none",)).cells[0]
    unknown = dataclasses.replace(cell.arms[0], seconds=NAN, images_per_second=NAN, flops=0)
    row = cost_grid(dataclasses.replace(cell, arms=(unknown,))).groups[0][1][0]
    assert [entry.value for entry in row] == ["Backbone", "–", "–", "1.0 k", "–"]


@pytest.mark.parametrize(
    ("interval", "entry"),
    [
        (None, Entry("–")),
        (Interval(NAN, NAN, NAN, ()), Entry("–")),
        (Interval(0.9, NAN, NAN, (0.9,)), Entry("90.00", "one seed")),
        (Interval(0.9, 0.89, 0.91, (0.9, 0.9)), Entry("90.00", "89.00, 91.00")),
    ],
)
def test_a_mean_has_its_interval_below_it_or_why_there_is_none(interval: Interval | None, entry: Entry) -> None:
    assert measured(interval, percent) == entry


def test_between_looks_contrasts_give_their_seeds_and_width() -> None:
    analysis = between_looks()
    (cell,), of_look = analysis.cells, " (99.7 %, 6 seeds)"
    name, *contrasts = present(contrasts_grid(cell)).groups[0][1][0]
    assert name == Entry("Learn-E-Reg", "6 seeds")
    assert all(entry.below.splitlines()[0].endswith(" (99.7 %)") for entry in contrasts)
    row = row_of(accuracy_grid(cell), "Learn-E-Reg", "affect")
    assert row["Seeds"].value == "8" and row["Minus Backbone, points"].below.endswith(of_look)
    twins = present(twins_grid(cell))
    assert all(entry.below.endswith(of_look) for entry in twins.groups[0][1][0][1:])
    assert "the 95 % interval" not in twins.caption
    assert overview_grid(analysis).groups[0][1][0][1].below.splitlines()[0].endswith(of_look)


def test_a_contrast_with_fewer_seeds_than_others_of_its_arm_gives_their_number() -> None:
    table = made_up_table(6, 1, ("oasis",), FEW, ("a", "b"), (("digits", "resnet8"),), False, False)
    lacks = (table["experience"] == "shuffled") & (table["seed"] > 4)
    grid = present(contrasts_grid(analyse("A study", table[~lacks]).cells[0]))
    name, gain, label, _ = grid.groups[0][1][0]
    assert name.below == "6 seeds" and "seeds" not in gain.below.splitlines()[0]
    assert label.below.splitlines()[0].endswith(" (5 seeds)")
