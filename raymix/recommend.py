"""The law read at the target: which mixture, how good, how sure, and when to abstain.

Losses and gains come with 90% intervals. A gain is the difference between two mixtures under the *same* law, so
its interval is taken over laws refitted to bootstrap samples of whole trials: what two mixtures share cancels.

Letters: B rows, K training domains, M eval domains, S bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from raymix import simplex
from raymix.held_out import Z90, HeldOut, score_law
from raymix.laws import Law, bootstrap, make_law
from raymix.near_optimal import exchangeable, near_optimal
from raymix.objective import ObjectiveAtScale, objective_of
from raymix.observations import Observations
from raymix.optimum import Optimum, minimise
from raymix.simplex import Array
from raymix.space import Rung, SearchSpace, Target

N_DRAWS = 40  # bootstrap laws: enough for the 5% and 95% quantiles to be about the 2nd and 38th of them
FAR_TOKENS = 3.0  # beyond this ratio the step tail was measured to err by about 4%
FAR_PARAMS = 30.0  # ladder to target; not measured beyond
FAR_MIXTURE = 0.25  # total variation to the nearest mixture tried
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
    evidence: dict[str, int | float]
    exchangeable: list[dict[str, Any]] = field(default_factory=list)
    """Pairs of domains of which the first can give much of its share to the second within the noise."""

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
        law={"name": law.name, **score, "notes": [*law.notes_, *_extrapolation(usable, target, optimum.mixture_K)]},
        certificate={"gap": optimum.gap, "convex": optimum.convex, "method": optimum.method},
        verdict=_verdict(baselines["prior"].gain, score["noise"]),
        evidence=_evidence(table),
        exchangeable=_pairs(space, exchangeable(objective, polytope, optimum, score["noise"])),
    )
    return recommendation, held_out


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


def _pairs(space: SearchSpace, moved_KK: Array) -> list[dict[str, Any]]:
    """The largest exchanges, at most five, none below 5 points of share."""
    names = space.domain_names
    order = np.argsort(-moved_KK, axis=None)[:5]
    found = [(int(i) // len(names), int(i) % len(names)) for i in order]
    return [
        {"from": names[k], "to": names[j], "share": float(moved_KK[k, j])} for k, j in found if moved_KK[k, j] >= 0.05
    ]


def _extrapolation(usable: Observations, target: Rung, mix_K: Array) -> list[str]:
    """Warnings where the target or the mixture lies far beyond what was trained."""
    n_params, n_tokens = usable.scale_B2.max(axis=0)
    notes = []
    if target.n_tokens > FAR_TOKENS * n_tokens:
        times = target.n_tokens / n_tokens
        notes.append(
            f"the target's tokens are {times:.1f} times the longest proxy's: expect losses to be off by some %"
        )
    if target.n_params > FAR_PARAMS * n_params:
        notes.append(f"the target is {target.n_params / n_params:.0f} times the largest proxy: add a larger rung")
    nearest = float(0.5 * np.abs(usable.mix_BK - mix_K).sum(axis=1).min())
    if nearest > FAR_MIXTURE:
        notes.append(f"no mixture within {nearest:.0%} of share of the recommended one was tried: confirm it first")
    return notes


def _verdict(gain: Interval, noise: float) -> dict[str, str]:
    """Use the mixture only if its gain over the prior is above 0 at 95% and above the noise of one run."""
    seen = f"predicted gain over the prior {gain.mean:.4f} nats (90% interval {gain.low:.4f} to {gain.high:.4f})"
    if gain.low > 0 and gain.mean > noise:
        return {"answer": "use it", "reason": f"{seen}, above the noise of one run ({noise:.4f})"}
    why = "the interval includes 0" if gain.low <= 0 else f"less than the noise of one run ({noise:.4f})"
    return {"answer": "keep the baseline: gain within noise", "baseline": "prior", "reason": f"{seen}; {why}"}


def _evidence(table: Observations) -> dict[str, int | float]:
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
