"""Which rung of the ladder the trials of a round are trained on.

The first round is all on the smallest rung: it is cheap and the law has to see the simplex first. After that
every second trial goes to the larger rungs in turn, so that about a third of the default budget tells the law
how losses change with size and tokens.
"""

from __future__ import annotations

from raymix.space import Scale, SearchSpace


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
