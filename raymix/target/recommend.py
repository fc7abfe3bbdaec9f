"""The law read at the target: which mixture, how good, how sure, and when to abstain.

Intervals are those of `reading`; outside the mixtures trained they are wider (`laws.reach`).

Letters: B rows, K training domains, M eval domains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from raymix import simplex
from raymix.copies import copies, copy_words
from raymix.counts import scale_words
from raymix.exchange import NUMBERS
from raymix.laws import HedgedUnion, Law, ResidualGP
from raymix.laws.reach import widening
from raymix.laws.rows import NOMINAL
from raymix.observations import REUSED, Observations
from raymix.simplex import Array, Polytope
from raymix.space import Rung, SearchSpace, SpaceError, Target
from raymix.target.answer import MIN_TRIALS, answer
from raymix.target.held_out import HeldOut, score_law
from raymix.target.improvement import expected_improvement
from raymix.target.near_optimal import exchangeable
from raymix.target.objective import NATS, ObjectiveAtScale, unit_of
from raymix.target.optimum import Optimum
from raymix.target.reading import (
    Baseline,
    Interval,
    Reading,
    epochs_of,
    far_notes,
    guessed_scale,
    repeat_notes,
    set_around,
    stage_notes,
    verdict,
    wider_words,
)
from raymix.target.refits import refits, rows_of

DIGITS = 9  # of a share: mixtures that differ beyond are one
BROKEN = "keep the baseline: guardrail broken"
UNMET = 1e-4  # nats over a guardrail: less is rounding of the solver
FAR_MIXTURE = 0.25  # total variation to the nearest mixture tried


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
    unit: str = NATS
    """Of objective, gains, noise and gap."""

    def noting(self, notes: Sequence[str]) -> "Recommendation":
        """The same with more notes."""
        return replace(self, law={**self.law, "notes": [*self.law["notes"], *notes]})

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class NotEnoughTrialsError(ValueError):
    """Too few trials to fit a law; the message says what is missing and why trials failed."""


def fit_law(space: SearchSpace, table: Observations, law: Law | None = None) -> Law:
    """The law (by default the one that a study reads) fitted to all usable rows.

    Raises:
        NotEnoughTrialsError: fewer than 4 trials with losses, all of one mixture, or none that measured an eval domain
            or metric.
    """
    usable = table.usable()
    lacks = _lacks(usable)
    if lacks is not None:
        reasons = sorted({str(reason) for reason in table.table["reason"].to_pylist() if reason})
        why = f"; failures: {'; '.join(reasons[:3])}" if reasons else ""
        raise NotEnoughTrialsError(lacks + why)
    return rows_of(space, usable).fit(law or HedgedUnion())


def _lacks(usable: Observations) -> str | None:
    """What a law needs and these rows do not have, as a sentence; None where they have all of it."""
    trials = len(set(usable.trial_ids))
    if trials < MIN_TRIALS:
        return f"{trials} trials have losses, a law needs at least {MIN_TRIALS}"
    n_measured_M = np.isfinite(usable.loss_BM).sum(axis=0)
    missing = [usable.eval_domains[m] for m in np.flatnonzero(n_measured_M == 0)]
    if missing:
        return f"no trial measured {', '.join(missing)}, a law needs every eval domain and metric"
    if len(np.unique(usable.mix_BK.round(DIGITS), axis=0)) < 2:
        return f"all {trials} trials with losses have one mixture, a law needs at least two"
    return None


def mixture_for(space: SearchSpace, table: Observations) -> Array:
    """The mixture (K,) that a study recommends at its target from this table, before it has confirmed any.

    Raises:
        NotEnoughTrialsError: as `fit_law`.
    """
    process = fit_law(space, table, ResidualGP(stretched=False))  # with the law inside: one fit, not two
    assert isinstance(process, ResidualGP)
    return answer(space, process.law_, rows_of(space, table.usable()), process=process)[0].mixture_K


def recommend(
    space: SearchSpace,
    table: Observations,
    law: Law,
    target: Rung | None = None,
    seed: int = 0,
    keep_K: Array | None = None,
) -> tuple[Recommendation, HeldOut]:
    """The recommendation at `target` (default: the space's), and the cross-validation behind its score.

    `keep_K` is a mixture that was confirmed: it stays the answer until the law sees another that is better by more
    than the noise of one run.
    """
    target = target or space.target
    usable = table.usable()
    polytope = space.polytope(target)
    rows = rows_of(space, usable)
    optimum, objective = answer(space, law, rows, target)
    unmet = _unmet(space, objective, optimum.mixture_K)
    rng = np.random.default_rng([seed, 1])
    score, held_out = score_law(space, table, law)
    if keep_K is not None:
        optimum = _kept(optimum, objective, polytope, keep_K, score["noise"])
    more = expected_improvement(refits(objective, space, usable, rng), polytope, optimum.mixture_K)
    most_2, least_2 = usable.scale_B2.max(axis=0), usable.scale_B2.min(axis=0)
    untried, mixtures = _untried(usable, optimum.mixture_K), len(np.unique(usable.mix_BK.round(DIGITS), axis=0))
    notes = [*law.notes_, *far_notes(*target.scale, *most_2), *(f"{words}: confirm it first" for words in untried)]
    notes += stage_notes(space) + repeat_notes(space, objective, optimum.mixture_K) + _unused_rungs(space, usable)
    notes += [*below_ladder(space, target), *_copies(usable)]
    params, tokens = zip(least_2.tolist(), most_2.tolist(), strict=True)
    guessed = [*guessed_scale(target.scale, params, tokens), *untried]
    others = baseline_mixtures(space, target)
    mix_QK = np.stack([optimum.mixture_K, *others.values()])
    wider_Q = widening(rows, law.name, mix_QK)
    notes += [f"the mixture lies outside those trained: {wider_words(wider_Q[0])}"] if wider_Q[0] > 1 else []
    read = Reading.of(objective, mix_QK).widened(wider_Q)
    baselines = read.baselines({name: space.shares(mix_K) for name, mix_K in others.items()})
    recommendation = Recommendation(
        mixture=space.shares(optimum.mixture_K),
        scale={"n_params": target.n_params, "n_tokens": target.n_tokens},
        losses=read.losses(space.eval_names),
        objective=read.value(0),
        baselines=baselines,
        near_optimal=set_around(space, objective, polytope, optimum, score["noise"]),
        epochs=epochs_of(space, optimum.mixture_K, target.n_tokens),
        law={"name": law.name, **_known(score), "expected_improvement": more, "notes": notes},
        certificate={"gap": optimum.gap, "convex": optimum.convex, "method": optimum.method},
        verdict=unmet
        or verdict("prior", baselines["prior"].gain, score["noise"], held_out.order, guessed, unit_of(space), mixtures),
        evidence=_evidence(table),
        exchangeable=_pairs(space, exchangeable(objective, polytope, optimum, score["noise"])),
        unit=unit_of(space),
    )
    return recommendation, held_out


def _unmet(space: SearchSpace, objective: ObjectiveAtScale, mix_K: Array) -> dict[str, str] | None:
    """The verdict where even the optimum breaks a guardrail, as one below 0 may ask of it; None where it keeps all."""
    over_G = -objective.rooms(mix_K)[0]
    names = [name for name in space.eval_names if name in space.objective.guardrails]
    broken = [f"{name!r} by {over:.3g}" for name, over in zip(names, over_G, strict=True) if over > UNMET]
    if not broken:
        return None
    reason = f"the law finds no mixture that keeps the guardrails; the nearest breaks that of {' and of '.join(broken)}"
    return {"answer": BROKEN, "baseline": "prior", "reason": reason}


def _known(score: dict[str, float]) -> dict[str, float | None]:
    """Scores for JSON: null where too few trials have ended to tell."""
    return {name: value if np.isfinite(value) else None for name, value in score.items()}


def _kept(optimum: Optimum, objective: ObjectiveAtScale, polytope: Polytope, keep_K: Array, noise: float) -> Optimum:
    """The optimum, or the mixture to keep where that is allowed and as good within the noise."""
    behind = float(objective.values(keep_K)[0]) - optimum.value
    if behind > noise or not polytope.contains(keep_K).all():
        return optimum
    return replace(optimum, mixture_K=keep_K, value=optimum.value + behind, gap=optimum.gap + max(behind, 0.0))


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


def _pairs(space: SearchSpace, moved_KK: Array) -> list[dict[str, Any]]:
    """The largest exchanges, at most five, none below 5 points of share."""
    names = space.domain_names
    order = np.argsort(-moved_KK, axis=None)[:5]
    found = [(int(i) // len(names), int(i) % len(names)) for i in order]
    return [
        {"from": names[k], "to": names[j], "share": float(moved_KK[k, j])} for k, j in found if moved_KK[k, j] >= 0.05
    ]


def _untried(usable: Observations, mix_K: Array) -> list[str]:
    """A sentence where the mixture lies far from all that were trained."""
    nearest = float(0.5 * np.abs(usable.mix_BK - mix_K).sum(axis=1).min())
    return (
        [f"no mixture within {nearest:.0%} of share of the recommended one was tried"] if nearest > FAR_MIXTURE else []
    )


def _copies(usable: Observations) -> list[str]:
    """A warning where runs repeat others: whoever told them so, their noise is not that of runs."""
    found = copies(usable)
    why = "a copy told twice, or a trainer that ignores its seed: the noise is taken for too small"
    return [f"{copy_words(usable.trial_ids, found)}: {why}"] if found else []


def below_ladder(space: SearchSpace, target: Rung) -> list[str]:
    """A warning where the target is smaller or shorter than every proxy: a slip of units, or nothing to search for."""
    notes = list[str]()
    for what in ("n_params", "n_tokens") if space.names_proxies else ():
        least, wanted = min(getattr(rung, what) for rung in space.ladder), getattr(target, what)
        if wanted < least:
            notes.append(f"target.{what} is {wanted:.3g}, below the {least:.3g} of every proxy: is its unit right?")
    return notes


def _unused_rungs(space: SearchSpace, usable: Observations) -> list[str]:
    """Rungs of the ladder at which nothing was trained: a larger one waits until the budget can spare it."""
    notes = list[str]()
    for rung in space.ladder if space.names_proxies else ():
        apart_B = np.abs(np.log(usable.scale_B2 / np.asarray(rung.scale))).max(axis=1)
        if not (apart_B < NOMINAL).any():
            notes.append(f"no trial at {scale_words(*rung.scale)}: the budget so far has none to spare for that rung")
    return notes


def _evidence(table: Observations) -> dict[str, int | float]:
    """What the recommendation rests on, and what it cost: tokens, FLOPs and seconds of all but `reused` trials.

    A table does not say which trials went on from others: a study takes what they began with off the tokens.
    """
    last = table.usable().last()
    reused_B = np.asarray([trial_id.startswith(REUSED) for trial_id in last.trial_ids], dtype=bool)
    own = last.select(~reused_B)
    ended = set(table.select(table.status_B == "failed").trial_ids)
    return {
        "trials": len(set(last.trial_ids)),
        "failed": len(ended),
        "reused": int(reused_B.sum()),
        "rows": len(table.usable()),
        "tokens": float(own.scale_B2[:, 1].sum()),
        "flops": float(np.nansum(own.column("flops"))),
        "seconds": float(np.nansum(own.column("seconds"))),
    }


def target_at(space: SearchSpace, scale: object) -> Target:
    """The space's target at a scale that somebody gave: a pair, or a mapping.

    Raises:
        SpaceError: it is none.
    """
    pair = [scale.get(key) for key in NUMBERS[:2]] if isinstance(scale, Mapping) else scale
    if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2 or None in pair:
        raise SpaceError(f"the scale is {scale!r}: a scale is n_params and n_tokens, for example (7e9, 2e12)")
    found: dict[str, float] = {}
    for key, value in zip(NUMBERS[:2], pair, strict=True):
        try:
            found[key] = float(value)
        except (TypeError, ValueError):
            found[key] = float("nan")
        if not 0 < found[key] < float("inf"):
            raise SpaceError(f"{key} of the scale is {value!r}, it must be a number above 0")
    return space.target.model_copy(update=found)
