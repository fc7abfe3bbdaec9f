"""RegMix (arXiv 2407.01492): random runs, a regression, and the mean of what it likes best among many candidates.

Runs are Dirichlet draws around the prior (`random_dirichlet`). Afterwards one LightGBM model per eval domain
(learning rate .01, 1000 trees, else its defaults: released notebook; without LightGBM the linear regression of the
paper's section 3.2), 100,000 candidates drawn like the runs, and as answer the mean of the best 128. With LightGBM's
default of 20 rows per leaf it splits nothing below 40 runs; the released settings are kept.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from raymix import simplex
from raymix.design.base import Array, Observations, Pending, Proposal, Rng, SearchSpace
from raymix.design.evidence import one_scale, prior_inside
from raymix.design.random_dirichlet import RandomDirichlet, dirichlet
from raymix.target.objective import objective_values

N_CANDIDATES = 100_000
N_BEST = 128
TREES: dict[str, Any] = {"learning_rate": 0.01, "n_estimators": 1000}
SEED = 0  # of the candidates: the answer is a function of the table


@dataclass(frozen=True)
class RegMix:
    """Random runs; the answer is the mean of the best candidates."""

    space: SearchSpace
    n_candidates: int = N_CANDIDATES

    def suggest(self, table: Observations, pending: Pending, n: int, rng: Rng) -> list[Proposal]:
        return RandomDirichlet(self.space).suggest(table, pending, n, rng)

    def recommend(self, table: Observations) -> Array:
        rows = one_scale(self.space, table)
        if len(rows) < 2:
            return prior_inside(self.space)
        candidates_BK = dirichlet(self.space, self.n_candidates, np.random.default_rng(SEED))
        value_B = predicted(self.space, rows, candidates_BK, TREES)
        best = np.argsort(value_B, kind="stable")[:N_BEST]
        return simplex.project(self.space.polytope(), candidates_BK[best].mean(axis=0))


def predicted(space: SearchSpace, rows: Observations, mix_BK: Array, settings: dict[str, Any]) -> Array:
    """The objective (B,) under one regression per eval domain of the objective."""
    used = space.weights_M > 0
    loss_BM = np.zeros((len(mix_BK), len(used)))
    for i in np.flatnonzero(used):
        loss_BM[:, i] = _regress(rows.mix_BK, rows.loss_BM[:, i], mix_BK, settings)
    return objective_values(space, loss_BM)


def _regress(mix_RK: Array, loss_R: Array, mix_BK: Array, settings: dict[str, Any]) -> Array:
    try:
        import lightgbm
    except ImportError:
        slope_K, *_ = np.linalg.lstsq(mix_RK, loss_R, rcond=None)  # shares sum to 1: the intercept is inside
        return np.asarray(mix_BK @ slope_K)
    params = {"objective": "regression", "verbosity": -1, "seed": 42, "num_threads": 1, "deterministic": True}
    params |= {key: value for key, value in settings.items() if key != "n_estimators"}
    data = lightgbm.Dataset(mix_RK, loss_R)
    model = lightgbm.train(params, data, num_boost_round=settings["n_estimators"])
    return np.asarray(model.predict(mix_BK, num_threads=1))
