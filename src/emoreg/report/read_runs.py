"""Reads runs for the statistics from a frame: a study's table of results, or one with only the required columns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from emoreg.config.outcomes import ACCURACY, OUTCOMES, Outcome
from emoreg.errors import UserError, nearest
from emoreg.report.arm_names import arm_of, mode_named
from emoreg.report.collapse import is_starved
from emoreg.report.run_frame import CONFIRMATION, EXPLORATION, Arm, Cell, Plan, Runs
from emoreg.study.columns import BYTES, RunStatus, type_of
from emoreg.study.conform import decoded, from_text
from emoreg.study.outcome_columns import columns_of, outcomes_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

T = TypeVar("T")


class ArrowFrame(Protocol):
    """A frame of any library that supports the Arrow PyCapsule interface: polars, DuckDB, pyarrow."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Export the frame as an Arrow stream."""


def read_runs(frame: pd.DataFrame | ArrowFrame, places: Sequence[str] | None = None) -> Runs:
    """Check a frame of runs and convert it to the form that statistics need.

    Args:
        frame: a frame of pandas, polars, DuckDB or pyarrow with a row per run and at least `mode`, `experience`, `seed`
            and `accuracy` (or `mean_average_precision` or `ccc`). A study's table of results fits as it is: it has
            `test_accuracy`, its rows of stage 1 are ignored, and unfinished runs only count as planned.
            Optional columns: `variant`, `stimuli`, `target`, `backbone`; `purpose` (exploration uses
            `validation_accuracy`); `planned_seeds`, `first_seed`, `looks`; `classes` (names, or their number);
            `correct` or `test_correct` (right or wrong per test image, as truth values or packed by numpy.packbits),
            `checksum` or `test_checksum`; `test_loss`; `train_accuracy_non_emotional`, `train_accuracy_emotional` (or
            of the other outcomes); `device`, `precision` (or `env.device`, `env.precision`) and `edition`; `id`, the
            same in every row of a run that variants share.
        places: where each row is, for messages, such as "results.csv, row 3", in a user's own table, which has one plan
            for all arms of a cell. None for a study's table, which has one for each arm, in all of its rows.

    Raises:
        UserError: a column is missing, a name is unknown, an accuracy is outside [0, 1], or a run occurs twice.
    """
    frame = _stage_2(in_pandas(frame))
    where = ["" if places is None else f"{place}: " for place in places or range(len(frame))]
    modes = _each(mode_named, where, _texts(frame, "mode"))
    arms = _each(arm_of, where, modes, *(_texts(frame, name) for name in ("experience", "variant", "stimuli")))
    purposes = _each(_purpose, where, _texts(frame, "purpose"))
    cells = [Cell(*names) for names in zip(purposes, _texts(frame, "target"), _texts(frame, "backbone"), strict=True)]
    seeds = _each(_seed, where, _values(frame, "seed"))
    ended = (RunStatus.FINISHED, RunStatus.DIVERGED)
    is_done = [True] * len(frame) if "status" not in frame else frame["status"].isin(ended).tolist()
    outcomes = outcomes_of(frame)
    scores = _scores(frame, outcomes, purposes, is_done, where)
    planned = _each(_plan, where, *(_values(frame, name) for name in ("planned_seeds", "looks", "first_seed")))

    by_cell: dict[Cell, dict[Arm, dict[int, int]]] = {}
    plans: dict[tuple[Cell, Arm | None], tuple[Plan, int]] = {}  # with the first row that gives it
    for row, (cell, arm, seed, plan) in enumerate(zip(cells, arms, seeds, planned, strict=True)):
        by_seed = by_cell.setdefault(cell, {}).setdefault(arm, {})
        if is_done[row] and (first := by_seed.setdefault(seed, row)) != row:
            study = ", ".join(part for part in cell if part) or "this table"
            other = f" ({where[first].removesuffix(': ')} has it too)" if places else ""
            raise UserError(
                f"{where[row]}{study} has the run {arm.label}, seed {seed} twice{other}: give each study's results once"
            )
        if plan is None:
            continue
        # A user's own table may give a plan in any of its rows. Those of a study give it in all.
        other_plan, first = plans.setdefault((cell, arm if places is None else None), (plan, row))
        if other_plan != plan:
            runs, give = f"the runs of {arm.label}", "the rows of one study"
            if places is not None:
                runs, give = "the runs of one target and backbone", "one plan, in one row or in all"
            at = f" in {where[first].removesuffix(': ')}" if places else ""
            raise UserError(
                f"{where[row]}{runs} have different plans (planned_seeds, first_seed, looks): {plan.words}; but "
                f"{other_plan.words}{at}; a plan must not change once there are results; give {give}"
            )
    return Runs(
        cells={
            cell: {arm: dict(sorted(by_seed.items())) for arm, by_seed in by_arm.items() if by_seed}
            for cell, by_arm in by_cell.items()
        },
        planned={cell: list(by_arm) for cell, by_arm in by_cell.items()},
        plans={
            (cell, arm): given[0]
            for cell, by_arm in by_cell.items()
            for arm in by_arm
            if (given := plans.get((cell, arm if places is None else None))) is not None
        },
        outcomes=_of_cells(cells, outcomes, where),
        scores=scores,
        is_collapsed=_collapsed(frame, outcomes, scores, where),
        starved=_starved(frame, outcomes),
        facts={name: _values(frame, name, f"env.{name}") for name in ("device", "precision", "edition")},
        correct=_values(frame, "correct", "test_correct"),
        checksum=_values(frame, "checksum", "test_checksum"),
        ids=_texts(frame, "id"),
    )


