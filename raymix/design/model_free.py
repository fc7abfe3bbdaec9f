"""Model-free search through Optuna's samplers: the baselines a hyper-parameter tool gives.

A mixture is parametrised by one number per domain in [0, 1]: w_k ~ -log(1 - x_k), normalised, which makes uniform x a
uniform draw from the simplex (Devroye 1986, XI.4), or, near the prior, w_k ~ prior_k exp(LOG_REACH (2 x_k - 1)); then
it is moved into the polytope. The Optuna study is rebuilt from the table at every call, so nothing is hidden; pending
trials are running ones in it, at which TPE expects nothing good (constant liar). CMA-ES has a state that Optuna keeps
beside its trials; here it is `cmaes`, on which Optuna's sampler is built, told the table generation by generation, with
that sampler's settings. The answer is the best mixture seen.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from raymix import simplex
from raymix.design.base import Array, Observations, Pending, Proposal, Rng, SearchSpace
from raymix.design.evidence import best_seen, prior_inside
from raymix.design.schedule import numbered, scale_of
from raymix.design.space_filling import SpaceFilling, n_trials
from raymix.target.objective import objective_values

EDGE = 1e-6  # x stays this far from 1, where a share would be all of it
LOG_REACH = 3.0  # near the prior: no share is more than e^3 times its prior before all are normalised
LEAST_SHARE = 1e-4  # of the centre: a ratio to nothing is no coordinate
SAMPLERS = ("tpe", "gp", "cmaes")
CMA_STEP = 1 / 6  # of the range: optuna.samplers.CmaEsSampler, sigma0


@dataclass(frozen=True)
class ModelFree:
    """TPE by default (`sampler="gp"` or `"cmaes"` for the others), after a space-filling first round.

    `near_prior` searches in log-ratios to the prior, and draws its first round there at random.
    """

    space: SearchSpace
    sampler: str = "tpe"
    near_prior: bool = False

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ValueError(f"unknown sampler {self.sampler!r}: {', '.join(SAMPLERS)}")

    def suggest(self, table: Observations, pending: Pending, n: int, rng: Rng) -> list[Proposal]:
        start = n_trials(table, pending)
        last = table.usable().last()
        polytope = self.space.polytope()
        first = start < self.space.budget.per_round or not np.isfinite(self._values(last)).any()
        if first and not self.near_prior:
            return SpaceFilling(self.space).suggest(table, pending, n, rng)
        seed = int(rng.integers(2**31))
        if first:
            found = rng.random((n, len(self.space.domains)))
        else:
            found = self._evolve(last, n, seed) if self.sampler == "cmaes" else self._ask(last, pending, n, seed)
        mixtures = [simplex.project(polytope, self._mixture(x_K)) for x_K in found]
        return numbered(self.space, mixtures, [scale_of(self.space, start + i) for i in range(n)], table, pending)

    def recommend(self, table: Observations) -> Array:
        return best_seen(self.space, table)

    def _ask(self, last: Observations, pending: Pending, n: int, seed: int) -> Array:
        """n points x (n, K) from an Optuna study of the finished and the running trials."""
        import optuna
        from optuna.distributions import FloatDistribution
        from optuna.trial import TrialState, create_trial

        names = [str(k) for k in range(len(self.space.domains))]
        over = {name: FloatDistribution(0.0, 1.0 - EDGE) for name in names}

        def trial(mix_K: Array, **kind: Any) -> Any:
            params = dict(zip(names, self._point(mix_K).tolist(), strict=True))
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
        return samplers.GPSampler(seed=seed, n_startup_trials=0, deterministic_objective=False)

    def _evolve(self, last: Observations, n: int, seed: int) -> Array:
        """n points x (n, K) of the generation that follows those in the table."""
        try:
            from cmaes import CMA
        except ImportError:
            raise ImportError("CMA-ES needs the package cmaes: pip install 'raymix[bench]'") from None

        K = len(self.space.domains)
        bounds = np.tile([0.0, 1.0 - EDGE], (K, 1))
        state = CMA(mean=self._point(prior_inside(self.space)), sigma=CMA_STEP, bounds=bounds, seed=seed % 2**31)
        value_B = self._values(last)
        points = [self._point(mix_K) for mix_K in last.mix_BK[np.isfinite(value_B)]]
        told = list(zip(points, value_B[np.isfinite(value_B)].tolist(), strict=True))
        size = state.population_size
        for end in range(size, len(told) + 1, size):
            state.tell(told[end - size : end])
        return np.stack([state.ask() for _ in range(n)])

    def _values(self, last: Observations) -> Array:
        """The objective of each trial, relative to the median of its size: sizes are no merit of a mixture."""
        value_B = objective_values(self.space, last.loss_BM)
        size_B = last.scale_B2[:, 0]
        for size in np.unique(size_B):
            known_B = (size_B == size) & np.isfinite(value_B)
            if known_B.any():
                value_B[known_B] -= np.median(value_B[known_B])
        return value_B

    def _mixture(self, x_K: Array) -> Array:
        return ratios(x_K, self._centre_K) if self.near_prior else spacings(x_K)

    def _point(self, mix_K: Array) -> Array:
        return point_of_ratios(mix_K, self._centre_K) if self.near_prior else point_of_spacings(mix_K)

    @property
    def _centre_K(self) -> Array:
        return np.maximum(prior_inside(self.space), LEAST_SHARE)


def spacings(x_K: Array) -> Array:
    """The mixture of a point: uniform ones give uniform mixtures."""
    return simplex.normalise(-np.log1p(-x_K) + 1e-12)


def point_of_spacings(mix_K: Array) -> Array:
    """One of the points that map to a mixture: the one whose spacings have mean 1."""
    return np.asarray(np.clip(-np.expm1(-mix_K * len(mix_K)), 0.0, 1.0 - EDGE))


def ratios(x_K: Array, centre_K: Array) -> Array:
    """The mixture of a point near the prior: .5 everywhere is the centre."""
    return simplex.normalise(centre_K * np.exp(LOG_REACH * (2 * x_K - 1)))


def point_of_ratios(mix_K: Array, centre_K: Array) -> Array:
    """One of the points that map to a mixture: the middle one where its ratios fit, else its largest ratios count."""
    ratio_K = np.log(np.maximum(mix_K, 1e-12) / centre_K)
    middle = (ratio_K.max() + max(ratio_K.min(), ratio_K.max() - 2 * LOG_REACH)) / 2
    return np.asarray(np.clip(0.5 + (ratio_K - middle) / (2 * LOG_REACH), 0.0, 1.0 - EDGE))
