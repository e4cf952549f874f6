"""The smallest difference that the test of a study finds with probability 0.8."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, partial
from itertools import combinations

import numpy as np

from emoreg.report.contrast_kinds import to_beat
from emoreg.report.contrast_sizes import OTHERS
from emoreg.report.contrasts import JudgedContrast
from emoreg.report.looks import nominal_levels
from emoreg.report.power import WANTED, Spread, simulated_differences, spread_of
from emoreg.report.run_frame import TWINS, Runs
from emoreg.report.statistics import LEVEL, TIE, estimate, smallest_tail
from emoreg.report.verdicts import Verdict

SEARCHED = 400  # simulated studies, with all choices of twins: the error of a smallest effect is about 2 %
SMALLEST = "smallest_effect"  # column of a contrast frame


def smallest_effects(runs: Runs, contrasts: Sequence[JudgedContrast]) -> list[float]:
    """The difference that the test of each contrast finds with probability 0.8.

    It depends on the spread of the cell without collapsed runs, and on the contrast's seeds, twins, looks and family.
    All twins are assumed equally good, the hardest case, as in `simulate_power`. With a plan, the spread is that of the
    seeds of the last complete look. A contrast that has a collapsed run itself is not tested.

    Returns:
        Shares, as in the contrasts; NaN if nothing is tested, no data could pass, or the spread is unknown.
    """
    spread_among = cache(partial(spread_of, runs))
    return [_smallest_effect(runs, one, spread_among) for one in contrasts]


def _smallest_effect(runs: Runs, one: JudgedContrast, spread_among: Callable[..., Spread | None]) -> float:
    cell, seeds, looks = one.contrast.cell, len(one.seeds), one.contrast.planned
    if one.decision.verdict not in (Verdict.ABOVE, Verdict.NOT_ABOVE, Verdict.BELOW) or seeds not in looks:
        return math.nan
    has_plan = (cell, one.contrast.arm) in runs.plans
    spread = spread_among(cell, one.seeds if has_plan else None)
    if spread is None or not spread.sd > 100 * TIE:
        return math.nan
    share = round(spread.image_sd / spread.sd, 2)
    return spread.sd / 100 * _smallest(seeds, looks, one.decision.family, share)[to_beat(one.contrast.name)]


@lru_cache(maxsize=128)
def _smallest(seeds: int, looks: tuple[int, ...], arms: int, share: float) -> Mapping[int, float]:
    """The smallest effect by the number of arms to beat, in units of the spread; NaN if no data could pass.

    A test passes if its lower limit is above 0, and an effect shifts this limit by its own size. So the limits of
    simulated studies without an effect tell how large an effect would have passed.
    """
    differences = simulated_differences(share, len(TWINS) + 1, seeds, SEARCHED)
    needed = []  # at each look: (studies, others)
    for look, level in zip(looks, nominal_levels(looks, LEVEL / arms), strict=True):
        if look > seeds or look < 2 or smallest_tail(look) > level + TIE:
            continue
        is_early = look < looks[-1]
        low = estimate(differences[:, :look], share**2, level, is_early=is_early).low
        if share:  # as in `contrast_sizes`: images must not make an interval narrower
            low = np.minimum(low, estimate(differences[:, :look], 0.0, level, is_early=is_early).low)
        needed.append(-low.reshape(SEARCHED, -1))
    at_looks = np.array(needed) if needed else np.full((1, SEARCHED, len(TWINS) + 1), math.inf)
    smallest = {}
    for count in OTHERS:
        # Backbone and the twins are alike here, so any one, three or five of them can represent a contrast.
        chosen = [at_looks[..., list(columns)].max(axis=-1) for columns in combinations(range(len(TWINS) + 1), count)]
        effect = float(np.quantile(np.min(chosen, axis=1), WANTED, method="higher"))
        smallest[count] = effect if math.isfinite(effect) else math.nan
    return smallest
