"""The near-optimal set: which shares could be otherwise without a loss that a run could show.

Each bound is a small programme of its own, min +-w_k over {w : objective(w) <= limit}. SLSQP starts where the straight
way out leaves the set. How far that is for each share is the unit it has there, and what the objective may rise is the
unit of nats: so measured the set is about a ball, and a dozen steps do what took forty and more.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize

from raymix import simplex
from raymix.simplex import Array, Polytope
from raymix.target.objective import ObjectiveAtScale
from raymix.target.optimum import FLOORS, NO_ROOM, Optimum, constraints_of, floored, on_simplex

POINTS = (16, *[4] * 8)  # per round of a search along a line, which ends within 2^-20 of its length
LEAST_UNIT = 1e-4  # of a share: one that bounds hold has no length of its own
ROUNDING = 1e-8  # nats: what SLSQP leaves between its answer and a limit

Room = Callable[[Array], Array]
"""How much a limit leaves at mixtures (B, K): (B,) nats, below 0 outside the set."""


def near_optimal(
    objective: ObjectiveAtScale, polytope: Polytope, optimum: Optimum, slack: float
) -> tuple[Array, Array]:
    """Smallest and largest share of every domain over {w : objective(w) <= optimum.value + slack}; (K,), (K,).

    Each bound moves one share from the optimum as far as the others can make up for it (exact for convex laws).
    """
    inner, K, best_K = floored(polytope, FLOORS[0]), polytope.n_domains, optimum.mixture_K
    if min(1 - polytope.lower_K.sum(), polytope.upper_K.sum() - 1) < NO_ROOM:
        return best_K.copy(), best_K.copy()
    given, objective = objective.unit, objective.in_units(best_K)
    rise = max(max(slack, optimum.gap) * given / objective.unit, 1e-9)
    limit = float(objective.levels(best_K).max()) + rise

    def above(mix_BK: Array) -> Array:
        return np.asarray(limit - objective.levels(on_simplex(inner, mix_BK)).max(axis=1)) + ROUNDING

    def room(mix_BK: Array) -> Array:
        guarded_B = objective.rooms(on_simplex(inner, mix_BK)).min(axis=1, initial=np.inf) + ROUNDING
        return np.asarray(np.minimum(above(mix_BK), guarded_B))

    cost_BK, own = np.vstack([np.eye(K), -np.eye(K)]), np.arange(K)  # of w_k, the least first
    corner_BK = np.stack([simplex.vertex_along(inner, cost_K) for cost_K in cost_BK])
    start_BK = _last_inside(room, best_K, corner_BK)
    # A guardrail that the optimum touches leaves no straight way, and many a bent one.
    way_BK = start_BK if objective.ceiling_M is None else _last_inside(above, best_K, corner_BK)
    unit_K = np.maximum(np.abs(way_BK[K + own, own] - way_BK[own, own]) / 2, LEAST_UNIT)
    ends = [_furthest(objective, inner, start_K, cost_K, limit, rise, unit_K)
            for start_K, cost_K in zip(start_BK, cost_BK, strict=True)]  # fmt: skip
    end_BK = np.where(np.isfinite(ends).all(axis=1, keepdims=True), ends, start_BK)
    end_BK = _drawn_back(room, best_K, np.stack([simplex.project(inner, end_K) for end_K in end_BK]))
    low_K = np.minimum(start_BK[own, own], end_BK[own, own])
    high_K = np.maximum(start_BK[K + own, own], end_BK[K + own, own])
    return np.minimum(low_K, best_K), np.maximum(high_K, best_K)


def exchangeable(objective: ObjectiveAtScale, polytope: Polytope, optimum: Optimum, slack: float) -> Array:
    """The share (K, K) that may move from domain k to domain j before the objective rises by `slack`, to 1/32 of it.

    As far as bounds and guardrails allow. Large entries are the directions that do not matter: the two domains can
    stand in for each other.
    """
    given, objective = objective.unit, objective.in_units(optimum.mixture_K)
    limit = float(objective.levels(optimum.mixture_K).max()) + slack * given / objective.unit
    w_K, K = optimum.mixture_K, polytope.n_domains
    moved_KK = np.zeros((K, K))
    for k in range(K):
        for j in range(K):
            most = min(w_K[k] - polytope.lower_K[k], polytope.upper_K[j] - w_K[j])
            if j == k or most <= 0:
                continue
            steps = np.linspace(0, most, 33)[1:]
            mix_BK = w_K + steps[:, None] * (np.eye(K)[j] - np.eye(K)[k])
            kept_B = (objective.rooms(mix_BK) >= -ROUNDING).all(axis=1)
            good = polytope.contains(mix_BK) & kept_B & (objective.levels(mix_BK).max(axis=1) <= limit)
            moved_KK[k, j] = steps[good][-1] if good.any() else 0.0  # convex: the good steps come first
    return moved_KK


def _furthest(
    objective: ObjectiveAtScale,
    polytope: Polytope,
    start_K: Array,
    cost_K: Array,
    limit: float,
    rise: float,
    unit_K: Array,
) -> Array:
    """The point of the set that minimises cost_K . w, within SLSQP's rounding, by variables x = w / unit_K."""

    def room_T(x: Array) -> Array:
        return np.asarray(limit - objective.levels(on_simplex(polytope, unit_K * x))[0]) / (2 * rise)

    def slope_TK(x: Array) -> Array:
        return -objective.slopes(on_simplex(polytope, unit_K * x)) * unit_K / (2 * rise)

    # At the optimum the constraint has no slope along the simplex, so the start is where the straight way leaves.
    cost = cost_K * unit_K / float(np.abs(cost_K * unit_K).max())
    found = minimize(
        lambda x: float(cost @ x),
        start_K / unit_K,
        jac=lambda x: cost,
        bounds=list(zip(polytope.lower_K / unit_K, polytope.upper_K / unit_K, strict=True)),
        constraints=[*(_in_units(each, unit_K) for each in constraints_of(objective, polytope)),
                     {"type": "ineq", "fun": room_T, "jac": slope_TK}],
        method="SLSQP",
        options={"ftol": 1e-9, "maxiter": 100},
    )  # fmt: skip
    return np.asarray(found.x * unit_K)


