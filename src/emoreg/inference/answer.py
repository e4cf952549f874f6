"""The prediction that one response makes for an image, in each kind of task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from emoreg.config.schema import Task

THRESHOLD = 0.5  # labels that are more probable than this are predicted


@dataclass(frozen=True, eq=False)  # comparing arrays gives no single bool
class Answer:
    """The prediction that one response makes for an image.

    Args:
        values: float32 (K,): probabilities of all classes or labels; in a regression, the predicted values.
        classes: K names of classes, labels or values.
        task: the kind of prediction.
        top: index of the predicted class; None for the first of the highest values.
    """

    values: NDArray[np.float32]
    classes: tuple[str, ...]
    task: Task = "classification"
    top: int | None = None

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Probabilities of all classes or labels, float32 (K,)."""
        assert self.task != "regression"
        return self.values

    @property
    def index(self) -> int:
        """The most probable class, as an index into `classes`."""
        return int(self.values.argmax()) if self.top is None else self.top

    @property
    def name(self) -> str:
        """Name of the most probable class."""
        return self.classes[self.index]

    @property
    def probability(self) -> float:
        """Probability of the most probable class, in [0, 1]."""
        return float(self.probabilities[self.index])

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels that are more probable than not, the most probable first."""
        order = np.argsort(-self.probabilities, kind="stable")
        return tuple(self.classes[label] for label in order if self.values[label] > THRESHOLD)

    @property
    def summary(self) -> str:
        """The prediction in a few words: "cat 0.93"; "fear, sadness"; "valence +0.20, arousal -0.13"."""
        match self.task:
            case "classification":
                return f"{self.name} {self.probability:.2f}"
            case "multilabel":
                return ", ".join(self.labels) or "none"
            case "regression":
                return ", ".join(f"{name} {value:+.2f}" for name, value in zip(self.classes, self.values, strict=True))

    def row(self, with_all: bool) -> dict[str, Any]:
        """Plain values for JSON.

        Args:
            with_all: include the probabilities of all classes or labels. A regression always has all values.
        """
        if self.task == "regression":  # nested, because a value may be named like another key of the row
            return {"values": by_name(self.classes, self.values)}
        row: dict[str, Any] = {"labels": list(self.labels)}
        if self.task == "classification":
            row = {"class": self.name, "probability": round(self.probability, 6)}
        if with_all:
            row["probabilities"] = by_name(self.classes, self.values)
        return row


def answers_of(logits: Tensor, classes: tuple[str, ...], task: Task, temperature: float | None = None) -> list[Answer]:
    """Convert a batch of logits (B, K) to predictions.

    Args:
        logits: outputs of one response.
        classes: K names.
        task: the kind of prediction.
        temperature: T that logits of a classification are divided by; None for none. The predicted classes are those
            without it, even where rounding makes two probabilities equal.
    """
    tops: list[int | None] = [None] * len(logits)
    match task:
        case "classification":
            values = logits.float().softmax(dim=1)
            if temperature is not None:
                tops = values.cpu().numpy().argmax(axis=1).tolist()
                values = (logits.float() / temperature).softmax(dim=1)
        case "multilabel":
            values = logits.float().sigmoid()
        case "regression":
            values = logits.float()
    return [Answer(row, classes, task, top) for row, top in zip(values.cpu().numpy(), tops, strict=True)]


def by_name(names: Sequence[str], values: NDArray[np.float32]) -> dict[str, float]:
    """Map names to values, rounded to six digits."""
    return dict(zip(names, [round(value, 6) for value in values.tolist()], strict=True))
