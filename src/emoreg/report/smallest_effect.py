"""How large a difference has to be for the very test that a study does to find it with a probability of 0.8."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache, partial
from itertools import combinations

import numpy as np

from emoreg.report.contrast_kinds import to_beat
from emoreg.report.contrast_sizes import OTHERS
from emoreg.report.contrasts import Judged
from emoreg.report.looks import nominal_levels
from emoreg.report.power import WANTED, simulated_differences, spread_of
from emoreg.report.run_frame import TWINS, Runs
from emoreg.report.statistics import LEVEL, TIE, estimate, smallest_tail
from emoreg.report.verdicts import Verdict

SEARCHED = 400  # studies simulated for a smallest effect, with all choices of twins: its error is about 2 %
SMALLEST = "smallest_effect"  # column of a contrast frame


def smallest_effects(runs: Runs, contrasts: Sequence[Judged]) -> list[float]:
    """For each contrast of runs the difference that its test finds with a probability of 0.8.

    From the spread of its cell without runs that collapsed, with its seeds, twins, looks and number of arms, all twins
    equally good: the hardest case, as for `simulate_power`. With a plan the spread is of the seeds of its look: those
    since, and those beyond the plan, are in no figure. A contrast with a collapsed run of its own is not tested.

    Returns:
        Shares, as the contrasts; NaN where nothing is tested, no data could pass, or the spread is unknown.
    """
    spread_among = cache(partial(spread_of, runs))
    found = []
    for one in contrasts:
        cell, seeds, looks = one.contrast.cell, len(one.seeds), one.contrast.planned
        is_decided = one.decision.verdict in (Verdict.ABOVE, Verdict.NOT_ABOVE, Verdict.BELOW)
        if not is_decided or seeds not in looks:
            found.append(math.nan)
            continue
        has_plan = (cell, one.contrast.arm) in runs.plans
        spread = spread_among(cell, one.seeds if has_plan else None)
        if spread is None or not spread.sd > 100 * TIE:
            found.append(math.nan)
            continue
        share = round(spread.image_sd / spread.sd, 2)
        smallest = _smallest(seeds, looks, spread.arms, share)[to_beat(one.contrast.name)]
        found.append(spread.sd / 100 * smallest)
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
    for count in OTHERS:
        # Backbone and the twins are alike here, so that any one, three or five of them stand for a contrast.
        chosen = [at_looks[..., list(columns)].max(axis=-1) for columns in combinations(range(len(TWINS) + 1), count)]
        effect = float(np.quantile(np.min(chosen, axis=1), WANTED, method="higher"))
        smallest[count] = effect if math.isfinite(effect) else math.nan
    return smallest
