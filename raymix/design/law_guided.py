"""Rounds guided by the law: what it believes is best at the target, where it is unsure, and what is far.

Of each round, half are Thompson points: the optimum at the target of a law refitted to a bootstrap sample of
the trials, so that exploration is spent where it changes the optimum. The others are far from everything
tried, among the better half of the polytope as the law sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raymix import simplex
from raymix.design.base import Proposal
from raymix.design.schedule import scale_of
from raymix.design.space_filling import SpaceFilling, candidates, n_trials, tried
from raymix.laws import Law, bootstrap, make_law
from raymix.observations import Observations
from raymix.optimum import minimise, objective_of
from raymix.simplex import Array
from raymix.space import SearchSpace

MIN_TRIALS = 4  # below that a law only repeats its priors


@dataclass(frozen=True)
class LawGuided:
    """The default: space filling for the first round, then the law."""

    space: SearchSpace
    law: str = "union"

    def suggest(
        self, table: Observations, pending: Sequence[Proposal], n: int, rng: np.random.Generator
    ) -> list[Proposal]:
        """See `Designer.suggest`."""
        usable = table.usable()
        if usable.run_B.max(initial=-1) + 1 < MIN_TRIALS:
            return SpaceFilling(self.space).suggest(table, pending, n, rng)
        start = n_trials(table, pending)
        law = self._fit(usable)
        large = [i for i in range(n) if scale_of(self.space, start + i) != scale_of(self.space, 0)]
        small = [i for i in range(n) if i not in large]
        guided = (large or small)[: (n + 1) // 2]  # Thompson points are trained as near to the target as we can
        best_BK = self._thompson(usable, len(guided), rng)
        if start and large and not _seen_at(table, pending, scale_of(self.space, start + large[0]).n_params):
            best_BK[0] = simplex.project(self.space.polytope(), self.space.prior_K())  # the prior, paired across sizes
        far_BK = self._spread(law, table, pending, best_BK, n - len(guided), rng)
        mixtures = dict(zip(guided, best_BK, strict=True))
        mixtures |= dict(zip((i for i in range(n) if i not in mixtures), far_BK, strict=True))
        return [Proposal(mixtures[i], scale_of(self.space, start + i), 0) for i in range(n)]

    def _fit(self, usable: Observations) -> Law:
        law = make_law(self.law)
        return law.fit(usable.mix_BK, usable.scale_B2, usable.loss_BM, usable.run_B, self.space.own_M)

    def _thompson(self, usable: Observations, n: int, rng: np.random.Generator) -> Array:
        """n optima at the target (n, K), each of a law on its own bootstrap sample of trials."""
        polytope = self.space.polytope()
        laws = bootstrap(
            make_law(self.law), usable.mix_BK, usable.scale_B2, usable.loss_BM, usable.run_B, self.space.own_M, n, rng
        )
        return np.stack([minimise(objective_of(self.space, law), polytope).mixture_K for law in laws])

    def _spread(
        self,
        law: Law,
        table: Observations,
        pending: Sequence[Proposal],
        chosen_BK: Array,
        n: int,
        rng: np.random.Generator,
    ) -> Array:
        """n points far from all tried and chosen (n, K), from the half of the candidates that the law likes better."""
        polytope = self.space.polytope()
        candidates_BK = candidates(polytope, simplex.project(polytope, self.space.prior_K()), rng)
        value_B = objective_of(self.space, law).values(candidates_BK)
        better_BK = candidates_BK[value_B <= np.median(value_B)]
        taken_BK = np.concatenate([tried(table, pending, polytope.n_domains), chosen_BK])
        return np.asarray(better_BK[simplex.spread(better_BK, n, taken_BK)])


def _seen_at(table: Observations, pending: Sequence[Proposal], n_params: float) -> bool:
    """Whether any trial is near this size (realised sizes differ a little from nominal ones)."""
    sizes = [*table.column("n_params").tolist(), *(proposal.scale.n_params for proposal in pending)]
    return bool(sizes) and float(np.abs(np.log(np.asarray(sizes) / n_params)).min()) < 0.3
