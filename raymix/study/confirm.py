"""Confirmation: the proposal and baselines trained side by side, predicted gain beside confirmed gain.

A law is optimistic at its own optimum (the winner's curse), so the last part of a budget is spent on runs that had no
part in choosing it: every mixture is trained with the same fresh seeds, at the largest scale that the rest of the
budget pays for. Two runs of one seed share weights and data order as far as they can, so gains are differences within
pairs, and their standard error is that of the mean of the pairs.

What is to be confirmed, with its prediction, is recorded before the first of its runs; the runs are ordinary trials.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from raymix.counts import scale_words
from raymix.design import Proposal
from raymix.design.stock import unique_at
from raymix.laws import Law
from raymix.laws.reach import widening
from raymix.simplex import Array
from raymix.space import Rung, Scale, SpaceError
from raymix.space_parts import Objective
from raymix.space_study import PROPOSAL, Confirm
from raymix.study.affordable import affordable
from raymix.study.arms import SAME, baselines_of, distinct, same
from raymix.study.gain import Gain, Guard, all_guard_words, guards, seen, words
from raymix.study.ledger import Ledger
from raymix.study.trial import Trial
from raymix.target.objective import objective_of, unit_of
from raymix.target.reading import Interval, Reading
from raymix.target.recommend import fit_law, mixture_for, recommend
from raymix.target.refits import rows_of

log = logging.getLogger(__name__)

FIRST_SEED = 1000  # the search counts from 0, so these runs chose nothing


@dataclass(frozen=True)
class Confirmation:
    """What confirmation.json holds."""

    scale: dict[str, float]
    seeds: list[int]
    mixtures: dict[str, dict[str, float]]
    trials: dict[str, list[str]]
    done: int
    pending: int
    failed: int
    gains: dict[str, Gain]
    """Predicted and seen, of the objective that held when it was planned."""
    words: list[str]
    outdated: bool = False
    """Whether objective or constraints have changed since, so that another mixture may be the one to confirm."""
    guardrails: dict[str, Guard] = field(default_factory=dict)
    """What was seen of each, where the prior was trained beside the proposal."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def plan_confirmation(ledger: Ledger, wanted: Confirm, automatic: bool = False) -> None:
    """Fit the law, choose the scale, and record what is to be confirmed, or why nothing is.

    Nothing is recorded where runs that are asked for were trained before.

    Args:
        automatic: as the last part of the budget, which then bounds scale and seeds; otherwise it is asked for beside
            the budget, at the largest rung of the ladder unless it names a scale.

    Raises:
        NotEnoughTrialsError: too few trials for a law, as `fit_law`.
        SpaceError: a baseline needs to know how many tokens there are, or the caps leave nothing but the proposal.
    """
    space, table = ledger.space, ledger.table()
    law = fit_law(space, table)
    best_K = proposal(ledger, law)
    others = baselines_of(space, wanted.baselines, wanted.mixtures)
    for name in wanted.baselines:
        if name not in others:
            raise SpaceError(f"the baseline {name!r} needs available_tokens of every domain; prior and uniform do not")
    for own, shares in wanted.mixtures.items():
        if not same(others[own], space.mixture(shares)):
            log.warning("the mixture %r is outside the caps: it is trained as moved inside them", own)
    apart = {name: mix_K for name, mix_K in others.items() if not same(mix_K, best_K)}
    if not apart:
        why = f"within the caps {' and '.join([*wanted.baselines, *wanted.mixtures])} is the proposal itself"
        if not automatic:
            raise SpaceError(f"nothing to confirm: {why}")
        return skip_confirmation(ledger, why)
    for alike in sorted(set(others) - set(apart)):
        log.warning("within the caps %s is the proposal itself: it is no run of its own", alike)
    mixtures = {PROPOSAL: space.shares(best_K)} | {name: space.shares(mix_K) for name, mix_K in apart.items()}
    seeds, scale = affordable(ledger, wanted, automatic, 1 + distinct(apart.values()))
    if scale is None:
        where = f" at {scale_words(*wanted.scale.scale)}" if wanted.scale else ""
        return skip_confirmation(ledger, f"what is left of the budget does not pay for one pair of runs{where}")
    body = {
        "automatic": automatic,
        "limits": space.budget.limits(),
        "objective": space.objective.model_dump(mode="json"),
        "scale": scale._asdict(),
        "seeds": [FIRST_SEED + i for i in range(seeds)],
        "mixtures": mixtures,
    }
    if not automatic and all(trial_id in ledger.trials for _, _, trial_id, _ in _runs(ledger, body)):
        return
    ledger.note("confirm", body | _predicted(ledger, law, mixtures, scale))


