"""The benchmarks run and write their results. Such short runs measure nothing meaningful."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emoreg.runs.run import Run

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.thorough


def record(folder: Path, script: str, *arguments: str, codes: tuple[int, ...] = (0,)) -> dict[str, object]:
    """Run a benchmark, and return what it writes with --json."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *arguments, "--json", str(folder / "seen.json")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in codes, done.stderr
    found: dict[str, object] = json.loads((folder / "seen.json").read_text(encoding="utf-8"))
    assert {"packages", "cpu", "git"} <= found.keys()
    return found


PARTS = [
    ["start"],
    pytest.param(
        ["data", "augmentation", "training", "precision", "regulated", "jobs", "study", "predict"],
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize("parts", PARTS, ids=["start", "all others"])
def test_speed(parts: list[str], tmp_path: Path) -> None:
    short = ("--rounds", "2", "--seconds", "0.01", "--batch-size", "16", "--device", "cpu")
    found = record(tmp_path, "speed.py", "--parts", *parts, "--backbones", "resnet8", *short)
    assert isinstance(found["lines"], list) and all(line["figure"] > 0 for line in found["lines"])


@pytest.mark.slow
def test_simulations(tmp_path: Path) -> None:
    # With so few studies, numbers miss their limits by chance; the exit code is then 1.
    found = record(tmp_path, "simulations.py", "--studies", "10", codes=(0, 1))
    assert isinstance(found["rows"], list) and {row["table"] for row in found["rows"]} >= {"level", "coverage", "power"}


@pytest.mark.slow
def test_accuracy(tmp_path: Path) -> None:
    for split, each in (("train", 4), ("test", 2)):
        for label in range(10):
            folder = tmp_path / "images" / split / str(label)
            folder.mkdir(parents=True)
            for number in range(each):
                Image.new("RGB", (32, 32), (25 * label, 40 * number, 100)).save(folder / f"{number}.png")
    short = ("--epochs", "1", "--seeds", "2", "--batch-size", "20", "--limit", "40")
    found = record(tmp_path, "accuracy.py", "--root", "images", *short)
    assert isinstance(found["accuracies"], dict)
    assert np.shape(list(found["accuracies"].values())) == (3, 2)


@pytest.mark.slow
def test_experience_left(runs: Path, tmp_path: Path) -> None:
    found = record(tmp_path, "experience_left.py", str(runs / "learned"))
    assert isinstance(found["runs"], dict)
    before, after = found["runs"]["learned"].values()
    stage_1 = Run(runs / "experience").final["validation"]
    assert before == pytest.approx(stage_1, abs=1e-5) and after["loss"] != before["loss"]


@pytest.mark.slow
def test_time_to_accuracy(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("edition: 2\nbackbone: {name: resnet8}\ntarget: {limit: 60}\n")
    short = ("--training.epochs", "1", "--training.device", "cpu")
    found = record(tmp_path, "time_to_accuracy.py", str(recipe), *short, "--seeds", "2", "--aim", "0.5")
    assert isinstance(found["runs"], list)
    assert [run["seed"] for run in found["runs"]] == [0, 1]
    assert all(0 < run["training"] < run["whole"] and 0 <= run["accuracy"] <= 100 for run in found["runs"])
    record(tmp_path, "time_to_accuracy.py", str(recipe), *short, "--seeds", "1", "--whole", "0.1", codes=(1,))
