"""The grid of Data Mixing Laws (arXiv 2403.16952, section 4, appendix F): shares halved step by step, 40 runs, 20 kept.

A candidate gives every domain but one a share from the list u, u/2, u/4, ..., 0, where u is its largest allowed share,
and the last takes what is left: losses, exponential in the shares, then spread evenly. Of these, 40 far from each other
are trained. The law is fitted to groups of 20, and the group with the least error on all 40 gives the answer.
Where we differ: groups are drawn at random; the domain that takes the rest changes from candidate to candidate.
"""

from dataclasses import dataclass

import numpy as np

from raymix import simplex
from raymix.design.base import Observations, Pending, Proposal, Rng, SearchSpace
from raymix.design.evidence import one_scale, optimum_by
from raymix.design.random_dirichlet import into
from raymix.design.schedule import numbered, rungs
from raymix.design.space_filling import tried
from raymix.laws import Law, make_law
from raymix.simplex import Array, Polytope

N_RUNS, N_KEPT = 40, 20
HALVINGS = 6  # below 1/64 of the largest share: 0
N_GRID = 2000  # candidates from which the runs are chosen
N_GROUPS = 16
SEED = 0  # of the grid: it is a function of the space


@dataclass(frozen=True)
class Halving:
    """The halving grid on the smallest rung, in order; then more of it."""

    space: SearchSpace

    def suggest(self, table: Observations, pending: Pending, n: int, rng: Rng) -> list[Proposal]:
        polytope = self.space.polytope()
        grid_BK = grid(polytope, N_GRID, np.random.default_rng(SEED))
        runs_BK = grid_BK[simplex.spread(grid_BK, N_RUNS, np.zeros((0, polytope.n_domains)))]
        taken_BK = tried(table, pending, polytope.n_domains)
        if len(taken_BK):  # the table may have rounded them
            runs_BK = runs_BK[np.abs(runs_BK[:, None] - taken_BK).max(axis=2).min(axis=1) > 1e-6]
        if len(runs_BK) < n:
            more = simplex.spread(grid_BK, n - len(runs_BK), np.concatenate([taken_BK, runs_BK]))
            runs_BK = np.concatenate([runs_BK, grid_BK[more]])
        mixtures = [runs_BK[i % len(runs_BK)] for i in range(n)]  # tight caps may leave fewer than n
        return numbered(self.space, mixtures, [rungs(self.space)[0]] * n, table, pending)

    def recommend(self, table: Observations) -> Array:
        rows = one_scale(self.space, table)
        rows = rows.select(np.arange(min(len(rows), N_RUNS)))
        return optimum_by(self.space, rows, lambda: _kept(rows, np.random.default_rng(SEED)))


def grid(polytope: Polytope, n: int, rng: Rng) -> Array:
    """Candidates (up to n, K) inside the polytope, all different."""
    K = polytope.n_domains
    halves_KH = polytope.upper_K[:, None] * np.append(0.5 ** np.arange(HALVINGS + 1), 0.0)
    halves_KH = np.maximum(halves_KH, polytope.lower_K[:, None])
    out_BK = np.zeros((n, K))
    left_B = np.ones(n)
    order_BK = rng.permuted(np.tile(np.arange(K), (n, 1)), axis=1)
    rows = np.arange(n)
    for step in range(K - 1):
        k_B, later_BK = order_BK[:, step], order_BK[:, step + 1 :]
        most_B, least_B = polytope.upper_K[later_BK].sum(axis=1), polytope.lower_K[later_BK].sum(axis=1)
        share_BH = halves_KH[k_B]
        fits_BH = (share_BH <= (left_B - least_B)[:, None] + 1e-12) & (share_BH >= (left_B - most_B)[:, None] - 1e-12)
        score_BH = np.where(fits_BH, rng.random(fits_BH.shape), -1.0)
        share_B = share_BH[rows, score_BH.argmax(axis=1)]
        nearest_B = np.clip(share_B, left_B - most_B, left_B - least_B)  # where no halving fits
        out_BK[rows, k_B] = nearest_B
        left_B = left_B - nearest_B
    out_BK[rows, order_BK[:, -1]] = left_B
    return np.unique(np.round(into(polytope, out_BK), 12), axis=0) if K > 1 else out_BK


def _kept(rows: Observations, rng: Rng) -> Law:
    """M4 on the group of 20 whose fit errs least on all runs."""
    if len(rows) <= N_KEPT:
        return make_law("m4").fit(rows.mix_BK, rows.scale_B2, rows.loss_BM)
    best: tuple[float, Law] | None = None
    for _ in range(N_GROUPS):
        group = rng.permutation(len(rows))[:N_KEPT]
        if not np.isfinite(rows.loss_BM[group]).any(axis=0).all():
            continue
        law = make_law("m4").fit(rows.mix_BK[group], rows.scale_B2[group], rows.loss_BM[group])
        error = float(np.nanmean(np.abs(law.predict(rows.mix_BK, rows.scale_B2) - rows.loss_BM)))
        if best is None or error < best[0]:
            best = (error, law)
    return best[1] if best else make_law("m4").fit(rows.mix_BK, rows.scale_B2, rows.loss_BM)