def proposal(ledger: Ledger, law: Law) -> Array:
    """What a study recommends (K,): of what was confirmed, or fits as well within the noise, no other is trained.

    Where runs of it broke a guardrail, the law that knows of them has another.
    """
    space, table, found, keep_K = ledger.space, ledger.table(), confirmation(ledger), confirmed_mixture(ledger)
    if found is None or keep_K is None or any(guard.broken for guard in found.guardrails.values()):
        return mixture_for(space, table)
    kept = recommend(space, table, law, seed=ledger.seed, keep_K=keep_K)[0].mixture
    return np.asarray([kept[name] for name in space.domain_names])


def skip_confirmation(ledger: Ledger, why: str) -> None:
    """Record that the last part of the budget could not be spent on confirmation."""
    body = {"automatic": True, "limits": ledger.space.budget.limits(), "seeds": [], "why": why}
    ledger.note("confirm", body | {"objective": ledger.space.objective.model_dump(mode="json")})


def planned(ledger: Ledger) -> bool:
    """Whether the last part of the budget was spent on confirmation, or could not be and the budget is the same.

    With another objective, or where constraints forbid what was confirmed, there is another proposal to confirm.
    """
    limits = ledger.space.budget.limits()
    automatic = [plan for plan in ledger.confirmations if plan["automatic"] and not _outdated(ledger, plan)]
    return any(plan["seeds"] or plan["limits"] == limits for plan in automatic)


def skipped(ledger: Ledger) -> str | None:
    """Why there was no confirmation, where one was wanted."""
    plans = ledger.confirmations
    return f"not confirmed: {plans[-1]['why']}" if plans and not plans[-1]["seeds"] else None


def left(ledger: Ledger) -> int:
    """How many runs that were planned are not proposed yet."""
    runs = {trial_id for plan in ledger.confirmations for _, _, trial_id, _ in _runs(ledger, plan)}
    return len(runs - set(ledger.trials))


def beside_the_budget(ledger: Ledger) -> set[str]:
    """The runs that were asked for, which no limit of the budget ends."""
    asked_for = (plan for plan in ledger.confirmations if not plan["automatic"])
    return {trial_id for plan in asked_for for _, _, trial_id, _ in _runs(ledger, plan)}


def due(ledger: Ledger, n: int) -> list[Trial]:
    """At most n runs that are still to be proposed, recorded as proposed; pairs are completed first."""
    missing = {
        trial_id: Proposal(ledger.space.mixture(mixture), _scale(plan), seed)
        for plan in ledger.confirmations
        for _, seed, trial_id, mixture in _runs(ledger, plan)
        if trial_id not in ledger.trials
    }
    return ledger.propose(list(missing.values())[:n], "confirm")


def confirmation(ledger: Ledger) -> Confirmation | None:
    """The last confirmation as far as it is; None where none was planned."""
    plan = next((plan for plan in reversed(ledger.confirmations) if plan["seeds"]), None)
    if plan is None:
        return None
    plan = _with_the_prior(ledger, plan)
    runs = list(_runs(ledger, plan))
    trials = {arm: [trial_id for name, _, trial_id, _ in runs if name == arm] for arm in plan["mixtures"]}
    objective = _objective(ledger, plan)
    gains = {
        name: seen(ledger, objective, Interval(**plan["predicted"][name]), trials[PROPOSAL], trials[name])
        for name in plan["mixtures"]
        if name != PROPOSAL
    }
    ids = {trial_id for _, _, trial_id, _ in runs}
    ended = [ledger.status(trial_id) for trial_id in ids]
    done, failed = ended.count("done"), sum(status not in (None, "done") for status in ended)
    pending = len(ids) - done - failed
    mixtures, scale = plan["mixtures"], plan["scale"]
    foreseen, prior = plan.get("guards", {}), trials.get("prior", [])  # an earlier version did not record the first
    guarded = guards(ledger, objective, foreseen, trials[PROPOSAL], prior) if prior else {}
    unit = unit_of(ledger.space.model_copy(update={"objective": objective}))
    said = [words(name, gain, pending, unit, failed) for name, gain in gains.items()]
    said += all_guard_words(objective, guarded, bool(prior))
    outdated = _outdated(ledger, plan)
    said += [outdated] if outdated else []
    return Confirmation(
        scale, plan["seeds"], mixtures, trials, done, pending, failed, gains, said, bool(outdated), guarded
    )


