"""The law read at the target: which mixture, how good, how sure, and when to abstain.

Losses and gains come with 90% intervals. A gain is the difference between two mixtures under the *same* law, so
its interval is taken over laws refitted to bootstrap samples of whole trials: what two mixtures share cancels.

Letters: B rows, K training domains, M eval domains, S bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from raymix import simplex
from raymix.laws import Law, bootstrap, make_law
from raymix.laws.select import cross_validate, rank_correlation
from raymix.near_optimal import near_optimal
from raymix.objective import ObjectiveAtScale, objective_of, reduce_losses
from raymix.observations import Observations
from raymix.optimum import Optimum, minimise
from raymix.simplex import Array
from raymix.space import Rung, SearchSpace, Target

N_DRAWS = 40  # bootstrap laws: enough for the 5% and 95% quantiles to be about the 2nd and 38th of them
Z90 = 1.645  # half width of a 90% normal interval in standard deviations
FAR_TOKENS = 3.0  # beyond this ratio the step tail was measured to err by about 4%
FAR_PARAMS = 30.0  # ladder to target; not measured beyond
MIN_TRIALS = 4


@dataclass(frozen=True)
class Interval:
    """A value with its 90% interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Baseline:
    """A mixture somebody would use without a search; `gain` is how much worse it is predicted to be (nats)."""

    mixture: dict[str, float]
    objective: Interval
    gain: Interval


@dataclass(frozen=True)
class HeldOut:
    """Objective of every last checkpoint, observed and predicted by laws that never saw its mixture."""

    trial_id: list[str]
    n_params: list[float]
    observed: list[float]
    predicted: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Recommendation:
    """What a study ends in; `to_json` is recommendation.json."""

    mixture: dict[str, float]
    scale: dict[str, float]
    losses: dict[str, Interval]
    objective: Interval
    baselines: dict[str, Baseline]
    near_optimal: dict[str, dict[str, float]]
    epochs: dict[str, float | None]
    law: dict[str, Any]
    certificate: dict[str, Any]
    verdict: dict[str, str]
    evidence: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class NotEnoughTrialsError(ValueError):
    """Too few finished trials to fit a law; the message says how many there are and why the others failed."""


def fit_law(space: SearchSpace, table: Observations, name: str = "union") -> Law:
    """The law on all usable rows.

    Raises:
        NotEnoughTrialsError: fewer than 4 trials with losses.
    """
    usable = table.usable()
    trials = len(set(usable.trial_ids))
    if trials < MIN_TRIALS:
        reasons = sorted({str(reason) for reason in table.table["reason"].to_pylist() if reason})
        why = f"; failures: {'; '.join(reasons[:3])}" if reasons else ""
        raise NotEnoughTrialsError(f"{trials} trials have losses, a law needs at least {MIN_TRIALS}{why}")
    return make_law(name).fit(usable.mix_BK, usable.scale_B2, usable.loss_BM, usable.run_B, space.own_M)


def recommend(
    space: SearchSpace, table: Observations, law: Law, target: Rung | None = None, seed: int = 0
) -> tuple[Recommendation, HeldOut]:
    """The recommendation at `target` (default: the space's), and the cross-validation behind its score."""
    target = target or space.target
    usable = table.usable()
    polytope = space.polytope(target)
    objective = objective_of(space, law, target)
    optimum = minimise(objective, polytope)
    rng = np.random.default_rng([seed, 1])
    draws = bootstrap(
        make_law(law.name), usable.mix_BK, usable.scale_B2, usable.loss_BM, usable.run_B, space.own_M, N_DRAWS, rng
    )
    drawn = [replace(objective, law=draw) for draw in draws]
    score, held_out = score_law(space, table, law)
    baselines = _baselines(space, target, objective, drawn, optimum)
    low_K, high_K = near_optimal(objective, polytope, optimum, score["noise"])
    epochs_K = optimum.mixture_K * target.n_tokens / space.available_K
    recommendation = Recommendation(
        mixture=space.shares(optimum.mixture_K),
        scale={"n_params": target.n_params, "n_tokens": target.n_tokens},
        losses=_losses(space, objective, drawn, optimum.mixture_K),
        objective=_objective_interval(objective, drawn, optimum.mixture_K),
        baselines=baselines,
        near_optimal={
            name: {"low": float(low), "high": float(high)}
            for name, low, high in zip(space.domain_names, low_K, high_K, strict=True)
        },
        epochs={
            name: float(epochs) if known else None
            for name, epochs, known in zip(space.domain_names, epochs_K, np.isfinite(space.available_K), strict=True)
        },
        law={"name": law.name, **score, "notes": [*law.notes_, *_extrapolation(usable, target)]},
        certificate={"gap": optimum.gap, "convex": optimum.convex, "method": optimum.method},
        verdict=_verdict(baselines["prior"].gain, score["noise"]),
        evidence=_evidence(table),
    )
    return recommendation, held_out


