"""A gain predicted and a gain seen: differences between runs of one seed, with their standard error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from raymix.space_parts import Objective
from raymix.study.ledger import Ledger
from raymix.target.objective import reduce_losses
from raymix.target.reading import Interval


@dataclass(frozen=True)
class Gain:
    """How much lower the objective of the proposal is than that of a baseline: predicted, and seen in pairs (nats)."""

    predicted: Interval
    mean: float | None
    standard_error: float | None
    low: float | None
    high: float | None
    pairs: int
    by_eval: dict[str, float]
    """Mean over the pairs, per eval domain."""


def seen(
    ledger: Ledger, objective: Objective, predicted: Interval, proposal: Sequence[str], baseline: Sequence[str]
) -> Gain:
    """Differences of an objective within the pairs of which both runs ended well."""
    pairs = [
        (ledger.last_row(a) or {}, ledger.last_row(b) or {})
        for a, b in zip(proposal, baseline, strict=True)
        if ledger.status(a) == ledger.status(b) == "done"
    ]
    if not pairs:
        return Gain(predicted, None, None, None, None, 0, {})
    space = ledger.space.model_copy(update={"objective": objective})
    names = space.eval_names
    loss_P2M = np.asarray([[[row[f"loss/{name}"] for name in names] for row in pair] for pair in pairs])
    loss_2PM = loss_P2M.swapaxes(0, 1)
    value_2P = reduce_losses(loss_2PM, space.weights_M, objective.reduce)
    gain_P, n = value_2P[1] - value_2P[0], len(pairs)
    by_eval = {name: float(g) for name, g in zip(names, (loss_2PM[1] - loss_2PM[0]).mean(axis=0), strict=True)}
    mean = float(gain_P.mean())
    if n < 2:
        return Gain(predicted, mean, None, None, None, n, by_eval)
    error = float(gain_P.std(ddof=1) / math.sqrt(n))
    half = float(stats.t.ppf(0.95, n - 1)) * error
    return Gain(predicted, mean, error, mean - half, mean + half, n, by_eval)


def words(name: str, gain: Gain, pending: int) -> str:
    """Predicted beside confirmed, as a sentence; `pending` runs are still to end."""
    p = gain.predicted
    said = f"predicted gain over {name} {p.mean:.4f} nats (90% interval {p.low:.4f} to {p.high:.4f})"
    if not gain.pairs or gain.mean is None:
        return f"{said}; " + (f"{pending} of its runs are still to end" if pending else "no pair of runs ended well")
    both = f"{said}, confirmed {gain.mean:.4f}"
    if gain.standard_error is None:
        return f"{both} by one pair of runs: no standard error"
    return f"{both} with a standard error of {gain.standard_error:.4f} ({gain.pairs} pairs of runs)"
