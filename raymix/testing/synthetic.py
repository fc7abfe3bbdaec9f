"""Worlds whose truth is known: runs on a surface that a law is asked to find."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raymix.laws.base import Array, Ints, Law

World = Callable[..., "SyntheticRuns"]  # takes the settings of `synthetic_runs`


@dataclass(frozen=True)
class SyntheticRuns:
    """Observations of a known surface: what `Law.fit` takes, and the losses without noise."""

    mix_BK: Array
    scale_B2: Array
    loss_BM: Array
    run_B: Ints
    own_M: Ints
    truth_BM: Array

    def fit(self, law: Law) -> Law:
        """`law` fitted on all of it."""
        return law.fit(self.mix_BK, self.scale_B2, self.loss_BM, self.run_B, self.own_M)

    def take(self, rows: Ints) -> "SyntheticRuns":
        """The rows named, in that order."""
        parts = {name: getattr(self, name)[rows] for name in ("mix_BK", "scale_B2", "loss_BM", "run_B", "truth_BM")}
        return replace(self, **parts)


def synthetic_runs(
    n_domains: int = 4,
    n_eval: int = 3,
    n_mixtures: int = 12,
    sizes: tuple[float, ...] = (2e7, 6e7, 2e8),
    tokens: tuple[float, ...] = (5e8, 1e9, 2e9),
    noise: float = 0.003,
    seed: int = 0,
    mixture_effect: float = 1.0,
) -> SyntheticRuns:
    """Every mixture trained at every size, measured at every token count; some shares are exactly 0.

    Truth: L = 1.5 + .5 (N/6e7 F)^-.3 + (D/1e9 F)^-.35 with F = .03 + sum_j t_j r_j^.7, and log t ~ N(log .3, .8)
    but t = 1 for the own domain. Noise is log-normal: half of the variance per run, half per row.
    `mixture_effect` is a power on F: 0 makes the shares irrelevant.
    """
    rng = np.random.default_rng(seed)
    mix_QK = rng.dirichlet(np.full(n_domains, 0.8), n_mixtures)
    mix_QK[mix_QK < 0.02] = 0.0
    mix_QK /= mix_QK.sum(axis=1, keepdims=True)
    weight_MK = np.exp(rng.normal(np.log(0.3), 0.8, (n_eval, n_domains)))
    own_M = np.arange(n_eval) % n_domains
    weight_MK[np.arange(n_eval), own_M] = 1.0
    grid = [(q, n, d) for q in range(n_mixtures) for n in sizes for d in tokens]
    mix_BK = mix_QK[[q for q, _, _ in grid]]
    scale_B2 = np.array([(n, d) for _, n, d in grid])
    factor_BM = (0.03 + mix_BK**0.7 @ weight_MK.T) ** mixture_effect
    n_B1, d_B1 = scale_B2[:, :1] / 6e7, scale_B2[:, 1:] / 1e9
    truth_BM = 1.5 + 0.5 * (n_B1 * factor_BM) ** -0.3 + (d_B1 * factor_BM) ** -0.35
    run_B = np.repeat(np.arange(n_mixtures * len(sizes)), len(tokens))
    run_noise = rng.normal(size=(n_mixtures * len(sizes), n_eval))[run_B]
    loss_BM = truth_BM * np.exp(noise * np.sqrt(0.5) * (run_noise + rng.normal(size=truth_BM.shape)))
    return SyntheticRuns(mix_BK, scale_B2, loss_BM, run_B, own_M, truth_BM)


def world(**fixed: Any) -> World:
    """`synthetic_runs` with these settings, whatever a check asks for."""
    return lambda **asked: synthetic_runs(**{**asked, **fixed})
