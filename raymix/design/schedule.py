"""Which rung of the ladder the trials of a round are trained on, and under which seed.

The first round is all on the smallest rung: it is cheap and the law has to see the simplex first. After that
every second trial goes to the larger rungs in turn, so that about a third of the default budget tells the law
how losses change with size and tokens.

A mixture, a scale and a seed are one trial, so a mixture proposed again (a replicate, or the only mixture that the
caps leave) needs another seed than every trial that is pending or in the table.
"""

from collections.abc import Iterable

import numpy as np

from raymix.design.base import Array, Observations, Pending, Proposal, Scale, SearchSpace

TOLERANCE = 1e-9  # mixtures nearer than this in every share are one


def cost(scale: Scale) -> float:
    """Training FLOPs up to the recipe's constants: 6 N D (arXiv 2001.08361, section 2.1)."""
    return 6.0 * scale.n_params * scale.n_tokens


def rungs(space: SearchSpace) -> list[Scale]:
    """The ladder from cheap to dear."""
    return sorted((rung.scale for rung in space.ladder), key=cost)


def shorter_rungs(space: SearchSpace, scale: Scale) -> list[Scale]:
    """Rungs of the same size with fewer tokens, the longest first, from which a trial at `scale` may go on."""
    same = [rung for rung in rungs(space) if rung.n_params == scale.n_params and rung.n_tokens < scale.n_tokens]
    return same[::-1] if space.recipe.promotes else []


def longer_rungs(space: SearchSpace, scale: Scale) -> list[Scale]:
    """Rungs of the same size with more tokens, the shortest first, at which a trial at `scale` may go on."""
    return [rung for rung in rungs(space) if scale in shorter_rungs(space, rung)]


def scale_of(space: SearchSpace, position: int) -> Scale:
    """The scale of the trial at `position` (0, 1, ...) of the study."""
    ladder = rungs(space)
    after = position - space.budget.per_round
    if len(ladder) == 1 or after < 0 or after % 2:
        return ladder[0]
    return ladder[1 + (after // 2) % (len(ladder) - 1)]


def numbered(
    space: SearchSpace, mixtures: Iterable[Array], scales: Iterable[Scale], table: Observations, pending: Pending
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