def collapse_threshold(classes: int) -> float:
    """The accuracy below which a run has collapsed (ours): twice chance, or chance plus 0.1 if that is less."""
    return min(2 / classes, 1 / classes + 0.1)


def in_pandas(frame: pd.DataFrame | ArrowFrame) -> pd.DataFrame:
    """Convert a frame of any library to pandas, with a named index as columns."""
    import pandas as pd

    if isinstance(frame, pd.DataFrame):
        index = [name for name in frame.index.names if name is not None and name not in frame]
        return frame.reset_index(level=index) if index else frame
    if not hasattr(frame, "__arrow_c_stream__"):
        raise UserError(f"runs are given as a {type(frame).__name__}; give a frame of pandas, polars or DuckDB")
    table = pa.table(frame)
    plain: pd.DataFrame = pa.table([decoded(column) for column in table.columns], table.column_names).to_pandas()
    return plain


def _stage_2(frame: pd.DataFrame) -> pd.DataFrame:
    if "mode" not in frame and "arm" in frame:
        raise UserError(
            "the table has a column 'arm' and no 'mode': it is of the first edition. "
            "Open it with emoreg.study.results_table.read_results, which translates it"
        )
    for name in ("mode", "experience", "seed"):
        if name not in frame:
            raise UserError(_missing(name, frame))
    if not any(name in frame for outcome in OUTCOMES.values() for name in columns_of(outcome)):
        raise UserError(_missing("accuracy", frame))
    return frame[frame["stage"] == 2] if "stage" in frame else frame


def _missing(name: str, frame: pd.DataFrame) -> str:
    meant = nearest(name, map(str, frame.columns))
    return (
        f"the table has no column '{name}'{meant}: at least mode, experience, seed and accuracy (or test_accuracy) are "
        "needed, in a row per run"
    )


def _values(frame: pd.DataFrame, *names: str) -> list[Any]:
    """The values of the first of these columns that exists, with None for missing values."""
    for name in names:
        if name in frame:
            column = frame[name]
            return [
                None if is_missing else _read_text(names[-1], value)
                for value, is_missing in zip(column.tolist(), column.isna().tolist(), strict=True)
            ]
    return [None] * len(frame)


def _read_text(name: str, value: Any) -> Any:
    """Parse a value that a CSV file holds as text although it is a list or bits; return others as they are."""
    kind = type_of(name)
    if not isinstance(value, str) or kind is None or not (kind == BYTES or pa.types.is_list(kind)):
        return value
    try:
        return from_text(name, value)
    except ValueError as error:
        if kind == BYTES:
            raise UserError(str(error)) from None
        return value  # the code that uses it refuses it


def _texts(frame: pd.DataFrame, name: str) -> list[str | None]:
    return [None if value is None or value == "" else str(value) for value in _values(frame, name)]


def _purpose(name: str | None) -> str | None:
    if name not in (None, EXPLORATION, CONFIRMATION):
        raise UserError(f"purpose '{name}' is unknown{nearest(str(name), (EXPLORATION, CONFIRMATION))}")
    return name


def _each(read: Callable[..., T], where: Sequence[str], *columns: Sequence[Any]) -> list[T]:
    """Apply `read` to each row of the columns; a UserError gives the row's place."""
    results = []
    for place, *values in zip(where, *columns, strict=True):
        try:
            results.append(read(*values))
        except UserError as error:
            raise UserError(f"{place}{error}") from None
    return results


def _seed(value: Any) -> int:
    if value is None:
        raise UserError("a run has no seed")
    try:
        seed = int(value)
    except (TypeError, ValueError, OverflowError):
        seed = None
    if seed is None or seed != value:
        raise UserError(f"a seed is {value}; it must be a whole number")
    return seed


