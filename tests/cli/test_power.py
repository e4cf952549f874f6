"""`emoreg power` from given numbers, and from a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from emoreg.cli.main import main
from emoreg.study.columns import IDENTITY
from emoreg.study.results_table import write_results
from report.study_rows import arms, study


def test_power_needs_no_study_if_its_numbers_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["power", "--sd", "0.3", "--seeds", "8", "12", "--effect", "0.5"]) == 0
    shown = capsys.readouterr().out
    assert "Spread: 0.42 points" in shown and "12" in shown and "hours" not in shown
    assert main(["power", "--sd", "0.3", "--correlation", "0.5", "--seeds", "8", "--looks", "4", "--arms", "2"]) == 0
    shown = capsys.readouterr().out
    assert "Spread: 0.30 points" in shown and "looks after 4 seeds" in shown and "0.025 / 2" in shown
    assert main(["power", "--sd", "0.3", "--seeds", "8", "--arms", "251"]) == 0
    assert "With more than 250 no test can pass" in capsys.readouterr().out


def test_a_pilots_table_provides_its_numbers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = study(
        arms(0.92, 0.90), seeds=5, target="digits", backbone="resnet8", stage=2, status="finished", seconds=9.0
    )
    table = table.rename(columns={"accuracy": "test_accuracy"})
    write_results(tmp_path / "pilot.parquet", table.reindex(columns=[*dict.fromkeys([*IDENTITY, *table])]))
    assert main(["power", str(tmp_path / "pilot.parquet"), "--seeds", "8"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "digits, resnet8" in shown and "hours of" in shown and "from 35 runs (24 degrees of freedom)" in shown


def test_a_cell_whose_seeds_agree_does_not_hide_the_others(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    spread = (0.0, 0.02, 0.01)  # only of Backbone in digits, and the same for both arms in cifar10
    rows = [
        f"{arm},{seed},{accuracy + added * (target == 'cifar10' or arm == 'Backbone')},{target}"
        for target in ("cifar10", "digits")
        for seed, added in enumerate(spread)
        for arm, accuracy in (("Backbone", 0.7), ("Learn-E-Reg", 0.72))
    ]
    table = tmp_path / "pilot.csv"
    table.write_text("\n".join(["arm,seed,accuracy,target", *rows]) + "\n")
    assert main(["power", str(table), "--seeds", "8"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "cifar10, unnamed backbone: the arms differ alike in all seeds" in shown and "Spread: 1.00 points" in shown
    table.write_text("\n".join(["arm,seed,accuracy,target", *rows[:6]]) + "\n")
    assert main(["power", str(table), "--seeds", "8"]) == 2
    assert "unnamed backbone: the arms differ alike" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either a pilot (STUDY) or its numbers (--sd)"),
        (["pilot.yaml", "--sd", "0.3"], "give either a pilot (STUDY) or its numbers (--sd)"),
        (["--sd", "0"], "--sd is 0.0; it must be a number of points above 0"),
        (
            ["--sd", "0.3", "--effect", "nan"],
            "argument --effect: must be a number in plain digits, not 'nan' (see emoreg power --help)",
        ),
        (["--sd", "0.3", "--seeds", "1"], "--seeds is 1; give numbers from 2 to 100"),
        (["--sd", "0.3", "--seeds"], "--seeds is empty; give numbers from 2 to 100"),
        (["--sd", "0.3", "--looks", "0"], "--looks is 0; it must be at least 1"),
        (["--sd", "0.3", "--correlation", "1"], "--correlation is 1.0; it must be above -1 and below 1"),
        (["--sd", "0.3", "--arms", "0"], "--arms is 0; it must be at least 1"),
        (["pilot.yaml", "--correlation", "0.5"], "--correlation is for --sd; a pilot has its own"),
        (["--sd", "0.3", "--runs", "runs"], "--runs is for a pilot (STUDY); leave it out with --sd"),
        (["pilot.csv", "--runs", "runs"], "--runs is for a study; leave it out for the table pilot.csv"),
    ],
)
def test_an_error_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["power", *arguments]) == 2
    assert capsys.readouterr().err == f"emoreg: {message}\n"
