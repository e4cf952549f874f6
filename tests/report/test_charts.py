from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from emoreg.report.analysis import ROLES, CellResult
from emoreg.report.charts import (
    accuracy_chart,
    calibration_charts,
    class_gain_charts,
    class_lambda_charts,
    contrast_charts,
    cost_charts,
    curve_charts,
    extremes,
    legend,
    twin_charts,
)
from emoreg.report.drawing import Chart, Row, forest, short, short_inside
from emoreg.report.statistics import Interval
from emoreg.report.verdicts import Verdict
from report.made_up import ARMS, FEW, made_up, nothing
from result_rows import RELATIVES, TWINS

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    """Turn warnings into errors: matplotlib warns if a chart has no room or a glyph is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter(
            "ignore", ResourceWarning
        )  # from objects that earlier tests left to the garbage collector
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


def test_the_accuracy_chart_has_a_coloured_row_per_arm_and_a_description() -> None:
    chart = accuracy_chart(few(), "a")
    names = ("Backbone", "affect", "fresh", "shuffled")
    assert [text for text in texts(chart) if text in names] == list(names)
    assert {"References", "Learn-E-Reg"} <= set(texts(chart))
    assert colours(chart) == {ROLES.index(name) for name in names}
    assert re.search(r"Backbone \d\d\.\d\d \(\d\d\.\d\d to \d\d\.\d\d\)", chart.spoken)


def test_names_are_text_neither_markup_nor_mathematics_and_leave_room() -> None:
    nasty = "<script>alert('$x_1$')</script>"
    chart = accuracy_chart(few(stimuli=(nasty, "oasis")), "a")
    assert "<script" not in chart.svg
    assert any(text.startswith("Learn-E-Reg…") and text.endswith("</script>)") for text in texts(chart))


@pytest.mark.parametrize("name", ["猫と犬", "كلب", "कुत्ता", "😀"])
def test_names_of_any_script_stay_text_for_the_browsers_fonts_without_a_warning(name: str) -> None:
    assert any(name in text for text in texts(accuracy_chart(few(stimuli=(name, "oasis")), "a")))


def test_wide_letters_count_twice_where_a_label_is_cut() -> None:
    assert short("a" * 24) == "a" * 24 and short("a" * 25) == "a" * 23 + "…"
    assert short("猫" * 12) == "猫" * 12 and short("猫" * 13) == "猫" * 11 + "…"
    assert short("") == ""


def test_a_long_label_of_an_arm_keeps_its_end() -> None:
    label = "Learn-E-Reg (procedural, share 0.1)"
    assert short_inside(label, 28) == "Learn-E-Reg…ural, share 0.1)" and len(short_inside(label, 28)) == 28
    assert short_inside(label, len(label)) == label and short_inside("猫" * 20, 10) == short("猫" * 20, 10)


def test_arms_that_differ_only_at_the_end_of_a_long_name_have_different_headings() -> None:
    arms = ("none", "learned", "learned fresh")
    cell = made_up(arms=arms, stimuli=("procedural, share 0.05", "procedural, share 0.2")).cells[0]
    for chart in (accuracy_chart(cell, "a"), *twin_charts(cell, "w")):
        headings = [text for text in texts(chart) if text.startswith("Learn-E-Reg")]
        assert len(set(headings)) == 2, headings


def test_the_picture_has_every_tested_contrast_under_its_heading() -> None:
    (chart,) = contrast_charts(made_up().cells[0], "p")
    rows = texts(chart)
    headings = ["Gain over Backbone", "Over the ensemble", "Over transfer", "Label effect", "Emotion effect"]
    places = [rows.index(heading) for heading in headings]
    assert places == sorted(places)
    assert rows[places[0] + 1 : places[1]] == ["E-Reg", "Learn-E-Reg", "Ensemble", "Wide", "Transfer"]
    assert rows[places[2] + 1 : places[3]] == ["E-Reg", "Learn-E-Reg"]
    assert rows[places[3] + 1].startswith("E-Reg vs ")
    assert chart.spoken.count("Learn-E-Reg") == 5


def test_the_picture_shows_the_smallest_difference_that_would_be_found() -> None:
    (chart,) = contrast_charts(made_up().cells[0], "p")
    assert "var(--band)" in chart.svg
    assert re.search(r"Learn-E-Reg vs \w+ \S+ \(.*?\), smallest effect with power 0.8: \+\d+\.\d\d;", chart.spoken)
    (without,) = contrast_charts(made_up(3, arms=FEW).cells[0], "p")  # three seeds: nothing could be found
    assert "var(--band)" not in without.svg and "power" not in without.spoken


def test_a_long_band_leaves_half_of_the_picture_to_means_and_intervals() -> None:
    found = Interval(0.01, 0.0, 0.02, (0.0, 0.02))
    chart = forest("f", "Gains", "points", [Row("short", found), Row("long", found, smallest=9.0)], 0, str)
    assert max(float(text) for text in texts(chart) if re.fullmatch(r"\d+(\.\d+)?", text)) < 5


def test_an_axis_without_bands_does_not_go_on_to_zero() -> None:
    chart = forest("f", "Concordance", "hundredths", [Row("poor", Interval(-0.4, -0.5, -0.3, (-0.5, -0.3)))], None, str)
    assert any(text.startswith("−") for text in texts(chart))
    assert not {"0", "−5", "−10"} & set(texts(chart))


def test_a_diamond_is_filled_where_the_test_passed() -> None:
    cell = few()

    def with_verdict(verdict: Verdict) -> CellResult:
        arms = [
            dataclasses.replace(
                arm, contrasts={n: dataclasses.replace(c, verdict=verdict) for n, c in arm.contrasts.items()}
            )
            for arm in cell.arms
        ]
        return dataclasses.replace(cell, arms=tuple(arms))

    (filled,), (open_,) = (contrast_charts(with_verdict(v), "g") for v in (Verdict.ABOVE, Verdict.NOT_ABOVE))
    assert "fill: var(--paper)" in open_.svg
    assert "fill: var(--paper)" not in filled.svg


def test_every_twin_has_a_row_in_its_colour() -> None:
    (chart,) = twin_charts(made_up().cells[0], "e")
    assert {f"vs {name}" for name in TWINS} <= set(texts(chart))
    assert colours(chart) == {ROLES.index(name) for name in TWINS}


def test_every_family_has_a_panel_with_the_references() -> None:
    assert [chart.title for chart in curve_charts(few(epochs=2), "v", "val_accuracy", "Accuracy")] == ["Accuracy"]
    many = made_up(epochs=2, arms=(*FEW, "fixed"), stimuli=("oasis", "emod")).cells[0]
    charts = curve_charts(many, "v", "val_accuracy", "Accuracy")
    assert [chart.title for chart in charts] == [
        "Accuracy, E-Reg (oasis)",
        "Accuracy, E-Reg (emod)",
        "Accuracy, Learn-E-Reg (oasis)",
        "Accuracy, Learn-E-Reg (emod)",
    ]
    assert colours(charts[0]) == {ROLES.index(name) for name in ("Backbone", "affect")}
    assert colours(charts[2]) == {ROLES.index(name) for name in ("Backbone", "affect", "fresh", "shuffled")}


def test_a_column_that_no_run_recorded_has_no_chart() -> None:
    assert curve_charts(few(has_validation=False), "v", "val_accuracy", "Accuracy") == []
    assert class_lambda_charts(few(), "l") == []
    alone = made_up(arms=("none",)).cells[0]
    assert contrast_charts(alone, "g") == twin_charts(alone, "e") == []
    assert class_gain_charts(alone, "c") == cost_charts(alone, "t") == []


def test_one_epoch_and_one_seed_make_charts_too() -> None:
    cell = few(seeds=1, epochs=1)
    (chart,) = curve_charts(cell, "v", "val_accuracy", "Accuracy")
    assert "Learn-E-Reg" in chart.spoken
    assert "(one seed)" in accuracy_chart(cell, "a").spoken


def test_lambda_of_each_class_has_a_panel_per_class() -> None:
    cell = few(epochs=2, classes=("cat", "dog", "ship", "truck"), lambda_per_class=True)
    charts = class_lambda_charts(cell, "l")
    assert [chart.title for chart in charts] == ["λ of each class"]
    assert {"cat", "dog", "ship", "truck"} <= set(texts(charts[0]))


def test_a_class_without_test_images_is_left_out() -> None:
    cell = few()
    arms = [dataclasses.replace(a, per_class_gain=(nothing(3), *a.per_class_gain[1:])) for a in cell.arms[1:]]
    (chart,) = class_gain_charts(dataclasses.replace(cell, arms=tuple(arms)), "c")
    assert "cat" not in texts(chart)
    assert {"dog", "ship"} <= set(texts(chart))


def test_the_reliability_diagram_leaves_empty_bins_out() -> None:
    cell = few()
    charts = calibration_charts(cell, "c")
    assert [chart.title for chart in charts] == [
        "Expected calibration error",
        "Reliability, References",
        "Reliability, Learn-E-Reg",
    ]
    arms = [dataclasses.replace(arm, reliability=(), ece=nothing()) for arm in cell.arms]
    assert calibration_charts(dataclasses.replace(cell, arms=tuple(arms)), "c") == []


def test_the_highest_and_lowest_of_many_values_are_shown() -> None:
    assert extremes(range(100)) == [*range(10), *range(90, 100)]
    assert extremes("abc") == ["a", "b", "c"] and len(extremes(range(20))) == 20


def test_roles_differ_without_colour_and_each_has_one_line_in_the_legend() -> None:
    keys = legend(made_up(stimuli=("oasis", "emod"), arms=(*ARMS, "unregulated", *RELATIVES)).cells[0].arms)
    assert [key.label for key in keys] == list(ROLES)
    assert len({(key.dashes, key.marker) for key in keys}) == len(ROLES)
    assert len({key.dashes for key in keys}) == len(ROLES)
