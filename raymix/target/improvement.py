"""What more trials could still gain at the target, as far as the law knows.

The bootstrap laws are what the truth may be. Whoever knew which one it is would use its optimum; what that gains over
the mixture recommended now, on average, is the expected value of perfect information, and bounds what any number of
further trials is expected to gain.
"""

from collections.abc import Iterable
from itertools import islice

import numpy as np

from raymix.simplex import Array, Polytope
from raymix.target.objective import ObjectiveAtScale
from raymix.target.optimum import minimise

N_LAWS = 16  # the mean of a gain that is never below 0 needs fewer laws than a quantile would


def expected_improvement(
    drawn: Iterable[ObjectiveAtScale], polytope: Polytope, mix_K: Array, bound: float = np.inf
) -> float:
    """Mean over at most `N_LAWS` laws of how much better their own optimum is than `mix_K`, in nats.

    No gain is below 0, so that the first laws may be enough to know that the mean is at least `bound`: then no more are
    drawn, and what comes back is what it is at least.
    """
    gains: list[float] = []
    for each in islice(drawn, N_LAWS):
        here, there = each.values(np.stack([mix_K, minimise(each, polytope).mixture_K]))
        gains.append(max(float(here - there), 0.0))
        if sum(gains) >= bound * N_LAWS:
            return sum(gains) / N_LAWS
    return float(np.mean(gains)) if gains else float("nan")
