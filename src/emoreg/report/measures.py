"""What is measured beside accuracy: figures that do not let frequent classes hide rare ones."""

from __future__ import annotations

from collections.abc import Mapping

from emoreg.report.analysis import ArmResult, CellResult
from emoreg.report.formatting import percent
from emoreg.report.page_tables import ABSENT, ARM, Column, Entry, Grid, grid_of, measured

# By their names in a table of results.
MEASURES: Mapping[str, str] = {
    "balanced_accuracy": "Balanced\naccuracy, %",
    "macro_f1": "Macro F1,\n%",
    "top5_accuracy": "Top-5\naccuracy, %",
    "majority_baseline": "Best constant\nanswer, %",
}


def measures_grid(cell: CellResult) -> Grid | None:
    """Balanced accuracy, macro F1 and top-5 accuracy of each arm; None where no run has them, as those of before."""
    names = [name for name in MEASURES if any(name in arm.measures for arm in cell.arms)]
    if not names:
        return None
    columns: list[Column] = [ARM]
    for name in names:

        def entry(arm: ArmResult, name: str = name) -> Entry:
            return measured(arm.measures[name], percent) if name in arm.measures else ABSENT

        columns.append((MEASURES[name], entry))
    caption = (
        "Mean over seeds, with the 95 % interval below it. Balanced accuracy: the mean accuracy over the classes. "
        "Macro F1: the mean over the classes of 2 · right / (images + answers). Best constant answer: the share of the "
        "most frequent class, which a network that sees nothing can reach."
    )
    return grid_of("Other figures", caption, columns, cell)
