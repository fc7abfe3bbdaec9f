"""The best mixture under a law: argmin of the objective on the polytope, with a certificate.

Mean objectives are minimised directly, the worst case as an epigraph (min t, t >= every loss). The certificate
is a Frank-Wolfe gap: for a convex law no mixture of the polytope can be better than `value - gap`.

Letters: K training domains, M eval domains, V vertices of the polytope met so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import linprog, minimize

from raymix import simplex
from raymix.laws.base import Law
from raymix.simplex import Array, Polytope

FLOORS = (1e-4, 1e-7)  # r^b with b < 1 has an infinite slope at 0: solve above a floor, then nearer to 0 from there
GOOD_GAP = 1e-4  # nats: far below the noise of any run
N_STARTS = 8  # for laws that are not convex

Reduce = Literal["mean", "worst"]


@dataclass(frozen=True)
class Optimum:
    """A mixture with the value of the objective there and the proof of how good it is."""

    mixture_K: Array
    value: float
    gap: float
    """Upper bound in nats on what any other allowed mixture could still gain; a proof only if `convex`."""
    convex: bool
    method: str


@dataclass(frozen=True)
class ObjectiveAtScale:
    """A law read at one scale through an objective: value and gradient of one mixture."""

    law: Law
    scale: Sequence[float]
    weights_M: Array
    reduce: Reduce = "mean"

    def losses(self, mix_BK: Array) -> Array:
        """Predicted losses (B, M)."""
        mix_BK = np.atleast_2d(mix_BK)
        return self.law.predict(mix_BK, np.tile(np.asarray(self.scale, float), (len(mix_BK), 1)))

    def values(self, mix_BK: Array) -> Array:
        """The objective of each row (B,)."""
        return reduce_losses(self.losses(mix_BK), self.weights_M, self.reduce)

    def jacobian(self, mix_K: Array) -> Array:
        """dL/dr (M, K)."""
        return np.asarray(self.law.gradient(mix_K[None], np.asarray(self.scale, float)[None])[0])


def reduce_losses(loss_BM: Array, weights_M: Array, reduce: Reduce) -> Array:
    """Weighted mean over eval domains, or the largest loss among those with a weight above 0."""
    used = weights_M > 0
    if reduce == "worst":
        return np.asarray(loss_BM[..., used].max(axis=-1))
    return np.asarray(loss_BM[..., used] @ weights_M[used])


def minimise(objective: ObjectiveAtScale, polytope: Polytope, starts: Sequence[Array] = ()) -> Optimum:
    """The optimum of the objective on the polytope.

    Convex laws need one start; for others the given starts and random points are tried and the best is kept.

    Raises:
        ValueError: the polytope is empty.
    """
    solve = _solve_worst if objective.reduce == "worst" else _solve_mean
    certify = _gap_worst if objective.reduce == "worst" else _gap_mean
    coarse, fine = (_floored(polytope, floor) for floor in FLOORS)
    middle = simplex.interior_point(coarse)
    tries = [simplex.project(coarse, start) for start in starts] or [middle]
    if not objective.law.convex:
        tries += [middle, *simplex.sample(coarse, N_STARTS, np.random.default_rng(0))]
    found = [solve(objective, coarse, start) for start in tries]
    best_K = min(found, key=lambda w: float(objective.values(w)[0]))
    mix_K = solve(objective, fine, best_K)
    method = "SLSQP" if objective.law.convex else f"SLSQP, {len(tries)} starts"
    gap = certify(objective, polytope, mix_K)
    return Optimum(mix_K, float(objective.values(mix_K)[0]), gap, objective.law.convex, method)


def _floored(polytope: Polytope, floor: float) -> Polytope:
    """The polytope with a floor under its shares, unless that leaves it empty."""
    floored = polytope.floored(floor)
    try:
        simplex.vertex_along(floored, np.zeros(polytope.n_domains))
    except ValueError:
        return polytope
    return floored


def _constraints(polytope: Polytope, extra: int = 0) -> list[dict[str, object]]:
    """Sum and group constraints in SLSQP's form, for variables (w, `extra` more)."""
    ones = np.concatenate([np.ones(polytope.n_domains), np.zeros(extra)])
    K = polytope.n_domains
    out: list[dict[str, object]] = [{"type": "eq", "fun": lambda x: x[:K].sum() - 1, "jac": lambda x: ones}]
    if len(polytope.limit_G):
        rows = np.hstack([-polytope.rows_GK, np.zeros((len(polytope.limit_G), extra))])
        out.append({"type": "ineq", "fun": lambda x: polytope.limit_G + rows @ x, "jac": lambda x: rows})
    return out


