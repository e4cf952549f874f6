"""Earlier emotional networks compared with Backbone, in a sentence: reported, not tested."""

from __future__ import annotations

from emoreg.config.schema import RELATIVES
from emoreg.report.analysis import Analysis, CellResult
from emoreg.report.formatting import all_of, bounds, points
from emoreg.report.page_tables import width_and_seeds


def relatives_findings(analysis: Analysis) -> list[str]:
    """A sentence for each cell with relatives and Backbone."""
    sentences = []
    for cell in analysis.cells:
        if gains := _gains(cell):
            where = f" on {cell.title}" if len(analysis.cells) > 1 else ""
            sentences.append(
                f"Earlier emotional networks as heads of the same backbone, minus Backbone in points{where}: "
                f"{all_of(gains)}. They are references: not tested, and their emotion is computed from the input and "
                "the error, not from affective images."
            )
    return sentences


def _gains(cell: CellResult) -> list[str]:
    """ "BEL −0.40 (−0.90, +0.10)", for each relative with a gain."""
    gains = []
    for arm in cell.references:
        if arm.arm.mode in RELATIVES and "gain" in arm.contrasts:
            gain = arm.contrasts["gain"]
            limits = "; ".join(filter(None, (bounds(gain.size, points), width_and_seeds(gain, arm.score.n))))
            gains.append(f"{arm.label} {points(gain.size.mean)}{f' ({limits})' if limits else ''}")
    return gains
