"""What more trials could still gain at the target, as far as the law knows.

The bootstrap laws are what the truth may be. Whoever knew which one it is would use its optimum; what that gains over
the mixture recommended now, on average, is the expected value of perfect information, and bounds what any number of
further trials is expected to gain.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raymix.simplex import Array, Polytope
from raymix.target.objective import ObjectiveAtScale
from raymix.target.optimum import minimise

N_LAWS = 16  # of the draws: the mean of a bounded gain needs fewer than its quantiles


def expected_improvement(drawn: Sequence[ObjectiveAtScale], polytope: Polytope, mix_K: Array) -> float:
    """Mean over at most `N_LAWS` laws of how much better their own optimum is than `mix_K`, in nats."""
    gains = []
    for each in drawn[:N_LAWS]:
        here, there = each.values(np.stack([mix_K, minimise(each, polytope).mixture_K]))
        gains.append(max(float(here - there), 0.0))
    return float(np.mean(gains)) if gains else float("nan")
