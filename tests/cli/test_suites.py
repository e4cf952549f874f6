from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from emoreg.cli.main import main
from emoreg.study import run_study
from emoreg.study.results_table import read_results
from emoreg.study.scheduler import InTurn

STUDY = """\
edition: 2
modes: []
references: [backbone]
seeds: 1
classifier:
  target: {name: digits, image_size: 8, limit: 32}
  backbone: {name: resnet8}
  training: {epochs: 1, batch_size: 16, device: cpu}
"""


def test_a_finished_study_is_scored_without_training_again(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_study, "LocalPool", lambda jobs, progress: InTurn(progress))
    monkeypatch.chdir(tmp_path)
    Path("pilot.yaml").write_text(STUDY)
    assert main(("study", "pilot.yaml", "--quiet")) == 0
    (weights,) = Path("runs/pilot/runs").glob("*/model.safetensors")
    trained = weights.stat().st_mtime_ns
    Path("pilot.yaml").write_text(f"{STUDY}suites: [calibration]\n")
    assert main(("study", "pilot.yaml", "--dry-run")) == 0
    assert "suites: calibration: 1 scoring, 0 done, 1 to do" in capsys.readouterr().out
    assert main(("study", "pilot.yaml", "--quiet")) == 0
    assert "suite.calibration.ece" in read_results(Path("runs/pilot/results.parquet"))
    others = f"out_of_distribution: {{images: 8, sets: [{{name: folder, root: '{image_folder}'}}]}}"
    assert main(("suites", "runs/pilot", "--suites", others, "--quiet")) == 0
    table = read_results(Path("runs/pilot/results.parquet"))
    assert table["suite.out_of_distribution.auroc_msp"].between(0, 1).all()
    assert table["suite.calibration.ece"].between(0, 1).all()  # kept in the table
    assert "out_of_distribution" in Path("runs/pilot/study.yaml").read_text()
    assert "Images of other things" in Path("runs/pilot/report.md").read_text(encoding="utf-8")
    assert weights.stat().st_mtime_ns == trained


def test_a_study_with_shared_runs_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_study, "LocalPool", lambda jobs, progress: InTurn(progress))
    monkeypatch.chdir(tmp_path)
    Path("pilot.yaml").write_text(STUDY)
    assert main(("study", "pilot.yaml", "--runs", "shared", "--quiet")) == 0
    scored = ("suites", "runs/pilot", "--suites", "calibration", "--quiet")
    assert main(scored) == 2 and "no run of this study is finished" in capsys.readouterr().err
    assert main((*scored, "--runs", "shared")) == 0
    assert read_results(Path("runs/pilot/results.parquet"))["suite.calibration.ece"].between(0, 1).all()
    (run,) = Path("shared").glob("*-seed0-*")
    card = ("export", str(run), "--format", "hub", "--study", "runs/pilot", "--runs", "shared", "--quiet")
    assert main((*card, "--to", "card")) == 0
    assert "Backbone" in Path("card/README.md").read_text(encoding="utf-8").partition("## The study")[2]
    assert main(("suites", str(run), "--runs", "shared")) == 2
    assert "--runs is for one study; give its folder" in capsys.readouterr().err


def test_a_run_is_scored_and_its_figures_are_printed(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(runs / "plain", tmp_path / "plain")
    assert main(("suites", str(run), "--suites", "calibration", "--quiet")) == 0
    told = capsys.readouterr().out
    assert "calibration" in told and "nll_scaled" in told and "temperature fitted on" in told
    assert main(("suites", str(run), "--suites", "calibraton")) == 2
    assert "did you mean 'calibration'" in capsys.readouterr().err
    assert main(("suites", str(tmp_path / "nowhere"), "--suites", "calibration")) == 2
    assert "nowhere" in capsys.readouterr().err
