"""CLIMB (arXiv 2504.13161, section 3.2): rounds of runs, each drawn from what a regression on all before likes best.

Three rounds of 64, 32 and 16 runs there; here 4/7, 2/7 and 1/7 of the space's trials. The first is Dirichlet draws
around the prior; for the others a regression (LightGBM with shallow trees and ridge, after secondary sources) ranks
many candidates, and the runs are drawn at random from the best of them. The answer is the candidate that the last
regression likes best.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from raymix import simplex
from raymix.design.base import Array, Observations, Pending, Proposal, Rng, SearchSpace
from raymix.design.evidence import one_scale, prior_inside
from raymix.design.random_dirichlet import RandomDirichlet, dirichlet
from raymix.design.regmix import predicted
from raymix.design.schedule import numbered, rungs
from raymix.design.space_filling import n_trials

PUBLISHED_TRIALS = 112  # where the space has another kind of budget
ROUNDS = (4 / 7, 6 / 7)  # parts of the budget at whose end the next round begins
N_CANDIDATES = 5_000
TOP = 4  # runs of a round are drawn from the best TOP x runs of it
TREES: dict[str, Any] = {
    "learning_rate": 0.02,
    "n_estimators": 300,
    "max_depth": 4,
    "min_data_in_leaf": 5,
    "lambda_l1": 1e-3,
    "lambda_l2": 1e-3,
}
SEED = 0  # of the candidates behind the answer: it is a function of the table


@dataclass(frozen=True)
class Climb:
    """Rounds that climb towards what the regression likes."""

    space: SearchSpace

    def suggest(self, table: Observations, pending: Pending, n: int, rng: Rng) -> list[Proposal]:
        start, trials = n_trials(table, pending), self._trials
        rows = self._before(table, start)
        if start < ROUNDS[0] * trials or len(rows) < 2:
            return RandomDirichlet(self.space).suggest(table, pending, n, rng)
        part = ROUNDS[1] - ROUNDS[0] if start < ROUNDS[1] * trials else 1 - ROUNDS[1]
        candidates_BK = dirichlet(self.space, N_CANDIDATES, rng)
        order = np.argsort(predicted(self.space, rows, candidates_BK, TREES), kind="stable")
        top = order[: max(TOP * round(part * trials), n)]
        chosen = rng.choice(top, size=n, replace=False)
        return numbered(self.space, candidates_BK[chosen], [rungs(self.space)[0]] * n, table, pending)

    @property
    def _trials(self) -> int:
        return self.space.budget.trials or PUBLISHED_TRIALS

    def _before(self, table: Observations, start: int) -> Observations:
        """The rows that the regression of this round sees: all trials of the rounds before."""
        ends = [round(part * self._trials) for part in ROUNDS]
        known = max((end for end in ends if end <= start), default=0)
        return one_scale(self.space, table.select(table.run_B < known))

    def recommend(self, table: Observations) -> Array:
        rows = one_scale(self.space, table)
        if len(rows) < 2:
            return prior_inside(self.space)
        drawn_BK = dirichlet(self.space, N_CANDIDATES, np.random.default_rng(SEED))
        candidates_BK = np.concatenate([rows.mix_BK, drawn_BK])
        best = int(np.argmin(predicted(self.space, rows, candidates_BK, TREES)))
        return simplex.project(self.space.polytope(), candidates_BK[best])
