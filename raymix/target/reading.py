"""A law read at one scale: losses, the objective and gains of some mixtures with 90% intervals, and when to abstain.

The law's own sds make them. That of a loss knows the noise of a run, what the runs leave open and scales that nobody
trained; it was measured to hold about 92% of the losses of mixtures left out, in published runs (benchmarks/LOG.md,
"Intervals of a reading"). A gain is the difference between two mixtures under the *same* law: what they share cancels,
and the law says how sure it is of the rest ("Gains without draws").

Letters: M eval domains, Q mixtures compared (the recommended one first).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from raymix.laws.base import Law
from raymix.laws.posterior import SHARED, parts_of
from raymix.laws.repetition import REPEATED
from raymix.observations import SAME_SCALE
from raymix.simplex import Array, Polytope
from raymix.space import Scale, SearchSpace
from raymix.target.held_out import ENOUGH, SOME_ORDER, Z90
from raymix.target.near_optimal import near_optimal
from raymix.target.objective import NATS, ObjectiveAtScale, reduce_losses, with_unit
from raymix.target.optimum import Optimum

FAR_TOKENS = 3.0  # beyond this ratio the step tail was measured to err by about 4%
FAR_PARAMS = 30.0  # ladder to target; not measured beyond


@dataclass(frozen=True)
class Interval:
    """A value with its 90% interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Baseline:
    """A mixture somebody would use without a search; `gain` is how much worse it is predicted to be."""

    mixture: dict[str, float]
    objective: Interval
    gain: Interval


@dataclass(frozen=True)
class Reading:
    """Losses of some mixtures with their sd, and how sure the law is of their difference to mixture 0."""

    objective: ObjectiveAtScale
    loss_QM: Array
    sd_QM: Array
    """Of log loss, for a new run."""
    between_QM: Array
    """Sd of the difference in log loss to mixture 0, the recommended one."""

    @classmethod
    def of(cls, objective: ObjectiveAtScale, mix_QK: Array) -> "Reading":
        """Of mixtures under a law."""
        law, scale_2 = objective.law, np.asarray(objective.scale, float)
        first_QK = np.repeat(mix_QK[:1], len(mix_QK), axis=0)
        between_QM = law.sd_between(mix_QK, first_QK, scale_2)
        return cls(objective, objective.losses(mix_QK), law.sd(mix_QK, scale_2), between_QM)

    def widened(self, factor_Q: Array) -> "Reading":
        """The same with the sd of each mixture so many times as wide, and of each gain by its wider one."""
        wider_Q1 = np.maximum(factor_Q, factor_Q[0])[:, None]
        return replace(self, sd_QM=self.sd_QM * factor_Q[:, None], between_QM=self.between_QM * wider_Q1)

    def losses(self, eval_names: Sequence[str]) -> dict[str, Interval]:
        """Of every eval domain at the recommended mixture, for a new run."""
        half_M = np.exp(Z90 * self.sd_QM[0])
        bounds = zip(self.loss_QM[0], self.loss_QM[0] / half_M, self.loss_QM[0] * half_M, strict=True)
        return {name: Interval(*map(float, each)) for name, each in zip(eval_names, bounds, strict=True)}

    def value(self, q: int) -> Interval:
        """The objective of a mixture, for a new run."""
        mean = float(self._value_Q[q])
        sd = float(self._reduced_sd(self.sd_QM)[q])
        factor = float(np.exp(Z90 * sd / mean))  # as of a single loss: far from the runs it stays above 0
        return Interval(mean, mean / factor, mean * factor)

    def gain(self, q: int) -> Interval:
        """How much worse mixture `q` is than the recommended one, without the noise of runs."""
        mean = float(self._value_Q[q] - self._value_Q[0])
        half = Z90 * float(np.hypot(self._reduced_sd(self.between_QM)[q], self._level_sd(q)))
        return Interval(mean, mean - half, mean + half)

    def baselines(self, shares: Mapping[str, dict[str, float]]) -> dict[str, Baseline]:
        """Mixtures 1, 2, ... under their names."""
        return {name: Baseline(mix, self.value(q), self.gain(q)) for q, (name, mix) in enumerate(shares.items(), 1)}

    @property
    def _value_Q(self) -> Array:
        return self._reduced(self.loss_QM)

    def _reduced_sd(self, sd_QM: Array) -> Array:
        """sd of the objective (Q,), of such sds of log loss: errors of eval domains of one run correlate by SHARED."""
        together_Q = self._reduced(self.loss_QM * (1 + sd_QM)) - self._value_Q
        if self.objective.reduce == "worst":
            return np.asarray(together_Q)
        square_Q = ((self.objective.weights_M * self.loss_QM * sd_QM) ** 2).sum(axis=1)
        return np.asarray(np.sqrt(SHARED * together_Q**2 + (1 - SHARED) * square_Q))

    def _level_sd(self, q: int) -> float:
        """sd of a gain by levels, which both mixtures share: they say which eval domain is the worst of either.

        Far from the runs levels are much less sure than differences. An optimum lies where some are equal: there they
        can only lessen its gain, so that of up and down the larger change counts. A mean reads the same at both.
        """
        if self.objective.reduce != "worst":
            return 0.0
        pair_2M = self.loss_QM[[0, q]]
        move_MM = np.diag(self.sd_QM[0] * pair_2M.max(axis=0))  # one level at a time, up and down
        worst_22M = self._reduced(np.stack([pair_2M[:, None] + move_MM, pair_2M[:, None] - move_MM]))
        change_2M = worst_22M[:, 1] - worst_22M[:, 0] - (self._value_Q[q] - self._value_Q[0])
        return float(np.sqrt((1 - SHARED) * np.max(change_2M**2, axis=0).sum()))

    def _reduced(self, loss_QM: Array) -> Array:
        return reduce_losses(loss_QM, self.objective.weights_M, self.objective.reduce)


