"""When more is not worth its cost: the end of a search before its budget, and of a trial before its tokens.

Both decisions are functions of what is recorded. A search ends when the law expects less from all further trials
together than the noise in the mean of those it has (that of one run over the root of their number; one run's own was
measured to stop too soon), once it has seen enough for that to mean something: a law fitted to few trials leans on
its priors, so that its bootstrap laws agree too well. A trial ends at a checkpoint where its objective is
clearly above that of earlier rounds at the same scale; in a study of rounds those have all ended, so that the same
study always stops the same trials.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from raymix.design import rungs
from raymix.design.schedule import nearest_rung
from raymix.laws.rows import NOMINAL
from raymix.observations import Observations
from raymix.simplex import Array
from raymix.space import SearchSpace
from raymix.study.ledger import Ledger
from raymix.study.noise import noise_in
from raymix.study.trial import Trial
from raymix.target.improvement import expected_improvement
from raymix.target.objective import objective_of, objective_values, unit_of, with_unit
from raymix.target.optimum import minimise
from raymix.target.recommend import NotEnoughTrialsError, fit_law
from raymix.target.refits import refits

TRIALS_PER_DOMAIN = 4  # the law has about two coefficients per domain: twice as many trials
TRIALS_PER_RUNG = 4
MIN_PEERS = 8  # trials of earlier rounds at a checkpoint, without which none is poor
SAME_TOKENS = 0.02


def stopped(ledger: Ledger) -> str | None:
    """Why the search ended before its budget, as a sentence; None where it goes on.

    A budget or evidence that changed since is a wish for more trials, another objective or constraint another search.
    """
    found = ledger.stop
    if found is None or not ledger.space.budget.stop_early:
        return None
    if any(found.get(name, now) != now for name, now in _asked(ledger.space).items()):
        return None
    expected = with_unit(f"{found['expected_improvement']:.4f}", unit_of(ledger.space))
    return (
        f"stopped early after {found['trials']} trials: more are expected to gain {expected} at the target, less than "
        f"the noise in their mean ({found['noise']:.4f})"
    )


def early_stop(space: SearchSpace, table: Observations, seed: int, n_trials: int) -> dict[str, Any] | None:
    """The record of an early stop, where the search should end now; None where it should go on."""
    usable = table.usable()
    if not space.budget.stop_early or not _seen_enough(space, usable):
        return None
    try:
        law = fit_law(space, table)
    except NotEnoughTrialsError:
        return None
    objective, polytope = objective_of(space, law), space.polytope()
    rng = np.random.default_rng([seed, 2, n_trials])
    best_K = minimise(objective, polytope).mixture_K
    last = usable.last()
    noise = noise_in(space, last, law) / float(np.sqrt(len(last)))
    expected = expected_improvement(refits(objective, space, usable, rng), polytope, best_K, noise)
    if not expected < noise:
        return None
    return {
        "trials": n_trials,
        "expected_improvement": expected,
        "noise": noise,
        **_asked(space),
    }


def _asked(space: SearchSpace) -> dict[str, Any]:
    """What may change in a study and decides whether it is worth going on, as recorded."""
    return {
        "limits": space.budget.limits(),
        "reused": [entry.key for entry in space.reuse],
        "objective": space.objective.model_dump(mode="json"),
        "constraints": space.constraints.model_dump(mode="json"),
    }


def clearly_poor(ledger: Ledger, trial: Trial, row: Mapping[str, Any]) -> str | None:
    """Why a trial should end at this checkpoint, as a sentence; None where it should go on.

    Clearly poor is as far above the upper quartile of the trials of earlier rounds, at the same scale and tokens,
    as that is above their median.
    """
    try:
        loss_M = np.asarray(list(ledger.space.losses_of(row).values()), float)  # NaN where it has none
        tokens = float(row["n_tokens"])
    except (KeyError, TypeError, ValueError):  # no number, a metric above its best: said where the row is recorded
        return None
    unknown = np.isnan(loss_M[ledger.space.weights_M > 0]).any()  # what weighs nothing may come at the end alone
    if trial.purpose != "search" or unknown:
        return None
    peers = _peers(ledger, trial, tokens)
    if len(peers) < MIN_PEERS:
        return None
    middle, upper = np.quantile(peers, [0.5, 0.75])
    value, bound = float(objective_values(ledger.space, loss_M[None])[0]), float(2 * upper - middle)
    if not value > bound:
        return None
    return f"clearly poor: objective {value:.4f} after {tokens:.4g} tokens; bound of {len(peers)} others {bound:.4f}"


def _seen_enough(space: SearchSpace, usable: Observations) -> bool:
    """Whether law and noise rest on enough trials, on every rung."""
    last = usable.last()
    trained = zip(nearest_rung(space, last.scale_B2), last.scale_B2[:, 0], strict=True)
    rung_B = [rung for rung, n_params in trained if abs(np.log(n_params / rung.n_params)) < NOMINAL]
    on_rung = [rung_B.count(rung) for rung in rungs(space)]
    return len(last) >= TRIALS_PER_DOMAIN * len(space.domains) and min(on_rung) >= TRIALS_PER_RUNG


def _peers(ledger: Ledger, trial: Trial, tokens: float) -> Array:
    """Objectives at these tokens of trials of earlier rounds at the same scale; those that went on were chosen good."""
    before = [t for t in ledger.trials.values() if t.round < trial.round]
    earlier = [t.trial_id for t in before if t.scale == trial.scale and not t.continues]
    table = ledger.rows_near(earlier, tokens, SAME_TOKENS).usable()
    value_B = objective_values(ledger.space, table.loss_BM)
    return np.asarray(value_B[np.isfinite(value_B)])
