"""A world: a place to search in whose truth is known, so that regret can be measured and not estimated.

It has a space, a surface of losses without noise, and the noise of one run. The optimum of the objective at the
target is found by many starts (`best.py`). Regret of a mixture: what it loses to the optimum, in % of what the natural
mixture (the prior inside the caps) loses to it. Cost is counted in trials of the cheapest rung.

Letters: B rows, K training domains, M eval domains, T checkpoints of a run, C recorded mixtures.
"""

import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.worlds.best import many_starts
from raymix import simplex
from raymix.design.schedule import cost, rungs
from raymix.simplex import Array
from raymix.space import Scale, SearchSpace
from raymix.target.objective import reduce_losses

SINGLE = "only "  # what the names of worlds with one loss each begin with, which few methods play
CHECKPOINTS = (0.4, 0.65, 1.0)  # parts of a run's tokens at which losses are measured, where a run is several rows
RUN_PART = 0.8  # of the variance of noise belongs to the run, the rest to each checkpoint
CORRELATION = 0.5  # of the noise of two eval domains of one run (measured on published runs: .4 to .6)

AVAILABLE = 1e16  # unique tokens in all, split as the prior: enough that no epoch cap binds in a world

Pair = tuple[float, float]  # n_params, n_tokens
Surface = Callable[[Array, Array], Array]  # mix_BK, scale_B2 -> loss_BM


@dataclass(frozen=True)
class World:
    """A truth to search in."""

    name: str
    space: SearchSpace
    surface: Surface
    """Losses without noise (B, M) in nats at mixtures (B, K) and scales (B, 2)."""
    noise_MM: Array
    """Covariance of the log losses of one run."""
    about: str = ""
    fractions: tuple[float, ...] = (1.0,)
    facts: dict[str, Any] = field(default_factory=dict)
    """What was measured of the world itself (held-out accuracy of a simulator)."""

    def admit(self, mix_K: Array, scale: Scale, seen: set[tuple[int, bytes]]) -> Array:
        """The mixture that is trained when this one is asked for: itself, where every mixture can be trained."""
        return mix_K

    def run(self, mix_K: Array, scale: Scale, number: int, seed: int) -> list[tuple[float, Array]]:
        """Tokens and losses (M,) of every checkpoint of a trial.

        The noise depends on the world, the seed and the trial's number alone: all methods meet the same.
        """
        rng = np.random.default_rng([zlib.crc32(self.name.encode()), seed, number])
        z_TM = rng.normal(size=(len(self.fractions), len(self.noise_MM)))
        z_M = rng.normal(size=len(self.noise_MM))
        part = RUN_PART if len(self.fractions) > 1 else 1.0
        log_TM = (np.sqrt(part) * z_M + np.sqrt(1 - part) * z_TM) @ self._noise_root.T
        tokens_T = np.asarray(self.fractions) * scale.n_tokens
        scale_T2 = np.stack([np.full(len(tokens_T), scale.n_params), tokens_T], axis=1)
        loss_TM = self.surface(np.tile(mix_K, (len(tokens_T), 1)), scale_T2) * np.exp(log_TM)
        return list(zip(tokens_T.tolist(), loss_TM, strict=True))

    @cached_property
    def _noise_root(self) -> Array:
        """A with A A^T = the covariance; by eigenvalues, so that no noise at all is allowed."""
        value_M, vector_MM = np.linalg.eigh(self.noise_MM)
        return np.asarray(vector_MM * np.sqrt(np.maximum(value_M, 0.0)))

    def values(self, mix_BK: Array, scale: Scale | None = None) -> Array:
        """The true objective (B,) at a scale; at the target if left out."""
        mix_BK = np.atleast_2d(mix_BK)
        scale_B2 = np.tile(np.asarray(scale or self.space.target.scale, float), (len(mix_BK), 1))
        loss_BM = self.surface(mix_BK, scale_B2)
        return reduce_losses(loss_BM, self.space.weights_M, self.space.objective.reduce)

    @cached_property
    def natural_K(self) -> Array:
        """The mixture of somebody who does not search: the prior, moved into the caps."""
        return simplex.project(self.space.polytope(), self.space.prior_K())

    @cached_property
    def optimum_K(self) -> Array:
        """The best mixture at the target; searched once and kept in a temporary folder."""
        probe_BK = simplex.sample(self.space.polytope(), 8, np.random.default_rng(0))
        seen = self.values(probe_BK).round(9).tobytes() + self.space.hash().encode() + probe_BK.round(9).tobytes()
        kept = kept_folder() / f"optimum-{hashlib.sha256(seen).hexdigest()[:16]}.npy"
        if kept.is_file():
            return np.asarray(np.load(kept))
        best_K = many_starts(self.values, self.space.polytope(), self.natural_K)
        half = kept.with_suffix(f".{os.getpid()}.npy")
        np.save(half, best_K)
        half.replace(kept)
        return best_K

    @cached_property
    def gap(self) -> float:
        """What the natural mixture loses to the optimum, nats."""
        return float(self.values(self.natural_K)[0] - self.values(self.optimum_K)[0])

    def regret(self, mix_K: Array) -> float:
        """What a recommended mixture loses to the optimum at the target, in % of the gap."""
        return float(100 * (self.values(mix_K)[0] - self.values(self.optimum_K)[0]) / self.gap)

    def cost(self, scale: Scale) -> float:
        """FLOPs of a trial in trials of the cheapest rung."""
        return cost(scale) / cost(rungs(self.space)[0])

    @property
    def scale_aware(self) -> bool:
        """Whether there are several rungs, and the target is none of them."""
        return len(self.space.ladder) > 1

    @cached_property
    def stale(self) -> float:
        """Regret at the target (%) of the true optimum of the smallest rung: what ignoring scale costs."""
        small = rungs(self.space)[0]
        if small == self.space.target.scale:
            return 0.0
        best_K = many_starts(lambda mix_BK: self.values(mix_BK, small), self.space.polytope(), self.natural_K)
        return self.regret(best_K)


def space_of(
    name: str, prior: Mapping[str, float], own: Mapping[str, str | None], scales: Sequence[Pair], target: Pair,
    weights: Mapping[str, float] | None = None, cap: float = np.inf,
) -> SearchSpace:  # fmt: skip
    """Domains with shares up to `cap` times their prior, eval domains with their `own`, no cap on epochs."""
    total = sum(prior.values())
    ladder = [{"n_params": n_params, "n_tokens": n_tokens} for n_params, n_tokens in scales]
    return SearchSpace.parse(
        {
            "name": name,
            "domains": [
                {"name": k, "prior": p, "available_tokens": p * AVAILABLE, "max_share": min(1.0, cap * p / total)}
                for k, p in prior.items()
            ],
            "eval_domains": [{"name": m, "own": k} for m, k in own.items()],
            "objective": {"weights": weights},
            "ladder": ladder,
            "target": {"n_params": target[0], "n_tokens": target[1], "max_epochs": None},
            "budget": {"trials": 128, "per_round": 8},
        }
    )


def even_noise(sd: float, n_eval: int) -> Array:
    """Covariance of log losses with this sd in every eval domain."""
    return np.asarray(sd**2 * (CORRELATION + (1 - CORRELATION) * np.eye(n_eval)))


def kept_folder() -> Path:
    """Where fitted simulators and optima are kept between runs: ours alone, may be deleted at any time."""
    folder = Path(tempfile.gettempdir()) / f"raymix-benchmark-{os.getuid()}"
    folder.mkdir(exist_ok=True, mode=0o700)
    return folder
