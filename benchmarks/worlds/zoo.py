"""Synthetic truths: published families with drawn coefficients, noise, and an optimum in the middle or in a corner.

    m4          c + k exp(t.r)                                        Data Mixing Laws, arXiv 2403.16952
    bimix       A (r_own + .005)^-alpha (B d^-beta + C)               BiMix, arXiv 2405.14908, with an offset
    autoscale   l + b (n0 + r_own d)^-gamma                           AutoScale, arXiv 2407.20177, with its offsets
    exposure    E + .8 (n u.r)^-alpha + 1.2 (d tau.r)^-beta           effective exposure, with transfer between domains

n = N / 2e7 and d = D / 4e8 are 1 at the smallest rung. Where the optimum moves with scale there are three rungs of cost
1, 4 and 16 (64 times the cost of the largest is spent on the target) and three checkpoints of every run; else there is
one scale. Every run has a noise of .5% of its losses, correlated .5 between eval domains.

The prior is skewed (a geometric series), so that there is something to find. Coefficients are drawn from a fixed seed
per world, chosen so that the optimum is not the uniform mixture and moves with scale; no method was run for that.

Letters: B rows, K training domains, M eval domains.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.worlds.base import CHECKPOINTS, Surface, World, even_noise, space_of
from raymix.simplex import Array

N0, D0 = 2e7, 4e8
LADDER = ((N0, D0), (2 * N0, 2 * D0), (4 * N0, 4 * D0))
TARGET = (32 * N0, 32 * D0)
NOISE = 0.005
BIMIX_OFFSET = 0.005  # of the share: without it the loss is infinite where a domain is left out


def m4(k: int, seed: int) -> Surface:
    """Own domain -2.5 to -1, others mostly help a little."""
    rng = np.random.default_rng(seed)
    floor_M, level_M = rng.uniform(1.2, 2.2, k), rng.uniform(0.8, 1.6, k)
    slope_MK = rng.normal(-0.15, 0.25, (k, k))
    slope_MK[np.arange(k), np.arange(k)] = rng.uniform(-2.5, -1.0, k)

    def surface(mix_BK: Array, scale_B2: Array) -> Array:
        return np.asarray(floor_M + level_M * np.exp(mix_BK @ slope_MK.T))

    return surface


def bimix(k: int, seed: int) -> Surface:
    """Domains differ in how fast tokens help and in what tokens cannot remove."""
    rng = np.random.default_rng(seed)
    level_M, power_M = np.exp(rng.uniform(np.log(0.7), np.log(2.0), k)), rng.uniform(0.03, 0.25, k)
    data_M, data_power_M, rest_M = rng.uniform(0.2, 3.0, k), rng.uniform(0.1, 0.8, k), rng.uniform(0.1, 0.6, k)

    def surface(mix_BK: Array, scale_B2: Array) -> Array:
        share_BM = level_M * (mix_BK + BIMIX_OFFSET) ** -power_M
        return np.asarray(share_BM * (data_M * (scale_B2[:, 1:] / D0) ** -data_power_M + rest_M))

    return surface


def autoscale(k: int, seed: int) -> Surface:
    """Diagonal power laws with offsets of 2 to 30% of the smallest rung's tokens: no transfer at all."""
    rng = np.random.default_rng(seed)
    floor_M, level_M = rng.uniform(1.0, 2.0, k), np.exp(rng.uniform(np.log(0.1), np.log(1.5), k))
    offset_M, power_M = np.exp(rng.uniform(np.log(0.02), np.log(0.3), k)), rng.uniform(0.2, 0.5, k)

    def surface(mix_BK: Array, scale_B2: Array) -> Array:
        return np.asarray(floor_M + level_M * (offset_M + mix_BK * scale_B2[:, 1:] / D0) ** -power_M)

    return surface


def exposure(k: int, n_eval: int, seed: int) -> Surface:
    """Every domain stands in for every other to some degree, differently for parameters and for data."""
    rng = np.random.default_rng(seed)
    floor_M = rng.uniform(1.0, 1.8, n_eval)
    size_MK, data_MK = (np.exp(rng.normal(np.log(0.1), 1.5, (n_eval, k))) for _ in range(2))
    own = np.arange(n_eval)
    data_MK[own, own] = 1.0  # text of one's own kind helps as data; what helps capacity is drawn apart from it
    size_power_M, data_power_M = rng.uniform(0.05, 0.25, n_eval), rng.uniform(0.3, 0.6, n_eval)

    def surface(mix_BK: Array, scale_B2: Array) -> Array:
        size_BM = (scale_B2[:, :1] / N0) * (0.03 + mix_BK @ size_MK.T)
        data_BM = (scale_B2[:, 1:] / D0) * (0.03 + mix_BK @ data_MK.T)
        return np.asarray(floor_M + 0.8 * size_BM**-size_power_M + 1.2 * data_BM**-data_power_M)

    return surface


def worlds(folder: Path | None = None) -> dict[str, Any]:
    """Makers of the zoo."""
    return {
        "m4 3": lambda: world("m4 3", m4(3, 1), 3),
        "m4 7 corner": lambda: world("m4 7 corner", m4(7, 2), 7, only=0),
        "m4 17": lambda: world("m4 17", m4(17, 3), 17),
        "autoscale 17": lambda: world("autoscale 17", autoscale(17, 4), 17),
        "exposure 40": lambda: world("exposure 40", exposure(40, 12, 5), 40, 12),
        "bimix 7, scales": lambda: world("bimix 7, scales", bimix(7, 14), 7, scales=True),
        "autoscale 7, scales": lambda: world("autoscale 7, scales", autoscale(7, 9), 7, scales=True),
        "exposure 17, scales": lambda: world("exposure 17, scales", exposure(17, 8, 7), 17, 8, scales=True),
    }


def world(
    name: str, surface: Surface, k: int, n_eval: int | None = None, only: int | None = None, scales: bool = False
) -> World:
    """A surface as a world; `only` makes one eval domain the objective, `scales` gives a ladder below the target."""
    n_eval = n_eval or k
    domains, evals = [f"d{j}" for j in range(k)], [f"e{m}" for m in range(n_eval)]
    prior_K = 0.5 ** (np.arange(k)[::-1] * 6 / k)  # 64 to 1; the first domains are the scarce ones
    prior, own = dict(zip(domains, prior_K.tolist(), strict=True)), dict(zip(evals, domains, strict=False))
    ladder, target = (LADDER, TARGET) if scales else (LADDER[:1], LADDER[0])
    space = space_of(name, prior, own, ladder, target, {evals[only]: 1.0} if only is not None else None)
    about = f"{name.split()[0]}, {k} domains, " + (f"one of {n_eval} losses" if only is not None else "mean of losses")
    return World(name, space, surface, even_noise(NOISE, n_eval), about, CHECKPOINTS if scales else (1.0,))
