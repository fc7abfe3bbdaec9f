"""The best mixture under a law: argmin of the objective on the polytope, with a certificate.

The objective is the largest of some terms (one for a mean), solved as min t, t >= every term, by SLSQP. The
certificate is a duality gap: for a convex law no allowed mixture can be better than `value - gap`.

Letters: K training domains, T terms of the objective, G guardrails, V vertices of the polytope met so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linprog, minimize

from raymix import simplex
from raymix.simplex import Array, Polytope
from raymix.target.objective import ObjectiveAtScale

FLOORS = (1e-4, 1e-7)  # r^b with b < 1 has an infinite slope at 0: solve above a floor, then nearer to 0 from there
GOOD_GAP = 2e-5  # nats: far below the noise of any run
N_STARTS = 8  # for laws that are not convex
LARGEST_PRICE = 1e3  # of a guardrail, in nats of objective per nat of its loss
CUTS = 60
NO_ROOM = 1e-12  # between the bounds of the shares: one mixture keeps them, and SLSQP would wander about it


@dataclass(frozen=True)
class Optimum:
    """A mixture with the value of the objective there and the proof of how good it is."""

    mixture_K: Array
    value: float
    """Reduced loss in nats, without the pull."""
    gap: float
    """Upper bound in nats on what any other allowed mixture could still gain; a proof only if `convex`."""
    convex: bool
    method: str


def minimise(objective: ObjectiveAtScale, polytope: Polytope, starts: Sequence[Array] = ()) -> Optimum:
    """The optimum of the objective on the polytope.

    Convex laws need one start; for others the given starts and random points are tried and the best is kept.

    Raises:
        ValueError: the polytope is empty.
    """
    if min(1 - polytope.lower_K.sum(), polytope.upper_K.sum() - 1) < NO_ROOM:
        return _only(objective, polytope)
    given, objective = objective, objective.in_units(simplex.interior_point(polytope))
    coarse, fine = (floored(polytope, floor) for floor in FLOORS)
    tries = [simplex.project(coarse, point) for point in (starts[:1] if objective.law.convex else starts)]
    if not tries or not objective.law.convex:
        kept_K = None if objective.ceiling_M is None else objective.prior_K  # keeps the guardrails
        tries.append(simplex.project(coarse, simplex.interior_point(coarse) if kept_K is None else kept_K))
    if not objective.law.convex:
        tries += list(simplex.sample(coarse, N_STARTS, np.random.default_rng(0)))
    found = [_solve(objective, coarse, point) for point in tries]
    mix_K = _solve(objective, fine, min(found, key=lambda w: _merit(objective, w)))
    method = "SLSQP" if objective.law.convex else f"SLSQP, {len(tries)} starts"
    gap = certify(objective, polytope, mix_K) * objective.unit / given.unit
    return Optimum(mix_K, float(given.values(mix_K)[0]), gap, objective.law.convex, method)


def _only(objective: ObjectiveAtScale, polytope: Polytope) -> Optimum:
    """Where bounds leave one mixture."""
    mix_K = simplex.normalise(polytope.lower_K if 1 - polytope.lower_K.sum() < NO_ROOM else polytope.upper_K)
    gap = certify(objective, polytope, mix_K)
    value = float(objective.values(mix_K)[0])
    return Optimum(mix_K, value, gap, objective.law.convex, "the only mixture that the bounds allow")


def floored(polytope: Polytope, floor: float) -> Polytope:
    """The polytope with a floor under its shares, unless that leaves it empty."""
    higher = polytope.floored(floor)
    try:
        found_K = simplex.vertex_along(higher, np.zeros(polytope.n_domains))
    except ValueError:
        return polytope
    return higher if higher.contains(found_K).all() else polytope  # HiGHS bears 1e-7


def constraints_of(objective: ObjectiveAtScale, polytope: Polytope, extra: int = 0) -> list[dict[str, Any]]:
    """Sum, groups and guardrails in SLSQP's form, for variables (w, `extra` more)."""
    K = polytope.n_domains
    ones = np.concatenate([np.ones(K), np.zeros(extra)])
    out: list[dict[str, Any]] = [{"type": "eq", "fun": lambda x: x[:K].sum() - 1, "jac": lambda x: ones}]
    if len(polytope.limit_G):
        open_G, inside_K = ~polytope.held_G, simplex.interior_point(polytope)
        limits, rows = polytope.limit_G[open_G], np.pad(-polytope.rows_GK[open_G], ((0, 0), (0, extra)))
        held = np.pad(polytope.held_EK, ((0, 0), (0, extra)))
        out.append({"type": "ineq", "fun": lambda x: limits + rows @ x, "jac": lambda x: rows})
        out.append({"type": "eq", "fun": lambda x: held[:, :K] @ (x[:K] - inside_K), "jac": lambda x: held})
    if objective.ceiling_M is not None:

        def slope(x: Array) -> Array:
            jac_GK = objective.guards(on_simplex(polytope, x))[1]
            return np.hstack([jac_GK, np.zeros((len(jac_GK), extra))])

        out.append({"type": "ineq", "fun": lambda x: objective.rooms(on_simplex(polytope, x))[0], "jac": slope})
    return out


