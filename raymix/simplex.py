"""Points on the simplex and on a capped polytope: check, sample exactly, project, measure.

A mixture is a row of K shares that sum to 1. What a user allows is a polytope inside the simplex:
bounds per domain (where the epoch caps at the target end up too) and linear rows for groups.

Letters: B rows, K training domains, G linear rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog, minimize
from scipy.spatial import KDTree

Array = NDArray[np.float64]

SUM_TOLERANCE = 1e-6  # shares that miss 1 by less are rounding, and are renormalised
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
    def box(cls, lower: Sequence[float], upper: Sequence[float]) -> Polytope:
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

    def floored(self, floor: float) -> Polytope:
        """The same set with every share at least `floor`, where its upper bound leaves room for that."""
        lower_K = np.maximum(self.lower_K, np.minimum(floor, self.upper_K))
        return Polytope(lower_K, self.upper_K, self.rows_GK, self.limit_G)


def as_mixture(shares: Sequence[float] | Array, names: Sequence[str]) -> Array:
    """A checked mixture (K,) that sums to 1 exactly up to rounding.

    Raises:
        ValueError: a share is not finite or negative, or the sum misses 1 by more than 1e-6.
    """
    mix_K = np.asarray(shares, float)
    for name, share in zip(names, mix_K, strict=True):
        if not np.isfinite(share) or share < 0:
            raise ValueError(f"the share of domain {name!r} is {share}: a share is a number from 0 to 1")
    if abs(mix_K.sum() - 1) > SUM_TOLERANCE:
        raise ValueError(f"the shares of {', '.join(names)} sum to {mix_K.sum():.6g}: they must sum to 1")
    return normalise(mix_K)


def normalise(mix: Array) -> Array:
    """Clip at zero and divide by the sum; works on (K,) and (B, K)."""
    clipped = np.maximum(mix, 0.0)
    return np.asarray(clipped / clipped.sum(axis=-1, keepdims=True))


def vertex_along(polytope: Polytope, cost_K: Array) -> Array:
    """The point of the polytope that minimises cost_K . w (the linear oracle of Frank-Wolfe).

    Raises:
        ValueError: the polytope is empty.
    """
    if len(polytope.limit_G) == 0:
        return _fill(polytope, np.argsort(cost_K, kind="stable"))
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


def sample(polytope: Polytope, n: int, rng: np.random.Generator, steps: int | None = None) -> Array:
    """n independent points (n, K) of the polytope, uniform in the limit of many steps (hit-and-run, Smith 1984).

    Rejection from a Dirichlet dies under realistic caps; hit-and-run uses every step, however tight they are.
    All n chains walk at once from an interior point, `steps` (default 10 K) times.
    """
    K = polytope.n_domains
    mix_BK = np.repeat(interior_point(polytope)[None], n, axis=0)
    free = np.flatnonzero(polytope.upper_K - polytope.lower_K > 1e-12)
    if len(free) < 2:
        return mix_BK
    for _ in range(steps or 10 * K):
        mix_BK = _hit_and_run_step(polytope, mix_BK, _directions(polytope, free, len(mix_BK), rng), rng)
    return mix_BK


def _hit_and_run_step(polytope: Polytope, mix_BK: Array, direction_BK: Array, rng: np.random.Generator) -> Array:
    """One uniform point per row on the chord of the polytope along its direction."""
    with np.errstate(divide="ignore", invalid="ignore"):
        to_upper = (polytope.upper_K - mix_BK) / direction_BK
        to_lower = (polytope.lower_K - mix_BK) / direction_BK
        slope_BG = direction_BK @ polytope.rows_GK.T
        to_limit = (polytope.limit_G - mix_BK @ polytope.rows_GK.T) / slope_BG
    moves = np.abs(direction_BK) > 1e-15
    far_B = np.where(moves, np.maximum(to_upper, to_lower), np.inf).min(axis=1)
    near_B = np.where(moves, np.minimum(to_upper, to_lower), -np.inf).max(axis=1)
    far_B, near_B = (np.where(moves.any(axis=1), end_B, 0.0) for end_B in (far_B, near_B))
    far_B = np.minimum(far_B, np.where(slope_BG > 1e-15, to_limit, np.inf).min(axis=1, initial=np.inf))
    near_B = np.maximum(near_B, np.where(slope_BG < -1e-15, to_limit, -np.inf).max(axis=1, initial=-np.inf))
    length_B = np.where(far_B > near_B, near_B + rng.random(len(mix_BK)) * (far_B - near_B), 0.0)
    moved_BK = mix_BK + length_B[:, None] * direction_BK
    # Rounding only: back inside the bounds, and what that takes from the sum goes where there is room for it.
    moved_BK = np.clip(moved_BK, polytope.lower_K, polytope.upper_K)
    room_BK = np.minimum(polytope.upper_K - moved_BK, moved_BK - polytope.lower_K)
    total_B = room_BK.sum(axis=1, keepdims=True)
    part_BK = np.divide(room_BK, total_B, out=np.zeros_like(room_BK), where=total_B > 0)
    return np.asarray(moved_BK + (1 - moved_BK.sum(axis=1, keepdims=True)) * part_BK)


def _directions(polytope: Polytope, free: NDArray[np.int64], n: int, rng: np.random.Generator) -> Array:
    """Half the rows (n, K) one domain against another (mixes fast in corners), half a random tangent vector."""
    direction_BK = np.zeros((n, polytope.n_domains))
    normal = rng.normal(size=(n, len(free)))
    direction_BK[:, free] = normal - normal.mean(axis=1, keepdims=True)
    direction_BK -= direction_BK @ polytope.held_EK.T @ polytope.held_EK
    direction_BK[np.abs(direction_BK).max(axis=1) < 1e-9] = 0.0  # groups leave it no room: rounding is no direction
    pairs = np.flatnonzero(rng.random(n) < 0.5)
    first = rng.integers(len(free), size=len(pairs))
    second = (first + rng.integers(1, len(free), size=len(pairs))) % len(free)
    direction_BK[pairs] = 0.0
    direction_BK[pairs, free[first]], direction_BK[pairs, free[second]] = 1.0, -1.0
    return direction_BK


def spread(candidates_BK: Array, n: int, taken_BK: Array) -> NDArray[np.int64]:
    """Indices of n candidates chosen greedily so that each is far from all before it (and from `taken_BK`).

    Distance is Euclidean between square roots of shares (Hellinger), which sees small shares as the losses do.
    """
    root = np.sqrt(np.maximum(candidates_BK, 0))
    nearest = np.full(len(root), np.inf)
    if len(taken_BK):
        nearest = KDTree(np.sqrt(np.maximum(taken_BK, 0))).query(root)[0] ** 2
    chosen: list[int] = []
    for _ in range(min(n, len(root))):
        best = int(np.argmax(nearest))
        chosen.append(best)
        nearest = np.minimum(nearest, ((root - root[best]) ** 2).sum(axis=1))
        nearest[chosen] = -1.0
    return np.asarray(chosen, dtype=np.int64)


def hellinger(left_BK: Array, right_RK: Array) -> Array:
    """Hellinger distances (B, R) between mixtures, 0 to 1."""
    return np.asarray(np.sqrt(np.maximum(1 - np.sqrt(left_BK) @ np.sqrt(right_RK).T, 0.0)))


def total_variation(left_K: Array, right_K: Array) -> float:
    """Half the sum of absolute differences: the share that has to move from one mixture to the other."""
    return float(0.5 * np.abs(left_K - right_K).sum())


def temperature(sizes_K: Array, exponent: float) -> Array:
    """Shares proportional to sizes ** exponent: 1 is proportional, 0 uniform, 1/T the usual temperature."""
    return normalise(np.asarray(sizes_K, float) ** exponent)


def unimax(available_K: Array, n_tokens: float, max_epochs: float) -> Array:
    """UniMax (arXiv 2304.09151, Algorithm 1): as even as possible, no domain beyond `max_epochs` passes.

    Smallest domain first, each takes min(equal part of what is left, available x max_epochs). When even all
    domains at their cap cannot fill the budget, shares are proportional to the caps.
    """
    tokens_K = np.zeros(len(available_K))
    left = float(n_tokens)
    order = np.argsort(available_K, kind="stable")
    for i, k in enumerate(order):
        tokens_K[k] = min(left / (len(order) - i), available_K[k] * max_epochs)
        left -= tokens_K[k]
    return normalise(tokens_K)
