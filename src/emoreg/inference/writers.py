"""Write predictions as JSON Lines or CSV, row by row."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from emoreg.config.read_recipe import flatten
from emoreg.errors import UserError
from emoreg.inference.predict import Prediction
from emoreg.runtime.safe_io import writing

FORMATS = (".jsonl", ".csv")


def json_line(row: dict[str, Any]) -> str:
    """Format a row as a line of JSON, without the line break."""
    return json.dumps(row, ensure_ascii=False)


@contextlib.contextmanager
def row_writer(path: Path, with_all: bool = False) -> Iterator[Callable[[Prediction], None]]:
    """Yield a function that writes a prediction as a row. The complete file appears at `path` when the block ends.

    CSV has a column for each value; names of nested values have a dot ("non_emotional.class"). A process that is killed
    leaves its rows in a hidden file beside `path`, which no other process writes.

    Args:
        path: ends in .jsonl or .csv.
        with_all: include the probabilities of all classes or labels.

    Raises:
        UserError: `path` ends otherwise, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"{path} must end in {' or '.join(FORMATS)}")
    # Open for hours, without a lock on the folder: `hold` would take a .part for a leftover and delete it.
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.unfinished")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("x", encoding="utf-8", newline="") as file:
                table, has_header = csv.writer(file), False

                def write(prediction: Prediction) -> None:
                    nonlocal has_header
                    row = prediction.row(with_all)
                    if suffix == ".jsonl":
                        file.write(json_line(row) + "\n")
                        return
                    columns = dict(flatten(row))
                    for name, value in columns.items():
                        if isinstance(value, list):
                            columns[name] = "; ".join(value)
                    if not has_header:
                        table.writerow(columns)
                        has_header = True
                    table.writerow(columns.values())

                yield write
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
