"""The answer: the mixture that follows from a table of runs. A study recommends it, the benchmark scores it.

First the optimum of the law at the target, which has a certificate. Then, for runs at the target's own scale, what the
law is known to miss: it bends past corners that a process on its residuals knows (`laws.residual`), which is not
convex. So from the law's optimum on to that of law and process, as far as the law puts it within its own sd; what that
gives up under the law counts as gap. Read at a scale beyond the runs the process misled (benchmarks/LOG.md).

Letters: K training domains, M eval domains, T terms of the objective, G guardrails.
"""

from dataclasses import replace

import numpy as np
from scipy.optimize import minimize

from raymix import simplex
from raymix.laws import Law, ResidualGP, make_law
from raymix.laws.base import Table
from raymix.laws.repetition import at_rows, stocked
from raymix.laws.rows import NOMINAL
from raymix.simplex import Array, Polytope
from raymix.space import Rung, SearchSpace
from raymix.target.objective import ObjectiveAtScale, objective_of
from raymix.target.optimum import FLOORS, Optimum, constraints_of, floored, minimise, on_simplex

MIN_TRIALS = 4  # below that a law only repeats its priors
ABSURD = 1.0  # log loss: e times what the law says
GUARD_SLACK = 1e-6  # nats: what the optimum itself may be over a guardrail by rounding


def answer(
    space: SearchSpace, law: Law, table: Table, target: Rung | None = None, process: Law | None = None
) -> tuple[Optimum, ObjectiveAtScale]:
    """The mixture at `target` (default: the space's) given a law and the rows it was fitted to; what was minimised.

    `process` is the law with a process on its residuals, where it is fitted already.
    """
    target = target or space.target
    objective, polytope = objective_of(space, law, target), space.polytope(target)
    optimum = minimise(objective, polytope)
    if law.convex and objective.reduce == "mean" and _trained_at(table, target) and not _absurd(table, law):
        whole = stocked(process or table.fit(ResidualGP(make_law(law.name), stretched=False)), space.available_K)
        optimum = _polished(optimum, objective, replace(objective, law=whole), polytope)
    return optimum, objective


def _trained_at(table: Table, target: Rung) -> bool:
    """Whether every run has the target's size, and the longest its tokens."""
    size_B, longest = np.log(table.scale_B2[:, 0] / target.n_params), np.log(table.scale_B2[:, 1].max())
    return bool((np.abs(size_B) < NOMINAL).all() and abs(longest - np.log(target.n_tokens)) < NOMINAL)


def _absurd(table: Table, law: Law) -> bool:
    """Whether a loss is nowhere near the law: its Huber loss bears that, the process would follow it."""
    predicted_BM = at_rows(law, table).predict(table.mix_BK, table.scale_B2)
    return bool(np.nanmax(np.abs(np.log(table.loss_BM / predicted_BM))) > ABSURD)


def _polished(optimum: Optimum, objective: ObjectiveAtScale, whole: ObjectiveAtScale, polytope: Polytope) -> Optimum:
    """From the law's optimum to the local one of the law with its process (`whole`), guardrails of the law kept."""
    start_K, inner = optimum.mixture_K, floored(polytope, FLOORS[1])
    objective = objective.in_units(start_K)
    whole = replace(objective, law=whole.law)
    limit = float(objective.levels(start_K).max()) + _sd(objective, start_K)

    def value_and_gradient(x: Array) -> tuple[float, Array]:
        value_T, slope_TK = whole.terms(on_simplex(polytope, x))
        return float(value_T[0]), slope_TK[0]

    near = {
        "type": "ineq",
        "fun": lambda x: limit - objective.levels(on_simplex(polytope, x))[0],
        "jac": lambda x: -objective.slopes(on_simplex(polytope, x)),
    }
    found = minimize(
        value_and_gradient,
        start_K,
        jac=True,
        bounds=list(zip(inner.lower_K, inner.upper_K, strict=True)),
        constraints=[*constraints_of(objective, polytope), near],
        method="SLSQP",
        options={"ftol": 1e-9, "maxiter": 200},
    )
    if not np.isfinite(found.x).all():
        return optimum
    end_K = simplex.project(polytope, on_simplex(polytope, found.x))
    broken = (objective.rooms(end_K)[0] < -GUARD_SLACK).any()
    if broken or float(whole.levels(end_K)[0, 0]) >= float(whole.levels(start_K)[0, 0]):
        return optimum
    behind = float(objective.levels(end_K)[0, 0] - objective.levels(start_K)[0, 0])
    value, gap = float(objective.values(end_K)[0]) * objective.unit, optimum.gap + max(behind, 0.0) * objective.unit
    return replace(
        optimum, mixture_K=end_K, value=value, gap=gap, method=f"{optimum.method} on the law, then on its residuals too"
    )


def _sd(objective: ObjectiveAtScale, mix_K: Array) -> float:
    """sd of the objective at a mixture (nats), as far as the law knows."""
    sd_M = objective.law.sd(mix_K[None], np.asarray(objective.scale, float))[0]
    return float((objective.losses(mix_K)[0] * sd_M) @ objective.weights_M)
