"""Olmix (arXiv 2602.12237): random runs, a log-linear law per eval domain, and its exact optimum near the prior.

    minimise  sum_i s_i L_i(w) + pull * KL(w || prior),     L_i = c_i + exp(a_i . w)

pull = .05, as in its experiments (.05 to .1). Runs are Dirichlet draws around the prior; its repetition caps are
the space's epoch caps. Where we differ: the law is fitted by one MAP fit (`laws.LogLinear`).
"""

from dataclasses import dataclass, replace

from raymix.design.base import Pending, Proposal, Rng
from raymix.design.evidence import enough, one_scale, prior_inside
from raymix.design.random_dirichlet import RandomDirichlet
from raymix.laws import make_law
from raymix.observations import Observations
from raymix.simplex import Array
from raymix.space import SearchSpace
from raymix.target.objective import objective_of
from raymix.target.optimum import minimise


@dataclass(frozen=True)
class Olmix:
    """Random runs; the answer is the optimum of the log-linear law, pulled to the prior."""

    space: SearchSpace
    pull: float = 0.05

    def suggest(self, table: Observations, pending: Pending, n: int, rng: Rng) -> list[Proposal]:
        return RandomDirichlet(self.space).suggest(table, pending, n, rng)

    def recommend(self, table: Observations) -> Array:
        rows = one_scale(self.space, table)
        if not enough(rows):
            return prior_inside(self.space)
        law = make_law("log_linear").fit(rows.mix_BK, rows.scale_B2, rows.loss_BM)
        objective = replace(objective_of(self.space, law), pull=self.pull)
        return minimise(objective, self.space.polytope()).mixture_K
