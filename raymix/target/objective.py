"""What is minimised: losses of a law at one scale, reduced to one number, with guardrails and a pull to the prior.

    minimise   reduce_i L_i(w)  +  pull * KL(w || prior)     subject to   L_g(w) <= ceiling_g

All of it is convex where the law is. Separate from laws: another objective asks for no new trial.

Letters: B rows, K training domains, M eval domains, T terms of the objective, G guardrails.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from raymix import simplex
from raymix.laws.base import Law
from raymix.laws.repetition import stocked
from raymix.simplex import Array
from raymix.space import Metric, Rung, SearchSpace

Reduce = Literal["mean", "worst"]
NATS = "nats"  # of an objective of losses alone
BITS = "bits per byte"  # of losses whose names say so, as Olmix publishes them
IN_BITS = re.compile(r"(.*[^a-z])?(bpb|bits[_ -]per[_ -]byte)([^a-z].*)?", re.I)
USUAL = (0.01, 100.0)  # nats: for these the tolerances of solvers were chosen


@dataclass(frozen=True)
class ObjectiveAtScale:
    """A law read at one scale through an objective."""

    law: Law
    scale: Sequence[float]
    weights_M: Array
    reduce: Reduce = "mean"
    ceiling_M: Array | None = None
    """Largest loss allowed per eval domain (nats); inf where there is no guardrail."""
    pull: float = 0.0
    """Nats per nat of KL divergence from `prior_K`."""
    prior_K: Array | None = None
    unit: float = 1.0
    """Nats that count as 1: solvers stop at absolute differences (`in_units`)."""

    def in_units(self, mix_K: Array) -> "ObjectiveAtScale":
        """The same problem with a value at `mix_K` that is about 1; itself where it is within .01 to 100 nats."""
        level = float(np.abs(self.levels(mix_K)).max())
        if USUAL[0] <= level <= USUAL[1] or not 0 < level < np.inf:
            return self
        unit = float(10 ** np.round(np.log10(level)))
        ceiling_M = None if self.ceiling_M is None else self.ceiling_M / unit
        return replace(self, unit=self.unit * unit, ceiling_M=ceiling_M, pull=self.pull / unit)

    def losses(self, mix_BK: Array) -> Array:
        """Predicted losses (B, M)."""
        mix_BK = np.atleast_2d(mix_BK)
        return self.law.predict(mix_BK, np.tile(np.asarray(self.scale, float), (len(mix_BK), 1))) / self.unit

    def values(self, mix_BK: Array) -> Array:
        """The reduced losses of each row (B,), in nats, without the pull."""
        return reduce_losses(self.losses(mix_BK), self.weights_M, self.reduce)

    def jacobian(self, mix_K: Array) -> Array:
        """dL/dr (M, K)."""
        return np.asarray(self.law.gradient(mix_K[None], np.asarray(self.scale, float)[None])[0] / self.unit)

    def terms(self, mix_K: Array) -> tuple[Array, Array]:
        """The objective as the largest of T terms: values (T,) with the pull, gradients (T, K).

        One term for the mean; for the worst case one per eval domain with a weight.
        """
        return self.levels(mix_K)[0], self.slopes(mix_K)

    def levels(self, mix_BK: Array) -> Array:
        """The values of the terms (B, T); without gradients they cost half."""
        mix_BK, used = np.atleast_2d(mix_BK), self.weights_M > 0
        loss_BT = self.losses(mix_BK)[:, used]
        if self.reduce == "mean":
            loss_BT = loss_BT @ self.weights_M[used][:, None]
        return np.asarray(loss_BT + self._distance(mix_BK)[0][:, None])

    def slopes(self, mix_K: Array) -> Array:
        """The gradients of the terms (T, K)."""
        used = self.weights_M > 0
        jac_TK = self.jacobian(mix_K)[used]
        if self.reduce == "mean":
            jac_TK = self.weights_M[used][None] @ jac_TK
        return np.asarray(jac_TK + self._distance(mix_K[None])[1][0])

    def guards(self, mix_K: Array) -> tuple[Array, Array]:
        """How much room the guardrails leave, ceiling - loss (G,), and its gradient (G, K)."""
        if self.ceiling_M is None:
            return np.zeros(0), np.zeros((0, len(mix_K)))
        return self.rooms(mix_K)[0], np.asarray(-self.jacobian(mix_K)[np.isfinite(self.ceiling_M)])

    def rooms(self, mix_BK: Array) -> Array:
        """How much room the guardrails leave (B, G)."""
        mix_BK = np.atleast_2d(mix_BK)
        if self.ceiling_M is None:
            return np.zeros((len(mix_BK), 0))
        guarded = np.isfinite(self.ceiling_M)
        return np.asarray(self.ceiling_M[guarded] - self.losses(mix_BK)[:, guarded])

    def _distance(self, mix_BK: Array) -> tuple[Array, Array]:
        """The pull: KL(w || prior) (B,) and its gradient (B, K); a domain outside the prior counts as 1e-6 of it."""
        if self.pull == 0 or self.prior_K is None:
            return np.zeros(len(mix_BK)), np.zeros_like(mix_BK)
        log_ratio_BK = np.log(np.maximum(mix_BK, 1e-12) / np.maximum(self.prior_K, 1e-6))
        return self.pull * np.sum(mix_BK * log_ratio_BK, axis=1), self.pull * (log_ratio_BK + 1)


def objective_of(
    space: SearchSpace, law: Law, target: Rung | None = None, unique_K: Array | None = None
) -> ObjectiveAtScale:
    """The objective of a space under a law, read at `target` (default: the space's) with the tokens at hand there.

    Guardrails are relative to the prior moved into the polytope, which keeps all but those below 0.

    Args:
        unique_K: unique tokens per domain that a run there draws from (default: all that are available).
    """
    target, law = target or space.target, stocked(law, space.available_K if unique_K is None else unique_K)
    prior_K = simplex.project(space.polytope(target), space.prior_K())
    plain = ObjectiveAtScale(law, target.scale, space.weights_M, space.objective.reduce)
    ceiling_M = None
    if space.objective.guardrails:
        ceiling_M = np.full(len(space.eval_names), np.inf)
        baseline_M = plain.losses(prior_K)[0]
        for name, increase in space.objective.guardrails.items():
            i = space.eval_names.index(name)
            ceiling_M[i] = baseline_M[i] + increase
    return ObjectiveAtScale(
        law, target.scale, space.weights_M, space.objective.reduce, ceiling_M, space.objective.pull, prior_K
    )


def reduce_losses(loss_BM: Array, weights_M: Array, reduce: Reduce) -> Array:
    """Weighted mean over eval domains, or the largest loss among those with a weight above 0."""
    used = weights_M > 0
    if reduce == "worst":
        return np.asarray(loss_BM[..., used].max(axis=-1))
    return np.asarray(loss_BM[..., used] @ weights_M[used])


def objective_values(space: SearchSpace, loss_BM: Array) -> Array:
    """The objective of a space for each row (B,), NaN where a loss is that it reads."""
    return reduce_losses(loss_BM, space.weights_M, space.objective.reduce)


def unit_of(space: SearchSpace) -> str:
    """Of the objective of a space: nats where it is made of losses alone, unless their names say bits per byte."""
    return unit(space.eval_names, space.weights_M, minimised(space.metrics))


def unit(eval_names: Sequence[str], weights_M: Array, minimised: Mapping[str, str]) -> str:
    """Of a weighted objective, where `minimised` says of every metric among the eval domains what is minimised."""
    counted = [name for name, weight in zip(eval_names, weights_M, strict=True) if weight > 0]
    metrics = [minimised[name] for name in counted if name in minimised]
    losses = sorted({BITS if IN_BITS.fullmatch(name) else NATS for name in counted if name not in minimised})
    kinds = [*losses, *(["metrics"] if metrics else [])]
    if len(kinds) > 1:
        return f"{' and '.join(kinds)} together"
    if losses:
        return losses[0]
    return metrics[0] if len(metrics) == 1 else "units of the metrics"


def minimised(metrics: Iterable[Metric]) -> dict[str, str]:
    """What is minimised in the place of each metric, by its name: itself, or what is left up to its best."""
    return {each.name: f"{each.best:g} - {each.name}" if each.better == "high" else each.name for each in metrics}


def with_unit(number: str, unit: str) -> str:
    """`.05 nats`, `.05 in 1 - exams`."""
    return f"{number} {unit}" if unit in (NATS, BITS) else f"{number} in {unit}"
