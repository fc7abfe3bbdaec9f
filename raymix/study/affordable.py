"""How many seeds at which scale a confirmation can have: as large as what is left of the budget pays for."""

from __future__ import annotations

import math

from raymix.design import rungs
from raymix.space import Scale
from raymix.space_study import Confirm
from raymix.study.budget import CLOSE, flops_in_time, flops_left, spent
from raymix.study.ledger import Ledger


def affordable(ledger: Ledger, wanted: Confirm, automatic: bool, n_arms: int) -> tuple[int, Scale | None]:
    """Seeds and scale of a confirmation of so many mixtures: as asked for, or as the rest of the budget pays for."""
    if not automatic:
        return wanted.seeds, wanted.scale.scale if wanted.scale else rungs(ledger.space)[-1]
    most = ledger.space.budget.limits().get("trials", math.inf) - spent(ledger).trials
    return seeds_and_scale(ledger, wanted, flops_left(ledger), most, n_arms, flops_in_time(ledger))


def seeds_and_scale(
    ledger: Ledger, wanted: Confirm, flops: float, trials: float, n_arms: int, flops_of_one: float = math.inf
) -> tuple[int, Scale | None]:
    """How many seeds at which scale so much pays for; 0 and None where it does not pay for one of each mixture.

    `flops` are of all runs together, `flops_of_one` is what any of them has time for.

    Fewer seeds only where a scale that is named, or the smallest rung, is too dear for all.
    """
    named = wanted.scale.scale if wanted.scale else None
    for seeds in range(min(wanted.seeds, int(min(trials, 1e6)) // n_arms), 0, -1):
        each = min(flops / (seeds * n_arms), flops_of_one) * CLOSE
        scale = named or largest_affordable(ledger, each)
        if scale is not None and ledger.flops_of(scale) <= each:
            return seeds, scale
    return 0, None


def largest_affordable(ledger: Ledger, flops: float) -> Scale | None:
    """The dearest scale that one run of `flops` pays for; None if not even the smallest rung.

    That is the dearest rung affordable; beyond the largest one, as far as it goes on the straight line (in logs)
    from there to the target. Without a limit in FLOPs or hours it is the largest rung.
    """
    ladder, target = rungs(ledger.space), ledger.space.target.scale
    affordable = [scale for scale in ladder if ledger.flops_of(scale) <= flops]
    if not affordable or affordable[-1] != ladder[-1] or math.isinf(flops):
        return affordable[-1] if affordable else None
    if ledger.flops_of(target) <= flops:
        return max(target, ladder[-1], key=ledger.flops_of)
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if ledger.flops_of(_between(ladder[-1], target, middle)) <= flops else (low, middle)
    return _between(ladder[-1], target, low)


def _between(start: Scale, end: Scale, t: float) -> Scale:
    return Scale(*(float(a ** (1 - t) * b**t) for a, b in zip(start, end, strict=True)))
