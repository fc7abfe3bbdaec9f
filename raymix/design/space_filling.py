"""Space filling over the polytope: concentrated rows and scattered ones in turn, far from each other.

Scattered mixtures alone leave the corners unseen, and a law without corners does not know its floor (the loss that is
left when a domain has all the share). Corners alone, which are what is farthest apart, leave the inside to the law's
priors: where domains stand in for each other an answer from sixteen of them was worse than the prior
(benchmarks/LOG.md, "Corners and mixtures in turn"). So every second of the first 2 K trials goes towards a vertex,
none twice; the prior and its replicates take the first places.
"""

from dataclasses import dataclass

import numpy as np

from raymix import simplex
from raymix.design.base import Observations, Pending, Proposal, Rng, SearchSpace
from raymix.design.evidence import best_seen
from raymix.design.random_dirichlet import into
from raymix.design.schedule import numbered, rungs, scale_of
from raymix.simplex import Array, Polytope

N_CANDIDATES = 512
TOWARDS_VERTEX = 0.8  # how far a concentrated row goes from the middle to the vertex of its domain
SCATTER = 0.6  # Dirichlet parameter per domain, in the mean: below 1, so that shares differ by factors


@dataclass(frozen=True)
class SpaceFilling:
    """Replicates of the prior first, then mixtures far from everything tried."""

    space: SearchSpace
    smallest: bool = False
    """All on the smallest rung; else every second trial after the first round on a larger one (`schedule`)."""

    def suggest(self, table: Observations, pending: Pending, n: int, rng: Rng) -> list[Proposal]:
        polytope = self.space.polytope()
        prior_K = simplex.project(polytope, self.space.prior_K())
        start = n_trials(table, pending)
        first = min(self.space.budget.replicates + 1, n) if start == 0 else 0  # the prior and its replicates
        mixtures = [prior_K] * first
        concentrated_KK = concentrated(polytope)
        scattered_BK = scattered(polytope, prior_K, rng, max(N_CANDIDATES, n))
        before_BK = tried(table, pending, polytope.n_domains)
        for i in range(start + first, start + n):
            corner = i % 2 == 0 and i < 2 * polytope.n_domains
            pool_BK = concentrated_KK if corner else scattered_BK
            taken_BK = np.concatenate([before_BK, *(mix_K[None] for mix_K in mixtures)])
            mixtures.append(pool_BK[simplex.spread(pool_BK, 1, taken_BK)[0]])
        scales = [rungs(self.space)[0] if self.smallest else scale_of(self.space, start + i) for i in range(n)]
        return numbered(self.space, mixtures, scales, table, pending)

    def recommend(self, table: Observations) -> Array:
        """The best mixture seen."""
        return best_seen(self.space, table)


def n_trials(table: Observations, pending: Pending) -> int:
    """How many trials there are: those with rows, and those pending without."""
    seen = set(table.trial_ids)
    return len(seen) + sum(proposal.trial_id not in seen for proposal in pending)


def tried(table: Observations, pending: Pending, n_domains: int) -> Array:
    """All mixtures tried or pending (B, K)."""
    rows = [table.last().mix_BK] if len(table) else []
    rows += [proposal.mixture_K[None] for proposal in pending]
    return np.concatenate(rows) if rows else np.zeros((0, n_domains))


def candidates(polytope: Polytope, prior_K: Array, rng: Rng, n: int = N_CANDIDATES) -> Array:
    """One concentrated row per domain, n uniform points, and n between those and the prior."""
    uniform_BK = simplex.sample(polytope, n, rng)
    pull_B = rng.uniform(0, 1, size=(n, 1))
    near_BK = pull_B * uniform_BK + (1 - pull_B) * prior_K
    return np.concatenate([concentrated(polytope), uniform_BK, near_BK])


def concentrated(polytope: Polytope) -> Array:
    """A row per domain (K, K), from the middle towards the vertex with most of it."""
    middle = simplex.interior_point(polytope)
    vertices_KK = np.stack([simplex.vertex_along(polytope, -row) for row in np.eye(polytope.n_domains)])
    return np.asarray((1 - TOWARDS_VERTEX) * middle + TOWARDS_VERTEX * vertices_KK)


def scattered(polytope: Polytope, prior_K: Array, rng: Rng, n: int) -> Array:
    """n Dirichlet draws (n, K) about halfway between the prior and equal shares, moved into the polytope."""
    middle_K = 0.5 * prior_K + 0.5 / polytope.n_domains
    return into(polytope, rng.dirichlet(SCATTER * polytope.n_domains * middle_K, size=n))
