"""The notebook runs from top to bottom, and is stored without outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

import extras

nbformat = extras.load("docs", "nbformat")
nbclient = extras.load("docs", "nbclient")
pytestmark = pytest.mark.extra("docs")

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "emotional_regulation.ipynb"
SMALL = 'STIMULI, EPOCHS_1, EPOCHS_2, OUT = 200, 1, 2, "runs"'


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))  # for the kernel, which is another process
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source = SMALL
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "One seed decides nothing." in printed
    assert (tmp_path / "runs" / "learned" / "final.json").exists()


def test_the_notebook_is_stored_without_outputs() -> None:
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
