"""The notebook runs from top to bottom, and is kept without outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

import extras

nbformat = extras.load("docs", "nbformat")
nbclient = extras.load("docs", "nbclient")

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "emotional_regulation.ipynb"
SMALL = 'STIMULI, EPOCHS_1, EPOCHS_2, OUT = 200, 1, 2, "runs"'


def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))  # of the kernel, a process of its own
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source = SMALL
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "One seed decides nothing." in printed
    assert (tmp_path / "runs" / "learned" / "final.json").exists()


def test_it_is_kept_without_outputs_so_that_a_change_shows() -> None:
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
