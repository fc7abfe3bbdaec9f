"""DDO's perturbations (AutoScale, arXiv 2407.20177, section 3.2): a base run; per domain one with less, one with more.

2K + 1 runs. The quantity of one domain is multiplied by 1/3 or 3, those of the others stay, and the run keeps its
number of tokens: shares are the quantities, normalised. The base is the prior (there: equal quantities). The answer
is the optimum of the per-domain power law (`laws.power`) at the target. Where we differ: the original lets the number
of tokens change with the perturbation; a rung of a ladder has one.
"""

from dataclasses import dataclass

import numpy as np

from raymix import simplex
from raymix.design.base import Array, Observations, Pending, Proposal, Rng, SearchSpace
from raymix.design.evidence import one_scale, optimum_by
from raymix.design.random_dirichlet import into
from raymix.design.schedule import numbered, rungs
from raymix.design.space_filling import n_trials
from raymix.laws import make_law
from raymix.laws.ddo import perturbations

FACTORS = (1 / 3, 3.0)  # as its text has them
LEAST_BASE = 1e-3  # a domain outside the prior has no quantity to multiply


@dataclass(frozen=True)
class Perturbations:
    """Base, then less and more of each domain, in turn; after 2K + 1 runs again with another seed."""

    space: SearchSpace

    def suggest(self, table: Observations, pending: Pending, n: int, rng: Rng) -> list[Proposal]:
        polytope = self.space.polytope()
        base_K = simplex.normalise(np.maximum(simplex.project(polytope, self.space.prior_K()), LEAST_BASE))
        runs_BK = into(polytope, perturbations(base_K, *FACTORS)[0])
        start = n_trials(table, pending)
        mixtures = [runs_BK[(start + i) % len(runs_BK)] for i in range(n)]
        return numbered(self.space, mixtures, [rungs(self.space)[0]] * n, table, pending)

    def recommend(self, table: Observations) -> Array:
        rows = one_scale(self.space, table)
        law, own_M = make_law("autoscale"), self.space.own_M
        return optimum_by(self.space, rows, lambda: law.fit(rows.mix_BK, rows.scale_B2, rows.loss_BM, own_M=own_M))
