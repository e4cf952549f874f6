"""The runs that statistics are made of, as columns; `read_runs` reads them from a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from emoreg.config.outcomes import Outcome
from emoreg.config.schema import RELATIVES
from emoreg.errors import UserError
from emoreg.report.statistics import image_variance
from emoreg.study.arms import EXPERIENCES, LABELS, REGULATED

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODES: Mapping[str, str] = {str(mode): label for mode, label in LABELS.items()}
WITHOUT_EXPERIENCE = ("none", "ensemble", "wide", *RELATIVES)
TWINS: tuple[str, ...] = EXPERIENCES[1:]  # of `affect`
EXPLORATION, CONFIRMATION = "exploration", "confirmation"
_BYTES = np.arange(256, dtype=np.uint8)
_ONES = np.unpackbits(_BYTES[:, None], axis=1).sum(axis=1, dtype=np.uint8)
count_ones = getattr(np, "bitwise_count", _ONES.__getitem__)  # bits that are set in each byte; numpy has it since 2.0


class Cell(NamedTuple):
    """What is never compared with each other."""

    purpose: str | None  # exploration or confirmation
    target: str | None
    backbone: str | None


class Arm(NamedTuple):
    """What is compared within a cell; its runs differ in their seeds alone."""

    mode: str
    experience: str | None
    variant: str | None
    stimuli: str | None

    @property
    def is_regulated(self) -> bool:
        """Whether it is one of the method's own arms, and not a twin or a reference."""
        return self.mode in REGULATED and self.experience == "affect"

    @property
    def label(self) -> str:
        """For messages: "Learn-E-Reg, shuffled, mixture"."""
        return ", ".join([MODES[self.mode], *(part for part in self[1:] if part)])


class Plan(NamedTuple):
    """How many seeds a study planned, and at which numbers it planned to look; the last look is at all of them."""

    seeds: int
    looks: tuple[int, ...]
    first: int = 0  # of the seeds, which the others follow

    @property
    def numbers(self) -> range:
        """The planned seeds."""
        return range(self.first, self.first + self.seeds)


class Answers(NamedTuple):
    """Right or wrong for each test image, of several runs of an arm, whose outcome is accuracy."""

    packed: NDArray[np.uint8]  # (runs, bytes), as of numpy.packbits
    right: NDArray[np.float64]  # (bits,), right answers to each image
    images: int
    checksum: str | None


@dataclass(frozen=True)
class Runs:
    """Runs of stage 2 as columns; a run is named by its row."""

    cells: Mapping[Cell, Mapping[Arm, Mapping[int, int]]]  # rows of finished runs by seed, seeds ascending
    planned: Mapping[Cell, Sequence[Arm]]  # with a row at least, finished or not
    plans: Mapping[tuple[Cell, Arm], Plan]  # without an arm whose table has no plan: it looks once, at what is there
    outcomes: Mapping[Cell, Outcome]  # the figure that the runs of a cell are compared by
    scores: NDArray[np.float64]  # the outcome of each run, such as its accuracy; NaN where it is not finite
    is_collapsed: NDArray[np.bool_]
    starved: Sequence[str | None]  # the starved branch, non_emotional or emotional; "" for neither, None where unknown
    facts: Mapping[str, Sequence[Any]]  # what must not differ within a contrast: device, precision, edition
    correct: Sequence[Any]
    checksum: Sequence[Any]
    bounds: tuple[float, float] | None = None  # between which the scores lie; None for those of the outcomes
    _answers: dict[tuple[int, ...], Answers | None] = field(default_factory=dict)

    def of_plan(self, cell: Cell, arm: Arm) -> Mapping[int, int]:
        """Rows of an arm's finished runs by seed, without seeds beyond its plan; an exploration has no plan."""
        plan = None if cell.purpose == EXPLORATION else self.plans.get((cell, arm))
        return {seed: row for seed, row in self.cells[cell][arm].items() if plan is None or seed in plan.numbers}

    def answers(self, rows: tuple[int, ...]) -> Answers | None:
        """Right or wrong per test image of some runs; None without any, or if they are of different images.

        Raises:
            UserError: the right ones do not fit the accuracy of their run.
        """
        if rows not in self._answers:
            of_runs = [self.correct[row] for row in rows], {self.checksum[row] for row in rows}
            self._answers[rows] = _answers(*of_runs, self.scores[list(rows)])
        return self._answers[rows]


def variance_of_images(runs: Runs, one: tuple[int, ...], other: tuple[int, ...] | None) -> tuple[float, int]:
    """What the choice of test images adds to the variance of a mean difference of two arms, and their number.

    Args:
        runs: of both.
        one: rows of an arm's runs.
        other: those of another's with the same seeds; None for the outcome of `one` itself.

    Returns:
        (0, 0) if not all runs saw the same images.

    Raises:
        UserError: as `Runs.answers`.
    """
    first, second = runs.answers(one), runs.answers(other or one)
    if first is None or second is None:
        return 0.0, 0
    images, accuracy = min(first.images, second.images), runs.scores[list(one)]
    if other is None:
        return image_variance(first.right[:images], float(first.right.sum()), accuracy), images
    if first.checksum != second.checksum or first.packed.shape != second.packed.shape:
        return 0.0, 0
    squares = float(count_ones(first.packed ^ second.packed).sum())
    differences = accuracy - runs.scores[list(other)]
    return image_variance(first.right[:images] - second.right[:images], squares, differences), images


def _answers(correct: Sequence[Any], checksums: set[Any], accuracy: NDArray[np.float64]) -> Answers | None:
    known = [_packed(of_run) for of_run in correct if of_run is not None]
    if len(known) < len(correct) or len({(len(packed), exactly) for packed, exactly in known}) != 1:
        return None
    if len(checksums) != 1 or np.isnan(accuracy).any():
        return None
    packed, exactly = np.stack([packed for packed, _ in known]), known[0][1]
    unpacked, right = np.unpackbits(packed, axis=1), count_ones(packed).sum(axis=1)
    # Packing fills the last byte up; the accuracies say how far.
    possible = range(unpacked.shape[1], unpacked.shape[1] - 8, -1) if exactly is None else [exactly]
    errors = np.abs(right - accuracy * np.array(possible)[:, None]).max(axis=1)
    allowed = max(0.01, 1e-7 * unpacked.shape[1])  # a table of 32-bit floats
    if errors.min() > allowed:
        worst = int(np.argmax(np.abs(right - accuracy * unpacked.shape[1])))
        raise UserError(
            f"a run has {right[worst]:,} right answers to test images, which does not fit its accuracy of "
            f"{accuracy[worst]:.6g}: they are of different runs, or packed in another way than by numpy.packbits"
        )
    checksum = next(iter(checksums))
    return Answers(
        packed,
        unpacked.sum(axis=0, dtype=np.int16).astype(float),
        possible[int(np.argmax(errors <= allowed))],
        None if checksum is None else str(checksum),
    )


def _packed(correct: Any) -> tuple[NDArray[np.uint8], int | None]:
    """Packed bits, with the number of images where it is known exactly."""
    if isinstance(correct, bytes | bytearray | memoryview):
        return np.frombuffer(correct, dtype=np.uint8), None
    answers = np.asarray(correct, dtype=bool)
    return np.packbits(answers), answers.size
