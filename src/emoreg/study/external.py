"""A table of results from elsewhere, checked: then a report can be made of it without the runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emoreg.errors import UserError, nearest, shortened
from emoreg.study.arms import ARMS
from emoreg.study.results import CURVES, read_results

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# What the columns that a report looks at hold: text, number, or lists of either.
KINDS = {
    r"run|status|error|arm|target|backbone|experience|pretext": "text",
    r"env\.(?!cores|threads|sessions).*": "text",
    r"stage|seed|lambda|seconds|parameters|flops|images_.*|env\..*": "number",
    r"(test|validation)_(per_class|reliability_.*)|lambda_per_class|epochs\..*": "numbers",
    r"(test|validation)_.*": "number",
    r"classes": "texts",
}
NEEDED = ("stage", "status", "run", "error", "arm", "target", "backbone", "experience", "pretext", "seed")
SHARES = ("test_accuracy", "test_ece", "test_per_class", "validation_accuracy", "lambda")  # in [0, 1]


def read_handed_on(path: Path) -> pd.DataFrame:
    """A results.parquet for a report. Folders that it names are forgotten: its curves are in the table.

    Raises:
        UserError: the file is not there or damaged, or a column is absent or holds what does not belong there.
    """
    from pyarrow import parquet

    table = read_results(path)
    kinds = {field.name: _kind(field.type) for field in parquet.read_schema(path)}
    # What no run has may be of any type: pandas writes it as absent numbers where runs are not finished.
    empty = [name for name in kinds if table[name].isna().all()]
    table[empty] = None
    if problem := _problem(table, kinds | dict.fromkeys(empty, "")):
        raise UserError(f"{path} cannot be read as a table of results: {problem}")
    return table.drop(columns="folder", errors="ignore")


def _kind(of: pa.DataType) -> str:
    import pyarrow as pa

    if pa.types.is_list(of) or pa.types.is_large_list(of):
        inner = _kind(of.value_type)
        return f"{inner}s" if inner in ("number", "text", "") else "lists"
    if pa.types.is_string(of) or pa.types.is_large_string(of):
        return "text"
    return "number" if pa.types.is_integer(of) or pa.types.is_floating(of) else "" if pa.types.is_null(of) else str(of)


def _problem(table: pd.DataFrame, kinds: dict[str, str]) -> str:
    """In a few words; empty if there is none."""
    for name in NEEDED:
        if name not in kinds:
            return f"it has no column '{name}'"
    for name, kind in kinds.items():
        expected = next((right for pattern, right in KINDS.items() if re.fullmatch(pattern, name)), kind)
        if kind not in ("", "s", expected):
            return f"column '{shortened(name)}' holds {shortened(kind)} in place of {expected}"
    if table[["stage", "seed"]].isna().to_numpy().any() or (table[["stage", "seed"]] % 1 != 0).to_numpy().any():
        return "a stage or seed is no whole number"
    finished = table[(table["stage"] == 2) & (table["status"] == "finished")]
    needed = ["arm", "target", "backbone", "test_accuracy"]
    if "test_accuracy" not in table or finished[needed].isna().to_numpy().any():
        return "a finished run lacks its arm, target, backbone or test_accuracy"
    for name in finished["arm"]:
        if name not in ARMS:
            return f"no arm is called '{shortened(name)}'{nearest(name, ARMS)}"
    return _odd_number(table, kinds)


def _odd_number(table: pd.DataFrame, kinds: dict[str, str]) -> str:
    """Infinities, shares that are none, curves of different lengths. NaN stands for what is absent."""
    for name, kind in kinds.items():
        there = table[name].dropna()
        if kind == "number":
            values = there.to_numpy(dtype=float)
        elif kind == "numbers" and not name.startswith(CURVES):  # a chart leaves out a loss that has run away
            values = np.concatenate([np.zeros(0), *there])
        else:
            continue
        if np.isinf(values).any():
            return f"a number in column '{shortened(name)}' is infinite"
        if name in SHARES and ((values < 0) | (values > 1)).any():
            return f"a number in column '{name}' is not in [0, 1]"
    for curves in table[[name for name in kinds if name.startswith(CURVES)]].itertuples(index=False):
        if len({len(curve) for curve in curves if curve is not None}) > 1:
            return "the curves of a run have different lengths"
    return ""
