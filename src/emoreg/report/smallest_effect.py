"""How large a difference has to be for the very test that a study does to find it with a probability of 0.8."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from emoreg.report.contrast_plan import LABEL_TWINS, PRACTICAL, TESTED
from emoreg.report.contrasts import key_of
from emoreg.report.looks import nominal_levels
from emoreg.report.power import WANTED, simulated_differences, spread_of
from emoreg.report.read_runs import read_runs
from emoreg.report.run_frame import TWINS
from emoreg.report.statistics import LEVEL, TIE, estimate, smallest_tail
from emoreg.report.verdicts import Verdict

if TYPE_CHECKING:
    import pandas as pd

SEARCHED = 400  # studies simulated for a smallest effect, with all choices of twins: its error is about 2 %
SMALLEST = "smallest_effect"  # column of a contrast frame
# How many must be beaten.
OTHERS = {**dict.fromkeys(PRACTICAL, 1), "label": len(LABEL_TWINS), "emotion": len(TWINS)}


def smallest_effects(table: pd.DataFrame, frame: pd.DataFrame) -> list[float]:
    """For each row of a contrast frame the difference that its test finds with a probability of 0.8.

    From the spread of its cell without runs that collapsed, with its seeds, twins, looks and number of arms, all twins
    equally good: the hardest case, as for `simulate_power`. A contrast with a collapsed run of its own is not tested.

    Args:
        table: as for `contrasts.analyse`.
        frame: what that made of it.

    Returns:
        Shares, as the points of the frame; NaN where nothing is tested, no data could pass, or the spread is unknown.
    """
    runs = read_runs(table)
    spreads = {cell: spread_of(runs, cell) for cell in runs.cells}
    found = []
    for record in frame.to_dict("records"):
        row = {str(name): value for name, value in record.items()}
        (cell, arm), seeds = key_of(row), int(row["n"])
        spread, plan = spreads[cell], runs.plans.get((cell, arm))
        is_decided = row["verdict"] in (Verdict.ABOVE, Verdict.NOT_ABOVE, Verdict.BELOW)
        looks = plan.looks if plan is not None else (seeds,)
        if row["contrast"] not in TESTED or not is_decided or spread is None or seeds not in looks or not spread.sd > 0:
            found.append(math.nan)
            continue
        share = round(spread.image_sd / spread.sd, 2)
        found.append(spread.sd / 100 * _smallest(seeds, looks, spread.arms, share)[OTHERS[row["contrast"]]])
    return found


@lru_cache(maxsize=128)
def _smallest(seeds: int, looks: tuple[int, ...], arms: int, share: float) -> Mapping[int, float]:
    """The smallest effect by the number of others that must be beaten, in units of the spread; NaN if none could pass.

    A test passes if its lower limit is above 0, and an effect moves the limit by itself: of a simulated study without
    an effect the limits tell from which effect on it would have passed.
    """
    differences = simulated_differences(share, len(TWINS) + 1, seeds, SEARCHED)
    needed = []  # at each look: (studies, others)
    for look, level in zip(looks, nominal_levels(looks, LEVEL / arms), strict=True):
        if look > seeds or look < 2 or smallest_tail(look) > level + TIE:
            continue
        is_early = look < looks[-1]
        low = estimate(differences[:, :look], share**2, level, is_early=is_early).low
        if share:  # as in `contrasts`: images never help
            low = np.minimum(low, estimate(differences[:, :look], 0.0, level, is_early=is_early).low)
        needed.append(-low.reshape(SEARCHED, -1))
    at_looks = np.array(needed) if needed else np.full((1, SEARCHED, len(TWINS) + 1), math.inf)
    smallest = {}
    for count in set(OTHERS.values()):
        # Backbone and the twins are alike here, so that any one, three or five of them stand for a contrast.
        chosen = [at_looks[..., list(columns)].max(axis=-1) for columns in combinations(range(len(TWINS) + 1), count)]
        effect = float(np.quantile(np.min(chosen, axis=1), WANTED, method="higher"))
        smallest[count] = effect if math.isfinite(effect) else math.nan
    return smallest
