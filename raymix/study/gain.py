"""A gain predicted and a gain seen: differences between runs of one seed, with their standard error."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from raymix.simplex import Array
from raymix.space_parts import Objective
from raymix.study.ledger import Ledger
from raymix.target.objective import reduce_losses, with_unit
from raymix.target.reading import Interval


@dataclass(frozen=True)
class Guard:
    """How much worse a guarded eval domain is at the proposal than at the prior, in pairs (nats).

    Of a metric in its own unit.
    """

    allowed: float
    """At the target."""
    predicted: float | None
    """At the scale of the pairs by the law that keeps the guardrail at the target: differences shrink with scale."""
    mean: float
    low: float | None
    high: float | None

    @property
    def broken(self) -> bool:
        """Whether it is worse than allowed, and than the law that allowed it foresaw here, beyond the pairs' noise."""
        return self.low is not None and self.low > max(self.allowed, self.predicted or 0.0)


@dataclass(frozen=True)
class Gain:
    """How much lower the objective of the proposal is than that of a baseline: predicted, and seen in pairs."""

    predicted: Interval
    mean: float | None
    standard_error: float | None
    low: float | None
    high: float | None
    pairs: int
    by_eval: dict[str, float]
    """Mean over the pairs, per eval domain."""

    @property
    def worse(self) -> bool:
        """Whether the baseline is better beyond the pairs' noise."""
        return self.high is not None and self.high < 0


def seen(
    ledger: Ledger, objective: Objective, predicted: Interval, proposal: Sequence[str], baseline: Sequence[str]
) -> Gain:
    """Differences of an objective within the pairs of which both runs ended well."""
    space = ledger.space.model_copy(update={"objective": objective})
    loss_2PM = _pairs(ledger, proposal, baseline)
    n = loss_2PM.shape[1]
    if not n:
        return Gain(predicted, None, None, None, None, 0, {})
    value_2P = reduce_losses(loss_2PM, space.weights_M, objective.reduce)
    mean, error, half = _mean(value_2P[1] - value_2P[0])
    mean_M = (loss_2PM[1] - loss_2PM[0]).mean(axis=0)
    by_eval = {name: float(g) for name, g in zip(space.eval_names, mean_M, strict=True)}
    if error is None or half is None:
        return Gain(predicted, mean, None, None, None, n, by_eval)
    return Gain(predicted, mean, error, mean - half, mean + half, n, by_eval)


def guards(
    ledger: Ledger,
    objective: Objective,
    predicted: Mapping[str, float],
    proposal: Sequence[str],
    prior: Sequence[str],
) -> dict[str, Guard]:
    """What the pairs of proposal and prior say of each guardrail; empty where no pair has ended well."""
    loss_2PM, names = _pairs(ledger, proposal, prior), ledger.space.eval_names
    found = {}
    for name, allowed in objective.guardrails.items() if loss_2PM.shape[1] else ():
        worse_P = loss_2PM[0, :, names.index(name)] - loss_2PM[1, :, names.index(name)]
        mean, _, half = _mean(worse_P)
        low, high = (None, None) if half is None else (mean - half, mean + half)
        found[name] = Guard(allowed, predicted.get(name), mean, low, high)
    return found


def _pairs(ledger: Ledger, proposal: Sequence[str], baseline: Sequence[str]) -> Array:
    """Losses (2, P, M) of proposal and baseline in the pairs of which both runs ended well."""
    names = ledger.space.eval_names
    pairs = [
        [[(ledger.last_row(run) or {})[f"loss/{name}"] for name in names] for run in pair]
        for pair in zip(proposal, baseline, strict=True)
        if ledger.status(pair[0]) == ledger.status(pair[1]) == "done"
    ]
    return np.asarray(pairs, float).reshape(len(pairs), 2, len(names)).swapaxes(0, 1)


def _mean(difference_P: Array) -> tuple[float, float | None, float | None]:
    """The mean over pairs, its standard error and half its 90% interval; one pair has neither."""
    mean, n = float(difference_P.mean()), len(difference_P)
    if n < 2:
        return mean, None, None
    error = float(difference_P.std(ddof=1) / math.sqrt(n))
    return mean, error, float(stats.t.ppf(0.95, n - 1)) * error


def words(name: str, gain: Gain, pending: int, unit: str, failed: int = 0) -> str:
    """Predicted beside confirmed, as a sentence; `pending` runs are still to end, `failed` ones left pairs out."""
    p = gain.predicted
    said = f"predicted gain over {name} {with_unit(f'{p.mean:.4f}', unit)} (90% interval {p.low:.4f} to {p.high:.4f})"
    counted = ((pending, "are still to end"), (failed, "failed"))
    others = " and ".join(f"{n} of its runs {what}" for n, what in counted if n)
    if not gain.pairs or gain.mean is None:
        none = "" if pending else f"no pair of runs ended well{', ' if others else ''}"
        return f"{said}; {none}{others}"
    both, others = f"{said}, confirmed {gain.mean:.4f}", f", while {others}" if others else ""
    if gain.standard_error is None:
        return f"{both} by one pair of runs: no standard error{others}"
    return f"{both} with a standard error of {gain.standard_error:.4f} ({gain.pairs} pairs of runs){others}"


def guard_words(name: str, guard: Guard) -> str:
    """What was seen of a guardrail, as a sentence."""
    said = f"{name} is {_worse(guard.mean)} than at the prior"
    foreseen = "" if guard.predicted is None else f" ({_worse(guard.predicted)} was predicted at this scale)"
    allowed = f"{guard.allowed:g} worse is allowed at the target{foreseen}"
    if guard.low is None or guard.high is None:
        return f"{said} by one pair of runs, {allowed}: no standard error"
    ends = (guard.low, guard.high) if guard.mean > 0 else (-guard.high, -guard.low)
    seen_at = f"{said} (90% interval {ends[0]:.4f} to {ends[1]:.4f}), {allowed}"
    return f"{seen_at}: this guardrail is broken" if guard.broken else seen_at


def _worse(by: float) -> str:
    return f"{abs(by):.4f} {'worse' if by > 0 else 'better'}"


def all_guard_words(objective: Objective, found: Mapping[str, Guard], prior: bool) -> list[str]:
    """A sentence for each guardrail; or that none was checked, where the prior was not trained beside the proposal."""
    if objective.guardrails and not prior:
        return ["guardrails are not checked: they are of the prior, which is not trained beside it"]
    return [guard_words(name, guard) for name, guard in found.items()]