def confirmed_mixture(ledger: Ledger) -> Array | None:
    """The mixture of the last confirmation, once a pair of it has ended; None where that is outdated."""
    found = confirmation(ledger)
    if found is None or found.outdated or not any(gain.pairs for gain in found.gains.values()):
        return None
    return np.asarray([found.mixtures[PROPOSAL][name] for name in ledger.space.domain_names])


def _objective(ledger: Ledger, plan: Mapping[str, Any]) -> Objective:
    """What a plan was made for; the present objective where an earlier version did not record it."""
    return Objective.model_validate(plan["objective"]) if "objective" in plan else ledger.space.objective


def _outdated(ledger: Ledger, plan: Mapping[str, Any]) -> str | None:
    """Why a plan is not of what the study asks for now, as a sentence; None where it is."""
    if _objective(ledger, plan) != ledger.space.objective:
        return "the objective has changed since a mixture was confirmed, and these gains are of the one before"
    mixture = plan.get("mixtures", {}).get(PROPOSAL)  # none where it was skipped
    if mixture is not None and not ledger.space.polytope().contains(ledger.space.mixture(mixture), SAME).all():
        return "the constraints have changed since a mixture was confirmed, and forbid it now"
    return None


def _with_the_prior(ledger: Ledger, plan: dict[str, Any]) -> dict[str, Any]:
    """A plan that names the prior, which an earlier version left out where another baseline is the same mixture."""
    mixtures, predicted = plan["mixtures"], plan["predicted"]
    if "prior" in mixtures:
        return plan
    prior_K = baselines_of(ledger.space, ["prior"])["prior"]
    others = (name for name in mixtures if name != PROPOSAL)
    name = next((name for name in others if same(ledger.space.mixture(mixtures[name]), prior_K)), None)
    if name is None:
        return plan
    return plan | {
        "mixtures": {**mixtures, "prior": mixtures[name]},
        "predicted": {**predicted, "prior": predicted[name]},
    }


def _scale(plan: Mapping[str, Any]) -> Scale:
    return Scale(plan["scale"]["n_params"], plan["scale"]["n_tokens"])


def _runs(ledger: Ledger, plan: Mapping[str, Any]) -> Iterator[tuple[str, int, str, dict[str, float]]]:
    """(arm, seed, trial id, mixture) of every run, seed by seed."""
    for seed in plan["seeds"]:  # none where it was skipped
        for arm, mixture in plan["mixtures"].items():
            yield arm, seed, ledger.identity(mixture, _scale(plan), seed), mixture


def _predicted(
    ledger: Ledger, law: Law, mixtures: Mapping[str, Mapping[str, float]], scale: Scale
) -> dict[str, dict[str, Any]]:
    """What the runs are to show at their scale, before any of them.

    `predicted`: gain of the proposal over each baseline, mean and 90% interval. `guards`: by how much each guarded eval
    domain is worse than at the prior.
    """
    space, usable = ledger.space, ledger.table().usable()
    names = [name for name in mixtures if name != PROPOSAL]
    mix_BK = np.stack([space.mixture(mixtures[name]) for name in (PROPOSAL, *names)])
    unique_K = unique_at(space, np.asarray([scale]))[0]  # these runs repeat tokens as the proxies do
    objective = objective_of(space, law, Rung(**scale._asdict()), unique_K)
    wider_B = widening(rows_of(space, usable), law.name, mix_BK)
    read, worse = Reading.of(objective, mix_BK).widened(wider_B), {}
    if "prior" in names:
        worse_M = read.loss_QM[0] - read.loss_QM[1 + names.index("prior")]
        worse = {name: float(worse_M[space.eval_names.index(name)]) for name in space.objective.guardrails}
    return {"predicted": {name: asdict(read.gain(q)) for q, name in enumerate(names, 1)}, "guards": worse}