def _solve_mean(objective: ObjectiveAtScale, polytope: Polytope, start_K: Array) -> Array:
    def value_and_gradient(mix_K: Array) -> tuple[float, Array]:
        mix_K = np.clip(mix_K, polytope.lower_K, polytope.upper_K)
        return float(objective.values(mix_K)[0]), objective.weights_M @ objective.jacobian(mix_K)

    bounds = list(zip(polytope.lower_K, polytope.upper_K, strict=True))
    mix_K = start_K
    for _ in range(3):  # a restart renews the quasi-Newton matrix where steep corners spoilt it
        constraints = _constraints(polytope)
        found = minimize(value_and_gradient, mix_K, jac=True, bounds=bounds, constraints=constraints, method="SLSQP",
                         options={"ftol": 1e-12, "maxiter": 500})  # fmt: skip
        mix_K = _back_inside(polytope, found.x, mix_K, objective)
        if _gap_mean(objective, polytope, mix_K) <= GOOD_GAP / 5:
            break
    return mix_K


def _solve_worst(objective: ObjectiveAtScale, polytope: Polytope, start_K: Array) -> Array:
    used = objective.weights_M > 0
    K = polytope.n_domains

    def slack(x: Array) -> Array:
        return np.asarray(x[K] - objective.losses(np.clip(x[:K], polytope.lower_K, polytope.upper_K))[0, used])

    def slack_jacobian(x: Array) -> Array:
        jac_MK = objective.jacobian(np.clip(x[:K], polytope.lower_K, polytope.upper_K))[used]
        return np.hstack([-jac_MK, np.ones((len(jac_MK), 1))])

    cost = np.concatenate([np.zeros(K), [1.0]])
    constraints = [*_constraints(polytope, 1), {"type": "ineq", "fun": slack, "jac": slack_jacobian}]
    found = minimize(lambda x: float(x[K]), np.concatenate([start_K, objective.values(start_K)]), jac=lambda x: cost,
                     bounds=[*zip(polytope.lower_K, polytope.upper_K, strict=True), (None, None)],
                     constraints=constraints, method="SLSQP", options={"ftol": 1e-12, "maxiter": 500})  # fmt: skip
    return _back_inside(polytope, found.x[:K], start_K, objective)


def _back_inside(polytope: Polytope, mix_K: Array, before_K: Array, objective: ObjectiveAtScale) -> Array:
    """The solver's answer without its rounding, unless that is worse than where it started."""
    if not np.isfinite(mix_K).all():
        return before_K
    mix_K = simplex.project(polytope, np.clip(mix_K, polytope.lower_K, polytope.upper_K))
    better = objective.values(mix_K)[0] <= objective.values(before_K)[0]
    return mix_K if better else before_K


def _gap_mean(objective: ObjectiveAtScale, polytope: Polytope, mix_K: Array) -> float:
    """Frank-Wolfe gap g.(w - v), v the vertex that minimises g.v (Jaggi 2013, section 2)."""
    gradient_K = objective.weights_M @ objective.jacobian(mix_K)
    return max(0.0, float(gradient_K @ (mix_K - simplex.vertex_along(polytope, gradient_K))))


