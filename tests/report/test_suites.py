from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emoreg.report.analyse_table import analyse
from emoreg.report.analysis import Analysis
from emoreg.report.contrast_plan import BACKBONE
from emoreg.report.files import write_reports
from emoreg.report.findings import findings
from emoreg.report.run_frame import TWINS, Arm
from emoreg.report.suite_tables import RULES, markdown_suites, suite_records, suite_sections
from emoreg.report.verdicts import Verdict
from emoreg.study.columns import RunStatus
from result_rows import results, stage_2

LEARNED = Arm("learned", "affect", None, "procedural")
SEEDS = 8


def scored(better: float = 0.02, **columns: list[float]) -> pd.DataFrame:
    """A study in which Learn-E-Reg has a lower ECE and a higher accuracy on damaged images, by about `better`."""
    arms = ["none", "ensemble", "learned", *(f"learned {twin}" for twin in TWINS)]
    draw = np.random.default_rng(0)
    rows = stage_2({arm: [0.9 + 0.001 * seed for seed in range(SEEDS)] for arm in arms})
    table = results(rows)
    is_learned = (table["mode"] == "learned") & (table["experience"] == "affect")
    table["suite.calibration.ece"] = 0.06 - better * is_learned + draw.normal(0, 0.001, len(table))
    table["suite.calibration.nll"] = 0.5
    table["suite.corruptions.mean_accuracy"] = 0.6 + better * is_learned + draw.normal(0, 0.001, len(table))
    records = {name: {"options": {"seed": 0}, "images": "60 test images"} for name in ("calibration", "corruptions")}
    return table.assign(suites=json.dumps(records), **columns)


def analysed(better: float = 0.02) -> Analysis:
    return analyse("A study", scored(better))


def test_less_is_better_for_ece_and_more_for_accuracy() -> None:
    corruptions, calibration = analysed().suites
    for suite, sign in ((corruptions, 1), (calibration, -1)):
        for name in ("gain", "over_ensemble", "label", "emotion"):
            contrast = suite.contrasts[LEARNED][name]
            assert contrast.verdict is Verdict.ABOVE and contrast.p < 0.025
            assert sign * contrast.size.mean == pytest.approx(0.02, abs=0.003)
            assert contrast.size.low < contrast.size.mean < contrast.size.high
    worse = analysed(-0.02).suites[1].contrasts[LEARNED]
    assert worse["gain"].verdict is Verdict.BELOW and worse["gain"].size.mean > 0
    assert worse["label"].verdict is Verdict.NOT_ABOVE


def test_the_mean_of_each_arm_has_its_interval_over_seeds() -> None:
    table = scored()
    _, calibration = analyse("A study", table).suites
    plain = table.loc[table["mode"] == "none", "suite.calibration.ece"]
    assert calibration.values[BACKBONE]["ece"].mean == pytest.approx(plain.mean())
    assert calibration.values[BACKBONE]["ece"].n == SEEDS
    assert set(calibration.values[BACKBONE]) == {"ece", "nll"}


def test_accuracy_and_its_contrasts_are_those_of_the_study_without_suites() -> None:
    table = scored()
    without = table.drop(columns=[name for name in map(str, table) if name.startswith("suite")])
    pd.testing.assert_frame_equal(analyse("A", table).contrasts, analyse("A", without).contrasts)
    assert analyse("A", without).suites == ()


def test_runs_with_other_options_are_left_out_and_counted() -> None:
    table = scored()
    records = json.loads(table["suites"].iloc[0])
    records["calibration"]["options"] = {"seed": 1}
    table.loc[table["seed"] == 0, "suites"] = json.dumps(records)
    corruptions, calibration = analyse("A study", table).suites
    assert (corruptions.other_options, calibration.other_options) == (0, SEEDS)
    assert calibration.values[BACKBONE]["ece"].n == SEEDS - 1
    sections = suite_sections(analyse("A study", table))
    assert "Left out: 8 runs scored with other options" in sections[1].about


