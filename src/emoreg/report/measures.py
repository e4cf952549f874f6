"""The measures beside the outcome, such as balanced accuracy, in which rare classes count, and errors of values."""

from __future__ import annotations

from collections.abc import Mapping

from emoreg.config.outcomes import OUTCOMES, Outcome
from emoreg.report.analysis import ArmResult, CellResult
from emoreg.report.formatting import percent
from emoreg.report.page_tables import ARM, Column, Entry, Grid, grid_of, measured

# Column headers by the names in a table of results.
MEASURES: Mapping[str, str] = {
    "balanced_accuracy": "Balanced\naccuracy, %",
    "macro_f1": "Macro F1,\n%",
    "top5_accuracy": "Top-5\naccuracy, %",
    "majority_baseline": "Best constant\nprediction, %",
    "exact_match": "All labels\nright, %",
    "ccc_valence": "CCC of valence,\nhundredths",
    "ccc_arousal": "CCC of arousal,\nhundredths",
    "ccc_dominance": "CCC of dominance,\nhundredths",
    "mae": "Mean absolute\nerror, hundredths",
    "rmse": "Root mean squared\nerror, hundredths",
}
CAPTIONS: Mapping[Outcome, str] = {
    OUTCOMES["classification"]: "Balanced accuracy: the mean accuracy over the classes. Macro F1: the mean over the "
    "classes of 2 · right / (images + predictions). Best constant prediction: the share of the most frequent class, "
    "which a network that sees nothing can reach.",
    OUTCOMES["multilabel"]: "Macro F1: the mean over the labels of F1, predicting labels with probability above 0.5. "
    "Best constant prediction: the mean average precision of the same prediction for all images. All labels right: the "
    "share of images without a wrong label.",
    OUTCOMES["regression"]: "CCC: concordance correlation of predictions and ratings; 100 is perfect, 0 a constant "
    "prediction. Errors are hundredths of the ratings' unit; ratings lie between -1 and 1.",
}


def measures_grid(cell: CellResult) -> Grid | None:
    """Balanced accuracy, macro F1, errors of values and others of each arm; None if no run has any."""
    names = [name for name in MEASURES if any(name in arm.measures for arm in cell.arms)]
    if not names:
        return None
    columns: list[Column] = [ARM]
    for name in names:

        def entry(arm: ArmResult, name: str = name) -> Entry:
            return measured(arm.measures.get(name), percent)

        columns.append((MEASURES[name], entry))
    caption = f"Mean over seeds, with the 95 % interval below it. {CAPTIONS[cell.outcome]}"
    return grid_of("Other figures", caption, columns, cell)
