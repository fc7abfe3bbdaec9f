"""Olmix (arXiv 2602.12237): random runs, a log-linear law per eval domain, and its exact optimum near the prior.

    minimise  sum_i s_i L_i(w) + pull * KL(w || prior),     L_i = c_i + exp(a_i . w)

pull = .05, as in its experiments (.05 to .1). Runs are Dirichlet draws around the prior; its repetition caps are
the space's epoch caps. Where we differ: the law is fitted by one MAP fit (`laws.LogLinear`).
"""

from dataclasses import dataclass

from raymix.design.base import Array, Observations, Pending, Proposal, Rng, SearchSpace
from raymix.design.evidence import one_scale, optimum_by
from raymix.design.random_dirichlet import RandomDirichlet
from raymix.laws import make_law


@dataclass(frozen=True)
class Olmix:
    """Random runs; the answer is the optimum of the log-linear law, pulled to the prior."""

    space: SearchSpace
    pull: float = 0.05

    def suggest(self, table: Observations, pending: Pending, n: int, rng: Rng) -> list[Proposal]:
        return RandomDirichlet(self.space).suggest(table, pending, n, rng)

    def recommend(self, table: Observations) -> Array:
        rows = one_scale(self.space, table)
        law = make_law("log_linear")
        return optimum_by(self.space, rows, lambda: law.fit(rows.mix_BK, rows.scale_B2, rows.loss_BM), self.pull)
