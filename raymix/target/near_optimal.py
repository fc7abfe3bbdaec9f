"""The near-optimal set: which shares could be otherwise without a loss that a run could show."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

from raymix import simplex
from raymix.simplex import Array, Polytope
from raymix.target.objective import ObjectiveAtScale
from raymix.target.optimum import FLOORS, Optimum, constraints_of, floored, on_simplex

POINTS, ROUNDS = 32, 8  # of a search along a line: 32^8 = 2^40


def near_optimal(
    objective: ObjectiveAtScale, polytope: Polytope, optimum: Optimum, slack: float
) -> tuple[Array, Array]:
    """Smallest and largest share of every domain over {w : objective(w) <= optimum.value + slack}; (K,), (K,).

    Each bound moves one share from the optimum as far as the others can make up for it (exact for convex laws).
    """
    inner = floored(polytope, FLOORS[0])
    limit = float(objective.levels(optimum.mixture_K).max()) + max(slack, optimum.gap, 1e-9)
    low_K, high_K = optimum.mixture_K.copy(), optimum.mixture_K.copy()
    for k in range(polytope.n_domains):
        for sign, bound_K in ((1.0, low_K), (-1.0, high_K)):
            cost_K = sign * np.eye(polytope.n_domains)[k]
            bound_K[k] = _furthest(objective, inner, optimum.mixture_K, cost_K, limit)[k]
    return np.minimum(low_K, optimum.mixture_K), np.maximum(high_K, optimum.mixture_K)


def exchangeable(objective: ObjectiveAtScale, polytope: Polytope, optimum: Optimum, slack: float) -> Array:
    """The share (K, K) that may move from domain k to domain j before the objective rises by `slack`, to 1/32 of it.

    Large entries are the directions that do not matter: the two domains can stand in for each other.
    """
    limit = float(objective.levels(optimum.mixture_K).max()) + slack
    w_K, K = optimum.mixture_K, polytope.n_domains
    moved_KK = np.zeros((K, K))
    for k in range(K):
        for j in range(K):
            most = min(w_K[k] - polytope.lower_K[k], polytope.upper_K[j] - w_K[j])
            if j == k or most <= 0:
                continue
            steps = np.linspace(0, most, 33)[1:]
            mix_BK = w_K + steps[:, None] * (np.eye(K)[j] - np.eye(K)[k])
            good = polytope.contains(mix_BK) & (objective.values(mix_BK) <= limit)
            moved_KK[k, j] = steps[good][-1] if good.any() else 0.0  # convex: the good steps come first
    return moved_KK


def _furthest(objective: ObjectiveAtScale, polytope: Polytope, optimum_K: Array, cost_K: Array, limit: float) -> Array:
    """The point of the set that minimises cost_K . w."""

    def room(mix_BK: Array) -> Array:
        mix_BK = on_simplex(polytope, mix_BK)
        above_B = limit - objective.levels(mix_BK).max(axis=1)
        return np.asarray(np.minimum(above_B, objective.rooms(mix_BK).min(axis=1, initial=np.inf)))

    def room_T(mix_K: Array) -> Array:
        return np.asarray(limit - objective.levels(on_simplex(polytope, mix_K))[0])

    def slope_TK(mix_K: Array) -> Array:
        return -objective.slopes(on_simplex(polytope, mix_K))

    # At the optimum the constraint has no slope along the simplex, so start where the straight way out leaves the set.
    start_K = _last_inside(room, optimum_K, simplex.vertex_along(polytope, cost_K))
    found = minimize(
        lambda w: float(cost_K @ w),
        start_K,
        jac=lambda w: cost_K,
        bounds=list(zip(polytope.lower_K, polytope.upper_K, strict=True)),
        constraints=[*constraints_of(objective, polytope), {"type": "ineq", "fun": room_T, "jac": slope_TK}],
        method="SLSQP",
        options={"ftol": 1e-8, "maxiter": 100},
    )
    if not np.isfinite(found.x).all():
        return start_K
    end_K = _last_inside(room, optimum_K, simplex.project(polytope, found.x))
    return end_K if cost_K @ end_K < cost_K @ start_K else start_K


def _last_inside(room: Callable[[Array], Array], inside_K: Array, outside_K: Array) -> Array:
    """The last point with room on the way out, to 2^-40 of it; `outside_K` itself where it has room.

    Each round asks for many points at once, which costs little more than one, and goes on before the first without.
    """
    if room(outside_K[None])[0] >= 0:
        return outside_K
    low, step = 0.0, 1.0
    for _ in range(ROUNDS):
        step /= POINTS
        at_B = low + step * np.arange(1, POINTS)
        without_B = room(inside_K + at_B[:, None] * (outside_K - inside_K)) < 0
        low += step * (int(np.argmax(without_B)) if without_B.any() else POINTS - 1)
    return np.asarray(inside_K + low * (outside_K - inside_K))
