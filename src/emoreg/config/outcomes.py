"""The score by which networks are compared, for each kind of task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from emoreg.config.schema import Task


@dataclass(frozen=True)
class Outcome:
    """A score of a network on a set of images; higher is better.

    Reports show it in hundredths, so that a point is 0.01.

    Args:
        name: as in the names of metrics and columns ("test_accuracy").
        words: its name in a sentence.
        plural: its name in a heading about several networks.
        heading: column heading, without the unit.
        unit: unit in reports.
        least: smallest possible value.
        largest: largest possible value.
        is_counted: whether it is the share of correctly predicted images, so that images can be resampled.
    """

    name: str
    words: str
    plural: str
    heading: str
    unit: str = "%"
    least: float = 0.0
    largest: float = 1.0
    is_counted: bool = False

    @property
    def title(self) -> str:
        """Column heading with the unit."""
        return f"{self.heading},\n{self.unit}"


ACCURACY = Outcome("accuracy", "accuracy", "accuracies", "Accuracy", is_counted=True)
OUTCOMES: Mapping[Task, Outcome] = {
    "classification": ACCURACY,
    "multilabel": Outcome(
        "mean_average_precision", "mean average precision", "mean average precision", "Mean average\nprecision"
    ),
    "regression": Outcome("ccc", "concordance (CCC)", "concordance", "CCC", "hundredths", least=-1.0),
}
VALIDATION = tuple(f"validation_{outcome.name}" for outcome in OUTCOMES.values())  # columns
TEST = tuple(f"test_{outcome.name}" for outcome in OUTCOMES.values())
