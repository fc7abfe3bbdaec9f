"""What a study has spent, and what it may still spend.

Limits are in trials, FLOPs, GPU-hours and hours; the first exhausted ends the search. Everything is counted from the
recorded rows, so a resumed study goes on where it was. A trial that has not ended counts with all it will cost.
Confirmation (raymix/study/confirm.py) is the last part of the budget: the search leaves it alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary, ref

from raymix.design import Proposal, cost, rungs, scale_of
from raymix.space import Scale, SearchSpace
from raymix.space_study import DEFAULT_TRIALS
from raymix.study.arms import runs
from raymix.study.ledger import Ledger
from raymix.study.trial import Trial

HOUR = 3600.0
CLOSE = 1 + 1e-9  # a sum of trials may miss its limit by rounding
_known: WeakKeyDictionary[Ledger, dict[Any, Any]] = WeakKeyDictionary()  # what was added up, while nothing is recorded


@dataclass(frozen=True)
class Spent:
    """What trials have cost, unfinished ones in full; names as in the space's `budget`."""

    trials: float
    flops: float
    gpu_hours: float
    hours: float
    rate: float | None
    """FLOPs per second of one trial on one GPU, over all rows that say their seconds; None before the first."""

    def gpu_hours_of(self, flops: float) -> float:
        """At the rate so far; 0 while that is not known."""
        return flops / self.rate / HOUR if self.rate else 0.0


def spent(ledger: Ledger, purpose: str | None = None) -> Spent:
    """By the trials of one purpose (search, confirm) or by all; evidence from elsewhere cost this study nothing."""
    known = _known.setdefault(ledger, {})
    version = ledger.version, ref(ledger.expected_flops)  # which may hold the ledger, and would keep it for ever
    if known.get("version") != version:
        known.clear()
        known["version"] = version
    if purpose not in known:
        known[purpose] = _added_up(ledger, [t for t in ledger.trials.values() if purpose in (None, t.purpose)])
    found: Spent = known[purpose]
    return found


def gpus_of(space: SearchSpace, n_params: float) -> float:
    """GPUs, or the part of one, that `resources` say a trial of this size takes; 1 where they name none."""
    rung = min(space.ladder, key=lambda rung: abs(math.log(rung.n_params / n_params)), default=None)
    return (rung.resources.gpu if rung is not None and rung.resources is not None else 0.0) or 1.0


def _added_up(ledger: Ledger, trials: list[Trial]) -> Spent:
    flops = seconds = timed = 0.0
    for trial in trials:
        done, took = _so_far(ledger, trial)
        took *= gpus_of(ledger.space, trial.n_params)
        flops, seconds = flops + done, seconds + took
        timed += done if took else 0.0
    ahead = sum(_ahead(ledger, trial) for trial in trials if ledger.status(trial.trial_id) is None)
    rate = timed / seconds if timed and seconds else None
    seconds += ahead / rate if rate else 0.0
    return Spent(float(len(trials)), flops + ahead, seconds / HOUR, ledger.hours, rate)


def limits(space: SearchSpace) -> dict[str, float]:
    """What the search may spend, by name: the budget less what is kept for confirmation."""
    found, confirm = space.budget.limits(), space.confirm
    if confirm is None:
        return found
    return {name: value - runs(space) if name == "trials" else value * (1 - confirm.share)
            for name, value in found.items()}  # fmt: skip


def exhausted(ledger: Ledger) -> str | None:
    """Which limit leaves no room for another trial of the search, as a sentence; None while there is room."""
    now, cheapest = spent(ledger, "search"), ledger.flops_of(rungs(ledger.space)[0])
    more = {"trials": 1.0, "flops": cheapest, "gpu_hours": now.gpu_hours_of(cheapest), "hours": 0.0}
    for name, limit in limits(ledger.space).items():
        used = getattr(now, name)
        if used + more[name] > limit * CLOSE or used >= limit:
            kept = ", confirmation set aside" if ledger.space.confirm else ""
            return f"budget.{name}: {used:.4g} of {limit:.4g} spent{kept}"
    failed = ledger.count("failed")
    if "trials" not in limits(ledger.space) and failed >= DEFAULT_TRIALS and failed == now.trials:
        return f"all of the first {failed} trials failed"
    return None


def affordable(ledger: Ledger, n: int) -> int:
    """How many of n trials of the cheapest rung there is room for; 0 when a limit is exhausted."""
    if exhausted(ledger) is not None:
        return 0
    now, bound = spent(ledger, "search"), limits(ledger.space)
    room = min(float(n), bound.get("trials", math.inf) - now.trials)
    cheapest = ledger.flops_of(rungs(ledger.space)[0])
    paid = (bound.get("flops", math.inf) * CLOSE - now.flops) / cheapest if cheapest else math.inf
    return max(1, int(min(room, paid)))


