"""Planned looks at a growing study: how much of the level each may spend."""

from __future__ import annotations

import functools
import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from emoreg.report.statistics import LEVEL, RESAMPLES, TIE, smallest_tail

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_ARMS = int(LEVEL * (RESAMPLES + 1))  # with more regulated arms no test passes: their least p is too large
NODES = 400  # of the integral over the paths that passed at no earlier look
FAR = 8.0  # that integral starts so many standard deviations below 0


@functools.lru_cache(maxsize=256)
def nominal_levels(looks: tuple[int, ...], level: float) -> tuple[float, ...]:
    """The one-sided level at which each look tests, so that all together err with probability `level`.

    After a share t of the planned seeds, 2 - 2 Φ(z_(level / 2) / √t) of the error may be spent. This is the spending
    function of Lan & DeMets (1983) that resembles O'Brien & Fleming's design. The probability of passing first at a
    look is integrated recursively (Armitage, McPherson & Rowe 1969). SciPy's multivariate normal is not accurate enough
    for levels of one in a million, and packages with group-sequential designs are large dependencies.

    Args:
        looks: numbers of seeds, ascending; the last is the number that the study planned.
        level: one-sided level of the whole study, in (0, 0.5).
    """
    if len(looks) == 1:
        return (level,)
    from scipy.optimize import brentq

    normal = NormalDist()
    z = -normal.inv_cdf(level / 2)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    levels: list[float] = []
    spent = before = 0.0
    places, density = np.zeros(1), np.ones(1)  # of Brownian motion at the previous look, if it passed at none
    for look in looks:
        time = look / looks[-1]
        may_spend = 2 * normal.cdf(-z / math.sqrt(time))
        new = may_spend - spent
        step = math.sqrt(time - before)
        bound = brentq(_excess, 0.0, 40.0, args=(places / step, density, step, new), xtol=1e-12)
        levels.append(normal.cdf(-bound / math.sqrt(time)))
        low = -FAR * math.sqrt(time)
        grid = low + (bound - low) * (nodes + 1) / 2
        kernel = np.exp(-(((grid[:, None] - places) / step) ** 2) / 2) / (step * math.sqrt(2 * math.pi))
        density = (kernel @ density) * weights * (bound - low) / 2
        places, spent, before = grid, may_spend, time
    return tuple(levels)


def possible_looks(looks: tuple[int, ...], arms: int) -> tuple[int, ...]:
    """The looks at which some data could pass a test: few seeds have no p small enough for an early look's level.

    Args:
        looks: as for `nominal_levels`.
        arms: number of regulated arms that share the level.
    """
    levels = nominal_levels(looks, LEVEL / arms)
    return tuple(look for look, level in zip(looks, levels, strict=True) if smallest_tail(look) <= level + TIE)


def _excess(bound: float, places: NDArray[np.float64], density: NDArray[np.float64], step: float, new: float) -> float:
    """The error spent with this bound, minus `new`; `places` are in units of `step`."""
    from scipy.special import ndtr

    return float(density @ ndtr(places - bound / step)) - new