def _of_cells(cells: Sequence[Cell], outcomes: Sequence[Outcome], where: Sequence[str]) -> dict[Cell, Outcome]:
    """The outcome of each cell. UserError if its runs have different ones."""
    by_cell: dict[Cell, Outcome] = {}
    for place, cell, outcome in zip(where, cells, outcomes, strict=True):
        if (first := by_cell.setdefault(cell, outcome)) != outcome:
            raise UserError(f"{place}runs of one target have {first.words} and {outcome.words}: name two targets")
    return by_cell


def _scores(
    frame: pd.DataFrame,
    outcomes: Sequence[Outcome],
    purposes: Sequence[str | None],
    is_done: Sequence[bool],
    where: Sequence[str],
) -> NDArray[np.float64]:
    names = []
    for outcome, purpose in zip(outcomes, purposes, strict=True):
        own, tested, validated = columns_of(outcome)
        tested = own if own in frame else tested
        names.append(validated if purpose == EXPLORATION and validated in frame else tested)
    columns = {name: _values(frame, name) for name in {*names}}
    values = [columns[name][row] if is_done[row] else None for row, name in enumerate(names)]
    scores = np.array(_each(_score, where, names, outcomes, values), dtype=float)
    scores[~np.isfinite(scores)] = math.nan
    return scores


def _score(name: str, outcome: Outcome, value: Any) -> float:
    if value is None:
        return math.nan
    try:
        score = float(value)
    except (TypeError, ValueError):
        raise UserError(f"{name} holds '{value}'; it must be a number") from None
    if math.isfinite(score) and not outcome.least <= score <= outcome.largest:
        allowed = "accuracies are shares in [0, 1]" if outcome == ACCURACY else f"it must lie in [{outcome.least:g}, 1]"
        percent = ", not in percent: divide it by 100" if 1 < score <= 100 else ""
        raise UserError(f"{name} holds {value}; {allowed}{percent}")
    return score


def _collapsed(
    frame: pd.DataFrame, outcomes: Sequence[Outcome], scores: NDArray[np.float64], where: Sequence[str]
) -> NDArray[np.bool_]:
    """Whether each run has a non-finite outcome or loss, or an accuracy below the threshold for its classes."""
    least = np.array(_each(_least_score, where, outcomes, _values(frame, "classes")), dtype=float)
    collapsed = np.isnan(scores) | (scores < least)
    for row, loss in enumerate(frame["test_loss"].tolist() if "test_loss" in frame else []):
        collapsed[row] |= loss is not None and math.isinf(loss)
    return collapsed


def _least_score(outcome: Outcome, classes: Any) -> float:
    """The least score of a run that has not collapsed; the least possible one if no threshold applies."""
    if classes is None or not outcome.is_counted:
        return outcome.least
    number = len(classes) if isinstance(classes, Sequence | np.ndarray) else classes
    if isinstance(classes, str) or not number >= 2:
        raise UserError(f"classes holds '{classes}'; give the number of classes, or a list of their names")
    return collapse_threshold(int(number))


def _starved(frame: pd.DataFrame, outcomes: Sequence[Outcome]) -> list[str | None]:
    """The starved branch of each run, with less than half of the other's outcome on training images at the end."""
    branches = ("non_emotional", "emotional")
    names = {outcome.name for outcome in outcomes}
    columns = {(name, branch): _values(frame, f"train_{name}_{branch}") for name in names for branch in branches}
    starved: list[str | None] = []
    for row, outcome in enumerate(outcomes):
        values = [columns[outcome.name, branch][row] for branch in branches]
        if None in values:
            starved.append(None)
        else:
            weaker = int(np.argmin(values))
            starved.append(branches[weaker] if is_starved(values[weaker], values[1 - weaker]) else "")
    return starved


def _plan(seeds: Any, looks: Any, first: Any) -> Plan | None:
    try:
        listed = [looks] if isinstance(looks, str) else looks  # a text of digits is one number
        at = () if listed is None else tuple(int(look) for look in listed)
        if seeds is None and not at:
            if first is not None:
                raise UserError(
                    f"first_seed is {first}, but the number of seeds is not given beside it: add planned_seeds"
                )
            return None
        number, start = int(at[-1] if seeds is None else seeds), 0 if first is None else int(first)
        at = at or (number,)
    except (TypeError, ValueError):
        given = f"planned_seeds is {seeds}, first_seed {first} and looks {looks}"
        raise UserError(f"{given}; give a number, a number or nothing, and a list") from None
    if at[0] < 1 or at[-1] != number or any(one >= after for one, after in itertools.pairwise(at)):
        raise UserError(f"looks are {list(at)}; they must ascend, and end with all planned seeds, {number}")
    return Plan(number, at, start)