def test_runs_with_other_contents_of_a_set_are_left_out_and_those_without_a_record_of_it_are_not() -> None:
    table = scored()
    for seed, checksum in ((0, None), (1, "other"), (2, "this"), (3, "this")):
        facts = {"options": {}, "images": "60 test images", "contents": checksum and {"textures": checksum}}
        table.loc[table["seed"] == seed, "suites"] = json.dumps({"calibration": facts})
    table = table[table["seed"] < 4]
    (calibration,) = (suite for suite in analyse("A study", table).suites if suite.suite == "calibration")
    assert calibration.values[BACKBONE]["ece"].n == 3
    assert calibration.other_options == len(table) / 4


def test_a_twin_that_was_not_scored_gets_no_verdict() -> None:
    table = scored()
    table.loc[table["experience"] == "rotation", "suite.calibration.ece"] = math.nan
    contrasts = analyse("A study", table).suites[1].contrasts[LEARNED]
    assert contrasts["emotion"].verdict is Verdict.MISSING_TWIN and contrasts["label"].verdict is Verdict.ABOVE


@pytest.mark.parametrize("planned", [None, SEEDS])
def test_a_run_that_diverged_and_was_never_scored_leaves_no_verdict(planned: int | None) -> None:
    table = scored().assign(purpose="confirmation", planned_seeds=planned)
    lost = (table["mode"] == "learned") & (table["experience"] == "affect") & (table["seed"] == 3)
    table.loc[lost, "status"] = RunStatus.DIVERGED
    table.loc[lost, ["test_accuracy", "suite.calibration.ece", "suite.calibration.nll"]] = math.nan
    table.loc[lost, "suites"] = None
    analysis = analyse("A study", table)
    calibration = analysis.suites[1]
    assert {each.verdict for each in calibration.contrasts[LEARNED].values()} == {Verdict.COLLAPSED}
    assert calibration.values[LEARNED]["ece"].n == SEEDS - 1
    section = markdown_suites(analysis).split("**Calibration")[1]
    assert "| Learn-E-Reg (8 seeds) | – (no interval; no verdict: collapsed) |" in section


@pytest.mark.parametrize("arm", ["ensemble", "fresh"])
def test_a_run_that_diverged_changes_nothing_in_a_suite_that_did_not_score_its_arm(arm: str) -> None:
    table = scored()
    is_arm = table["mode"].eq(arm) | table["experience"].eq(arm)
    table.loc[is_arm, ["suites", "suite.calibration.ece"]] = None
    without = analyse("A study", table).suites[1].contrasts[LEARNED]
    lost = is_arm & table["seed"].eq(3)
    table.loc[lost, "status"] = RunStatus.DIVERGED
    table.loc[lost, "test_accuracy"] = math.nan
    contrasts = analyse("A study", table).suites[1].contrasts[LEARNED]
    assert {name: (each.verdict, each.size.n, each.size.mean) for name, each in contrasts.items()} == {
        name: (each.verdict, each.size.n, each.size.mean) for name, each in without.items()
    }


def test_at_several_looks_a_contrast_gives_its_width_and_the_look_that_found_it() -> None:
    table = scored().assign(purpose="confirmation", planned_seeds=SEEDS)
    table["looks"] = pd.Series([[7, SEEDS]] * len(table), index=table.index)
    is_last = (table["mode"] == "learned") & (table["experience"] == "affect") & (table["seed"] == 7)
    faded = table.assign(**{"suite.calibration.ece": table["suite.calibration.ece"] + 0.2 * is_last})
    for each, is_faded in ((table, False), (faded, True)):
        analysis = analyse("A study", each)
        gain = analysis.suites[1].contrasts[LEARNED]["gain"]
        assert (gain.verdict, gain.decided_at, gain.size.n, gain.has_faded) == (Verdict.ABOVE, 7, SEEDS, is_faded)
        (record,) = (
            record
            for record in suite_records(analysis)
            if (record["suite"], record["contrast"], record["mode"]) == ("calibration", "gain", "learned")
        )
        assert (record["level"], record["decided_at"]) == (gain.level, 7) and gain.level < 0.025
        grid = suite_sections(analysis)[1].contrasts
        assert grid is not None
        entry = grid.groups[0][1][0][1]
        assert is_faded or re.search(r" \(9\d\.\d %\)\n", entry.below)
        assert entry.below.endswith("better at 7 seeds, no longer shown" if is_faded else "better at 7 seeds")
        assert entry.strong is not is_faded
    of_seven = table[table["seed"].lt(7) | table["experience"].ne("rotation")]
    assert "7 seeds)" in markdown_suites(analyse("A study", of_seven)).split("**Calibration")[1]


