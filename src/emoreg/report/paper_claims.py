"""The paper's claims for its targets, beside the gains of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from emoreg.report.analysis import Analysis, ArmResult, CellResult, ContrastResult
from emoreg.report.contrast_plan import ENSEMBLE
from emoreg.report.run_frame import EXPLORATION

SOURCE = "arXiv:2606.13081"
# Gains "up to" these over the plain backbone, as its public summaries state them, without the number of seeds and
# intervals. Percent are read as points.
CLAIMS: Mapping[str, tuple[str, float]] = {"cifar10": ("CIFAR-10", 0.0157), "cifar100": ("CIFAR-100", 0.0319)}


@dataclass(frozen=True)
class PaperClaim:
    """A claim of the paper and the gains of one cell."""

    target: str  # as the paper writes it
    claimed: float  # gain over the plain backbone, a share
    cell: CellResult
    arm: ArmResult  # the regulated arm with the largest mean gain, as the claim is "up to"
    gain: ContrastResult
    ensemble: ContrastResult | None  # the ensemble's gain


def paper_claims(analysis: Analysis) -> list[PaperClaim]:
    """A claim for every cell with a target of the paper, all its classes, and a gain on test images."""
    claims = []
    for cell in analysis.cells:
        gains = [(arm, arm.contrasts["gain"]) for arm in cell.arms if arm.arm.is_regulated and "gain" in arm.contrasts]
        gains = [(arm, gain) for arm, gain in gains if gain.size.n]
        if cell.benchmark is None or cell.purpose == EXPLORATION or not gains:
            continue
        target, claimed = CLAIMS[cell.benchmark]
        arm, gain = max(gains, key=lambda pair: pair[1].size.mean)
        ensemble = next((arm.contrasts.get("gain") for arm in cell.arms if arm.arm == ENSEMBLE), None)
        claims.append(PaperClaim(target, claimed, cell, arm, gain, ensemble))
    return claims
