"""The paper's claims for its targets, beside the gains of a study."""

from __future__ import annotations

from collections.abc import Mapping

from emoreg.report.analysis import Analysis
from emoreg.report.contrast_plan import ENSEMBLE
from emoreg.report.formatting import points
from emoreg.report.page_tables import Entry, Grid, Row, difference_entry, limits_of

SOURCE = "arXiv:2606.13081"
# Gains "up to" these over the plain backbone, as its public summaries state them, without the number of seeds and
# intervals. Percent are read as points.
CLAIMS: Mapping[str, tuple[str, float]] = {"cifar10": ("CIFAR-10", 0.0157), "cifar100": ("CIFAR-100", 0.0319)}


def claims_grid(analysis: Analysis) -> Grid | None:
    """A row for every cell with a target of the paper, all its classes, and a gain on test images; None without any."""
    rows: list[Row] = []
    for cell in analysis.cells:
        gains = [(arm, arm.contrasts["gain"]) for arm in cell.regulated if "gain" in arm.contrasts]
        gains = [(arm, gain) for arm, gain in gains if gain.size.n]
        if cell.benchmark is None or not cell.is_tested or not gains:
            continue
        target, claimed = CLAIMS[cell.benchmark]
        arm, gain = max(gains, key=lambda pair: pair[1].size.mean)
        ensemble = next((arm.contrasts.get("gain") for arm in cell.arms if arm.arm == ENSEMBLE), None)
        row = (
            Entry(target),
            Entry(f"up to {points(claimed)}", "runs not published"),
            Entry(points(gain.size.mean), f"{limits_of(gain, arm.score.n)}\n{arm.label}".strip()),
            difference_entry(ensemble),
            Entry(f"{cell.images:,}", cell.title),
        )
        rows.append(row)
    if not rows:
        return None
    caption = (
        f"Gains over the plain backbone, in points, claimed by the paper ({SOURCE}) and found here. Ours: the largest "
        'mean of all regulated arms, as the claim is "up to". Ensemble: two plain networks, their probabilities '
        "averaged."
    )
    headers = ("Target", "Paper", "Ours", "Ensemble", "Training\nimages")
    return Grid("The paper's claims", caption, headers, (("", tuple(rows)),))
