"""The optimum of a fitted law without its runs: `raymix optimize`, in the form of a study's recommendation.

A law that is convex is minimised with a certificate. Under a law that is not (a Gaussian process on residuals) the
convex law inside is minimised first, with its certificate, and the mixture is then polished under the whole law, but
only inside the near-optimal set of the first: where the convex law sees no difference that a run could show.
Letters: K training domains, M eval domains, Q mixtures compared (the optimum first).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raymix import simplex
from raymix.laws.base import Law
from raymix.laws.posterior import convex_parts
from raymix.simplex import Array, Polytope
from raymix.space import Scale, SearchSpace
from raymix.tables.law_file import LawFile
from raymix.tables.notes import guessed_at, not_counted, notes_at, prior_notes, share_notes, without_end
from raymix.target.held_out import ENOUGH
from raymix.target.near_optimal import near_optimal
from raymix.target.objective import ObjectiveAtScale, objective_of, unit
from raymix.target.optimum import Optimum, minimise
from raymix.target.reading import Reading, epochs_of, repeat_notes, set_around, verdict
from raymix.target.recommend import Recommendation, baseline_mixtures


@dataclass(frozen=True)
class Wanted:
    """Where to read the law, and what a mixture must keep to; shares and tokens by domain name."""

    scale: Scale
    available: Mapping[str, float] = field(default_factory=dict)
    """Unique tokens at hand."""
    max_epochs: float | None = None
    least: Mapping[str, float] = field(default_factory=dict)
    most: Mapping[str, float] = field(default_factory=dict)
    prior: Mapping[str, float] | None = None
    """The mixture used today, in any unit."""
    weights: Mapping[str, float] | None = None
    """Of the objective over eval domains; those of the law file if left out."""
    pull: float = 0.0
    """Towards the prior: nats of objective per nat of KL divergence."""


def space_of(found: LawFile, wanted: Wanted) -> SearchSpace:
    """The wish as a search space.

    Raises:
        SpaceError: bounds, epochs and tokens that no mixture can keep.
    """
    domains = []
    for name in found.domains:
        domain: dict[str, Any] = {"name": name, "available_tokens": wanted.available.get(name)}
        domain |= {"min_share": wanted.least.get(name, 0.0), "max_share": wanted.most.get(name, 1.0)}
        domains.append(domain | ({} if wanted.prior is None else {"prior": wanted.prior.get(name, 0.0)}))
    weights = wanted.weights or dict(zip(found.eval_domains, found.weights_M.tolist(), strict=True))
    scale = wanted.scale._asdict()
    raw = {
        "name": "a law",
        "domains": domains,
        "eval_domains": [{"name": name} for name in found.eval_domains],
        "objective": {"weights": weights, "pull": wanted.pull},
        "ladder": [scale],
        "target": {**scale, "max_epochs": wanted.max_epochs},
    }
    return SearchSpace.parse(raw)


def advise(found: LawFile, wanted: Wanted) -> Recommendation:
    """The best mixture at the scale wanted, with what it is compared to.

    Raises:
        SpaceError: bounds, epochs and tokens that no mixture can keep.
    """
    space, found = space_of(found, wanted), found.at(wanted.scale)
    unjudged = _unjudged(found, space.weights_M)
    objective, polytope = objective_of(space, found.law), space.polytope()
    noise = noise_of(found, objective, simplex.interior_point(polytope))
    optimum, certificate = best_mixture(space, found.law, noise)
    baselines = baseline_mixtures(space, space.target)
    if wanted.prior is None:
        del baselines["prior"]  # nobody named one: it would be the uniform or the proportional mixture again
    mix_QK = np.stack([optimum.mixture_K, *baselines.values()])
    read = Reading.of(objective, mix_QK).widened(found.widening(mix_QK))
    compared = read.baselines({name: space.shares(mix_K) for name, mix_K in baselines.items()})
    beyond = share_notes(found, optimum.mixture_K[None])
    guessed = [*guessed_at(found, wanted.scale), *beyond]
    reference = "prior" if "prior" in compared else "uniform"
    of = unit(found.eval_domains, space.weights_M, found.minimised)
    mixtures = None if found.trained is None else found.trained.mixtures
    return Recommendation(
        mixture=space.shares(optimum.mixture_K),
        scale={key: float(value) for key, value in wanted.scale._asdict().items()},
        losses=read.losses(space.eval_names),
        objective=read.value(0),
        baselines=compared,
        near_optimal=set_around(space, objective, polytope, optimum, noise),
        epochs=epochs_of(space, optimum.mixture_K, wanted.scale.n_tokens),
        law={
            "name": found.law.name,
            **_score({} if unjudged else _mixture_score(found), read.value(0).mean),
            "noise": noise,
            "why": found.choice.get("why", ""),
            "notes": [
                *found.notes,
                *notes_at(found, wanted.scale),
                *not_counted(found),
                *unjudged,
                *without_end(space.domain_names, wanted.available),
                *prior_notes(space.domain_names, wanted.prior, wanted.pull),
                *beyond,
                *repeat_notes(space, objective, optimum.mixture_K),
            ],
        },
        certificate=certificate,
        verdict=verdict(reference, compared[reference].gain, noise, _order(found), guessed, of, mixtures, unjudged),
        evidence=_evidence(found),
        unit=of,
    )


def _unjudged(found: LawFile, weights_M: Array) -> list[str]:
    """A sentence where the law was judged by another objective than this, or by none."""
    if not _mixture_score(found):
        return ["nothing says how well the law predicts mixtures that it has not seen"]
    if np.allclose(weights_M, found.weights_M, atol=1e-6):
        return []
    return ["how well the law predicts is known for other weights alone, and the noise here is at least as many times "
            "the law's own as there: raymix fit --weights FILE judges it by these"]  # fmt: skip


def best_mixture(space: SearchSpace, law: Law, noise: float) -> tuple[Optimum, dict[str, Any]]:
    """The optimum at the target of the space, and its certificate."""
    objective, polytope = objective_of(space, law), space.polytope()
    parts = [] if law.convex else convex_parts(law)
    if not parts:
        optimum = minimise(objective, polytope)
        return optimum, {"gap": optimum.gap, "convex": optimum.convex, "method": optimum.method}
    inside = [objective_of(space, part) for part in parts]
    first = [minimise(part, polytope) for part in inside]
    level = [float(objective.levels(found.mixture_K).max()) for found in first]
    best = int(np.argmin(level))
    region = _near(inside[best], polytope, first[best], noise)
    optimum = minimise(objective, region, [first[best].mixture_K])
    gained = level[best] - float(objective.levels(optimum.mixture_K).max())
    method = (
        f"SLSQP on {parts[best].name}, whose gap this is, then polished under {law.name} inside its near-optimal set"
    )
    return optimum, {"gap": first[best].gap, "convex": False, "method": method, "polish": max(0.0, gained)}


def noise_of(found: LawFile, objective: ObjectiveAtScale, mix_K: Array) -> float:
    """sd of the objective between runs that the law cannot explain: held out if known, else the law's own sd.

    That is read at the nearest scale trained: beyond, it is of what nobody knows, and not of a run. Of other weights
    than were held out it is at least as many times the law's own as of those.
    """
    loss_M, held_out = objective.losses(mix_K)[0], _mixture_score(found).get("noise")
    own_M = loss_M * found.law.sd(mix_K[None], _nearest(found, objective.scale))[0]
    own = float(own_M @ objective.weights_M)
    if held_out is None:
        return own
    seen = float(held_out * (loss_M @ found.weights_M))
    return max(own, own * seen / float(own_M @ found.weights_M)) if _unjudged(found, objective.weights_M) else seen


def _nearest(found: LawFile, scale: Sequence[float]) -> Array:
    """The scale (2,) within those trained that is nearest."""
    if found.trained is None:
        return np.asarray(scale, float)
    sizes, (least, most) = found.trained.n_params, found.trained.n_tokens
    return np.asarray(np.clip(np.asarray(scale, float), [sizes[0], least], [sizes[-1], most]))


def _near(objective: ObjectiveAtScale, polytope: Polytope, optimum: Optimum, slack: float) -> Polytope:
    """The allowed mixtures inside the box around the near-optimal set."""
    low_K, high_K = near_optimal(objective, polytope, optimum, slack)
    lower_K, upper_K = np.maximum(polytope.lower_K, low_K), np.minimum(polytope.upper_K, high_K)
    return Polytope(lower_K, upper_K, polytope.rows_GK, polytope.limit_G)


def _mixture_score(found: LawFile) -> dict[str, Any]:
    """The score of the chosen law with mixtures held out, empty where there is none."""
    chosen = [
        score
        for score in found.choice.get("scores", [])
        if score.get("name") == found.law.name and score.get("held_out") == "mixtures"
    ]
    return dict(chosen[0]) if chosen else {}


def _score(score: Mapping[str, Any], value: float) -> dict[str, Any]:
    """Out-of-sample figures under the names of a study's recommendation; `error` in nats of the objective."""
    error = score.get("weighted_error")
    ranks = {key: score.get(key) for key in ("rank_correlation", "rank_correlation_within_size")}
    return {**ranks, "error": None if error is None else float(error * value)}


def _order(found: LawFile) -> float | None:
    """Rank correlation inside sizes on mixtures held out; None where too few runs were to judge it."""
    few = found.trained is not None and found.trained.runs - len(found.trained.n_params) < ENOUGH - 1
    return None if few else _mixture_score(found).get("rank_correlation_within_size")


def _evidence(found: LawFile) -> dict[str, float]:
    trained = found.trained
    return {} if trained is None else {"trials": trained.runs, "mixtures": trained.mixtures, "rows": trained.rows}
