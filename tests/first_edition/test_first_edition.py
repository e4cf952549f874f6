"""Files that the first edition wrote (revision e469074) still open: runs, an unfinished run, a pack, a results table.

Some runs have a fixed λ of 0 or 1, which new recipes refuse; `gated` has one λ per image.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import emoreg
from emoreg.config.recipe import TrainRecipe
from emoreg.data.images.packed import open_pack
from emoreg.report.analyse_table import analyse
from emoreg.report.findings import findings
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.study.definition import Study
from emoreg.study.plan import Factors, PlannedRun, plan_runs
from emoreg.study.read_study import read_study
from emoreg.study.results import results_of
from emoreg.study.results_table import read_external_results

HERE = Path(__file__).parent
STUDIES = HERE / "studies"  # as the first edition shipped them


@pytest.fixture
def unzip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Unpack everything into the working folder, to which paths in these runs are relative."""
    for archive in HERE.glob("*.zip"):
        with zipfile.ZipFile(archive) as files:
            files.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "lam"), [("fixed-0", 0.0), ("fixed-1", 1.0)])
def test_a_run_with_a_fixed_lambda_at_its_limit_opens(unzip: Path, quiet: Progress, name: str, lam: float) -> None:
    run = Run(Path(name))
    measured = emoreg.evaluate(run, device="cpu", progress=quiet)
    assert measured["accuracy"] == run.final["test"]["accuracy"]
    assert measured["lambda"] == lam
    loaded = emoreg.load_run(name)
    (prediction,) = emoreg.predict(loaded, [np.zeros((8, 8, 3), np.uint8)])
    assert prediction.lam == lam


def test_a_run_with_a_gate_opens(unzip: Path, quiet: Progress) -> None:
    run = Run(Path("gated"))
    measured = emoreg.evaluate(run, device="cpu", progress=quiet)
    assert measured["accuracy"] == run.final["test"]["accuracy"]
    assert measured["lambda"] == pytest.approx(run.final["test"]["lambda"], rel=1e-5)


def test_the_lambda_of_a_gate_is_corrected_in_a_new_table(unzip: Path) -> None:
    run = Run(Path("gated"))
    # The first edition stored λ for features of zero in "lambda", and its mean over images in "test".
    assert run.final["lambda"][0] > 0.4 and run.final["test"]["lambda"] < 0.01
    factors = Factors("learned", "affect", None, None, "digits", "resnet8")
    planned = PlannedRun("0", "gated", run.folder, run.recipe, None, *factors, seed=0)
    row = results_of(Study("first", (), edition=1, purpose=None), [planned], {}).iloc[0]
    assert row["lambda"] == row["test_lambda"] == run.final["test"]["lambda"]
    assert pd.isna(row["epochs.lambda"]) and len(row["epochs.train_loss"]) == 2


def test_an_encoder_opens(unzip: Path) -> None:
    assert emoreg.load_encoder("experience").num_features == 64


def test_an_unfinished_run_is_resumed(unzip: Path, quiet: Progress) -> None:
    run = Run(Path("half-done"))
    recipe = run.recipe
    assert isinstance(recipe, TrainRecipe) and not run.is_finished
    finished = emoreg.train(recipe, run.folder, progress=quiet)
    assert len(finished.metrics) == recipe.training.epochs
    assert finished.final["test"]["lambda"] == 1.0


def test_a_pack_opens(unzip: Path) -> None:
    pack = open_pack(str(unzip / "pack"), "target")
    assert pack.set == "folder" and len(pack.images) == 18
    assert pack.splits is not None and sorted(set(pack.splits.tolist())) == ["test", "train"]


def test_a_table_of_results_makes_a_report() -> None:
    analysis = analyse("first edition", read_external_results(HERE / "results.parquet"))
    assert len(analysis.cells) == 1 and len(analysis.cells[0].arms) == 9
    assert findings(analysis)


def test_a_study_still_reads_and_its_runs_have_the_same_ids() -> None:
    assert len(plan_runs(read_study(HERE / "study.yaml", is_stored=True), Path("runs"))) == 24
    for file, ids in json.loads((HERE / "run_ids.json").read_text()).items():
        planned = plan_runs(read_study(STUDIES / file, seeds=1, is_stored=True), Path("runs"))
        assert {run.name: run.id for run in planned} == ids
