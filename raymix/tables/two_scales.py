"""AutoScale on files (arXiv 2407.20177): the best tokens per domain at two affordable scales, carried to a larger one.

    ddo_optimum  of one scale, from DDO's runs: a base, and every domain with less and with more
    carried      two optima at any larger total, with what speaks against the formula

The published method, for comparison and for those who use it: `raymix optimize` reads a law that knows model size,
transfer between domains and its own doubt. Bases of unequal quantities are allowed: n_k = base_k x_k.

Letters: B runs, K training domains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raymix.laws import autoscale, ddo
from raymix.laws.base import Flags
from raymix.observations import Observations
from raymix.simplex import Array
from raymix.space import Scale

# Relative: quantities of one domain that differ by less are one, as tokens of two runs may differ by a batch.
SAME = 0.01


@dataclass(frozen=True)
class OptimumAtScale:
    """Best tokens per domain; 0 where nobody knows a bound or an offset."""

    domains: tuple[str, ...]
    tokens_K: Array
    least_K: Array
    """Tokens, below which no run went."""
    offset_K: Array
    """What other domains stand in for, tokens."""

    @classmethod
    def of(cls, tokens: Mapping[str, float]) -> "OptimumAtScale":
        """Where the tokens alone are known."""
        return cls(tuple(tokens), np.array(list(tokens.values())), np.zeros(len(tokens)), np.zeros(len(tokens)))

    def ordered(self, domains: Sequence[str]) -> "OptimumAtScale":
        """The same with the domains in this order.

        Raises:
            ValueError: they are others.
        """
        if only := sorted(set(domains) ^ set(self.domains)):
            raise ValueError(f"the two scales have not the same domains; in one alone: {', '.join(only[:12])}")
        index = [self.domains.index(name) for name in domains]
        return OptimumAtScale(tuple(domains), self.tokens_K[index], self.least_K[index], self.offset_K[index])


@dataclass(frozen=True)
class Carried:
    """Tokens per domain at the scale asked for; `to_json` is a recommendation that `raymix export` takes."""

    domains: tuple[str, ...]
    tokens_K: Array
    scale: Scale
    steps: float
    """Times N2 / N1 is applied beyond the second scale."""
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        share_K = self.tokens_K / self.tokens_K.sum()
        found = {
            "mixture": dict(zip(self.domains, share_K.tolist(), strict=True)),
            "scale": self.scale._asdict(),
            "tokens": dict(zip(self.domains, self.tokens_K.tolist(), strict=True)),
            "steps": self.steps,
            "law": {"name": "autoscale", "notes": list(self.notes)},
        }
        return found | ({"verdict": {"answer": "confirm first", "reason": "; ".join(self.notes)}} if self.notes else {})


def ddo_optimum(runs: Observations, weights_M: Array) -> OptimumAtScale:
    """What is best at the total of the base run, by its perturbations.

    The loss is the mean over eval domains by `weights_M` (sum 1) at the end of every run. No domain gets less than in
    any run, as published; one that is best there is at its bound.

    Raises:
        ValueError: several model sizes, a run that differs from the base in several domains, no base, a domain with
            fewer than two perturbations, or losses on no curve of DDO's form; names the run or the domain.
    """
    ended = runs.select(runs.status_B == "done")
    used_M = weights_M > 0
    loss_B = ended.loss_BM[:, used_M] @ weights_M[used_M]
    ended, loss_B = ended.select(np.isfinite(loss_B)), loss_B[np.isfinite(loss_B)]
    if not len(ended):
        raise ValueError("no run ended with all losses that the objective weighs")
    size_X = np.unique(ended.scale_B2[:, 0])
    if size_X[-1] > size_X[0] * (1 + SAME):
        sizes = ", ".join(f"{size:.4g}" for size in size_X[:12])
        raise ValueError(f"the runs are of {len(size_X)} model sizes ({sizes}): a scale of DDO's runs is one")
    tokens_BK = ended.mix_BK * ended.scale_B2[:, 1:]
    base_K, moved_BK = _around(tokens_BK, ended)
    is_base_B = ~moved_BK.any(axis=1)
    base_loss = loss_B[is_base_B].mean()
    fits = []
    for k, name in enumerate(ended.domains):
        rows = moved_BK[:, k] | is_base_B
        x_X = np.where(moved_BK[rows, k], tokens_BK[rows, k] / base_K[k], 1.0)
        fits.append(ddo.fit_ddo(x_X, loss_B[None, rows] / base_loss, [name]))
    a_K, b_K = (np.concatenate([getattr(fit, f"{letter}_K") for fit in fits]) for letter in "ab")
    least_K, offset_K = tokens_BK.min(axis=0), a_K * base_K
    unit = base_K.mean()  # tokens, to the power of b, are no number any more
    unit_K = base_K / unit
    tokens_K = unit * ddo.water_fill(a_K * unit_K, b_K, unit_K.sum(), least_K / unit, weights=unit_K**b_K)
    return OptimumAtScale(ended.domains, tokens_K, least_K, offset_K)


def _around(tokens_BK: Array, runs: Observations) -> tuple[Array, Flags]:
    """The quantities (K,) of the base run, and which domain (B, K) a run has another quantity of: one at most."""
    base_K = np.median(tokens_BK, axis=0)  # all runs but those of its own perturbations have the base quantity
    if not (base_K > 0).all():
        raise ValueError(f"most runs have nothing of {runs.domains[int(np.argmin(base_K))]!r}: leave the domain out")
    moved_BK = np.abs(tokens_BK / base_K - 1) > SAME
    n_moved_B = moved_BK.sum(axis=1)
    what = "DDO's runs are a base and, per domain, runs with more and with less of it, the tokens of all others equal"
    if n_moved_B.max() > 1:
        run = runs.trial_ids[int(np.argmax(n_moved_B))]
        raise ValueError(
            f"run {run!r} has other tokens of {n_moved_B.max()} domains: {what}; raymix fit takes any runs"
        )
    if n_moved_B.min() > 0:
        raise ValueError(f"there is no base run: {what}")
    return base_K, moved_BK


def carried(first: OptimumAtScale, second: OptimumAtScale, scale: Scale) -> Carried:
    """Both at `scale.n_tokens`, by the formula as published (no offsets).

    Raises:
        ValueError: other domains, a quantity that is not above 0, the first total is not the smaller one, or the total
            is beyond reach.
    """
    second = second.ordered(first.domains)
    n1_K, n2_K, total = first.tokens_K, second.tokens_K, scale.n_tokens
    tokens_K = autoscale.autoscale_to(n1_K, n2_K, total)
    least_2K = np.stack([first.least_K / n1_K.sum(), second.least_K / n2_K.sum()])
    beyond_K = np.minimum(n1_K, n2_K) + second.offset_K <= 0
    offset_K = np.where(beyond_K, 0.0, second.offset_K)
    notes = autoscale.check(n1_K, n2_K, total, lower_K=least_2K, offsets=offset_K, names=first.domains)
    for k in np.flatnonzero(beyond_K):
        offset = f"{first.domains[k]} has an offset of {second.offset_K[k]:.4g}"
        notes.append(f"{offset}, as large as its quantity at a scale: fit a law")
    if total < n1_K.sum():
        notes.append(f"the total is smaller than the first scale's ({n1_K.sum():.4g}): the formula is for larger ones")
    return Carried(first.domains, tokens_K, scale, autoscale.time_of(n1_K, n2_K, total) - 1, tuple(notes))