def set_around(
    space: SearchSpace, objective: ObjectiveAtScale, polytope: Polytope, optimum: Optimum, noise: float
) -> dict[str, dict[str, float]]:
    """The near-optimal set: the least and the largest share of every domain within the noise of the optimum."""
    low_K, high_K = near_optimal(objective, polytope, optimum, noise)
    found = zip(space.domain_names, low_K.tolist(), high_K.tolist(), strict=True)
    return {name: {"low": low, "high": high} for name, low, high in found}


def epochs_of(space: SearchSpace, mix_K: Array, n_tokens: float) -> dict[str, float | None]:
    """Passes over the tokens at hand; None where it is not known how many there are."""
    epochs_K = space.seen_K(mix_K) * n_tokens / space.available_K
    known = zip(space.domain_names, epochs_K, np.isfinite(space.available_K), strict=True)
    return {name: float(epochs) if finite else None for name, epochs, finite in known}


def verdict(
    name: str,
    gain: Interval,
    noise: float,
    order: float | None = None,
    guessed: Sequence[str] = (),
    unit: str = NATS,
    mixtures: int | None = None,
    unjudged: Sequence[str] = (),
) -> dict[str, str]:
    """Use the mixture only if its gain over the baseline is above 0 at 95% and above the noise of one run.

    And only if the law is one to believe: `order` is its rank correlation on mixtures held out, where that is known,
    `mixtures` how many there are to judge it by, `guessed` says what of this reading no run speaks of, and `unjudged`
    why that order is not known for this objective. The interval of a gain takes the law's form for granted but for what
    the residuals show: too few mixtures cannot show it (benchmarks/LOG.md, "What verdicts and intervals hold").
    """
    interval = f"(90% interval {gain.low:.4f} to {gain.high:.4f})"
    seen = f"predicted gain over the {name} {with_unit(f'{gain.mean:.4f}', unit)} {interval}"
    if gain.low > 0 and gain.mean > noise:
        if mixtures is not None and mixtures < ENOUGH:
            why = f"but {mixtures} mixtures are too few to judge a law by ({ENOUGH} are not): confirm it first"
            return {"answer": "keep the baseline: law not trusted", "baseline": name, "reason": f"{seen}, {why}"}
        if order is not None and order < SOME_ORDER:
            why = f"but the law hardly orders mixtures it has not seen (rank correlation {order:.2f}): confirm it first"
            return {"answer": "keep the baseline: law not trusted", "baseline": name, "reason": f"{seen}, {why}"}
        if guessed or unjudged:
            why = f"above the noise of one run ({noise:.4f}), but {'; '.join([*guessed, *unjudged])}: confirm it first"
            answer = f"confirm first: {'far from the runs' if guessed else 'law not judged'}"
            return {"answer": answer, "baseline": name, "reason": f"{seen}, {why}"}
        return {"answer": "use it", "reason": f"{seen}, above the noise of one run ({noise:.4f})"}
    why = "the interval includes 0" if gain.low <= 0 else f"less than the noise of one run ({noise:.4f})"
    return {"answer": "keep the baseline: gain within noise", "baseline": name, "reason": f"{seen}; {why}"}


