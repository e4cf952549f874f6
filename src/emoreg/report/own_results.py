"""Results of anybody's own training loop: a table or a frame with a row per run, checked row by row.

What a study makes sure of, such as that arms differ in nothing but mode and experience, no table can show. `own_notes`
says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emoreg.config.outcomes import ACCURACY
from emoreg.errors import UserError, shortened
from emoreg.report.arm_names import arm_named
from emoreg.report.own_columns import OF_AN_ARM, SCORES, STORED, VALIDATED, check_columns, column_of, is_own, read_value
from emoreg.report.read_runs import ArrowFrame, in_pandas, read_runs
from emoreg.report.run_frame import EXPLORATION, Runs
from emoreg.study.columns import RunStatus
from emoreg.study.conform import conform
from emoreg.study.results_table import check_content, read_parquet

if TYPE_CHECKING:
    import pandas as pd

    Cells = Mapping[str, Any]

SUFFIXES = (".csv", ".tsv", ".parquet")
HEADER_BYTES = 2**16  # in which a study's columns `stage` and `status` stand, the first two
MOST_DECIMALS = 15  # that tell anything of a 64-bit float


@dataclass(frozen=True)
class OwnResults:
    """Checked results of an own loop."""

    source: str  # name of the file, or "the frame"
    columns: tuple[str, ...]  # as given, known ones in lower case
    names: tuple[str, ...]  # of each run's arm, as given
    frame: pd.DataFrame  # columns as given but for `arm`; `correct` as arrays of truth values, or packed
    places: tuple[str, ...]  # of the rows
    runs: Runs
    images: tuple[int | None, ...]  # test images of each run, where right or wrong is given


def read_own_results(path: Path) -> OwnResults | None:
    """Read a table of an own loop; None for a study's table, which has a column `stage` or `status`.

    Args:
        path: CSV (between commas, semicolons or tabs; where it is no comma, numbers may have a decimal comma) or
            Parquet.

    Raises:
        UserError: an unreadable file, an unknown or missing column, or a wrong value. It names the row, counted from 1
            with the header, and the nearest known name.
    """
    if path.suffix.lower() == ".parquet":
        return _from_parquet(path)
    if not is_own(_header(path)):
        return None
    from emoreg.data.images.files import File  # imports all image sets
    from emoreg.data.stimuli.tabular import read_any_rows

    sheet = File(path.name, path.parent)
    separator, rows = read_any_rows(sheet, "seed")
    found = [(f"{path}{place.removeprefix(str(sheet))}", row) for place, row in rows]
    places, cells = [place for place, _ in found], [row for _, row in found]
    point = "." if separator == "," else ","
    return _checked(path.name, f"{path}, row 1", tuple(cells[0]), places, cells, point, is_text=True)


def own_results(frame: pd.DataFrame | ArrowFrame) -> OwnResults | None:
    """Results of an own loop in a frame of pandas, polars, DuckDB or pyarrow; None for a study's table.

    Raises:
        UserError: as `read_own_results`; it names the row by the frame's index.
    """
    plain = in_pandas(frame)
    names = tuple(map(str, plain.columns))
    if not is_own(names):
        return None
    places = tuple(f"row {shortened(str(label), 40)}" for label in plain.index)
    rows = [dict(zip(names, row, strict=True)) for row in plain.itertuples(index=False, name=None)]
    return _checked("the frame", "the frame", names, places, rows)


def runs_of(frame: pd.DataFrame | ArrowFrame) -> Runs:
    """The runs of a frame, of an own loop or a study. UserError as `own_results` and `read_runs`."""
    own = own_results(frame)
    return read_runs(frame) if own is None else own.runs


def as_table(own: OwnResults) -> pd.DataFrame:
    """The results in the form of a study's table, for a report.

    A run without an accuracy has diverged. Classes that are only counted are numbered.

    Raises:
        UserError: further columns do not hold what a study's table has there.
    """
    import pandas as pd
    import pyarrow as pa

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
        ends["test_correct"] = [_packed(answers) for answers in frame["test_correct"]]
    if "classes" in frame:
        ends["classes"] = [_numbered(classes) for classes in frame["classes"]]
    frame = frame.assign(**ends)
    for name in ("target", "backbone"):
        frame[name] = frame[name].fillna(f"unnamed {name}") if name in frame else f"unnamed {name}"
    factors = {name: None for name in OF_AN_ARM if name not in frame}
    try:
        table: pd.DataFrame = conform(pa.Table.from_pandas(frame.assign(**factors), preserve_index=False)).to_pandas()
        check_content(table)
    except (ValueError, TypeError) as error:  # Arrow's own are of both kinds
        raise UserError(f"{own.source}: {shortened(str(error), 200)}") from None
    return table


def _from_parquet(path: Path) -> OwnResults | None:
    try:
        table = read_parquet(path)
    except Exception as error:  # a damaged file makes Arrow raise almost anything
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read as a table of results: {shortened(reason, 250)}") from None
    if not is_own(table.column_names):
        return None
    if twice := [name for name in table.column_names if table.column_names.count(name) > 1]:
        raise UserError(f"{path}: the column '{shortened(twice[0])}' occurs twice; keep one")
    plain = in_pandas(table)
    plain = plain[[name for name in plain if not re.fullmatch(r"__index_level_\d+__", str(name))]]
    names = tuple(map(str, plain.columns))
    places = tuple(f"{path}, row {number}" for number in range(1, len(plain) + 1))
    rows = [dict(zip(names, row, strict=True)) for row in plain.itertuples(index=False, name=None)]
    return _checked(path.name, str(path), names, places, rows)


def _header(path: Path) -> list[str]:
    """About the names in the first line of a CSV file, which tell what kind of table it is."""
    try:
        with path.open("rb") as file:
            first = file.read(HEADER_BYTES).decode("utf-8-sig", "replace").partition("\n")[0]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    return [cell.strip(" \"'\r") for cell in re.split(r"[,;\t|]", first)]


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
    try:
        check_columns(names)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    read, given, images = [], [], []
    for place, row in zip(places, rows, strict=True):
        try:
            values = {column_of(name): read_value(column_of(name), cell, point, is_text) for name, cell in row.items()}
            given.append(", ".join(str(values[name]) for name in ("arm", *OF_AN_ARM) if values.get(name) is not None))
            if "arm" in values:
                values |= arm_named(values.pop("arm"))._asdict()
        except UserError as error:
            raise UserError(f"{place}: {error}") from None
        read.append(values)
    _unpack(read)
    for place, values in zip(places, read, strict=True):
        try:
            images.append(_take_answers(values, is_text))
        except UserError as error:
            raise UserError(f"{place}: {error}") from None
    columns = list(dict.fromkeys(name for values in read for name in values)) or list(names)
    frame = pd.DataFrame({name: _column([values[name] for values in read]) for name in columns}, range(len(read)))
    runs = read_runs(frame, places)
    _refuse_other_images(runs, places, images)
    return OwnResults(source, names, tuple(given), frame, tuple(places), runs, tuple(images))


def _refuse_other_images(runs: Runs, places: Sequence[str], images: Sequence[int | None]) -> None:
    """UserError where runs that are compared have answered different numbers of images."""
    for arms in runs.cells.values():
        answered = [(row, images[row]) for rows in arms.values() for row in rows.values() if images[row] is not None]
        for row, number in answered:
            if number != answered[0][1]:
                raise UserError(
                    f"{places[row]}: {number:,} images are answered, and {answered[0][1]:,} in "
                    f"{places[answered[0][0]]}: what is compared is scored on the same images"
                )


def _column(values: list[Any]) -> pd.Series[Any]:
    """Values as they are: pandas would make floats of whole numbers, and matrices of lists."""
    import pandas as pd

    return pd.Series(values, dtype=object)


def _unpack(rows: Sequence[dict[str, Any]]) -> None:
    """Make truth values of packed answers, where the accuracies tell how many images they are of.

    Packing fills the last byte up with zeros. Runs of one target are of the same images, so their number is, of those
    that fit the bytes, the one that their accuracies, which may be rounded, fit best; by the median, so that one run
    with another's answers is found out itself.
    """
    alike: dict[tuple[Any, ...], list[tuple[dict[str, Any], str]]] = {}
    for values in rows:
        name, packed = _answers_of(values)
        accuracy = values.get(_score_of(values))
        if name is not None and isinstance(packed, bytes) and packed and accuracy is not None and np.isfinite(accuracy):
            alike.setdefault((values.get("target"), values.get("purpose"), len(packed)), []).append((values, name))
    for runs in alike.values():
        bits = np.unpackbits(np.array([np.frombuffer(values[name], dtype=np.uint8) for values, name in runs]), axis=1)
        accuracies = np.array([values[_score_of(values)] for values, _ in runs])
        most = bits.shape[1]
        least = max(most - 7, int(np.flatnonzero(bits.any(axis=0)).max(initial=0)) + 1)
        possible = np.arange(most, least - 1, -1)
        errors = np.median(np.abs(bits.sum(axis=1) / possible[:, None] - accuracies), axis=1)
        for (values, name), answers in zip(runs, bits[:, : possible[np.argmin(errors)]] == 1, strict=True):
            values[name] = answers


def _answers_of(values: Mapping[str, Any]) -> tuple[str | None, Any]:
    """The column of a run's right or wrong per image, and its content; None without any."""
    name = next((name for name in ("correct", STORED["correct"]) if values.get(name) is not None), None)
    return name, None if name is None else values[name]