class Room:
    """What is left for the search, while trials are taken out of it one by one."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._now, self._limits = spent(ledger, "search"), limits(ledger.space)

    def take(self, wanted: Proposal) -> Scale | None:
        """The scale wanted, or the dearest rung below it that the rest of the budget still pays for, if any."""
        flops = self._ledger.flops_of(wanted.scale)
        cheaper = [scale for scale in reversed(rungs(self._ledger.space)) if self._ledger.flops_of(scale) < flops]
        tried = (replace(wanted, scale=scale) for scale in (wanted.scale, *cheaper))
        found = next((proposal for proposal in tried if self._fits(self._with(proposal))), None)
        if found is None:
            return None
        self._now = self._with(found)
        return found.scale

    def _with(self, proposal: Proposal) -> Spent:
        begun = self._ledger.begun(proposal)
        after = (begun.n_tokens,) if begun else ()
        now, flops = self._now, self._ledger.flops_of(proposal.scale, after)
        hours = now.gpu_hours + now.gpu_hours_of(flops)
        return replace(now, trials=now.trials + 1, flops=now.flops + flops, gpu_hours=hours)

    def _fits(self, then: Spent) -> bool:
        return all(getattr(then, name) <= limit * CLOSE for name, limit in self._limits.items())


def flops_left(ledger: Ledger) -> float:
    """FLOPs that the whole budget still pays for; infinite where it is in trials alone.

    Hours become FLOPs at the rate of the study so far.
    """
    now, budget = spent(ledger), ledger.space.budget.limits()
    left = [budget["flops"] - now.flops] if "flops" in budget else []
    if "gpu_hours" in budget and now.rate:
        left.append((budget["gpu_hours"] - now.gpu_hours) * HOUR * now.rate)
    if "hours" in budget and now.hours > 0:
        left.append((budget["hours"] - now.hours) * now.flops / now.hours)
    return max(0.0, min(left, default=math.inf))


def flops_in_time(ledger: Ledger) -> float:
    """FLOPs that one GPU can do in the hours that are left; infinite where they have no limit, or no rate is known.

    With many trials at a time the rest of a budget in hours is more than any one of them has time for.
    """
    now, budget = spent(ledger), ledger.space.budget.limits()
    if "hours" not in budget or not now.rate:
        return math.inf
    return max(0.0, (budget["hours"] - now.hours) * HOUR * now.rate)


def planned_trials(
    space: SearchSpace,
    flops_of: Callable[[Scale], float] = cost,
    flops_per_second: float | None = None,
    slots: float = 1,
) -> int:
    """Trials of the search that the budget pays for if scales follow the schedule of the ladder.

    Args:
        flops_of: training FLOPs of a trial at a scale.
        flops_per_second: of one trial; without it limits in hours are not known beforehand.
        slots: trials at a time.
    """
    bound = limits(space)
    flops = bound.get("flops", math.inf)
    if flops_per_second is not None:
        flops = min(flops, bound.get("gpu_hours", math.inf) * HOUR * flops_per_second)
        flops = min(flops, bound.get("hours", math.inf) * HOUR * flops_per_second * slots)
    most = bound.get("trials", math.inf if math.isfinite(flops) else DEFAULT_TRIALS)
    used = 0.0
    for position in count():
        used += flops_of(scale_of(space, position))
        if position >= most or used > flops * CLOSE or not used:
            return position
    raise AssertionError("count() does not end")


def expected_trials(ledger: Ledger) -> int:
    """As `planned_trials`, with FLOPs and speed as recorded so far."""
    now = spent(ledger, "search")
    if not now.rate:
        return planned_trials(ledger.space, ledger.flops_of)
    at_a_time = now.flops / (now.hours * HOUR * now.rate) if now.hours else 1.0
    return planned_trials(ledger.space, ledger.flops_of, now.rate, at_a_time)


def _so_far(ledger: Ledger, trial: Trial) -> tuple[float, float]:
    """FLOPs and seconds of a trial up to its last row, as recorded where they are."""
    last = ledger.last_row(trial.trial_id)
    if last is None:  # failed before its first row: nobody knows when, so it counts in full
        return (0.0 if ledger.status(trial.trial_id) is None else ledger.flops_of(trial.scale, trial.after)), 0.0
    if ledger.space.names_proxies:
        flops = last.get("flops") or ledger.flops_of(Scale(trial.n_params, last["n_tokens"]), trial.after)
    else:
        flops = last.get("flops") or ledger.expected_flops(Scale(last["n_params"], last["n_tokens"]))
    return float(flops), float(last.get("seconds") or 0.0)


def _ahead(ledger: Ledger, trial: Trial) -> float:
    """FLOPs that an unfinished trial will still take."""
    return max(0.0, ledger.flops_of(trial.scale, trial.after) - _so_far(ledger, trial)[0])
