"""The scores of runs in suites, by cell and arm, with contrasts of the first figure of each suite.

The contrasts are those of accuracy, with the same tests (`contrasts.judged_contrasts`), over seeds alone: right or
wrong for each image is not kept. Each figure has its own family, the regulated arms of a cell; the number of suites is
not corrected for.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from emoreg.report.analysis import CellResult, Difference, SuiteCell
from emoreg.report.contrasts import JudgedContrast, judged_contrasts
from emoreg.report.run_frame import Arm, Cell, Runs
from emoreg.report.statistics import Interval, interval
from emoreg.study.suite_columns import COLUMN, parse_suites
from emoreg.suites.figures import Figure, column, headlines
from emoreg.suites.options import SUITES

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

# Patterns of figures that are shown beside the headlines: each attack, and each other set.
MORE = {"adversarial": r"pgd_[\d.]+", "out_of_distribution": r".+_auroc_msp", "transfer": r".+_backbone_accuracy"}
MOST = 8  # columns of a table
WITH_BACKBONE = ("ensemble", "unregulated")  # modes whose first network is Backbone, trained alone


def suite_cells(table: pd.DataFrame, runs: Runs, cells: Sequence[CellResult]) -> tuple[SuiteCell, ...]:
    """The suites of each cell, in the order of `SUITES`; empty for a table without any.

    Args:
        table: rows of stage 2.
        runs: the runs read from these rows.
        cells: the cells of these runs.
    """
    names = [name for name in SUITES if any(str(each).startswith(column(name, "")) for each in table.columns)]
    if not names or COLUMN not in table:
        return ()
    records = [parse_suites(value) for value in table[COLUMN]]
    with_arms = [cell for cell, arms in runs.cells.items() if arms]
    suites = [
        _suite_cell(table, runs, key, cell, name, records)
        for key, cell in zip(with_arms, cells, strict=True)
        for name in names
    ]
    return tuple(suite for suite in suites if suite is not None)


def _suite_cell(
    table: pd.DataFrame, runs: Runs, key: Cell, cell: CellResult, suite: str, records: Sequence[Mapping[str, Any]]
) -> SuiteCell | None:
    arms = {arm: runs.of_plan(key, arm) for arm in runs.cells[key]}
    scored = [row for by_seed in arms.values() for row in by_seed.values() if isinstance(records[row].get(suite), dict)]
    figures = _figures(table, suite)
    if not scored or not figures:
        return None
    options = {row: json.dumps(records[row][suite].get("options"), sort_keys=True) for row in scored}
    common = Counter(options.values()).most_common(1)[0][0]
    kept = {row for row in scored if options[row] == common}
    # Earlier versions recorded no contents of other sets.
    contents = {row: json.dumps(each, sort_keys=True) for row in kept if (each := records[row][suite].get("contents"))}
    if contents:
        usual = Counter(contents.values()).most_common(1)[0][0]
        kept -= {row for row, each in contents.items() if each != usual}
    scored_arms = _of_rows(arms, kept)
    images = {str(records[row][suite].get("images")) for row in kept}
    return SuiteCell(
        cell=cell,
        suite=suite,
        figures=figures,
        values={arm: _intervals(table, suite, figures, by_seed.values()) for arm, by_seed in scored_arms.items()},
        contrasts=_contrasts(table, runs, key, arms, kept, suite, figures[0]),
        images=min(images) + (", in this or another number" if len(images) > 1 else ""),
        other_options=len(scored) - len(kept),
    )


def _of_rows(arms: Mapping[Arm, Mapping[int, int]], rows: Container[int]) -> dict[Arm, dict[int, int]]:
    """The arms with these rows only, without arms that have none."""
    of_rows = {arm: {seed: row for seed, row in by_seed.items() if row in rows} for arm, by_seed in arms.items()}
    return {arm: by_seed for arm, by_seed in of_rows.items() if by_seed}


def _figures(table: pd.DataFrame, suite: str) -> tuple[Figure, ...]:
    """The figures to show, as far as the table has them."""
    shown = [figure for figure in headlines(suite) if column(suite, figure.name) in table]
    if suite in MORE and shown:
        names = [str(name).removeprefix(column(suite, "")) for name in table if str(name).startswith(column(suite, ""))]
        extra = [name for name in names if re.fullmatch(MORE[suite], name)]
        if len(extra) > 1:
            shown += [Figure(name, _title(name)) for name in extra]
    return tuple(shown[:MOST])


def _title(figure: str) -> str:
    title = figure.replace("_", " ").replace("auroc msp", "AUROC")
    return title.replace("backbone accuracy", "backbone").replace("pgd", "PGD, eps")


def _intervals(
    table: pd.DataFrame, suite: str, figures: Sequence[Figure], rows: Iterable[int]
) -> Mapping[str, Interval]:
    scored = table.iloc[list(rows)]
    return {
        figure.name: interval(
            tuple(scored[column(suite, figure.name)].dropna().astype(float)), figure.least, figure.largest
        )
        for figure in figures
    }


def _contrasts(
    table: pd.DataFrame,
    runs: Runs,
    key: Cell,
    arms: Mapping[Arm, Mapping[int, int]],
    scored: Iterable[int],
    suite: str,
    figure: Figure,
) -> Mapping[Arm, Mapping[str, Difference]]:
    sign = -1.0 if figure.lower_is_better else 1.0
    values: NDArray[np.float64] = sign * table[column(suite, figure.name)].to_numpy(dtype=float)
    known = {row for row in scored if not math.isnan(values[row])}
    # Without arms that were not scored, and those that would report the gain a second time.
    compared = {
        arm: rows
        for arm, rows in arms.items()
        if not known.isdisjoint(rows.values()) and not (figure.is_of_backbone and arm.mode in WITH_BACKBONE)
    }
    # No suite scores a run that diverged. It stays, without a figure, so that its contrasts collapse as in accuracy.
    known |= set(np.flatnonzero(np.isnan(runs.scores)).tolist())
    least, largest = sorted((sign * figure.least, sign * figure.largest))
    nothing = [None] * len(table)
    of_figure = dataclasses.replace(
        runs,
        cells={key: _of_rows(compared, known)},
        scores=values,
        correct=nothing,
        checksum=nothing,
        bounds=(least, largest),
        _cache={},
    )
    found: dict[Arm, dict[str, Difference]] = {}
    for one in judged_contrasts(of_figure):
        if one.contrast.is_tested:
            found.setdefault(one.contrast.arm, {})[one.contrast.name] = _contrast(one, sign, largest - least)
    return found


def _contrast(one: JudgedContrast, sign: float, span: float) -> Difference:
    """A contrast in the figure's own sign, without limits if these are at the ends of the range."""
    low, high = sorted((sign * one.size.low, sign * one.size.high))
    if not (low > -span and high < span):
        low = high = math.nan
    # To show a mean with its interval only the number of values is needed.
    size = Interval(sign * one.size.point, low, high, (math.nan,) * len(one.seeds))
    return Difference(
        against=one.size.against,
        size=size,
        level=one.contrast.looks[-1].level,
        p=one.decision.p_of_verdict,
        decided_at=one.decision.decided_at,
        verdict=one.decision.verdict,
    )