def _in_units(constraint: dict[str, Any], unit_K: Array) -> dict[str, Any]:
    """A constraint on w as one on x = w / unit_K."""
    fun, jac = constraint["fun"], constraint["jac"]
    return {"type": constraint["type"], "fun": lambda x: fun(unit_K * x), "jac": lambda x: jac(unit_K * x) * unit_K}


def _drawn_back(room: Room, inside_K: Array, mix_BK: Array) -> Array:
    """Mixtures (B, K) that miss the set by what a solver leaves, moved towards `inside_K` until they are in it.

    Room is concave along the way for a convex law, so where its chord crosses 0 there is some.
    """
    least, room_B = max(float(room(inside_K[None])[0]), 0.0), room(mix_BK)
    part_B = np.where(room_B < 0, least / np.maximum(least - room_B, 1e-300), 1.0)
    back_BK = inside_K + part_B[:, None] * (mix_BK - inside_K)
    without_B = room(back_BK) < 0  # a law that is not convex, or an optimum at the limit
    if without_B.any():
        back_BK[without_B] = _last_inside(room, inside_K, mix_BK[without_B])
    return np.asarray(back_BK)


def _last_inside(room: Room, inside_K: Array, outside_BK: Array) -> Array:
    """The last points (B, K) with room on the ways out, to 2^-20 of them; those of `outside_BK` that have room.

    Each round asks for some points of all ways at once, and goes on before the first without.
    """
    low_B, step = np.zeros(len(outside_BK)), 1.0
    for points in POINTS:
        step /= points
        at_BP = low_B[:, None] + step * np.arange(1, points)
        mix_BPK = inside_K + at_BP[..., None] * (outside_BK - inside_K)[:, None]
        without_BP = (room(mix_BPK.reshape(-1, len(inside_K))) < 0).reshape(at_BP.shape)
        low_B += step * np.where(without_BP.any(axis=1), without_BP.argmax(axis=1), points - 1)
    part_B = np.where(room(outside_BK) >= 0, 1.0, low_B)
    return np.asarray(inside_K + part_B[:, None] * (outside_BK - inside_K))