def _gap_worst(objective: ObjectiveAtScale, polytope: Polytope, mix_K: Array) -> float:
    """The least gap over multipliers p on the simplex: max L - p.L + max_v (p J).(w - v).

    A small linear programme over p whose rows are vertices; the vertex that p meets is added until none is new.
    """
    used = objective.weights_M > 0
    loss_M, jac_MK = objective.losses(mix_K)[0, used], objective.jacobian(mix_K)[used]
    short_M = loss_M.max() - loss_M
    p_M = np.eye(len(loss_M))[int(np.argmax(loss_M))]
    rows: list[Array] = []
    best = np.inf
    for _ in range(60):
        vertex_K = simplex.vertex_along(polytope, p_M @ jac_MK)
        best = min(best, float(p_M @ (short_M + jac_MK @ (mix_K - vertex_K))))
        rows.append(np.concatenate([short_M + jac_MK @ (mix_K - vertex_K), [-1.0]]))
        cost = np.concatenate([np.zeros(len(loss_M)), [1.0]])
        total = np.concatenate([np.ones(len(loss_M)), [0.0]])[None]
        bounds = [(0.0, 1.0)] * len(loss_M) + [(None, None)]
        found = linprog(cost, A_ub=np.asarray(rows), b_ub=np.zeros(len(rows)), A_eq=total, b_eq=[1.0], bounds=bounds)
        if found.status != 0 or best - found.fun <= 1e-9:
            break
        p_M = np.maximum(found.x[:-1], 0) / np.maximum(found.x[:-1], 0).sum()
    return max(0.0, best)


def near_optimal(
    objective: ObjectiveAtScale, polytope: Polytope, optimum: Optimum, slack: float
) -> tuple[Array, Array]:
    """Smallest and largest share of every domain over {w : objective(w) <= optimum.value + slack}; (K,), (K,).

    Each bound moves one share from the optimum as far as the others can make up for it (convex for convex laws).
    """
    inner = _floored(polytope, FLOORS[0])
    limit = optimum.value + max(slack, optimum.gap, 1e-9)
    low_K, high_K = optimum.mixture_K.copy(), optimum.mixture_K.copy()
    for k in range(polytope.n_domains):
        for sign, bound_K in ((1.0, low_K), (-1.0, high_K)):
            bound_K[k] = _furthest(objective, inner, optimum.mixture_K, k, sign, limit)[k]
    return low_K, high_K


def _furthest(
    objective: ObjectiveAtScale, polytope: Polytope, optimum_K: Array, k: int, sign: float, limit: float
) -> Array:
    cost_K = sign * np.eye(polytope.n_domains)[k]

    def room(mix_K: Array) -> float:
        return limit - float(objective.values(np.clip(mix_K, polytope.lower_K, polytope.upper_K))[0])

    def room_gradient(mix_K: Array) -> Array:
        mix_K = np.clip(mix_K, polytope.lower_K, polytope.upper_K)
        if objective.reduce == "worst":
            used = np.flatnonzero(objective.weights_M > 0)
            return np.asarray(-objective.jacobian(mix_K)[used[int(np.argmax(objective.losses(mix_K)[0, used]))]])
        return np.asarray(-(objective.weights_M @ objective.jacobian(mix_K)))

    # At the optimum the constraint has no slope along the simplex, so start where the straight way out leaves the set.
    outwards_K = simplex.vertex_along(polytope, cost_K)
    start_K = _last_inside(room, optimum_K, outwards_K)
    constraints = [*_constraints(polytope), {"type": "ineq", "fun": room, "jac": room_gradient}]
    bounds = list(zip(polytope.lower_K, polytope.upper_K, strict=True))
    options = {"ftol": 1e-8, "maxiter": 100}
    found = minimize(lambda w: float(cost_K @ w), start_K, jac=lambda w: cost_K, bounds=bounds, method="SLSQP",
                     constraints=constraints, options=options)  # fmt: skip
    if not np.isfinite(found.x).all():
        return start_K
    end_K = _last_inside(room, optimum_K, simplex.project(polytope, found.x))
    return end_K if cost_K @ end_K < cost_K @ start_K else start_K


def _last_inside(room: Callable[[Array], float], inside_K: Array, outside_K: Array) -> Array:
    """The last point with room on the way out, by bisection; `outside_K` itself where it has room."""
    if room(outside_K) >= 0:
        return outside_K
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        inside = room(inside_K + middle * (outside_K - inside_K)) >= 0
        low, high = (middle, high) if inside else (low, middle)
    return np.asarray(inside_K + low * (outside_K - inside_K))
