from __future__ import annotations

import dataclasses
import math
import re
import warnings
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from emoreg.report.analysis import CellResult
from emoreg.report.charts import (
    accuracy_chart,
    calibration_charts,
    class_gain_charts,
    class_lambda_charts,
    cost_charts,
    curve_charts,
    effect_charts,
    extremes,
    gain_charts,
    legend,
)
from emoreg.report.drawing import Chart
from emoreg.report.old_arms import ARMS
from report.made_up import made_up, nothing

FEW = ("backbone", "learned", "random_encoder")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    """matplotlib warns where a chart has no room, or a glyph is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def few(**changes: object) -> CellResult:
    return made_up(arms=FEW, **changes).cells[0]


def texts(chart: Chart) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(str(chart.svg)).iter(f"{SVG}text")]


def colours(chart: Chart) -> set[int]:
    return {int(number) for number in re.findall(r"var\(--arm-(\d)\)", chart.svg)}


def test_a_chart_is_the_same_every_time_and_its_ids_are_its_own() -> None:
    first, again, other = (accuracy_chart(few(), key) for key in ("a", "a", "b"))
    assert first == again
    ids = [set(re.findall(r'\bid="(.*?)"', chart.svg)) for chart in (first, other)]
    assert not ids[0] & ids[1]
    assert all(
        reference in ids[0] for reference in re.findall(r'href="#(.*?)"|url\(#(.*?)\)', first.svg)[0] if reference
    )


def test_accuracy_has_a_row_an_arm_in_its_colour_and_is_spoken() -> None:
    chart = accuracy_chart(few(), "a")
    assert [text for text in texts(chart) if text in {arm.label for arm in ARMS.values()}] == [
        "Backbone",
        "random_encoder",
        "Learn-E-Reg",
    ]
    assert {"Without stage 1", "oasis"} <= set(texts(chart))
    assert colours(chart) == {list(ARMS).index(name) for name in FEW}
    assert re.search(r"Backbone 8\d\.\d\d|Backbone 9\d\.\d\d \(\d\d\.\d\d to \d\d\.\d\d\)", chart.spoken)


def test_names_are_text_neither_markup_nor_mathematics_and_leave_room() -> None:
    nasty = "<script>alert('$x_1$')</script>"
    chart = accuracy_chart(few(experiences=(nasty,)), "a")
    assert "<script" not in chart.svg
    assert any(nasty.startswith(text.removesuffix("…")) for text in texts(chart) if text.startswith("<"))


def test_a_diamond_is_filled_where_the_corrected_p_decides() -> None:
    cell = few()

    def with_p(p: float) -> CellResult:
        arms = [
            a if a.gain is None else dataclasses.replace(a, gain=dataclasses.replace(a.gain, p_holm=p))
            for a in cell.arms
        ]
        return dataclasses.replace(cell, arms=tuple(arms))

    (filled,), (open_,) = gain_charts(with_p(0.05), "g"), gain_charts(with_p(0.06), "g")
    assert "fill: var(--paper)" in open_.svg
    assert "fill: var(--paper)" not in filled.svg


def test_effects_name_every_control_and_which_is_the_best() -> None:
    cell = made_up(arms=("backbone", "learned", "random_encoder", "ensemble")).cells[0]
    (chart,) = effect_charts(cell, "e")
    learned = next(arm for arm in cell.arms if arm.name == "learned")
    assert learned.effect is not None
    other = ({"random_encoder", "ensemble"} - {learned.effect.control}).pop()
    assert {f"{learned.effect.control} (best)", other} <= set(texts(chart))


def test_few_arms_share_a_panel_and_many_do_not() -> None:
    assert [chart.title for chart in curve_charts(few(epochs=2), "v", "val_accuracy", "Accuracy")] == ["Accuracy"]
    arms = ("backbone", "learned", "random_learned", "random_encoder", "shuffled_affect")
    many = made_up(epochs=2, arms=arms, experiences=("oasis", "emod")).cells[0]
    charts = curve_charts(many, "v", "val_accuracy", "Accuracy")
    assert [chart.title for chart in charts] == [
        "Accuracy, oasis: regulated arms",
        "Accuracy, oasis: controls",
        "Accuracy, emod: regulated arms",
        "Accuracy, emod: controls",
    ]
    numbers = {name: number for number, name in enumerate(ARMS)}
    assert colours(charts[0]) == {numbers[name] for name in ("backbone", "learned", "random_learned")}
    assert colours(charts[1]) == {numbers[name] for name in ("backbone", "random_encoder", "shuffled_affect")}


def test_what_no_run_recorded_has_no_chart() -> None:
    assert curve_charts(few(has_validation=False), "v", "val_accuracy", "Accuracy") == []
    assert class_lambda_charts(few(), "l") == []
    assert len(gain_charts(few(experiences=()), "g")) == 1  # random_encoder's
    alone = made_up(arms=("backbone",)).cells[0]
    assert gain_charts(alone, "g") == []
    assert effect_charts(alone, "e") == class_gain_charts(alone, "c") == cost_charts(alone, "t") == []


def test_one_epoch_and_one_seed_make_charts_too() -> None:
    cell = few(seeds=1, epochs=1)
    (chart,) = curve_charts(cell, "v", "val_accuracy", "Accuracy")
    assert "Learn-E-Reg" in chart.spoken
    assert "(one seed)" in accuracy_chart(cell, "a").spoken


def test_lambda_of_each_class_has_a_panel_a_class() -> None:
    cell = few(epochs=2, classes=("cat", "dog", "ship", "truck"), lambda_per_class=True)
    charts = class_lambda_charts(cell, "l")
    assert [chart.title for chart in charts] == ["λ of each class, without stage 1", "λ of each class, oasis"]
    assert {"cat", "dog", "ship", "truck"} <= set(texts(charts[1]))


def test_a_class_without_test_images_is_left_out() -> None:
    cell = few()
    arms = [dataclasses.replace(a, per_class_gain=(nothing(3), *a.per_class_gain[1:])) for a in cell.arms if a.gain]
    (chart,) = class_gain_charts(dataclasses.replace(cell, arms=tuple(arms)), "c")
    assert "cat" not in texts(chart)
    assert {"dog", "ship"} <= set(texts(chart))


def test_the_reliability_diagram_leaves_empty_bins_out() -> None:
    cell = few()
    charts = calibration_charts(cell, "c")
    assert [chart.title for chart in charts] == [
        "Expected calibration error",
        "Reliability, without stage 1",
        "Reliability, oasis",
    ]
    arms = [dataclasses.replace(arm, reliability=(), ece=nothing()) for arm in cell.arms]
    assert calibration_charts(dataclasses.replace(cell, arms=tuple(arms)), "c") == []


def test_of_many_values_the_highest_and_the_lowest_are_shown() -> None:
    assert extremes([0.1, math.nan, 0.3, 0.2]) == [2, 3, 0]
    values = [float(number) for number in range(100)]
    assert extremes(values) == [*range(99, 89, -1), *range(9, -1, -1)]
    assert len(extremes(values[:20])) == 20


def test_arms_differ_without_colour_and_each_has_one_line_in_the_legend() -> None:
    keys = legend(made_up(experiences=("oasis", "emod")).cells[0].arms)
    assert [key.label for key in keys] == [arm.label for arm in ARMS.values()]
    assert len({(key.dashes, key.marker) for key in keys}) == len(ARMS)
    assert len({key.dashes for key in keys}) == len(ARMS)
