"""How earlier emotional networks stand beside Backbone, in a sentence: told, and not tested."""

from __future__ import annotations

from emoreg.config.schema import RELATIVES
from emoreg.report.analysis import Analysis, CellResult
from emoreg.report.formatting import all_of, bounds, points
from emoreg.report.page_tables import width_and_seeds


def relatives_findings(analysis: Analysis) -> list[str]:
    """A sentence for each cell with relatives and Backbone."""
    found = [(cell, told) for cell in analysis.cells if (told := _told(cell))]
    has_cells = len(analysis.cells) > 1
    return [
        f"Earlier emotional networks as heads of the same backbone, minus Backbone in points"
        f"{f' on {cell.title}' if has_cells else ''}: {all_of(told)}. They are references: not tested, and their "
        "emotion is computed from the input and the error, not from affective images."
        for cell, told in found
    ]


def _told(cell: CellResult) -> list[str]:
    """ "BEL −0.40 (−0.90, +0.10)", for each relative with a gain."""
    told = []
    for arm in cell.references:
        if arm.arm.mode in RELATIVES and "gain" in arm.contrasts:
            gain = arm.contrasts["gain"]
            limits = "; ".join(filter(None, (bounds(gain.size, points), width_and_seeds(gain, arm.score.n))))
            told.append(f"{arm.label} {points(gain.size.mean)}{f' ({limits})' if limits else ''}")
    return told
