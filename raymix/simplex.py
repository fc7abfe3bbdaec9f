"""Points on the simplex and on a capped polytope: check, sample exactly, project, measure.

A mixture is a row of K shares that sum to 1. What a user allows is a polytope inside the simplex (`polytope`).

Letters: B rows, K training domains, G linear rows.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raymix.polytope import ROUNDING, Array, Polytope, interior_point, project, vertex_along

__all__ = [
    "ROUNDING", "SUM_TOLERANCE", "Array", "Polytope", "as_mixture", "hellinger", "interior_point", "normalise",
    "project", "sample", "spread", "temperature", "total_variation", "unimax", "vertex_along",
]  # fmt: skip

SUM_TOLERANCE = 1e-6  # shares that miss 1 by less are rounding, and are renormalised


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
        from scipy.spatial import KDTree  # here, as in `polytope`

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