def score_law(space: SearchSpace, table: Observations, law: Law) -> tuple[dict[str, float], HeldOut]:
    """Out-of-sample score: whole mixtures held out, judged on the last checkpoint of every trial that did not fail.

    `rank_correlation` (Spearman) and `error` (mean absolute, nats) are of the objective; `noise` is the standard
    deviation of the objective between runs of the same mixture where there are replicates, else of the residuals.
    """
    usable, failed = table.usable(), table.select(table.status_B == "failed").trial_ids
    found = cross_validate(
        lambda: make_law(law.name), usable.mix_BK, usable.scale_B2, usable.loss_BM, usable.run_B, space.own_M
    )
    weights_M, reduce = space.weights_M, space.objective.reduce
    last = usable.select(~np.isin(usable.trial_ids, failed)).last()
    key = {key: i for i, key in enumerate(zip(usable.trial_ids, usable.scale_B2[:, 1], strict=True))}
    rows = np.asarray([key[k] for k in zip(last.trial_ids, last.scale_B2[:, 1], strict=True)])
    observed_B = reduce_losses(last.loss_BM, weights_M, reduce)
    predicted_B = reduce_losses(found.pred_BM[rows], weights_M, reduce)
    ok = np.isfinite(observed_B) & np.isfinite(predicted_B)
    relative_B = law.sd(last.mix_BK, last.scale_B2) @ weights_M  # errors of one run move together: sds add up
    noise = _noise(last, observed_B, predicted_B)
    by_size = _rank_within_sizes(observed_B[ok], predicted_B[ok], last.scale_B2[ok, 0])
    score = {
        "rank_correlation": rank_correlation(predicted_B[ok], observed_B[ok]),
        "rank_correlation_within_size": by_size,
        "error": float(np.abs(observed_B[ok] - predicted_B[ok]).mean()),
        "noise": noise,
    }
    half_B = predicted_B * (np.exp(Z90 * relative_B) - 1)
    held_out = HeldOut(
        [trial_id for trial_id, keep in zip(last.trial_ids, ok, strict=True) if keep],
        last.scale_B2[ok, 0].tolist(),
        observed_B[ok].tolist(),
        predicted_B[ok].tolist(),
        (predicted_B - half_B)[ok].tolist(),
        (predicted_B + half_B)[ok].tolist(),
    )
    return score, held_out


def _noise(last: Observations, observed_B: Array, predicted_B: Array) -> float:
    """sd of the objective between runs that differ in the seed alone; without replicates, of held-out residuals."""
    groups: dict[tuple[float, ...], list[float]] = {}
    for mix_K, scale_2, value in zip(last.mix_BK, last.scale_B2, observed_B, strict=True):
        if np.isfinite(value):
            groups.setdefault((*np.round(mix_K, 9), *scale_2), []).append(float(value))
    replicated = [np.asarray(values) for values in groups.values() if len(values) > 1]
    if replicated:
        squares = sum(float(((values - values.mean()) ** 2).sum()) for values in replicated)
        return float(np.sqrt(squares / sum(len(values) - 1 for values in replicated)))
    residual_B = (observed_B - predicted_B)[np.isfinite(observed_B - predicted_B)]
    return float(residual_B.std()) if len(residual_B) else 0.0


def _rank_within_sizes(observed_B: Array, predicted_B: Array, size_B: Array) -> float:
    """Rank correlation inside each proxy size, averaged by trials: between sizes any law ranks well."""
    sizes = [size for size in np.unique(size_B) if (size_B == size).sum() >= 4]
    if not sizes:
        return rank_correlation(predicted_B, observed_B)
    counts = [int((size_B == size).sum()) for size in sizes]
    ranks = [rank_correlation(predicted_B[size_B == size], observed_B[size_B == size]) for size in sizes]
    return float(np.average(ranks, weights=counts))


def baseline_mixtures(space: SearchSpace, target: Rung) -> dict[str, Array]:
    """Mixtures people use without a search, each moved into the polytope (caps at the target hold for all)."""
    polytope = space.polytope(target)
    found = {"prior": space.prior_K(), "uniform": np.full(len(space.domains), 1 / len(space.domains))}
    if np.isfinite(space.available_K).all():
        max_epochs = space.target.max_epochs or np.inf
        found["proportional"] = simplex.temperature(space.available_K, 1.0)
        found["temperature 2"] = simplex.temperature(space.available_K, 0.5)
        found["unimax"] = simplex.unimax(space.available_K, target.n_tokens, max_epochs)
    return {name: simplex.project(polytope, mix_K) for name, mix_K in found.items()}


