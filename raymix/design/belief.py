"""What is believed about the objective at the target: the law, the process on its residuals, and draws of both.

    log L = log L^(theta) + g,      theta ~ N(MAP, Laplace),      g | theta ~ GP given R_theta = log L - log L^(theta)

A draw takes parameters of the law from their posterior and then the process from its own, given what *that* law
leaves over at the trials seen (pathwise, Wilson et al. 2020, arXiv 2002.09309, eq. 8). So laws that disagree where
there are trials agree again, and differ where nothing was trained. Every eval domain has a process with an amplitude of
its own. Its mean always counts (switched off where leave-one-out sees no gain, it lost: benchmarks/LOG.md, for the
optimum is in a corner of what was seen), its variance only where the marginal likelihood prefers it to noise.

Letters: B points, R trials seen, K training domains, M eval domains, S draws.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from raymix.design.base import Array, SearchSpace
from raymix.design.stock import losses, unique_at
from raymix.laws import Law, ResidualGP
from raymix.laws.posterior import SHARED, sample
from raymix.laws.repetition import stocked
from raymix.laws.robust import eigen
from raymix.target.objective import objective_values

JITTER = 1e-9
MIN_VARIANCE = 1e-12  # of log losses about the law


@dataclass(frozen=True)
class Sites:
    """Trials seen: mixture, scale, log losses (finite), unique tokens (NaN or inf where not known)."""

    mix_RK: Array
    scale_R2: Array
    log_RM: Array
    unique_RK: Array

    def left_over(self, law: Law) -> Array:
        """log losses (R, M) less those of a law."""
        return np.asarray(self.log_RM - np.log(stocked(law, self.unique_RK).predict(self.mix_RK, self.scale_R2)))


@dataclass(frozen=True)
class Belief:
    """The law and its residual process, conditioned on `sites`."""

    space: SearchSpace
    law: ResidualGP
    sites: Sites
    root: tuple[Array, bool]
    """Cholesky factor of the covariance of the sites, their noise included."""
    scale_M: Array
    """sd of g per eval domain, in units of the kernel."""
    likelier_M: NDArray[np.bool_]
    """Whether the residuals are likelier under the process than as noise alone: only then draws vary by it."""

    @classmethod
    def of(cls, space: SearchSpace, law: ResidualGP, sites: Sites) -> "Belief":
        """Conditioned on the sites."""
        root = _factor(law, sites)
        residual_RM = sites.left_over(law.law_)
        alpha_RM = linalg.cho_solve(root, residual_RM)
        variance_M = np.maximum((residual_RM * alpha_RM).mean(axis=0), MIN_VARIANCE)
        white_M = np.maximum((residual_RM**2).mean(axis=0), MIN_VARIANCE)
        half_log_det = float(np.log(np.diag(root[0])).mean())
        likelier_M = half_log_det + 0.5 * np.log(variance_M) < 0.5 * np.log(white_M)
        return cls(space, law, sites, root, np.sqrt(variance_M), np.asarray(likelier_M))

    @property
    def target_2(self) -> Array:
        """n_params and n_tokens of the target."""
        return np.asarray(self.space.target.scale, float)

    def with_pending(self, mix_BK: Array, scale_B2: Array) -> "Belief":
        """As if the trials pending had ended as predicted: their variance is gone, the mean stays."""
        if not len(mix_BK):
            return self
        log_BM = self.mean(mix_BK, scale_B2)
        sites = Sites(
            np.concatenate([self.sites.mix_RK, mix_BK]),
            np.concatenate([self.sites.scale_R2, scale_B2]),
            np.concatenate([self.sites.log_RM, log_BM]),
            np.concatenate([self.sites.unique_RK, unique_at(self.space, scale_B2)]),
        )
        return replace(self, sites=sites, root=_factor(self.law, sites))

    def mean(self, mix_BK: Array, scale_B2: Array) -> Array:
        """Expected log losses (B, M) at the MAP law."""
        across_BR = self._across(mix_BK, scale_B2)
        return np.asarray(np.log(losses(self.space, self.law.law_, mix_BK, scale_B2)) + across_BR @ self._alpha_RM)

    @cached_property
    def _alpha_RM(self) -> Array:
        """Of the MAP law: the polish asks for its mean some hundred times."""
        return self._alpha(self.law.law_)

    def _alpha(self, law: Law) -> Array:
        """What the mean of the process is made of (R, M): k^-1 of what a law leaves over at the sites."""
        return np.asarray(linalg.cho_solve(self.root, self.sites.left_over(law)))

    def _across(self, mix_BK: Array, scale_B2: Array) -> Array:
        """Covariance of g between points and sites (B, R)."""
        return self.law.kernel(mix_BK, scale_B2, self.sites.mix_RK, self.sites.scale_R2)

    def objective(self, mix_BK: Array) -> Array:
        """Expected objective (B,) at the target."""
        return self._value(mix_BK, self.mean(mix_BK, np.tile(self.target_2, (len(mix_BK), 1))))

    def cautious(self, mix_BK: Array) -> Array:
        """Expected objective (B,) plus one sd of the process: a surrogate is optimistic at its own optimum."""
        scale_B2 = np.tile(self.target_2, (len(mix_BK), 1))
        across_BR = self._across(mix_BK, scale_B2)
        log_BM = np.log(losses(self.space, self.law.law_, mix_BK, scale_B2)) + across_BR @ self._alpha_RM
        half_RB = linalg.solve_triangular(self.root[0], across_BR.T, lower=True)
        variance_B = self.law.variance(mix_BK) - (half_RB**2).sum(axis=0)
        sd_BM = np.sqrt(np.maximum(variance_B, 0.0))[:, None] * self.scale_M
        return np.asarray(self._value(mix_BK, log_BM) + (np.exp(log_BM) * sd_BM) @ self.space.weights_M)

    def _value(self, mix_BK: Array, log_BM: Array) -> Array:
        """Reduced losses, with the pull to the prior where the space has one."""
        value_B = objective_values(self.space, np.exp(log_BM))
        if self.space.objective.pull:
            log_ratio_BK = np.log(np.maximum(mix_BK, 1e-12) / np.maximum(self.space.prior_K(), 1e-6))
            value_B = value_B + self.space.objective.pull * (mix_BK * log_ratio_BK).sum(axis=1)
        return np.asarray(value_B)

    def covariance(self, mix_BK: Array, scale_B2: Array) -> Array:
        """Posterior covariance (B, B) of g in units of `scale_M` squared."""
        across_BR = self._across(mix_BK, scale_B2)
        half_RB = linalg.solve_triangular(self.root[0], across_BR.T, lower=True)
        return np.asarray(self.law.kernel(mix_BK, scale_B2, mix_BK, scale_B2) - half_RB.T @ half_RB)

    def draws(self, mix_BK: Array, n: int, rng: np.random.Generator) -> Array:
        """n draws (S, B) of the objective at the target, jointly over the points."""
        scale_B2 = np.tile(self.target_2, (len(mix_BK), 1))
        laws = sample(self.law.law_, n, rng) or [self.law.law_] * n
        root_BB, across_BR = _root(self.covariance(mix_BK, scale_B2)), self._across(mix_BK, scale_B2)
        out = []
        for law in laws:
            z_BM = np.sqrt(SHARED) * rng.normal(size=(len(mix_BK), 1))
            z_BM = z_BM + np.sqrt(1 - SHARED) * rng.normal(size=(len(mix_BK), len(self.scale_M)))
            log_BM = np.log(losses(self.space, law, mix_BK, scale_B2)) + across_BR @ self._alpha(law)
            log_BM = log_BM + root_BB @ z_BM * (self.scale_M * self.likelier_M)
            out.append(self._value(mix_BK, log_BM))
        return np.stack(out)


def _factor(law: ResidualGP, sites: Sites) -> tuple[Array, bool]:
    """`Belief.root`."""
    covariance_RR = law.kernel(sites.mix_RK, sites.scale_R2, sites.mix_RK, sites.scale_R2)
    factor: tuple[Array, bool] = linalg.cho_factor(covariance_RR + law.noise_ * np.eye(len(covariance_RR)), lower=True)
    return factor


def _root(covariance_BB: Array) -> Array:
    """A square root; by eigenvalues where points are so near each other that rounding made one negative."""
    raised_BB = covariance_BB + JITTER * (1 + float(np.diag(covariance_BB).mean())) * np.eye(len(covariance_BB))
    try:
        return np.asarray(np.linalg.cholesky(raised_BB))
    except np.linalg.LinAlgError:
        value_B, vector_BB = eigen(raised_BB)
        return np.asarray(vector_BB * np.sqrt(np.maximum(value_B, 0.0)))
