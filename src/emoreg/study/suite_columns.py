"""What the table of results has of suites: a column for each figure, and one that says with which options.

`suites` is a JSON object of the suites that a run has scored: options, and which images the figures are of, in words.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from emoreg.errors import UserError
from emoreg.runs.run import Run
from emoreg.suites.figures import column
from emoreg.suites.options import Suite
from emoreg.suites.results import SuiteResult, read_result

COLUMN = "suites"


def suite_columns(run: Run, suites: Sequence[Suite]) -> dict[str, Any]:
    """The columns of a finished run of stage 2; of suites that it has not scored, or whose result is damaged, none."""
    found: list[SuiteResult] = []
    for suite in suites:
        with contextlib.suppress(UserError):  # scoring it says so
            if (result := read_result(run, suite)) is not None:
                found.append(result)
    if not found:
        return {}
    told = {each.suite: {"options": each.options, "images": each.images} for each in found}
    figures = {column(each.suite, name): value for each in found for name, value in each.figures.items()}
    return {COLUMN: json.dumps(told, sort_keys=True), **figures}


def missing_suites(row: Mapping[Any, Any], other: Mapping[Any, Any]) -> dict[str, Any]:
    """What another row of the same run has scored in suites, and this one has not, as values of its columns."""
    own, others = told_suites(row[COLUMN]), told_suites(other[COLUMN])
    if not (new := {suite: told for suite, told in others.items() if suite not in own}):
        return {}
    prefixes = tuple(column(suite, "") for suite in new)
    figures = {str(name): value for name, value in other.items() if str(name).startswith(prefixes)}
    return {COLUMN: json.dumps({**own, **new}, sort_keys=True), **figures}


def told_suites(value: Any) -> Mapping[str, Any]:
    """What a row says of its suites, from the column `suites`; nothing where that cannot be read."""
    try:
        read = json.loads(value) if isinstance(value, str) else {}
    except (ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}
