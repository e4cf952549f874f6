"""The figure that networks are compared by, for each kind of task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from emoreg.config.schema import Task


@dataclass(frozen=True)
class Outcome:
    """A figure of a network on a set of images, of which more is better.

    Reports show it a hundredfold, so that a point is 0.01.

    Args:
        name: as in metrics and columns ("test_accuracy").
        words: in a sentence.
        plural: of several networks, in a heading.
        heading: of a column, above the unit.
        unit: of what reports show.
        least: the least possible value.
        largest: the largest.
        is_counted: whether it is the share of images that are right, so that images can be drawn anew.
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
        """Header of a column of a table."""
        return f"{self.heading},\n{self.unit}"


ACCURACY = Outcome("accuracy", "accuracy", "accuracies", "Accuracy", is_counted=True)
OUTCOMES: Mapping[Task, Outcome] = {
    "classification": ACCURACY,
    "multilabel": Outcome(
        "mean_average_precision", "mean average precision", "mean average precision", "Mean average\nprecision"
    ),
    "regression": Outcome("ccc", "concordance (CCC)", "concordance", "CCC", "hundredths", least=-1.0),
}
