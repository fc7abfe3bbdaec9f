"""Random Dirichlet mixtures around the prior, as RegMix draws them (arXiv 2407.01492, section 3.1; its released code).

    strength ~ 15 values log-spaced over [.1, 5],   w ~ Dirichlet(strength * prior^.5 / sum prior^.5)

Shares below 2e-4 are set to 0. The caps are the space's own and, as released, 15 times the prior. Draws outside are
drawn again; where caps are so tight that this fails (most realistic ones), the rest is moved inside, which the
original does not do.
"""

from dataclasses import dataclass

import numpy as np

from raymix import simplex
from raymix.design.base import Observations, Pending, Proposal, Rng, SearchSpace
from raymix.design.evidence import best_seen
from raymix.design.schedule import numbered, rungs
from raymix.simplex import Array, Polytope

TEMPERATURE = 0.5  # exponent of the prior
STRENGTHS = np.geomspace(0.1, 5.0, 15)
MAX_OVER_PRIOR = 15.0
SMALLEST = 2e-4  # smaller shares are too few documents of a proxy to mean anything
TRIES = 10  # rounds of drawing again, before the rest is moved inside


@dataclass(frozen=True)
class RandomDirichlet:
    """Draws on the smallest rung, whatever was learnt."""

    space: SearchSpace

    def suggest(self, table: Observations, pending: Pending, n: int, rng: Rng) -> list[Proposal]:
        return numbered(self.space, dirichlet(self.space, n, rng), [rungs(self.space)[0]] * n, table, pending)

    def recommend(self, table: Observations) -> Array:
        """The best mixture seen."""
        return best_seen(self.space, table)


def dirichlet(space: SearchSpace, n: int, rng: Rng) -> Array:
    """n draws (n, K) inside the polytope."""
    polytope = released_caps(space)
    prior_K = space.prior_K() ** TEMPERATURE
    alpha_K = np.maximum(prior_K / prior_K.sum(), 1e-9)  # a Dirichlet has no zeros
    kept_BK = np.zeros((0, len(alpha_K)))
    for _ in range(TRIES):
        drawn_BK = _draw(alpha_K, n - len(kept_BK), rng)
        inside_B = polytope.contains(drawn_BK)
        kept_BK = np.concatenate([kept_BK, drawn_BK[inside_B]])
        if len(kept_BK) == n:
            return kept_BK
    return np.concatenate([kept_BK, into(polytope, drawn_BK[~inside_B])])


def _draw(alpha_K: Array, n: int, rng: Rng) -> Array:
    part_BK = rng.standard_gamma(rng.choice(STRENGTHS, size=n)[:, None] * alpha_K)
    part_BK[part_BK.sum(axis=1) <= 0, int(np.argmax(alpha_K))] = 1.0  # all parts underflowed
    mix_BK = simplex.normalise(part_BK)
    return simplex.normalise(np.where(mix_BK < SMALLEST, 0.0, mix_BK))


def released_caps(space: SearchSpace) -> Polytope:
    """The polytope with no share above 15 times its prior, unless that leaves it empty."""
    polytope = space.polytope()
    upper_K = np.minimum(polytope.upper_K, np.maximum(MAX_OVER_PRIOR * space.prior_K(), polytope.lower_K))
    tighter = Polytope(polytope.lower_K, upper_K, polytope.rows_GK, polytope.limit_G)
    try:
        simplex.vertex_along(tighter, np.zeros(polytope.n_domains))
    except ValueError:
        return polytope
    return tighter


def into(polytope: Polytope, mix_BK: Array) -> Array:
    """Rows moved into the polytope: the nearest point within the bounds, then towards the middle until groups hold.

    Groups with min = max hold in no part of that way: rows first move onto them.
    """
    if not len(mix_BK):
        return mix_BK
    low_B = (polytope.lower_K - mix_BK).min(axis=1)
    high_B = (polytope.upper_K - mix_BK).max(axis=1)
    for _ in range(60):  # bisection on the shift common to all shares of a row
        shift_B = 0.5 * (low_B + high_B)
        less_B = np.clip(mix_BK + shift_B[:, None], polytope.lower_K, polytope.upper_K).sum(axis=1) < 1
        low_B, high_B = np.where(less_B, shift_B, low_B), np.where(less_B, high_B, shift_B)
    moved_BK = np.clip(mix_BK + high_B[:, None], polytope.lower_K, polytope.upper_K)
    if not len(polytope.limit_G):
        return np.asarray(moved_BK)
    middle_K, identity_KK = simplex.interior_point(polytope), np.eye(polytope.n_domains)
    moved_BK = moved_BK - (moved_BK - middle_K) @ polytope.held_EK.T @ polytope.held_EK
    rows = np.vstack([polytope.rows_GK, identity_KK, -identity_KK])
    limits = np.concatenate([polytope.limit_G, polytope.upper_K, -polytope.lower_K])
    over_BG = moved_BK @ rows.T - limits
    room_G = np.maximum(limits - rows @ middle_K, 0.0)
    back_B = np.max(np.where(over_BG > simplex.ROUNDING, over_BG / np.maximum(over_BG + room_G, 1e-300), 0.0), axis=1)
    moved_BK = moved_BK + back_B[:, None] * (middle_K - moved_BK)
    return np.asarray(np.clip(moved_BK, polytope.lower_K, polytope.upper_K))  # rounding only
