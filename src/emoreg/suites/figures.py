"""The figures of each suite that reports show, with their ranges, and their columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PREFIX = "suite."  # of a column: suite.calibration.ece


@dataclass(frozen=True)
class Figure:
    """A figure of a suite.

    Args:
        name: name in results.
        title: title in reports.
        lower_is_better: whether a smaller value is better.
        least: smallest possible value.
        largest: largest possible value.
        is_share: whether reports show percent.
        is_of_backbone: whether the figure depends on the backbone alone.
    """

    name: str
    title: str
    lower_is_better: bool = False
    least: float = 0.0
    largest: float = 1.0
    is_share: bool = True
    is_of_backbone: bool = False


INF = float("inf")
# The figures that reports show; contrasts compare the first one.
HEADLINES: Mapping[str, tuple[Figure, ...]] = {
    "corruptions": (
        Figure("mean_accuracy", "Accuracy on damaged images"),
        Figure("clean_accuracy", "Undamaged"),
        *(Figure(f"severity_{level}", f"Severity {level}") for level in (1, 3, 5)),
    ),
    "calibration": (
        Figure("ece", "ECE", lower_is_better=True),
        Figure("ece_scaled", "ECE, scaled", lower_is_better=True),
        Figure("brier", "Brier", lower_is_better=True, largest=2.0, is_share=False),
        Figure("brier_scaled", "Brier, scaled", lower_is_better=True, largest=2.0, is_share=False),
        Figure("nll", "NLL", lower_is_better=True, largest=INF, is_share=False),
        Figure("nll_scaled", "NLL, scaled", lower_is_better=True, largest=INF, is_share=False),
        Figure("temperature", "Temperature", largest=INF, is_share=False),
    ),
    "out_of_distribution": (
        Figure("auroc_msp", "AUROC, probability"),
        Figure("auroc_energy", "AUROC, energy"),
        Figure("fpr95_msp", "FPR95, probability", lower_is_better=True),
        Figure("fpr95_energy", "FPR95, energy", lower_is_better=True),
    ),
    "adversarial": (
        Figure("pgd_accuracy", "Accuracy under PGD"),
        Figure("fgsm_accuracy", "Under FGSM"),
        Figure("clean_accuracy", "Not attacked"),
    ),
    "transfer": (
        Figure("backbone_accuracy", "Accuracy on features of the backbone", is_of_backbone=True),
        Figure("accuracy", "On features of both branches"),
    ),
    "human_uncertainty": (
        Figure("cross_entropy", "Cross-entropy to people", lower_is_better=True, largest=INF, is_share=False),
        Figure("kl", "KL divergence", lower_is_better=True, largest=INF, is_share=False),
        Figure("agreement", "Agreement with most people"),
    ),
}


def headlines(suite: str) -> Sequence[Figure]:
    """The figures of a suite that a report shows; none for an unknown suite."""
    return HEADLINES.get(suite, ())


def column(suite: str, figure: str) -> str:
    """The column of a figure in a table of results."""
    return f"{PREFIX}{suite}.{figure}"
