"""Model-free search through Optuna's samplers: the baseline a hyper-parameter tool gives.

A mixture is parametrised by one number per domain in [0, 1]: w_k ~ -log(1 - x_k), normalised, which makes uniform x a
uniform draw from the simplex (Devroye 1986, XI.4), and then moved into the polytope. The Optuna study is rebuilt
from the table at every call, so nothing is hidden.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raymix import simplex
from raymix.design.base import Proposal
from raymix.design.schedule import scale_of
from raymix.design.space_filling import SpaceFilling, n_trials
from raymix.objective import reduce_losses
from raymix.observations import Observations
from raymix.simplex import Array
from raymix.space import SearchSpace

EDGE = 1e-6  # x stays this far from 1, where a share would be all of it


@dataclass(frozen=True)
class ModelFree:
    """TPE by default (`sampler="gp"` or `"random"` for Optuna's others), after a space-filling first round."""

    space: SearchSpace
    sampler: str = "tpe"

    def suggest(
        self, table: Observations, pending: Sequence[Proposal], n: int, rng: np.random.Generator
    ) -> list[Proposal]:
        """See `Designer.suggest`."""
        start = n_trials(table, pending)
        last = table.usable().last()
        if start < self.space.budget.per_round or not len(last):
            return SpaceFilling(self.space).suggest(table, pending, n, rng)
        polytope = self.space.polytope()
        found = self._ask(last, n, int(rng.integers(2**31)))
        mixtures = [simplex.project(polytope, _mixture(x_K)) for x_K in found]
        return [Proposal(mix_K, scale_of(self.space, start + i), 0) for i, mix_K in enumerate(mixtures)]

    def _ask(self, last: Observations, n: int, seed: int) -> Array:
        """n points x (n, K) from an Optuna study of the finished trials."""
        import optuna
        from optuna.distributions import FloatDistribution
        from optuna.trial import create_trial

        names = [str(k) for k in range(len(self.space.domains))]
        over = {name: FloatDistribution(0.0, 1.0 - EDGE) for name in names}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant_liar is marked experimental
            study = optuna.create_study(sampler=self._sampler(optuna.samplers, seed))
        for mix_K, value in zip(last.mix_BK, self._values(last), strict=True):
            if np.isfinite(value):
                params = dict(zip(names, _point(mix_K).tolist(), strict=True))
                study.add_trial(create_trial(params=params, distributions=dict(over), value=float(value)))
        asked = [study.ask(dict(over)) for _ in range(n)]
        return np.asarray([[trial.params[name] for name in names] for trial in asked])

    def _sampler(self, samplers: Any, seed: int) -> Any:
        if self.sampler == "tpe":
            return samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=0)
        if self.sampler in ("gp", "random"):
            return {"gp": samplers.GPSampler, "random": samplers.RandomSampler}[self.sampler](seed=seed)
        raise ValueError(f"unknown sampler {self.sampler!r}: tpe, gp or random")

    def _values(self, last: Observations) -> Array:
        """The objective of each trial, relative to the median of its size: sizes are no merit of a mixture."""
        value_B = reduce_losses(last.loss_BM, self.space.weights_M, self.space.objective.reduce)
        size_B = last.scale_B2[:, 0]
        for size in np.unique(size_B):
            value_B[size_B == size] -= np.nanmedian(value_B[size_B == size])
        return value_B


def _mixture(x_K: Array) -> Array:
    spacing_K = -np.log1p(-x_K)
    return simplex.normalise(spacing_K + 1e-12)


def _point(mix_K: Array) -> Array:
    """One of the points that map to a mixture: the one whose spacings have mean 1."""
    return np.asarray(np.clip(-np.expm1(-mix_K * len(mix_K)), 0.0, 1.0 - EDGE))
