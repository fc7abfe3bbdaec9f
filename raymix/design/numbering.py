"""Mixtures into proposals: each gets the first seed under which it is new.

A mixture, a scale and a seed are one trial, so a mixture proposed again (a replicate, or the only mixture that the
caps leave) needs another seed than every trial that is pending or in the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from raymix.design.base import Proposal
from raymix.observations import Observations
from raymix.simplex import Array
from raymix.space import Scale, SearchSpace

TOLERANCE = 1e-9  # mixtures nearer than this in every share are one


def numbered(
    space: SearchSpace,
    mixtures: Iterable[Array],
    scales: Iterable[Scale],
    table: Observations,
    pending: Sequence[Proposal],
) -> list[Proposal]:
    """One proposal per mixture and scale, none of which is pending or was tried."""
    known = list(pending)
    seeds = np.asarray(table.table["seed"].to_numpy(), dtype=np.int64)
    out: list[Proposal] = []
    for mix_K, scale in zip(mixtures, scales, strict=True):
        same = np.flatnonzero(np.abs(table.mix_BK[:, 0] - mix_K[0]) < TOLERANCE)  # few: the rest is for them alone
        same = same[(np.abs(table.mix_BK[same] - mix_K) < TOLERANCE).all(axis=1)]
        taken = {int(seeds[i]) for i in same if nearest_rung(space, table.scale_B2[i : i + 1])[0] == scale}
        for other in (*known, *out):
            if other.scale == scale and (np.abs(other.mixture_K - mix_K) < TOLERANCE).all():
                taken.add(other.seed)
        seed = next(i for i in range(len(taken) + 1) if i not in taken)
        out.append(Proposal(np.asarray(mix_K, float), scale, seed))
    return out


def nearest_rung(space: SearchSpace, scale_B2: Array) -> list[Scale]:
    """The rung each row was trained at: realised sizes and token counts differ a little from nominal ones."""
    ladder = [rung.scale for rung in space.ladder]
    gap_BR = np.abs(np.log(scale_B2[:, None, :] / np.asarray(ladder)[None])).sum(axis=2)
    gap_BR = np.where(np.isfinite(gap_BR), gap_BR, 0.0)  # a trial that failed before it had a scale
    return [ladder[i] for i in gap_BR.argmin(axis=1)]
