"""The numbers in docs/findings.md and README.md are those of the tables in results/."""

from __future__ import annotations

from pathlib import Path

import pytest

from emoreg.report.analysis import analyse
from emoreg.report.findings import findings
from emoreg.report.page_tables import responses_grid
from emoreg.report.paper_tables import markdown_table
from emoreg.study.results import read_external_results

ROOT = Path(__file__).parents[2]
FINDINGS, README = "docs/findings.md", "README.md"
STUDIES = [
    (path, page)
    for path in sorted((ROOT / "results").glob("cifar10-*.parquet"))
    for page in ((FINDINGS, README) if path.stem == "cifar10-cpu" else (FINDINGS,))
]


@pytest.mark.parametrize(("path", "page"), STUDIES, ids=[f"{path.stem} in {page}" for path, page in STUDIES])
def test_the_docs_have_every_number_of_a_study_as_its_table_has_it(path: Path, page: str) -> None:
    analysis, text = analyse(path.stem, read_external_results(path)), (ROOT / page).read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    arms = [line for line in markdown_table(analysis).splitlines() if " ± " in line and line.startswith("|")]
    assert arms
    for arm in arms:
        label, _, *numbers = (cell.strip() for cell in arm.strip("|").split("|"))
        expected = [number for number in numbers[:4] if number != "–"]  # accuracy, gain, its p, emotion effect
        assert [row for row in rows if label.split(" (")[0] in row and all(number in row for number in expected)], arm
    assert findings(analysis)[0] in " ".join(text.split())


@pytest.mark.parametrize("path", sorted({path for path, _ in STUDIES}), ids=lambda path: path.stem)
def test_the_docs_have_the_accuracy_of_each_response_alone(path: Path) -> None:
    rows = [line for line in (ROOT / FINDINGS).read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    for cell in analyse(path.stem, read_external_results(path)).cells:
        grid = responses_grid(cell)
        assert grid is not None
        for arm, alone, emotional, *_ in (row for _, of_group in grid.groups for row in of_group):
            expected = f"{alone.value}, {emotional.value}"
            assert [row for row in rows if arm.value in row and expected in row], (arm.value, expected)