def test_the_backbone_alone_is_not_compared_with_the_same_one_in_the_ensemble() -> None:
    table = scored()
    records = {"transfer": {"options": {}, "images": "60 test images"}}
    of_backbone = table["suite.corruptions.mean_accuracy"]
    table = table.assign(suites=json.dumps(records), **{"suite.transfer.backbone_accuracy": of_backbone})
    (transfer,) = (suite for suite in analyse("A study", table).suites if suite.suite == "transfer")
    assert set(transfer.contrasts[LEARNED]) == {"gain", "label", "emotion"}
    assert any(arm.mode == "ensemble" for arm in transfer.values)


def test_an_exploration_gets_no_verdict() -> None:
    table = scored().assign(purpose="exploration")
    contrasts = analyse("A study", table).suites[1].contrasts[LEARNED]
    assert {each.verdict for each in contrasts.values()} == {Verdict.EXPLORATION}


def test_a_figure_without_an_upper_bound_is_compared_too() -> None:
    from emoreg.report.contrasts import frame_of, judged_contrasts
    from emoreg.report.read_runs import read_runs

    table = scored()
    values = -5 * table["suite.calibration.ece"].to_numpy()
    runs = dataclasses.replace(read_runs(table), scores=values, bounds=(-math.inf, 0.0))
    found = frame_of(judged_contrasts(runs))
    gain = found[(found["contrast"] == "gain") & (found["experience"] == "affect")].iloc[0]
    assert gain["point"] == pytest.approx(0.1, abs=0.01) and gain["low"] > 0 and math.isfinite(gain["high"])


def test_the_page_and_its_tables_say_what_was_scored_and_what_the_contrasts_are(tmp_path: Path) -> None:
    analysis = analysed()
    page = write_reports(tmp_path, analysis, findings(analysis)).read_text(encoding="utf-8")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    for written in (page, text):
        assert "Beyond accuracy on the test split" in written and "60 test images" in written
        assert "not comparable with published mean corruption errors" in " ".join(written.split())
        assert "exploratory unless" in written and "better" in written
    assert markdown_suites(analysis).startswith("## Beyond accuracy") and RULES.split(":")[0] in text
    records = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["suites"]
    assert records == json.loads(json.dumps(suite_records(analysis)))
    assert {each["contrast"] for each in records} == {None, "gain", "over_ensemble", "label", "emotion"}


def test_markdown_writes_the_intervals_of_suites_as_those_of_accuracy() -> None:
    entries = [line for line in markdown_suites(analysed()).splitlines() if line.startswith("| ")]
    learned = next(line for line in entries if line.startswith("| Learn-E-Reg (8 seeds) | +"))
    assert re.match(r"\| Learn-E-Reg \(8 seeds\) \| \+\d\.\d\d \(\+\d\.\d\d to \+\d\.\d\d; p ", learned)
    assert any(re.search(r"\| \d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\) \|", line) for line in entries)
    assert not any(re.search(r"\d, [+−\d]", line) for line in entries)


def test_every_row_of_a_suite_in_markdown_says_which_arm_it_is_and_where_its_interval_stands() -> None:
    table = scored()
    own = table.assign(variant=pd.Series("own losses", table.index).where(table["experience"].notna(), None))
    mixture = own[own["experience"].notna()].assign(variant="mixture")
    text = markdown_suites(analyse("A study", pd.concat([own, mixture], ignore_index=True)))
    table_of_arms = text.split("**Calibration")[1].split("| Arm |")[1].splitlines()[2:]
    names = [line.split(" | ")[0].removeprefix("| ") for line in table_of_arms if line.startswith("| ")]
    assert "Learn-E-Reg, fresh, mixture" in names and "Learn-E-Reg, fresh, own losses" in names
    assert len(set(names)) == len(names) == 2 + 2 * (1 + len(TWINS))
    assert "interval beside it" in text and "below it" not in text


def test_a_report_without_suites_has_no_section_of_them(tmp_path: Path) -> None:
    analysis = dataclasses.replace(analysed(), suites=())
    assert "Beyond accuracy" not in write_reports(tmp_path, analysis, findings(analysis)).read_text(encoding="utf-8")
    assert markdown_suites(analysis) == ""
