"""Results of a user's own training loop: a table or a frame with a row per run, checked row by row.

A study guarantees, for example, that arms differ only in mode and experience. A table cannot show this; `own_notes`
says so.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emoreg.config.outcomes import ACCURACY, VALIDATION
from emoreg.errors import UserError, shortened
from emoreg.report.arm_names import arm_named
from emoreg.report.own_columns import OF_AN_ARM, SCORES, STORED, check_columns, column_of, is_own, read_value
from emoreg.report.read_runs import ArrowFrame, in_pandas, read_runs
from emoreg.report.run_frame import EXPLORATION, Plan, Runs
from emoreg.study.columns import RunStatus
from emoreg.study.conform import conform
from emoreg.study.first_edition import with_modes
from emoreg.study.results_table import check_content, read_parquet

if TYPE_CHECKING:
    import pandas as pd

    Cells = Mapping[str, Any]

SUFFIXES = (".csv", ".tsv", ".parquet")
HEADER_BYTES = 2**16  # they hold `stage` and `status`, the first two columns of a study's table
MOST_DECIMALS = 15  # significant in a 64-bit float


@dataclass(frozen=True)
class OwnResults:
    """Checked results of a user's own training loop."""

    source: str  # name of the file, or "the frame"
    columns: tuple[str, ...]  # as given, known ones in lower case
    names: tuple[str, ...]  # the name of each run's arm, as given
    frame: pd.DataFrame  # columns as given except `arm`; `correct` as arrays of truth values, or packed
    places: tuple[str, ...]  # where each row is, for messages
    runs: Runs
    images: tuple[int | None, ...]  # number of each run's test images, if right or wrong per image is given


def read_own_results(path: Path) -> OwnResults | None:
    """Read a user's own table; None for a study's table, which has a column `stage` or `status`.

    Args:
        path: a Parquet file, or a CSV file separated by commas, semicolons or tabs. Unless commas separate its fields,
            numbers may have a decimal comma.

    Raises:
        UserError: an unreadable file, an unknown or missing column, or a wrong value. The message gives the row (the
            header is row 1) and the closest known name.
    """
    if path.suffix.lower() == ".parquet":
        return _from_parquet(path)
    if not is_own(_header(path)):
        return None
    from emoreg.data.images.files import File  # imports all image sets
    from emoreg.data.stimuli.tabular import read_any_rows

    sheet = File(path.name, path.parent)
    separator, numbered = read_any_rows(sheet, "seed")
    places, rows = [], []
    for place, row in numbered:
        places.append(f"{path}{place.removeprefix(str(sheet))}")
        rows.append(row)
    point = "." if separator == "," else ","
    return _checked(path.name, f"{path}, row 1", tuple(rows[0]), places, rows, point, is_text=True)


def own_results(frame: pd.DataFrame | ArrowFrame) -> OwnResults | None:
    """Results of a user's own loop in a frame of pandas, polars, DuckDB or pyarrow; None for a study's table.

    Raises:
        UserError: as `read_own_results`; it names the row by the frame's index.
    """
    plain = in_pandas(frame)
    if not is_own([str(name) for name in plain.columns]):
        return None
    places = [f"row {shortened(str(label), 40)}" for label in plain.index]
    return _checked_frame("the frame", "the frame", plain, places)


def runs_of(frame: pd.DataFrame | ArrowFrame) -> Runs:
    """The runs of a user's own frame or of a study's. UserError as for `own_results` and `read_runs`."""
    own = own_results(frame)
    return read_runs(frame) if own is None else own.runs


def as_table(own: OwnResults) -> pd.DataFrame:
    """Convert results to the form of a study's table, for a report.

    A run without an accuracy has diverged. If only the number of classes is known, they get numbers as names.

    Raises:
        UserError: a further column does not hold what a study's table has there.
    """
    import pandas as pd

    frame = own.frame.rename(columns=STORED)
    is_lost = np.isnan(own.runs.scores)
    outcome = next(iter(own.runs.outcomes.values()), ACCURACY)
    tested, validated = f"test_{outcome.name}", f"validation_{outcome.name}"
    ends: dict[str, Any] = {
        "stage": 2,
        "status": [str(RunStatus.DIVERGED if lost else RunStatus.FINISHED) for lost in is_lost],
        "error": [f"it has no {outcome.words}" if lost else None for lost in is_lost],
        "run": list(own.places),
        tested: own.runs.scores,
    }
    if "purpose" in frame:
        is_exploration = (frame["purpose"] == EXPLORATION).to_numpy()
        ends[tested] = np.where(is_exploration, np.nan, own.runs.scores)
        given = frame.get(validated, pd.Series(np.nan, frame.index)).to_numpy(dtype=float)
        ends[validated] = np.where(is_exploration, own.runs.scores, given)
    if "test_correct" in frame:
        ends["test_correct"] = [_packed(correct) for correct in frame["test_correct"]]
    if "classes" in frame:
        ends["classes"] = [_numbered(classes) for classes in frame["classes"]]
    if own.runs.plans:
        ends |= _filled_plans(own.runs, len(frame))
    frame = frame.assign(**ends)
    for name in ("target", "backbone"):
        frame[name] = frame[name].fillna(f"unnamed {name}") if name in frame else f"unnamed {name}"
    factors = {name: None for name in OF_AN_ARM if name not in frame}
    return study_table(frame.assign(**factors), own.source)


