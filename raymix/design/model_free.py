"""Model-free search through Optuna's samplers: the baselines a hyper-parameter tool gives.

A mixture is parametrised by one number per domain in [0, 1]: w_k ~ -log(1 - x_k), normalised, which makes uniform x a
uniform draw from the simplex (Devroye 1986, XI.4), and then moved into the polytope. The Optuna study is rebuilt
from the table at every call, so nothing is hidden; pending trials are running ones in it, at which TPE expects
nothing good (constant liar). CMA-ES has a state that Optuna keeps beside its trials; here it is
`cmaes`, on which Optuna's sampler is built, told the table generation by generation, with that sampler's settings.
The answer is the best mixture seen.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raymix import simplex
from raymix.design.base import Proposal
from raymix.design.evidence import best_seen, prior_inside
from raymix.design.numbering import numbered
from raymix.design.schedule import scale_of
from raymix.design.space_filling import SpaceFilling, n_trials
from raymix.observations import Observations
from raymix.simplex import Array
from raymix.space import SearchSpace
from raymix.target.objective import reduce_losses

EDGE = 1e-6  # x stays this far from 1, where a share would be all of it
SAMPLERS = ("tpe", "gp", "cmaes", "random")
CMA_STEP = 1 / 6  # of the range: optuna.samplers.CmaEsSampler, sigma0


@dataclass(frozen=True)
class ModelFree:
    """TPE by default (`sampler="gp"`, `"cmaes"` or `"random"` for the others), after a space-filling first round."""

    space: SearchSpace
    sampler: str = "tpe"

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ValueError(f"unknown sampler {self.sampler!r}: {', '.join(SAMPLERS)}")

    def suggest(
        self, table: Observations, pending: Sequence[Proposal], n: int, rng: np.random.Generator
    ) -> list[Proposal]:
        """See `Designer.suggest`."""
        start = n_trials(table, pending)
        last = table.usable().last()
        if start < self.space.budget.per_round or not np.isfinite(self._values(last)).any():
            return SpaceFilling(self.space).suggest(table, pending, n, rng)
        polytope = self.space.polytope()
        seed = int(rng.integers(2**31))
        found = self._evolve(last, n, seed) if self.sampler == "cmaes" else self._ask(last, pending, n, seed)
        mixtures = [simplex.project(polytope, _mixture(x_K)) for x_K in found]
        return numbered(self.space, mixtures, [scale_of(self.space, start + i) for i in range(n)], table, pending)

    def recommend(self, table: Observations) -> Array:
        """See `Recommender.recommend`."""
        return best_seen(self.space, table)

    def _ask(self, last: Observations, pending: Sequence[Proposal], n: int, seed: int) -> Array:
        """n points x (n, K) from an Optuna study of the finished and the running trials."""
        import optuna
        from optuna.distributions import FloatDistribution
        from optuna.trial import TrialState, create_trial

        names = [str(k) for k in range(len(self.space.domains))]
        over = {name: FloatDistribution(0.0, 1.0 - EDGE) for name in names}

        def trial(mix_K: Array, **kind: Any) -> Any:
            params = dict(zip(names, _point(mix_K).tolist(), strict=True))
            return create_trial(params=params, distributions=dict(over), **kind)

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant_liar is marked experimental
            study = optuna.create_study(sampler=self._sampler(optuna.samplers, seed))
            for mix_K, value in zip(last.mix_BK, self._values(last), strict=True):
                if np.isfinite(value):
                    study.add_trial(trial(mix_K, value=float(value)))
            for proposal in pending:
                study.add_trial(trial(proposal.mixture_K, state=TrialState.RUNNING))
            asked = [study.ask(dict(over)) for _ in range(n)]
        return np.asarray([[trial.params[name] for name in names] for trial in asked])

    def _sampler(self, samplers: Any, seed: int) -> Any:
        if self.sampler == "tpe":
            return samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=0)
        if self.sampler == "gp":
            return samplers.GPSampler(seed=seed, n_startup_trials=0, deterministic_objective=False)
        return samplers.RandomSampler(seed=seed)

    def _evolve(self, last: Observations, n: int, seed: int) -> Array:
        """n points x (n, K) of the generation that follows those in the table."""
        try:
            from cmaes import CMA
        except ImportError:
            raise ImportError("CMA-ES needs the package cmaes: pip install 'raymix[bench]'") from None

        K = len(self.space.domains)
        bounds = np.tile([0.0, 1.0 - EDGE], (K, 1))
        state = CMA(mean=_point(prior_inside(self.space)), sigma=CMA_STEP, bounds=bounds, seed=seed % 2**31)
        value_B = self._values(last)
        points = [_point(mix_K) for mix_K in last.mix_BK[np.isfinite(value_B)]]
        told = list(zip(points, value_B[np.isfinite(value_B)].tolist(), strict=True))
        size = state.population_size
        for end in range(size, len(told) + 1, size):
            state.tell(told[end - size : end])
        return np.stack([state.ask() for _ in range(n)])

    def _values(self, last: Observations) -> Array:
        """The objective of each trial, relative to the median of its size: sizes are no merit of a mixture."""
        value_B = reduce_losses(last.loss_BM, self.space.weights_M, self.space.objective.reduce)
        size_B = last.scale_B2[:, 0]
        for size in np.unique(size_B):
            known_B = (size_B == size) & np.isfinite(value_B)
            if known_B.any():
                value_B[known_B] -= np.median(value_B[known_B])
        return value_B


def _mixture(x_K: Array) -> Array:
    spacing_K = -np.log1p(-x_K)
    return simplex.normalise(spacing_K + 1e-12)


def _point(mix_K: Array) -> Array:
    """One of the points that map to a mixture: the one whose spacings have mean 1."""
    return np.asarray(np.clip(-np.expm1(-mix_K * len(mix_K)), 0.0, 1.0 - EDGE))
