"""The runs that the statistics use, as columns; `read_runs` reads them from a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from emoreg.config.outcomes import Outcome
from emoreg.config.schema import RELATIVES
from emoreg.errors import UserError
from emoreg.report.formatting import all_of, count
from emoreg.report.statistics import image_variance
from emoreg.study.arms import EXPERIENCES, LABELS, REGULATED

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODES: Mapping[str, str] = {str(mode): label for mode, label in LABELS.items()}
WITHOUT_EXPERIENCE = ("none", "ensemble", "wide", *RELATIVES)
TWINS: tuple[str, ...] = EXPERIENCES[1:]  # all experiences except `affect`
EXPLORATION, CONFIRMATION = "exploration", "confirmation"
_BYTES = np.arange(256, dtype=np.uint8)
_ONES = np.unpackbits(_BYTES[:, None], axis=1).sum(axis=1, dtype=np.uint8)
count_ones = getattr(np, "bitwise_count", _ONES.__getitem__)  # bits set in each byte; numpy has it since 2.0


class Cell(NamedTuple):
    """A target with a backbone and a purpose. Runs of different cells are never compared."""

    purpose: str | None  # exploration or confirmation
    target: str | None
    backbone: str | None


class Arm(NamedTuple):
    """One of the things compared within a cell; its runs differ only in their seeds."""

    mode: str
    experience: str | None
    variant: str | None
    stimuli: str | None

    @property
    def is_regulated(self) -> bool:
        """Whether it is one of the method's own arms, not a twin or a reference."""
        return self.mode in REGULATED and self.experience == "affect"

    @property
    def label(self) -> str:
        """Name in messages: "Learn-E-Reg, shuffled, mixture"."""
        return ", ".join([MODES[self.mode], *(part for part in self[1:] if part)])


class Plan(NamedTuple):
    """The number of seeds that a study planned, and the numbers at which it planned looks; the last is all of them."""

    seeds: int
    looks: tuple[int, ...]
    first: int = 0  # the first seed; the seeds are consecutive

    @property
    def numbers(self) -> range:
        """The planned seeds."""
        return range(self.first, self.first + self.seeds)

    @property
    def words(self) -> str:
        """The plan in words: "12 seeds from 0 on, looks at 6 and 12"."""
        return f"{count(self.seeds, 'seed')} from {self.first} on, looks at {all_of(list(map(str, self.looks)))}"


class Correct(NamedTuple):
    """Right or wrong per test image, for several runs of an arm whose outcome is accuracy."""

    packed: NDArray[np.uint8]  # (runs, bytes), packed as by numpy.packbits
    right: NDArray[np.float64]  # (bits,), number of runs that are right for each image
    images: int
    checksum: str | None


@dataclass(frozen=True)
class Runs:
    """Runs of stage 2 as columns; a run is identified by its row."""

    cells: Mapping[Cell, Mapping[Arm, Mapping[int, int]]]  # rows of finished runs by seed, seeds ascending
    planned: Mapping[Cell, Sequence[Arm]]  # arms with at least one row, finished or not
    plans: Mapping[tuple[Cell, Arm], Plan]  # an arm without a plan has one look, at all its seeds
    outcomes: Mapping[Cell, Outcome]  # the outcome that the runs of a cell are compared by
    scores: NDArray[np.float64]  # the outcome of each run, such as its accuracy; NaN if it is not finite
    is_collapsed: NDArray[np.bool_]
    starved: Sequence[str | None]  # the starved branch, non_emotional or emotional; "" for neither, None if unknown
    facts: Mapping[str, Sequence[Any]]  # should not differ within a contrast: device, precision, edition
    correct: Sequence[Any]  # right or wrong per test image
    checksum: Sequence[Any]  # of the test images
    ids: Sequence[str | None]  # a run that variants share has a row for each of them; None if unknown
    bounds: tuple[float, float] | None = None  # range of the scores; None for that of the outcomes
    _cache: dict[tuple[int, ...], Correct | None] = field(default_factory=dict)

    def of_plan(self, cell: Cell, arm: Arm) -> Mapping[int, int]:
        """Rows of an arm's finished runs by seed, without seeds beyond its plan; an exploration has no plan."""
        plan = None if cell.purpose == EXPLORATION else self.plans.get((cell, arm))
        return {seed: row for seed, row in self.cells[cell][arm].items() if plan is None or seed in plan.numbers}

    def correct_of(self, rows: tuple[int, ...]) -> Correct | None:
        """Right or wrong per test image of some runs; None if it is missing or for different images.

        Raises:
            UserError: the number of right images does not match the accuracy of a run.
        """
        if rows not in self._cache:
            values, checksums = [self.correct[row] for row in rows], {self.checksum[row] for row in rows}
            self._cache[rows] = _correct(values, checksums, self.scores[list(rows)])
        return self._cache[rows]


def variance_of_images(runs: Runs, one: tuple[int, ...], other: tuple[int, ...] | None) -> tuple[float, int]:
    """The variance that the choice of test images adds to a mean difference of two arms, and the number of images.

    Args:
        runs: the runs of both arms.
        one: rows of an arm's runs.
        other: rows of another arm's runs with the same seeds; None for the outcome of `one` itself.

    Returns:
        (0, 0) if not all runs have the same images.

    Raises:
        UserError: as for `Runs.correct_of`.
    """
    first, second = runs.correct_of(one), runs.correct_of(other or one)
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


def _correct(values: Sequence[Any], checksums: set[Any], accuracy: NDArray[np.float64]) -> Correct | None:
    known = [_packed(of_run) for of_run in values if of_run is not None]
    if len(known) < len(values) or len({(len(packed), number) for packed, number in known}) != 1:
        return None
    if len(checksums) != 1 or np.isnan(accuracy).any():
        return None
    packed, number = np.stack([packed for packed, _ in known]), known[0][1]
    unpacked, right = np.unpackbits(packed, axis=1), count_ones(packed).sum(axis=1)
    # Packing pads the last byte; the accuracies tell the number of images.
    possible = range(unpacked.shape[1], unpacked.shape[1] - 8, -1) if number is None else [number]
    errors = np.abs(right - accuracy * np.array(possible)[:, None]).max(axis=1)
    allowed = max(0.01, 1e-7 * unpacked.shape[1])  # for tables of 32-bit floats
    if errors.min() > allowed:
        worst = int(np.argmax(np.abs(right - accuracy * unpacked.shape[1])))
        raise UserError(
            f"a run is right for {right[worst]:,} test images, which does not match its accuracy of "
            f"{accuracy[worst]:.6g}: they come from different runs, or were not packed by numpy.packbits"
        )
    checksum = next(iter(checksums))
    return Correct(
        packed,
        unpacked.sum(axis=0, dtype=np.int16).astype(float),
        possible[int(np.argmax(errors <= allowed))],
        None if checksum is None else str(checksum),
    )


def _packed(correct: Any) -> tuple[NDArray[np.uint8], int | None]:
    """Packed bits, and the number of images if it is known exactly."""
    if isinstance(correct, bytes | bytearray | memoryview):
        return np.frombuffer(correct, dtype=np.uint8), None
    unpacked = np.asarray(correct, dtype=bool)
    return np.packbits(unpacked), unpacked.size
