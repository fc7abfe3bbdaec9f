"""Which trials may go on: the best of those that have ended at a rung with a longer one of the same size.

As in successive halving (ASHA, arXiv 1810.05934, algorithm 2, with eta = 4): of the trials done at a rung the best
quarter, by the objective as it was measured there, each once. Whether one goes on, or a new mixture is trained, is a
matter of what it tells per FLOP (`fidelity`).
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from raymix.design.base import Array, Pending, Scale, SearchSpace
from raymix.design.schedule import TOLERANCE, longer_rungs, nearest_rung, rungs
from raymix.observations import REUSED, Observations
from raymix.target.objective import objective_values

BEST = 0.25  # of the trials done at a rung


class Promotion(NamedTuple):
    """A trial that may go on."""

    trial_id: str
    mixture_K: Array
    begun: Scale
    """Where it has ended."""
    scale: Scale
    """Where it would end."""


def promotions(space: SearchSpace, table: Observations, pending: Pending, best: float = BEST) -> list[Promotion]:
    """Those of the best part of each rung whose mixture is not at a longer one yet, best first within a rung."""
    ladder = [(rung, behind[0]) for rung in rungs(space) if (behind := longer_rungs(space, rung))]
    if not ladder or not len(table):
        return []
    rung_B = nearest_rung(space, table.scale_B2)
    value_B = objective_values(space, table.loss_BM)
    seed_B, ids = table.column("seed"), table.trial_ids
    ours_B = np.array([not name.startswith(REUSED) for name in ids]) & (table.status_B == "done") & (seed_B == 0)
    found = []
    for rung, longer in ladder:
        here = np.flatnonzero(ours_B & np.isfinite(value_B) & np.array([scale == rung for scale in rung_B]))
        here = here[np.argsort(value_B[here], kind="stable")][: math.ceil(best * len(here))]
        there = [k for k, scale in enumerate(rung_B) if _longer(scale, rung)]
        tried = [*table.mix_BK[there], *(p.mixture_K for p in pending if _longer(p.scale, rung))]
        tried_BK = np.reshape(tried, (len(tried), table.mix_BK.shape[1]))
        new = ~(cdist(table.mix_BK[here], tried_BK, "chebyshev") < TOLERANCE).any(axis=1)
        new &= space.polytope().contains(table.mix_BK[here])  # caps may have changed since, or others been trained
        found += [Promotion(ids[i], table.mix_BK[i], rung, longer) for i in here[new]]
    return found


def _longer(scale: Scale, rung: Scale) -> bool:
    return scale.n_params == rung.n_params and scale.n_tokens > rung.n_tokens
