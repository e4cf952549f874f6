"""The columns of suites in the table of results: one for each figure, and `suites`.

`suites` is a JSON object of the suites that a run was scored in: their options, a description of the images, and
checksums of the files of other sets.
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
    """The columns of a finished run of stage 2, for all suites that it has a readable result of."""
    results: list[SuiteResult] = []
    for suite in suites:
        with contextlib.suppress(UserError):  # a damaged result; scoring reports it
            if (result := read_result(run, suite)) is not None:
                results.append(result)
    if not results:
        return {}
    scored = {
        each.suite: {"options": each.options, "images": each.images, "contents": each.contents} for each in results
    }
    figures = {column(each.suite, name): value for each in results for name, value in each.figures.items()}
    return {COLUMN: json.dumps(scored, sort_keys=True), **figures}


def missing_suites(row: Mapping[Any, Any], other: Mapping[Any, Any]) -> dict[str, Any]:
    """The columns of suites that another row of the same run has and this one lacks."""
    own, others = parse_suites(row[COLUMN]), parse_suites(other[COLUMN])
    new = {suite: facts for suite, facts in others.items() if suite not in own}
    if not new:
        return {}
    prefixes = tuple(column(suite, "") for suite in new)
    figures = {str(name): value for name, value in other.items() if str(name).startswith(prefixes)}
    return {COLUMN: json.dumps({**own, **new}, sort_keys=True), **figures}


def parse_suites(value: Any) -> Mapping[str, Any]:
    """Parse a value of the column `suites`; an unreadable one is empty."""
    try:
        read = json.loads(value) if isinstance(value, str) else {}
    except (ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}
