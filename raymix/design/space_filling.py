"""Space filling over the polytope, with concentrated rows.

Spread mixtures alone leave the corners unseen, and a law without corners does not know its floor (the loss
that is left when a domain has all the share). So the candidates are uniform points of the polytope, points
drawn around the prior, and the vertex towards each domain; the chosen ones are far from each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raymix import simplex
from raymix.design.base import Proposal
from raymix.design.evidence import best_seen
from raymix.design.numbering import numbered
from raymix.design.schedule import rungs, scale_of
from raymix.observations import Observations
from raymix.simplex import Array, Polytope
from raymix.space import SearchSpace

N_CANDIDATES = 512
TOWARDS_VERTEX = 0.8  # how far a concentrated row goes from the middle to the vertex of its domain


@dataclass(frozen=True)
class SpaceFilling:
    """Replicates of the prior first, then mixtures far from everything tried."""

    space: SearchSpace
    smallest: bool = False
    """All on the smallest rung; else every second trial after the first round on a larger one (`schedule`)."""

    def suggest(
        self, table: Observations, pending: Sequence[Proposal], n: int, rng: np.random.Generator
    ) -> list[Proposal]:
        """See `Designer.suggest`."""
        polytope = self.space.polytope()
        prior_K = simplex.project(polytope, self.space.prior_K())
        start = n_trials(table, pending)
        first = min(self.space.budget.replicates + 1, n) if start == 0 else 0  # the prior and its replicates
        mixtures = [prior_K] * first
        taken_BK = np.concatenate([tried(table, pending, polytope.n_domains), *(mix_K[None] for mix_K in mixtures)])
        candidates_BK = candidates(polytope, prior_K, rng, max(N_CANDIDATES, n))
        mixtures += list(candidates_BK[simplex.spread(candidates_BK, n - first, taken_BK)])
        scales = [rungs(self.space)[0] if self.smallest else scale_of(self.space, start + i) for i in range(n)]
        return numbered(self.space, mixtures, scales, table, pending)

    def recommend(self, table: Observations) -> Array:
        """The best mixture seen."""
        return best_seen(self.space, table)


def n_trials(table: Observations, pending: Sequence[Proposal]) -> int:
    """How many trials there are: those with rows, and those pending without."""
    return len(set(table.trial_ids)) + len(pending)


def tried(table: Observations, pending: Sequence[Proposal], n_domains: int) -> Array:
    """All mixtures tried or pending (B, K)."""
    rows = [table.last().mix_BK] if len(table) else []
    rows += [proposal.mixture_K[None] for proposal in pending]
    return np.concatenate(rows) if rows else np.zeros((0, n_domains))


def candidates(polytope: Polytope, prior_K: Array, rng: np.random.Generator, n: int = N_CANDIDATES) -> Array:
    """One concentrated row per domain, n uniform points, and n between those and the prior."""
    uniform_BK = simplex.sample(polytope, n, rng)
    pull_B = rng.uniform(0, 1, size=(n, 1))
    near_BK = pull_B * uniform_BK + (1 - pull_B) * prior_K
    middle = simplex.interior_point(polytope)
    vertices_KK = np.stack([simplex.vertex_along(polytope, -row) for row in np.eye(polytope.n_domains)])
    return np.concatenate([(1 - TOWARDS_VERTEX) * middle + TOWARDS_VERTEX * vertices_KK, uniform_BK, near_BK])