def _score_of(values: Mapping[str, Any]) -> str:
    return next((name for name in SCORES if name in values), "accuracy")


def _take_answers(values: dict[str, Any], is_text: bool) -> int | None:
    """The number of images that a run answered, if that is given; its accuracy becomes that of its answers.

    UserError if the accuracy is another one, or missing.
    """
    name, answers = _answers_of(values)
    of = _score_of(values)
    accuracy = values.get(of)
    if isinstance(answers, np.ndarray):
        exact = float(answers.mean())
        if accuracy is not None and not abs(exact - accuracy) <= _precision(accuracy):
            raise UserError(
                f"{of} is {accuracy}, and {int(answers.sum()):,} of {answers.size:,} answers in {name} are right, "
                f"which is {exact:.6g}: they are of different runs"
            )
        values[of] = exact
        return answers.size
    is_validated = any(values.get(name) is not None for name in VALIDATED)
    if answers is not None and of not in values and not is_validated:
        raise UserError(
            f"{name} is packed, which leaves open how many images it is of: give the {of} too, or unpacked answers"
        )
    if accuracy is None and is_text and not is_validated:
        raise UserError(f"{of} is empty; write nan for a run that diverged, and leave out runs that are not finished")
    values.setdefault(of, None)
    return None


def _precision(accuracy: float) -> float:
    """What rounding, or cutting, to the decimals that a number has may have changed; at least two are meant."""
    if not np.isfinite(accuracy):
        return 0.0
    decimals = len(np.format_float_positional(accuracy, MOST_DECIMALS, trim="-").partition(".")[2])
    return float(10.0 ** -max(2, decimals)) + 1e-9


def _packed(answers: Any) -> bytes | None:
    return np.packbits(answers).tobytes() if isinstance(answers, np.ndarray) else answers


def _numbered(classes: Any) -> list[str] | None:
    return [str(number) for number in range(classes)] if isinstance(classes, int) else classes
