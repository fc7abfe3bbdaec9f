"""How many seeds at which scale a confirmation can have: as large as what is left of the budget pays for."""

import math

from raymix.design import rungs
from raymix.space import Scale
from raymix.space_study import Confirm
from raymix.study.budget import CLOSE, flops_in_time, flops_left, gpus_of, spent
from raymix.study.ledger import Ledger


def affordable(ledger: Ledger, wanted: Confirm, automatic: bool, n_arms: int) -> tuple[int, Scale | None]:
    """Seeds and scale of a confirmation of so many mixtures: as asked for, or as the rest of the budget pays for."""
    if not automatic:
        return wanted.seeds, wanted.scale.scale if wanted.scale else trained_scales(ledger)[-1]
    most = ledger.space.budget.limits().get("trials", math.inf) - spent(ledger).trials
    return seeds_and_scale(ledger, wanted, flops_left(ledger), most, n_arms, flops_in_time(ledger))


def seeds_and_scale(
    ledger: Ledger, wanted: Confirm, flops: float, trials: float, n_arms: int, flops_of_one: float = math.inf
) -> tuple[int, Scale | None]:
    """How many seeds at which scale so much pays for; 0 and None where it does not pay for one of each mixture.

    `flops` are of all runs together, `flops_of_one` is what each GPU of any of them has time for.

    Fewer seeds only where a scale that is named, or the smallest rung, is too dear for all.
    """
    named = wanted.scale.scale if wanted.scale else None
    for seeds in range(min(wanted.seeds, int(min(trials, 1e6)) // n_arms), 0, -1):
        each = flops / (seeds * n_arms)
        scale = named or largest_affordable(ledger, each, flops_of_one)
        if scale is not None and _pays(ledger, scale, each, flops_of_one):
            return seeds, scale
    return 0, None


def trained_scales(ledger: Ledger) -> list[Scale]:
    """The rungs of the ladder, cheapest first; where none names the proxies, the scales of the trials done so far."""
    ended = (ledger.last_row(trial_id) for trial_id in ledger.trials if ledger.status(trial_id) == "done")
    told = {Scale(row["n_params"], row["n_tokens"]) for row in ended if row is not None}
    if ledger.space.names_proxies or not told:
        return list(rungs(ledger.space))
    return sorted(told, key=ledger.expected_flops)


def largest_affordable(ledger: Ledger, flops: float, flops_of_one: float = math.inf) -> Scale | None:
    """The dearest scale that one run of `flops`, `flops_of_one` a GPU, pays for; None if not even the smallest rung.

    That is the dearest rung affordable; beyond the largest one, as far as it goes on the straight line (in logs)
    from there to the target. Without a limit in FLOPs or hours, or a ladder, it is the largest that is trained.
    """
    ladder, target = trained_scales(ledger), ledger.space.target.scale
    affordable = [scale for scale in ladder if _pays(ledger, scale, flops, flops_of_one)]
    bounded = math.isfinite(min(flops, flops_of_one)) and ledger.space.names_proxies
    if not affordable or affordable[-1] != ladder[-1] or not bounded:
        return affordable[-1] if affordable else None
    if _pays(ledger, target, flops, flops_of_one):
        return max(target, ladder[-1], key=ledger.flops_of)
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        paid = _pays(ledger, _between(ladder[-1], target, middle), flops, flops_of_one)
        low, high = (middle, high) if paid else (low, middle)
    return _between(ladder[-1], target, low)


def _pays(ledger: Ledger, scale: Scale, flops: float, flops_of_one: float) -> bool:
    """Whether so much is enough for a run at this scale, on the GPUs that it takes."""
    return ledger.flops_of(scale) <= min(flops, flops_of_one * gpus_of(ledger.space, scale.n_params)) * CLOSE


def _between(start: Scale, end: Scale, t: float) -> Scale:
    return Scale(*(float(a ** (1 - t) * b**t) for a, b in zip(start, end, strict=True)))
