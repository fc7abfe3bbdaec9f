"""What a study will cost, said before anything is trained.

Trials and FLOPs follow from the space; seconds are measured: a few steps of each rung's proxy on this machine.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raymix import simplex
from raymix.corpus import Corpus
from raymix.counts import scale_words
from raymix.design import rungs, scale_of
from raymix.design.schedule import shorter_rungs
from raymix.proxy import Batches, resolve
from raymix.proxy.timing import seconds_per_step
from raymix.simplex import Array
from raymix.space import Scale, SearchSpace
from raymix.study.affordable import seeds_and_scale
from raymix.study.arms import arms, runs
from raymix.study.budget import HOUR, planned_trials
from raymix.study.ledger import Ledger
from raymix.target.recommend import baseline_mixtures, below_ladder

REPEATED = 1.0  # passes over a domain's text above which a person should know
COPIED = 0.05  # part of a domain's tokens that are copies, above which a person should know
TIMED_STEPS = 5


@dataclass(frozen=True)
class RungPlan:
    """One rung: how many trials, how large, how long each takes."""

    n_params: int
    n_tokens: float
    shape: str
    trials: int
    flops: float
    """Per trial."""
    seconds: float
    """Per trial, on one slot of this machine."""
    purpose: str = "search"
    """search, or confirm: the last part of the budget."""


@dataclass(frozen=True)
class DomainPlan:
    """One domain: its text, and how often the prior and the largest allowed share would repeat it."""

    name: str
    available_tokens: float
    prior: float
    lowest: float
    highest: float
    prior_epochs_target: float
    highest_epochs_target: float
    prior_epochs_proxy: float


@dataclass(frozen=True)
class Plan:
    """All of it; `warnings` are sentences for a person."""

    trials: int
    tokens: float
    flops: float
    slots: int
    seconds: float
    rungs: list[RungPlan]
    domains: list[DomainPlan]
    warnings: list[str]
    money: dict[str, Any] | None = None
    """What it costs on rented machines, where somebody asked."""
    budgets: tuple[dict[str, Any], ...] = ()
    """What this and other numbers of trials resolve."""
    noise: dict[str, Any] | None = None
    """Of one run, as `budgets` take it: nats, source, and whether it is assumed."""


def plan(space: SearchSpace, corpus: Corpus, slots: int) -> Plan:
    """The plan of a resolved space on `slots` trials at a time.

    Raises:
        SpaceError: there is nothing to choose.
    """
    space.check_choice()
    timed = [_rung(space, corpus, scale) for scale in rungs(space)]
    rate = timed[-1].flops / timed[-1].seconds
    scales = [scale_of(space, i) for i in range(planned_trials(space, _flops_of(space, corpus), rate, slots))]
    rung_plans = [replace(rung, trials=scales.count(s)) for rung, s in zip(timed, rungs(space), strict=True)]
    wall = _wall(space, rung_plans, slots)
    confirming = _confirming(space, corpus, rung_plans, rate, slots)
    if confirming is not None:
        rung_plans.append(confirming)
        wall += math.ceil(confirming.trials / slots) * confirming.seconds
    domain_plans = _domains(space, corpus)
    warnings = _confirm_warnings(space, confirming) + _warnings(space, corpus, domain_plans)
    return Plan(
        trials=sum(rung.trials for rung in rung_plans),
        tokens=sum(rung.trials * rung.n_tokens for rung in rung_plans),
        flops=sum(rung.trials * rung.flops for rung in rung_plans),
        slots=slots,
        seconds=wall,
        rungs=rung_plans,
        domains=domain_plans,
        warnings=warnings,
    )


def _flops_of(space: SearchSpace, corpus: Corpus) -> Callable[[Scale], float]:
    """What our trainer spends on a trial at a scale."""

    def flops(scale: Scale) -> float:
        return resolve(space.recipe, *scale, corpus.vocab, space.folder).flops_per_token * scale.n_tokens

    return flops


def _rung(space: SearchSpace, corpus: Corpus, scale: Scale, seconds: float | None = None) -> RungPlan:
    """A scale without trials yet; what one takes is measured, unless it is known."""
    shape = resolve(space.recipe, *scale, corpus.vocab, space.folder)
    words = f"{shape.family}, {shape.n_layers} layers, width {shape.width}"
    if seconds is None:
        read = space.recipe.eval_tokens * len(space.eval_domains) * len(shape.checkpoint_steps)
        steps = shape.n_steps + read / shape.tokens_per_step / 3  # a forward is a third of a training pass
        seconds = seconds_per_step(shape, TIMED_STEPS) * steps
    return RungPlan(shape.n_params, scale.n_tokens, words, 0, shape.flops_per_token * scale.n_tokens, seconds)


def _confirming(space: SearchSpace, corpus: Corpus, search: list[RungPlan], rate: float, slots: int) -> RungPlan | None:
    """The runs of confirmation that the budget pays for after the search, at `rate` FLOPs a second; None without."""
    wanted = space.confirm
    if wanted is None:
        return None
    ledger, limits = Ledger(space), space.budget.limits()
    ledger.expected_flops = _flops_of(space, corpus)
    hours = min(limits.get("gpu_hours", math.inf), slots * limits.get("hours", math.inf))
    searched = sum(rung.trials * rung.flops for rung in search)
    flops = min(limits.get("flops", math.inf), HOUR * rate * hours) - searched
    in_time = HOUR * rate * limits.get("hours", math.inf) - searched / slots
    trials = limits.get("trials", math.inf) - sum(rung.trials for rung in search)
    seeds, scale = seeds_and_scale(ledger, wanted, flops, trials, arms(space, wanted), in_time)
    if scale is None:
        return None
    rung = _rung(space, corpus, scale, ledger.flops_of(scale) / rate)
    return replace(rung, trials=seeds * arms(space, wanted), purpose="confirm")


def _confirm_warnings(space: SearchSpace, confirming: RungPlan | None) -> list[str]:
    wanted = space.confirm
    planned = confirming.trials if confirming else 0
    if wanted is None or planned == runs(space):
        return []
    said = f"confirmation: the budget pays for {planned} of {runs(space)} runs"
    at = wanted.scale
    return [f"{said} at confirm.scale ({scale_words(*at.scale)})" if at else said]


def _wall(space: SearchSpace, rung_plans: list[RungPlan], slots: int) -> float:
    """Seconds of `rung_plans`, those of `rungs` in order: round by round, each as long as its trials spread over the
    slots (longest first)."""
    cost = dict(zip(rungs(space), (rung.seconds for rung in rung_plans), strict=True))
    total = 0.0
    trials = sum(rung.trials for rung in rung_plans)
    for start in range(0, trials, space.budget.per_round):
        stop = min(start + space.budget.per_round, trials)
        busy = [0.0] * slots
        for seconds in sorted((cost[scale_of(space, i)] for i in range(start, stop)), reverse=True):
            busy[busy.index(min(busy))] += seconds
        total += max(busy)
    return total


def _domains(space: SearchSpace, corpus: Corpus) -> list[DomainPlan]:
    polytope = space.polytope()
    prior_K = space.prior_K()
    longest = max((rung.scale for rung in space.ladder), key=lambda scale: scale.n_tokens)
    shape = resolve(space.recipe, *longest, corpus.vocab, space.folder)
    unique_K = Batches.of(corpus, space, prior_K, 0, shape).unique_K * shape.context
    low_K, high_K = _range(polytope)
    per_share_K = space.target.n_tokens / space.available_K
    seen_K, most_K = space.seen_K(prior_K), space.seen_K(high_K)
    return [
        DomainPlan(
            name=domain.name,
            available_tokens=float(space.available_K[k]),
            prior=float(prior_K[k]),
            lowest=float(low_K[k]),
            highest=float(high_K[k]),
            prior_epochs_target=float(seen_K[k] * per_share_K[k]),
            highest_epochs_target=float(most_K[k] * per_share_K[k]),
            prior_epochs_proxy=float(seen_K[k] * shape.n_tokens / unique_K[k]),
        )
        for k, domain in enumerate(space.domains)
    ]


def _range(polytope: simplex.Polytope) -> tuple[Array, Array]:
    """Smallest and largest share of each domain that some allowed mixture has."""
    unit = np.eye(polytope.n_domains)
    low = [simplex.vertex_along(polytope, row)[k] for k, row in enumerate(unit)]
    high = [simplex.vertex_along(polytope, -row)[k] for k, row in enumerate(unit)]
    return np.asarray(low), np.asarray(high)


def _warnings(space: SearchSpace, corpus: Corpus, domains: list[DomainPlan]) -> list[str]:
    out = below_ladder(space, space.target)
    if len(rungs(space)) > 1:
        out.append(
            "the searcher chooses the rung of each trial by what it tells per FLOP; here they are counted by a fixed "
            "schedule, mostly a dearer one: a budget in FLOPs or hours may pay for more trials"
        )
    if any(shorter_rungs(space, rung) for rung in rungs(space)):
        out.append("a good trial may go on to the longer rung of its size and then costs the added tokens alone")
    for name, part in corpus.copied.items():
        if part > COPIED:
            out.append(
                f"{name}: {part:.0%} of its tokens are copies of other documents there, and count as available: take "
                "them out, or it is repeated more often than said"
            )
    for domain in domains:
        if domain.prior_epochs_target > REPEATED:
            out.append(f"{domain.name}: the prior repeats it {domain.prior_epochs_target:.3g} times at the target")
        if (
            domain.highest < 1
            and space.target.max_epochs
            and domain.highest_epochs_target > space.target.max_epochs * 0.99
        ):
            out.append(f"{domain.name}: at most {domain.highest:.1%}, {space.target.max_epochs:g} epochs of its text")
    evaluated = {eval_domain.own for eval_domain in space.eval_domains}
    for domain in domains:
        if domain.name not in evaluated and all(e.source is None for e in space.eval_domains):
            out.append(f"{domain.name}: no eval domain is held out from it, so nothing says what it is good for")
    for name, mix_K in baseline_mixtures(space, space.target).items():
        if name == "prior" and simplex.total_variation(mix_K, space.prior_K()) > 1e-6:
            out.append("the prior breaks the caps at the target; baselines are compared after moving them inside")
    for eval_domain in space.eval_domains:
        held = len(corpus.eval(eval_domain.name))
        if held < space.recipe.eval_tokens:
            out.append(
                f"eval domain {eval_domain.name}: only {held} held-out tokens of {space.recipe.eval_tokens} wished"
            )
    return out
