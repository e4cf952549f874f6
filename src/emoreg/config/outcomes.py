"""The figure that networks are compared by, for each kind of task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from emoreg.config.schema import Task


@dataclass(frozen=True)
class Outcome:
    """A figure of a network on a set of images, of which more is better.

    Args:
        name: as in metrics and columns ("test_accuracy").
        words: in a sentence.
        title: in the header of a table, with its unit; reports show it a hundredfold, so that a point is 0.01.
        least: the least possible value.
        is_counted: whether it is the share of images that are right, so that images can be drawn anew.
    """

    name: str
    words: str
    title: str
    least: float = 0.0
    is_counted: bool = False

    largest = 1.0  # of all of them


ACCURACY = Outcome("accuracy", "accuracy", "Accuracy,\n%", is_counted=True)
OUTCOMES: Mapping[Task, Outcome] = {
    "classification": ACCURACY,
    "multilabel": Outcome("mean_average_precision", "mean average precision", "Mean average\nprecision, %"),
    "regression": Outcome("ccc", "concordance (CCC)", "CCC,\nhundredths", least=-1.0),
}
