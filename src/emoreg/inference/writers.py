"""Predictions as rows of a file: JSON Lines or CSV, written while they come."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from emoreg.config.recipe import flatten
from emoreg.errors import UserError
from emoreg.inference.predict import Prediction

Write = Callable[[Prediction], None]
FORMATS = (".jsonl", ".csv")


def json_line(row: dict[str, Any]) -> str:
    """One row as one line of JSON, without its end."""
    return json.dumps(row, ensure_ascii=False)


@contextlib.contextmanager
def rows_file(path: Path, with_all: bool = False) -> Iterator[Write]:
    """Within, call the given function with each prediction. The file is there, whole, when all are written.

    CSV has a column for each value, those within others as "non_emotional.class".

    Args:
        path: ends in .jsonl or .csv.
        with_all: the probabilities of all classes too.

    Raises:
        UserError: another ending, or it cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"{path} must end in {' or '.join(FORMATS)}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="") as file:
            write = _csv_writer(file) if path.suffix.lower() == ".csv" else _json_writer(file)
            yield lambda prediction: write(prediction.row(with_all))
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _json_writer(file: TextIO) -> Callable[[dict[str, Any]], None]:
    def write(row: dict[str, Any]) -> None:
        file.write(json_line(row) + "\n")

    return write


def _csv_writer(file: TextIO) -> Callable[[dict[str, Any]], None]:
    writer = csv.writer(file)
    is_first = True

    def write(row: dict[str, Any]) -> None:
        nonlocal is_first
        values = dict(flatten(row))
        if is_first:
            writer.writerow(values)
            is_first = False
        writer.writerow(values.values())

    return write
