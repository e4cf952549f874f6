from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow import parquet

from emoreg.config.recipe import PretrainRecipe
from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.report.analyse_table import analyse
from emoreg.report.files import write_reports
from emoreg.report.findings import findings
from emoreg.runs.published import published
from emoreg.runs.run import ENVIRONMENT
from emoreg.study.columns import RunStatus
from emoreg.study.definition import StimuliRecipe, Study
from emoreg.study.plan import plan_runs
from emoreg.study.results import results_of
from emoreg.study.results_table import write_results
from emoreg.study.run_one import RunOutcome
from emoreg.study.tables import rows_text

USER = "annabel"


def test_published_files_of_a_study_contain_no_paths_of_the_machine(
    tiny_study: Study, tmp_path: Path, finish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home" / USER
    out, data = home / "pilot", home / "my data"
    (cell,) = tiny_study.grid
    target = TargetSettings("folder", str(data / "flags"), image_size=8)
    drawn = cell.stimuli[0].recipe
    rated = StimuliSettings("emotion_folder", f"{data}/rated.zip", image_size=8)
    stimuli = dataclasses.replace(drawn, stimuli=rated, also=(dataclasses.replace(rated, labels="polarity"),))
    cell = dataclasses.replace(
        cell, recipe=dataclasses.replace(cell.recipe, target=target), stimuli=(StimuliRecipe("rated", stimuli),)
    )
    study = dataclasses.replace(tiny_study, grid=(cell,))
    monkeypatch.setattr(
        sys, "argv", [f"{home}/bin/emoreg", "study", f"{home}/pilot.yaml", f"--out={out}", "--jobs", "2"]
    )
    planned = plan_runs(study, out / "runs")
    for run in planned[:-1]:
        finish(run, accuracy=4 / 9)  # as in its bits of right predictions
        run.run.record_session({"device": "cpu"})
    failed = RunOutcome(planned[-1], RunStatus.FAILED, f"'{data}/x y.png' and {home}/z.png cannot be decoded")
    table = results_of(study, planned, {failed.run.id: failed}, out=out)
    write_results(out / "results.parquet", table)
    analysis = analyse(study.name, table)
    write_reports(out, analysis, findings(analysis))

    texts = {path.name: path.read_text(encoding="utf-8") for path in out.glob("report.*")}
    texts |= {"csv": rows_text(table, "csv"), "file": str(parquet.read_table(out / "results.parquet").to_pylist())}
    texts["metadata"] = str(parquet.read_schema(out / "results.parquet").metadata)
    texts |= {str(path): path.read_text() for path in out.glob(f"runs/*/{ENVIRONMENT}")}
    assert len(texts) == 4 + 3 + len(planned) - 1
    for name, text in texts.items():
        for place in (USER, str(tmp_path), str(Path.home()) + "/"):
            assert place not in text, f"{place} in {name}"
    assert "emoreg study pilot.yaml --out=pilot --jobs 2" in texts["report.html"]
    row = table.iloc[-1]
    assert row["error"] == "'x y.png' and z.png cannot be decoded" and row["recipe.target.root"] == "flags"
    assert row["folder"] == f"runs/{planned[-1].folder.name}"
    assert row["recipe.encoder.experience"].startswith("runs/pretraining-")


def test_absolute_paths_are_removed_from_published_settings(tmp_path: Path) -> None:
    recipe = PretrainRecipe(StimuliSettings("manifest", f"{tmp_path}/study/rated.csv"))
    found = published(dataclasses.asdict(recipe), tmp_path / "study")
    assert found["stimuli.root"] == "rated.csv" and found["stimuli.name"] == "manifest" and found["also"] == ()
    assert (
        published(dataclasses.asdict(PretrainRecipe(StimuliSettings("fi", "data/fi"))), tmp_path)["stimuli.root"]
        == "data/fi"
    )
