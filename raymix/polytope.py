"""The polytope of allowed mixtures: bounds per domain and linear rows for groups, inside the simplex.

Epoch caps at the target end up in the bounds. Its extreme points, a point inside, and the nearest point to any.

scipy is imported where it is needed: half of what a command without a polytope would take to start.
Letters: B rows, K training domains, G linear rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TOUCHES = 1e-8  # of a constraint: what a solver leaves between it and a point on it
ROUNDING = 1e-12  # of a sum of shares


@dataclass(frozen=True)
class Polytope:
    """The set {w : lower_K <= w <= upper_K, rows_GK w <= limit_G, sum w = 1}."""

    lower_K: Array
    upper_K: Array
    rows_GK: Array
    limit_G: Array

    @property
    def n_domains(self) -> int:
        """K."""
        return len(self.lower_K)

    @classmethod
    def box(cls, lower: Sequence[float], upper: Sequence[float]) -> "Polytope":
        """A polytope with bounds alone."""
        lower_K, upper_K = np.asarray(lower, float), np.asarray(upper, float)
        return cls(lower_K, np.minimum(upper_K, 1.0), np.zeros((0, len(lower_K))), np.zeros(0))

    def contains(self, mix_BK: Array, tolerance: float = 1e-9) -> NDArray[np.bool_]:
        """Which rows lie inside, within `tolerance` per constraint."""
        mix_BK = np.atleast_2d(mix_BK)
        inside = np.abs(mix_BK.sum(axis=1) - 1) <= tolerance
        inside &= (mix_BK >= self.lower_K - tolerance).all(axis=1)
        inside &= (mix_BK <= self.upper_K + tolerance).all(axis=1)
        inside &= (mix_BK @ self.rows_GK.T <= self.limit_G + tolerance).all(axis=1)
        return np.asarray(inside)

    @cached_property
    def held_G(self) -> NDArray[np.bool_]:
        """Which linear rows are at their limit wherever one is in the polytope, as of a group with min = max."""
        least_G = np.asarray([row @ vertex_along(self, row) for row in self.rows_GK])
        return np.asarray(self.limit_G - least_G <= TOUCHES)

    @cached_property
    def held_EK(self) -> Array:
        """Orthonormal directions (E, K) of the free shares, with sum 0, in which those rows leave no room."""
        free_K = self.upper_K - self.lower_K > 1e-12
        held = self.rows_GK[self.held_G] * free_K
        held = (held - held.sum(axis=1, keepdims=True) / max(free_K.sum(), 1)) * free_K
        _, size_E, direction_EK = np.linalg.svd(held, full_matrices=False)
        return np.asarray(direction_EK[size_E > 1e-9])

    @property
    def is_point(self) -> bool:
        """Whether it holds one mixture alone: of costs that tell any two apart the least is then the largest."""
        cost_K = np.sqrt(np.arange(self.n_domains) + np.pi)
        return bool(cost_K @ (vertex_along(self, -cost_K) - vertex_along(self, cost_K)) < TOUCHES)

    def floored(self, floor: float) -> "Polytope":
        """The same set with every share at least `floor`, where its upper bound leaves room for that."""
        lower_K = np.maximum(self.lower_K, np.minimum(floor, self.upper_K))
        return Polytope(lower_K, self.upper_K, self.rows_GK, self.limit_G)


def vertex_along(polytope: Polytope, cost_K: Array) -> Array:
    """The point of the polytope that minimises cost_K . w (the linear oracle of Frank-Wolfe).

    Raises:
        ValueError: the polytope is empty.
    """
    if len(polytope.limit_G) == 0:
        return _fill(polytope, np.argsort(cost_K, kind="stable"))
    from scipy.optimize import linprog

    scale = max(float(np.abs(cost_K).max()), 1e-300)  # HiGHS has absolute tolerances
    found = linprog(
        cost_K / scale,
        A_ub=polytope.rows_GK,
        b_ub=polytope.limit_G,
        A_eq=np.ones((1, polytope.n_domains)),
        b_eq=[1.0],
        bounds=list(zip(polytope.lower_K, polytope.upper_K, strict=True)),
        method="highs",
    )
    if found.status != 0:
        raise ValueError("no mixture satisfies all bounds and groups at once")
    return _settled(polytope, np.clip(found.x, polytope.lower_K, polytope.upper_K))


def _fill(polytope: Polytope, order: NDArray[np.int64]) -> Array:
    """Lower bounds everywhere, then raise shares to their upper bound in the given order."""
    mix_K = polytope.lower_K.copy()
    left = 1.0 - mix_K.sum()
    if left < -1e-12 or polytope.upper_K.sum() < 1 - 1e-12 or (polytope.lower_K > polytope.upper_K).any():
        raise ValueError("no mixture satisfies all bounds at once")
    for k in order:
        step = min(left, polytope.upper_K[k] - mix_K[k])
        mix_K[k] += step
        left -= step
    return mix_K


def interior_point(polytope: Polytope) -> Array:
    """A point as far from every inequality as the polytope allows (largest common slack; a linear programme).

    Raises:
        ValueError: the polytope is empty.
    """
    from scipy.optimize import linprog

    K = polytope.n_domains
    fixed = polytope.upper_K - polytope.lower_K < 1e-12
    slack = np.where(fixed, 0.0, 1.0)[:, None]  # a fixed share has no slack to give
    identity = np.eye(K)
    rows = np.vstack([np.hstack([-identity, slack]), np.hstack([identity, slack])])
    limits = np.concatenate([-polytope.lower_K, polytope.upper_K])
    if len(polytope.limit_G):
        rows = np.vstack([rows, np.hstack([polytope.rows_GK, 1e-6 * ~polytope.held_G[:, None]])])
        limits = np.concatenate([limits, polytope.limit_G])
    cost = np.zeros(K + 1)
    cost[-1] = -1.0
    total = np.concatenate([np.ones(K), [0.0]])[None]
    bounds = [(None, None)] * K + [(0.0, 1.0)]
    found = linprog(cost, A_ub=rows, b_ub=limits, A_eq=total, b_eq=[1.0], bounds=bounds, method="highs")
    if found.status != 0:
        raise ValueError("no mixture satisfies all bounds and groups at once")
    return np.asarray(np.clip(found.x[:K], polytope.lower_K, polytope.upper_K), float)


def project(polytope: Polytope, point_K: Array) -> Array:
    """The nearest point of the polytope in Euclidean distance.

    Bounds alone: one root find on the shift of all shares. With groups: SLSQP, whose first quadratic model (the
    identity) is the problem itself, so that it ends after a step or two.
    """
    if len(polytope.limit_G) == 0:
        return _project_box(polytope, point_K)
    from scipy.optimize import minimize

    inside_K = interior_point(polytope)
    ones = np.ones(polytope.n_domains)
    held_EK, rows, limits = polytope.held_EK, polytope.rows_GK[~polytope.held_G], polytope.limit_G[~polytope.held_G]
    found = minimize(
        lambda w: 0.5 * float((w - point_K) @ (w - point_K)),
        inside_K,
        jac=lambda w: w - point_K,
        bounds=list(zip(polytope.lower_K, polytope.upper_K, strict=True)),
        constraints=[
            {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: ones},
            {"type": "eq", "fun": lambda w: held_EK @ (w - inside_K), "jac": lambda w: held_EK},
            {"type": "ineq", "fun": lambda w: limits - rows @ w, "jac": lambda w: -rows},
        ],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 200},
    )
    mix_K = _settled(polytope, np.clip(found.x, polytope.lower_K, polytope.upper_K))
    excess = float((polytope.rows_GK @ mix_K - polytope.limit_G).max())
    room = max(float((polytope.limit_G - polytope.rows_GK @ inside_K).min()), 0.0)
    back = 0.0 if excess <= ROUNDING else excess / (excess + room)
    return np.asarray(mix_K + back * (inside_K - mix_K))


def _settled(polytope: Polytope, mix_K: Array) -> Array:
    """A point that misses sum and groups by what a solver leaves, moved onto those it touches; bounds are kept.

    A group with min = max has no inside to move to, so that nothing else than this would keep it.
    """
    free = (mix_K > polytope.lower_K + TOUCHES) & (mix_K < polytope.upper_K - TOUCHES)
    over_G = polytope.rows_GK @ mix_K - polytope.limit_G
    touched = over_G > -TOUCHES
    rows = np.vstack([np.ones(polytope.n_domains), polytope.rows_GK[touched]])
    missing = np.concatenate([[1 - mix_K.sum()], -over_G[touched]])
    moved_K = mix_K.copy()
    moved_K[free] += np.linalg.lstsq(rows[:, free], missing, rcond=None)[0]
    return np.clip(moved_K, polytope.lower_K, polytope.upper_K)


def _project_box(polytope: Polytope, point_K: Array) -> Array:
    if polytope.lower_K.sum() > 1 + 1e-9 or polytope.upper_K.sum() < 1 - 1e-9:
        raise ValueError("no mixture satisfies all bounds at once")
    low, high = float((polytope.lower_K - point_K).min()), float((polytope.upper_K - point_K).max())
    for _ in range(100):  # bisection on the shift halves the bracket to machine precision
        shift = 0.5 * (low + high)
        mix_K = np.minimum(np.maximum(point_K + shift, polytope.lower_K), polytope.upper_K)
        if not low < shift < high:
            break
        low, high = (shift, high) if mix_K.sum() < 1 else (low, shift)
    return np.asarray(mix_K)