def far_notes(n_params: float, n_tokens: float, most_params: float, most_tokens: float) -> list[str]:
    """Warnings at a scale far beyond the largest size and the longest run trained."""
    notes = []
    if n_tokens > FAR_TOKENS * most_tokens:
        times = f"{n_tokens / most_tokens:,.{0 if n_tokens > 100 * most_tokens else 1}f}"
        notes.append(f"{times} times the tokens of the longest run: expect losses to be off by some %")
    if n_params > FAR_PARAMS * most_params:
        notes.append(f"{n_params / most_params:,.0f} times the largest size trained: train a larger one")
    return notes


def wider_words(factor: float) -> str:
    """Of intervals at a mixture outside those trained (see `laws.reach`)."""
    if f"{factor:.2g}" == "1":
        return "errors may be larger than the intervals there"
    return (f"intervals there are {factor:.2g} times as wide, by what the law erred on its own farthest "
            "mixtures left out; errors may be larger still")  # fmt: skip


def guessed_scale(scale: Scale, params: tuple[float, float], tokens: tuple[float, float]) -> list[str]:
    """What no run says of a gain at a scale: far beyond runs of one size or one length its effect is the law's prior.

    `params` and `tokens` are the least and the most that was trained.
    """
    notes = []
    for what, at, (low, high), far in (
        ("size", scale.n_params, params, FAR_PARAMS),
        ("length", scale.n_tokens, tokens, FAR_TOKENS),
    ):
        if at > far * high and math.log(high / low) < SAME_SCALE:
            notes.append(f"all runs have one {what} and the target {at / high:,.0f} times that, so no run says what "
                         f"{what} does to the gain")  # fmt: skip
    return notes


def stage_notes(space: SearchSpace) -> list[str]:
    """Where stages of the recipe have mixtures of their own: that ours is not that of the whole run."""
    fixed = [part for part in space.recipe.stages if part.mixture is not None]
    if not fixed:
        return []
    named = [(part.tokens, ", ".join(f"{name}={share:g}" for name, share in (part.mixture or {}).items()))
             for part in fixed]  # fmt: skip
    left = 1 - sum(part.tokens for part in fixed)
    said = "; ".join(f"{tokens:.0%} {mixture}" for tokens, mixture in named)
    return [f"the mixture is that of {left:.0%} of the tokens: recipe.stages fixes the others, {said}"]


def counted_as_fresh(law: Law) -> str:
    """Why a law takes repeats for fresh tokens, as the end of a sentence; empty where it does not."""
    parts, as_fresh = parts_of(law), "repeats count as fresh tokens"
    if any(getattr(part, "knows_unique_", False) for part in parts):
        return ""
    if any(getattr(part, "repeats", False) for part in parts):
        return f"{as_fresh}: the runs had no columns unique/<domain>"
    return f"{as_fresh}: {law.name} knows no others (raymix fit --law union does, of columns unique/<domain>)"


def repeat_notes(space: SearchSpace, objective: ObjectiveAtScale, mix_K: Array) -> list[str]:
    """What the law cannot know of repeats, where the mixture has any."""
    per_share_K, parts = objective.scale[1] / space.available_K, parts_of(objective.law)
    epochs_K, counted_K = space.seen_K(mix_K) * per_share_K, mix_K * per_share_K
    k, why_fresh = int(np.argmax(epochs_K)), counted_as_fresh(objective.law)
    notes, domain = list[str](), f"{space.domain_names[k]} is repeated {epochs_K[k]:.1f} times at the target"
    if epochs_K[k] > REPEATED and why_fresh:
        notes.append(f"{domain}, and {why_fresh}")
    elif epochs_K[k] > REPEATED and not any(getattr(part, "saw_repeats_", False) for part in parts):
        notes.append(f"{domain}, which no run was: what repeats are worth is the published value (arXiv 2305.16264)")
    j = int(np.argmax(np.abs(counted_K - epochs_K)))
    if not why_fresh and max(counted_K[j], epochs_K[j]) > REPEATED and abs(counted_K[j] - epochs_K[j]) > 0.1:
        notes.append(f"the law counts repeats as if recipe.stages fixed none of a run: {counted_K[j]:.1f} of "
                     f"{space.domain_names[j]}, in place of {epochs_K[j]:.1f}")  # fmt: skip
    return notes