def on_simplex(polytope: Polytope, x: Array) -> Array:
    """The shares among SLSQP's variables as mixtures (..., K): on its way it may leave the bounds and the simplex."""
    return simplex.normalise(np.clip(x[..., : polytope.n_domains], polytope.lower_K, polytope.upper_K))


def _solve(objective: ObjectiveAtScale, polytope: Polytope, start_K: Array) -> Array:
    """SLSQP from a start; renewed while the gap is not good, where steep corners spoilt its Hessian."""
    mix_K = start_K
    solve = _solve_mean if objective.reduce == "mean" else _solve_worst
    for _ in range(3):
        mix_K = _back_on_simplex(polytope, solve(objective, polytope, mix_K), mix_K, objective)
        if certify(objective, polytope, mix_K) <= GOOD_GAP:
            break
    return mix_K


def _solve_mean(objective: ObjectiveAtScale, polytope: Polytope, start_K: Array) -> Array:
    def value_and_gradient(x: Array) -> tuple[float, Array]:
        value_T, slope_TK = objective.terms(on_simplex(polytope, x))
        return float(value_T[0]), slope_TK[0]

    found = minimize(
        value_and_gradient,
        start_K,
        jac=True,
        bounds=list(zip(polytope.lower_K, polytope.upper_K, strict=True)),
        constraints=constraints_of(objective, polytope),
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    return np.asarray(found.x)


def _solve_worst(objective: ObjectiveAtScale, polytope: Polytope, start_K: Array) -> Array:
    K = polytope.n_domains
    cost = np.concatenate([np.zeros(K), [1.0]])

    def slack_jacobian(x: Array) -> Array:
        slope_TK = objective.slopes(on_simplex(polytope, x))
        return np.hstack([-slope_TK, np.ones((len(slope_TK), 1))])

    above_terms = {
        "type": "ineq",
        "fun": lambda x: x[K] - objective.levels(on_simplex(polytope, x))[0],
        "jac": slack_jacobian,
    }
    found = minimize(
        lambda x: float(x[K]),
        np.append(start_K, objective.levels(start_K).max()),
        jac=lambda x: cost,
        bounds=[*zip(polytope.lower_K, polytope.upper_K, strict=True), (None, None)],
        constraints=[*constraints_of(objective, polytope, 1), above_terms],
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    return np.asarray(found.x[:K])


def _merit(objective: ObjectiveAtScale, mix_K: Array) -> float:
    """The objective with the pull, and a price on broken guardrails."""
    broken_G = np.maximum(0.0, -objective.rooms(mix_K)[0] - 1e-9)
    return float(objective.levels(mix_K).max() + LARGEST_PRICE * broken_G.sum())


def _back_on_simplex(polytope: Polytope, mix_K: Array, before_K: Array, objective: ObjectiveAtScale) -> Array:
    """The solver's answer without its rounding, unless that is worse than where it started."""
    if not np.isfinite(mix_K).all():
        return before_K
    mix_K = simplex.project(polytope, on_simplex(polytope, mix_K))
    return mix_K if _merit(objective, mix_K) <= _merit(objective, before_K) else before_K


def certify(objective: ObjectiveAtScale, polytope: Polytope, mix_K: Array) -> float:
    """The duality gap at a mixture (nats): the least over prices of terms and guardrails of a Frank-Wolfe gap.

    With prices p on the terms (sum 1) and q >= 0 on the guardrails, a convex objective is nowhere below
    p.f + q.(L - ceiling) + (p J + q J_g).(v - w); one vertex v of the polytope minimises that (Jaggi 2013, section
    2). The best prices solve a small linear programme to which the vertices are added as they are met.
    """
    value_T, slope_TK = objective.terms(mix_K)
    room_G, guard_GK = objective.guards(mix_K)
    short = np.concatenate([value_T.max() - value_T, room_G])
    slopes = np.vstack([slope_TK, -guard_GK])
    n_terms = len(value_T)
    price = np.eye(len(short))[int(np.argmax(value_T))]
    rows: list[Array] = []
    best = np.inf
    for _ in range(CUTS):
        vertex_K = simplex.vertex_along(polytope, price @ slopes)
        cut = short + slopes @ (mix_K - vertex_K)
        best = min(best, float(price @ cut))
        rows.append(np.append(cut, -1.0))
        if len(short) == 1 or best <= GOOD_GAP / 2:
            break
        found = _cheapest(np.asarray(rows), n_terms)
        if found is None or best - found[-1] <= GOOD_GAP / 20:
            break
        price = np.maximum(found[:-1], 0.0)
        price[:n_terms] /= price[:n_terms].sum()
    return max(0.0, best)


def _cheapest(rows: Array, n_terms: int) -> Array | None:
    """Prices and the bound they give, over the cuts so far; None where the solver finds none."""
    n = rows.shape[1] - 1
    total = np.append((np.arange(n) < n_terms).astype(float), 0.0)[None]
    bounds = [(0.0, 1.0)] * n_terms + [(0.0, LARGEST_PRICE)] * (n - n_terms) + [(0.0, None)]
    found = linprog(np.eye(n + 1)[-1], A_ub=rows, b_ub=np.zeros(len(rows)), A_eq=total, b_eq=[1.0], bounds=bounds)
    return np.asarray(found.x) if found.status == 0 else None
