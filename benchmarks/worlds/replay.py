"""Replay: search over recorded runs. Nothing is modelled, so nothing can flatter; there are few mixtures.

Runs of Data Mixing Laws (arXiv 2403.16952) at 19M, 85M and 202M parameters are the rungs, those at 302M the target. A
proposal is moved to the nearest mixture recorded at its rung that has not been taken yet (Hellinger distance; when
all have been taken, to the nearest, which then teaches nothing new); a recommendation to the nearest recorded at the
target. There is no noise but that of the runs themselves: seeds differ in what designers draw.

The optimum is the best recorded at the target. Regret is in % of what the *median* recorded mixture loses to it, not
the natural one: the one recorded nearest to 5Mix's prior is nearly the best. With 20 and 16 mixtures at the target
regret is coarse: one mixture more or less.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.published import Runs, mixing_laws
from benchmarks.worlds.base import World, space_of
from raymix.laws.base import Ints
from raymix.simplex import Array
from raymix.space import Scale

RUNGS, TARGET = (18915328.0, 85056000.0, 201541632.0), 302311424.0
STEP, TOKENS_PER_STEP = 27000, 2**20
PARTS = (10000, 18000, 27000)  # steps at which losses of a run are read
DOMAINS = {
    "5Mix": ("academic", "prose", "dialogue", "symbolic", "internet"),
    "RedPajama": ("common_crawl", "c4", "github", "arxiv", "books", "stackexchange", "wikipedia"),
}
# Pile shares summed over each group of 5Mix; the sampling shares of arXiv 2302.13971, table 1, for RedPajama.
PRIOR = {"5Mix": (0.348, 0.152, 0.043, 0.125, 0.332), "RedPajama": (0.67, 0.15, 0.045, 0.025, 0.045, 0.02, 0.045)}


@dataclass(frozen=True)
class Replay(World):
    """A world whose mixtures are those recorded."""

    runs: Runs = field(kw_only=True)

    def admit(self, mix_K: Array, scale: Scale, seen: set[tuple[int, bytes]]) -> Array:
        """The nearest mixture recorded at this size, one not yet taken if there is any."""
        rung = RUNGS.index(scale.n_params)
        recorded_CK = np.unique(self.runs.mix_BK[self._rows(scale.n_params, STEP)], axis=0)
        free = [c for c, row_K in enumerate(recorded_CK) if (rung, row_K.tobytes()) not in seen]
        return nearest(recorded_CK[free] if free else recorded_CK, mix_K)

    def run(self, mix_K: Array, scale: Scale, number: int, seed: int) -> list[tuple[float, Array]]:
        """Tokens and losses (M,) as they were recorded."""
        found = []
        for step in PARTS:
            rows = self._rows(scale.n_params, step)
            same = rows[(self.runs.mix_BK[rows] == mix_K).all(axis=1)]
            found += [(float(self.runs.scale_B2[b, 1]), self.runs.loss_BM[b]) for b in same[:1]]
        return found

    def values(self, mix_BK: Array, scale: Scale | None = None) -> Array:
        """The recorded objective (B,) of the nearest mixture recorded at the target."""
        rows = self._rows(TARGET if scale is None else scale.n_params, STEP)
        near = [nearest_index(self.runs.mix_BK[rows], mix_K) for mix_K in np.atleast_2d(mix_BK)]
        return np.asarray(self.runs.loss_BM[rows][near] @ self.space.weights_M)

    @cached_property
    def optimum_K(self) -> Array:
        """The best recorded at the target."""
        at_target_CK = self.runs.mix_BK[self._rows(TARGET, STEP)]
        return np.asarray(at_target_CK[np.argmin(self.values(at_target_CK))])

    @cached_property
    def gap(self) -> float:
        """What the median mixture recorded at the target loses to the best, nats."""
        value_C = self.values(self.runs.mix_BK[self._rows(TARGET, STEP)])
        return float(np.median(value_C) - value_C.min())

    @cached_property
    def stale(self) -> float:
        """Regret at the target (%) of the best recorded at the smallest size among those recorded at both."""
        at_target_CK = self.runs.mix_BK[self._rows(TARGET, STEP)]
        small = self.values(at_target_CK, Scale(RUNGS[0], STEP * TOKENS_PER_STEP))
        return self.regret(at_target_CK[np.argmin(small)])

    def _rows(self, n_params: float, step: int) -> Ints:
        runs = self.runs
        return np.flatnonzero((runs.scale_B2[:, 0] == n_params) & (runs.step_B == step))


def nearest_index(recorded_CK: Array, mix_K: Array) -> int:
    """The nearest recorded mixture, in square roots of shares."""
    return int(np.argmin(((np.sqrt(recorded_CK) - np.sqrt(np.maximum(mix_K, 0.0))) ** 2).sum(axis=1)))


def nearest(recorded_CK: Array, mix_K: Array) -> Array:
    """The nearest recorded mixture itself."""
    return np.asarray(recorded_CK[nearest_index(recorded_CK, mix_K)])


def worlds(folder: Path) -> dict[str, Any]:
    """Makers of the replays."""
    return {"replay 5Mix": lambda: world(folder, "5Mix"), "replay RedPajama": lambda: world(folder, "RedPajama")}


def world(folder: Path, experiment: str) -> Replay:
    """One experiment, the Pile-weighted mean of 22 losses as objective."""
    runs = mixing_laws(folder, experiment)
    evals = [f"e{m}" for m in range(runs.loss_BM.shape[1])]
    n_tokens = STEP * TOKENS_PER_STEP
    names = DOMAINS[experiment]
    prior = dict(zip(names, PRIOR[experiment], strict=True))
    own = {m: names[k] if k >= 0 else None for m, k in zip(evals, runs.own_M, strict=True)}
    weights = dict(zip(evals, runs.weight_M.tolist(), strict=True))
    scales = [(n_params, n_tokens) for n_params in RUNGS]
    space = space_of(f"replay {experiment}", prior, own, scales, (TARGET, n_tokens), weights)
    about = f"recorded runs of Data Mixing Laws, {experiment}: 19M, 85M, 202M to step {STEP}, target 302M"
    about += "; 100% is the median mixture"
    return Replay(space.name, space, _none, np.zeros((len(evals), len(evals))), about, runs=runs)


def _none(mix_BK: Array, scale_B2: Array) -> Array:
    """There is no surface: losses are looked up."""
    raise NotImplementedError("a replay has no losses but those recorded")