def study_table(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """Give a study's table, of any library's types, all columns. UserError if it holds what no study's table does."""
    import pyarrow as pa

    try:
        table: pd.DataFrame = with_modes(conform(pa.Table.from_pandas(frame, preserve_index=False)).to_pandas())
        check_content(table)
    except (ValueError, TypeError) as error:  # Arrow's errors are of both kinds
        raise UserError(f"{source} cannot be read as a table of results: {shortened(str(error), 250)}") from None
    return table


def _filled_plans(runs: Runs, rows: int) -> dict[str, pd.Series[Any]]:
    """The columns of the plan with that of its cell in every row, as a study's table has them."""
    import pandas as pd

    plans: list[Plan | None] = [None] * rows
    for (cell, arm), plan in runs.plans.items():
        for row in runs.cells[cell][arm].values():
            plans[row] = plan
    columns: dict[str, list[Any]] = {
        "planned_seeds": [plan and plan.seeds for plan in plans],
        "first_seed": [plan and plan.first for plan in plans],
        "looks": [plan and list(plan.looks) for plan in plans],
    }
    return {name: pd.Series(values, dtype=object) for name, values in columns.items()}


def _from_parquet(path: Path) -> OwnResults | None:
    try:
        table = read_parquet(path)
    except Exception as error:  # a damaged file makes Arrow raise almost anything
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read as a table of results: {shortened(reason, 250)}") from None
    if not is_own(table.column_names):
        return None
    plain = in_pandas(table)
    plain = plain[[name for name in plain if not re.fullmatch(r"__index_level_\d+__", str(name))]]
    places = [f"{path}, row {number}" for number in range(1, len(plain) + 1)]
    return _checked_frame(path.name, str(path), plain, places)


def _header(path: Path) -> list[str]:
    """The names in the first line of a CSV file, roughly parsed, to tell a study's table from others."""
    try:
        with path.open("rb") as file:
            first = file.read(HEADER_BYTES).decode("utf-8-sig", "replace").partition("\n")[0]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    return [cell.strip(" \"'\r") for cell in re.split(r"[,;\t|]", first)]


@contextlib.contextmanager
def _at(place: str) -> Iterator[None]:
    """Put the place in front of the message of a UserError."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


def _checked_frame(source: str, where: str, frame: pd.DataFrame, places: Sequence[str]) -> OwnResults:
    names = tuple(map(str, frame.columns))
    rows = [dict(zip(names, row, strict=True)) for row in frame.itertuples(index=False, name=None)]
    return _checked(source, where, names, places, rows)


def _checked(
    source: str,
    where: str,
    names: tuple[str, ...],
    places: Sequence[str],
    rows: Sequence[Cells],
    point: str = ".",
    is_text: bool = False,
) -> OwnResults:
    """Results from rows of cells; `where` is the place of the header. In text a missing accuracy is a mistake."""
    import pandas as pd

    names = tuple(map(column_of, names))
    with _at(where):
        check_columns(names)
    read, given, images = [], [], []
    for place, row in zip(places, rows, strict=True):
        with _at(place):
            values = {column_of(name): read_value(column_of(name), cell, point, is_text) for name, cell in row.items()}
            given.append(", ".join(str(values[name]) for name in ("arm", *OF_AN_ARM) if values.get(name) is not None))
            if "arm" in values:
                values |= arm_named(values.pop("arm"))._asdict()
        read.append(values)
    _unpack(read)
    for place, values in zip(places, read, strict=True):
        with _at(place):
            images.append(_score_correct(values, is_text))
    columns = list(dict.fromkeys(name for values in read for name in values)) or list(names)
    # As objects: pandas would make floats of whole numbers, and matrices of lists.
    series = {name: pd.Series([values[name] for values in read], dtype=object) for name in columns}
    frame = pd.DataFrame(series, range(len(read)))
    runs = read_runs(frame, places)
    _check_ids(runs, places)
    _check_image_counts(runs, places, images)
    return OwnResults(source, names, tuple(given), frame, tuple(places), runs, tuple(images))


def _check_ids(runs: Runs, places: Sequence[str]) -> None:
    """Raise UserError if rows with one id are not one run, which counts only once in the spread."""
    known: dict[str, tuple[int, int]] = {}  # seed and row
    for seed, row in (each for arms in runs.cells.values() for rows in arms.values() for each in rows.items()):
        if (name := runs.ids[row]) is None:
            continue
        other_seed, other = known.setdefault(name, (seed, row))
        if seed != other_seed or not np.array_equal(runs.scores[row], runs.scores[other], equal_nan=True):
            raise UserError(
                f"{places[row]}: the id '{shortened(name)}' is also that of {places[other]}, with another seed or "
                "result: only a run that variants share has one id in several rows; give each run its own, or leave "
                "the column out"
            )


def _check_image_counts(runs: Runs, places: Sequence[str], images: Sequence[int | None]) -> None:
    """Raise UserError if compared runs have right or wrong for different numbers of images."""
    for arms in runs.cells.values():
        known = [row for rows in arms.values() for row in rows.values() if images[row] is not None]
        for row in known:
            if images[row] != images[known[0]]:
                raise UserError(
                    f"{places[row]}: {images[row]:,} test images, but {images[known[0]]:,} in {places[known[0]]}: "
                    "compared runs must be scored on the same images"
                )


def _unpack(rows: Sequence[dict[str, Any]]) -> None:
    """Unpack right or wrong per image to truth values, where accuracies tell the number of images.

    Packing pads the last byte with zeros. Runs of one target have the same images. So their number is the one, of those
    that fit the bytes, that agrees best with the accuracies, which may be rounded. The median over runs is used, so
    that a single run with wrong values is the one that is refused later.
    """
    groups: dict[tuple[Any, ...], list[tuple[dict[str, Any], str]]] = {}
    for values in rows:
        name, packed = _correct_of(values)
        accuracy = values.get(_score_of(values))
        if name is not None and isinstance(packed, bytes) and packed and accuracy is not None and np.isfinite(accuracy):
            groups.setdefault((values.get("target"), values.get("purpose"), len(packed)), []).append((values, name))
    for runs in groups.values():
        bits = np.unpackbits(np.array([np.frombuffer(values[name], dtype=np.uint8) for values, name in runs]), axis=1)
        accuracies = np.array([values[_score_of(values)] for values, _ in runs])
        most = bits.shape[1]
        least = max(most - 7, int(np.flatnonzero(bits.any(axis=0)).max(initial=0)) + 1)
        possible = np.arange(most, least - 1, -1)
        errors = np.median(np.abs(bits.sum(axis=1) / possible[:, None] - accuracies), axis=1)
        for (values, name), correct in zip(runs, bits[:, : possible[np.argmin(errors)]] == 1, strict=True):
            values[name] = correct


def _correct_of(values: Mapping[str, Any]) -> tuple[str | None, Any]:
    """The name of the column of a run's right or wrong per image, and its content; None if it is not given."""
    name = next((name for name in ("correct", STORED["correct"]) if values.get(name) is not None), None)
    return name, None if name is None else values[name]


def _score_of(values: Mapping[str, Any]) -> str:
    return next((name for name in SCORES if name in values), "accuracy")


def _score_correct(values: dict[str, Any], is_text: bool) -> int | None:
    """Replace a run's accuracy by the share of right images, if it is known, and return the number of images.

    UserError if the accuracy differs from it, or is missing.
    """
    name, correct = _correct_of(values)
    score = _score_of(values)
    accuracy = values.get(score)
    if isinstance(correct, np.ndarray):
        exact = float(correct.mean())
        if accuracy is not None and not abs(exact - accuracy) <= _precision(accuracy):
            raise UserError(
                f"{score} is {accuracy}, but {int(correct.sum()):,} of {correct.size:,} images in {name} are right, "
                f"which is {exact:.6g}: they come from different runs"
            )
        values[score] = exact
        return correct.size
    validated = next((name for name in VALIDATION if values.get(name) is not None), None)
    is_validated = validated is not None and values.get("purpose") == EXPLORATION
    if correct is not None and score not in values and not is_validated:
        raise UserError(f"{name} is packed, which hides the number of images: give the {score} too, or unpack it")
    if validated is not None and score not in values and not is_validated:
        raise UserError(
            f"{validated} is compared only in an exploration: give the {validated.removeprefix('validation_')} on test "
            f"images, or write {EXPLORATION} into the column purpose"
        )
    if accuracy is None and is_text and not is_validated:
        raise UserError(
            f"{score} is empty; write nan for a run that diverged, and leave out runs that are not finished"
        )
    values.setdefault(score, None)
    return None


def _precision(accuracy: float) -> float:
    """The largest error of rounding or truncating to the decimals that a number has, of which there are two or more."""
    if not np.isfinite(accuracy):
        return 0.0
    decimals = len(np.format_float_positional(accuracy, MOST_DECIMALS, trim="-").partition(".")[2])
    return float(10.0 ** -max(2, decimals)) + 1e-9


def _packed(correct: Any) -> bytes | None:
    return np.packbits(correct).tobytes() if isinstance(correct, np.ndarray) else correct


def _numbered(classes: Any) -> list[str] | None:
    return [str(number) for number in range(classes)] if isinstance(classes, int) else classes
