"""What a budget can resolve: the smallest gain over the prior mixture that so many trials tell from noise.

A calculation before any data, so a linear one: the objective at one size is c + sum_k beta_k r_k^b, the exposure form
of our law with b fixed; trials are spread uniformly over what is allowed; the noise of one run is given. Its
90% half-width for the difference between an allowed mixture and the prior is what such trials resolve. Trials
that a designer places may do better; what is lost between proxy and target comes on top.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raymix import simplex
from raymix.design.space_filling import candidates
from raymix.simplex import Array
from raymix.space import SearchSpace

EXPONENT = 0.5  # b of r^b: between linear (1) and logarithmic (0)
PRIOR_SD = 1.0  # nats per unit of exposure: weak
Z90 = 1.645


@dataclass(frozen=True)
class Budgeted:
    """One budget: with so many trials a gain of `resolves` nats is seen (90%) for the typical allowed mixture."""

    trials: int
    resolves: float


def compare_budgets(space: SearchSpace, trials: Sequence[int], noise: float, seed: int = 0) -> list[Budgeted]:
    """What each number of trials resolves, given the noise of one run in nats.

    Raises:
        ValueError: the noise is not positive.
    """
    if not noise > 0:
        raise ValueError(f"the noise of one run is {noise} nats, it must be above 0")
    rng = np.random.default_rng(seed)
    prior_K = simplex.project(space.polytope(), space.prior_K())
    offered_BK = candidates(space.polytope(), prior_K, rng)
    difference_BF = _features(offered_BK) - _features(prior_K[None])
    tried_BK = simplex.sample(space.polytope(), max(trials), rng)
    return [Budgeted(n, _half_width(_features(tried_BK[:n]), difference_BF, noise)) for n in trials]


def _features(mix_BK: Array) -> Array:
    """Intercept and exposures (B, K + 1)."""
    return np.concatenate([np.ones((len(mix_BK), 1)), np.asarray(mix_BK) ** EXPONENT], axis=1)


def _half_width(tried_BF: Array, difference_BF: Array, noise: float) -> float:
    """90% half-width of the gain of the median candidate, nats."""
    precision_FF = tried_BF.T @ tried_BF / noise**2 + np.eye(tried_BF.shape[1]) / PRIOR_SD**2
    variance_B = np.einsum("bf,bf->b", difference_BF, np.linalg.solve(precision_FF, difference_BF.T).T)
    return float(Z90 * np.median(np.sqrt(variance_B)))