def _baselines(
    space: SearchSpace, target: Rung, objective: ObjectiveAtScale, drawn: Sequence[ObjectiveAtScale], optimum: Optimum
) -> dict[str, Baseline]:
    out = {}
    for name, mix_K in baseline_mixtures(space, target).items():
        mean = float(objective.values(mix_K)[0]) - optimum.value
        gain_S = np.asarray([float(d.values(mix_K)[0] - d.values(optimum.mixture_K)[0]) for d in drawn])
        gain = _interval(mean, gain_S)
        out[name] = Baseline(space.shares(mix_K), _objective_interval(objective, drawn, mix_K), gain)
    return out


def _interval(mean: float, draw_S: Array) -> Interval:
    low, high = np.quantile(draw_S, [0.05, 0.95])
    return Interval(mean, float(min(low, mean)), float(max(high, mean)))


def _objective_interval(objective: ObjectiveAtScale, drawn: Sequence[ObjectiveAtScale], mix_K: Array) -> Interval:
    """The wider of two intervals: bootstrap laws, and the law's own (which knows noise and unseen scales)."""
    value = float(objective.values(mix_K)[0])
    sd = float((_sd_M(objective, mix_K) @ objective.weights_M) * value)
    found = _interval(value, np.asarray([float(d.values(mix_K)[0]) for d in drawn]))
    return Interval(value, min(found.low, value - Z90 * sd), max(found.high, value + Z90 * sd))


def _losses(
    space: SearchSpace, objective: ObjectiveAtScale, drawn: Sequence[ObjectiveAtScale], mix_K: Array
) -> dict[str, Interval]:
    loss_M, sd_M = objective.losses(mix_K)[0], _sd_M(objective, mix_K)
    draws_SM = np.stack([d.losses(mix_K)[0] for d in drawn])
    out = {}
    for i, name in enumerate(space.eval_names):
        found = _interval(float(loss_M[i]), draws_SM[:, i])
        low, high = loss_M[i] * np.exp(-Z90 * sd_M[i]), loss_M[i] * np.exp(Z90 * sd_M[i])
        out[name] = Interval(found.mean, min(found.low, float(low)), max(found.high, float(high)))
    return out


def _sd_M(objective: ObjectiveAtScale, mix_K: Array) -> Array:
    return np.asarray(objective.law.sd(mix_K[None], np.asarray(objective.scale, float)[None])[0])


def _extrapolation(usable: Observations, target: Rung) -> list[str]:
    """Warnings where the target lies far beyond what was trained."""
    n_params, n_tokens = usable.scale_B2.max(axis=0)
    notes = []
    if target.n_tokens > FAR_TOKENS * n_tokens:
        times = target.n_tokens / n_tokens
        notes.append(
            f"the target's tokens are {times:.1f} times the longest proxy's: expect losses to be off by some %"
        )
    if target.n_params > FAR_PARAMS * n_params:
        notes.append(f"the target is {target.n_params / n_params:.0f} times the largest proxy: add a larger rung")
    return notes


def _verdict(gain: Interval, noise: float) -> dict[str, str]:
    """Use the mixture only if its gain over the prior is above 0 at 95% and above the noise of one run."""
    seen = f"predicted gain over the prior {gain.mean:.4f} nats (90% interval {gain.low:.4f} to {gain.high:.4f})"
    if gain.low > 0 and gain.mean > noise:
        return {"answer": "use it", "reason": f"{seen}, above the noise of one run ({noise:.4f})"}
    why = "the interval includes 0" if gain.low <= 0 else f"less than the noise of one run ({noise:.4f})"
    return {"answer": "keep the baseline: gain within noise", "baseline": "prior", "reason": f"{seen}; {why}"}


def _evidence(table: Observations) -> dict[str, float]:
    """What the recommendation rests on and what it cost; tokens, FLOPs and seconds over all trials."""
    last = table.usable().last()
    ended = set(table.select(table.status_B == "failed").trial_ids)
    return {
        "trials": len(set(last.trial_ids)),
        "failed": len(ended),
        "rows": len(table.usable()),
        "tokens": float(last.scale_B2[:, 1].sum()),
        "flops": float(np.nansum(last.column("flops"))),
        "seconds": float(np.nansum(last.column("seconds"))),
    }


def target_from(space: SearchSpace, n_params: float | None = None, n_tokens: float | None = None) -> Target:
    """The space's target with another size or length."""
    return space.target.model_copy(
        update={"n_params": n_params or space.target.n_params, "n_tokens": n_tokens or space.target.n_tokens}
    )
